"""The further checkpoints: at least five configurations per family, each with what it is there for.

A case is the family's usual config with changes, and how the checkpoint is stored:
  tokens   length of the prompt; of an encoder-decoder also decoder_tokens (switch_configurations.py)
  dtype    of the stored numbers: float32, bfloat16 or float16
  layout   of the experts: usual, fused (as transformers 5 saves it), renamed or split (see reference/storage.py)
  shards   files
  extras   tensors that a loader has to leave alone: mtp, vision, inv_freq, tied_head, embedding_copies
  amplify  factors for tensors whose names contain a text
"""
from dataclasses import dataclass, field

from switch_configurations import SWITCH_CASES, USUAL_SWITCH


@dataclass
class Case:
    name: str
    config: dict
    tokens: int = 20
    decoder_tokens: int = 13
    layout: str = "usual"
    shards: int = 1
    extras: tuple = ()
    amplify: dict = field(default_factory=dict)

    @property
    def dtype(self):
        return self.config["torch_dtype"]

    @property
    def is_encoder_decoder(self):
        return self.config.get("is_encoder_decoder", False)


COMMON = {"vocab_size": 61, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
          "num_key_value_heads": 2, "max_position_embeddings": 64, "hidden_act": "silu", "rms_norm_eps": 1e-6,
          "rope_theta": 10000.0, "tie_word_embeddings": False, "torch_dtype": "float32"}
DEEPSEEK = {**COMMON, "num_key_value_heads": 4, "intermediate_size": 40, "moe_intermediate_size": 24,
            "n_routed_experts": 8, "n_shared_experts": 1, "num_experts_per_tok": 2, "first_k_dense_replace": 1,
            "moe_layer_freq": 1, "norm_topk_prob": False, "attention_bias": False}
LATENT = {**DEEPSEEK, "kv_lora_rank": 16, "q_lora_rank": 20, "qk_nope_head_dim": 8, "qk_rope_head_dim": 8,
          "v_head_dim": 10, "n_group": 1, "topk_group": 1, "routed_scaling_factor": 1.0, "rope_scaling": None}
V3 = {**LATENT, "scoring_func": "sigmoid", "topk_method": "noaux_tc", "norm_topk_prob": True,
      "routed_scaling_factor": 2.5, "n_group": 4, "topk_group": 2}
GRANITE = {**COMMON, "intermediate_size": 24, "num_local_experts": 6, "num_experts_per_tok": 2,
           "embedding_multiplier": 12.0, "logits_scaling": 6.0, "residual_multiplier": 0.22,
           "attention_multiplier": 0.05, "attention_bias": False, "tie_word_embeddings": True}

USUAL = {
    "mixtral": {**COMMON, "intermediate_size": 40, "num_local_experts": 6, "num_experts_per_tok": 2,
                "sliding_window": None, "rms_norm_eps": 1e-5, "rope_theta": 1e6},
    "olmoe": {**COMMON, "intermediate_size": 24, "num_experts": 8, "num_experts_per_tok": 3, "clip_qkv": None,
              "norm_topk_prob": False, "attention_bias": False, "rms_norm_eps": 1e-5},
    "qwen2_moe": {**COMMON, "intermediate_size": 40, "moe_intermediate_size": 24, "num_experts": 8,
                  "shared_expert_intermediate_size": 28, "num_experts_per_tok": 3, "norm_topk_prob": False,
                  "decoder_sparse_step": 1, "mlp_only_layers": [], "use_sliding_window": False, "qkv_bias": True},
    "qwen3_moe": {**COMMON, "head_dim": 16, "intermediate_size": 40, "moe_intermediate_size": 24, "num_experts": 8,
                  "num_experts_per_tok": 3, "norm_topk_prob": True, "decoder_sparse_step": 1, "mlp_only_layers": [],
                  "use_sliding_window": False, "attention_bias": False},
    "deepseek": {**DEEPSEEK, "scoring_func": "softmax"},
    "deepseek_v2": {**LATENT, "scoring_func": "softmax", "topk_method": "greedy"},
    "deepseek_v3": V3,
    "deepseek_v3_fp8": {**V3, "model_type": "deepseek_v3", "quantization_config": {
        "activation_scheme": "dynamic", "fmt": "e4m3", "quant_method": "fp8", "weight_block_size": [128, 128]}},
    "kimi_k2": {**V3, "n_group": 1, "topk_group": 1, "routed_scaling_factor": 2.827, "rope_theta": 5e4},
    "glm4_moe": {**DEEPSEEK, "num_key_value_heads": 2, "head_dim": 16, "use_qk_norm": True, "attention_bias": True,
                 "routed_scaling_factor": 2.5, "partial_rotary_factor": 0.5, "n_group": 1, "topk_group": 1,
                 "norm_topk_prob": True, "rope_theta": 1e6, "rms_norm_eps": 1e-5},
    "llama4_text": {**COMMON, "head_dim": 16, "intermediate_size": 24, "intermediate_size_mlp": 40,
                    "num_hidden_layers": 4, "num_local_experts": 6, "num_experts_per_tok": 1,
                    "attention_chunk_size": 8, "floor_scale": 4, "attn_scale": 0.1, "attn_temperature_tuning": True,
                    "use_qk_norm": True, "rope_theta": 5e5, "no_rope_layers": [], "interleave_moe_layer_step": 1,
                    "attention_bias": False, "rms_norm_eps": 1e-5},
    "gpt_oss": {**COMMON, "head_dim": 16, "intermediate_size": 32, "num_local_experts": 6, "num_experts_per_tok": 2,
                "sliding_window": 5, "layer_types": ["sliding_attention", "full_attention"], "attention_bias": True,
                "swiglu_limit": 7.0, "rope_theta": 1000.0, "rms_norm_eps": 1e-5,
                "rope_scaling": {"rope_type": "yarn", "factor": 4.0, "beta_fast": 32.0, "beta_slow": 1.0,
                                 "truncate": False, "original_max_position_embeddings": 16}},
    "phimoe": {**COMMON, "intermediate_size": 24, "num_local_experts": 6, "num_experts_per_tok": 2,
               "attention_bias": True, "lm_head_bias": True, "sliding_window": 64, "router_jitter_noise": 0.01,
               "rope_scaling": None, "rms_norm_eps": 1e-5},
    "granitemoe": GRANITE,
    "granitemoeshared": {**GRANITE, "shared_intermediate_size": 40},
    "dbrx": {"d_model": 32, "n_heads": 4, "n_layers": 2, "max_seq_len": 64, "vocab_size": 61,
             "tie_word_embeddings": False, "torch_dtype": "float32"},
    "jetmoe": {**{key: value for key, value in COMMON.items() if key not in ("num_attention_heads", "hidden_act")},
               "kv_channels": 8, "intermediate_size": 24, "num_local_experts": 5, "num_experts_per_tok": 2,
               "tie_word_embeddings": True, "activation_function": "silu", "num_key_value_heads": 3},
    "arctic": {**COMMON, "intermediate_size": 24, "num_local_experts": 6, "num_experts_per_tok": 2,
               "moe_layer_frequency": 2, "parallel_attn_mlp_res": True, "sliding_window": None,
               "rms_norm_eps": 1e-5},
    "switch_transformers": USUAL_SWITCH,
}
USUAL["switchyard_moe"] = {**COMMON, "intermediate_size": 24, "num_experts": 8, "num_experts_per_tok": 2}
USUAL["gpt_oss_mxfp4"] = {**USUAL["gpt_oss"], "model_type": "gpt_oss",
                          "quantization_config": {"quant_method": "mxfp4", "modules_to_not_convert": ["lm_head"]}}


def yarn(factor, original, **more):
    return {"rope_type": "yarn", "type": "yarn", "factor": factor, "original_max_position_embeddings": original,
            "beta_fast": 32.0, "beta_slow": 1.0, **more}


def llama3(factor, low, high, original):
    return {"rope_type": "llama3", "factor": factor, "low_freq_factor": low, "high_freq_factor": high,
            "original_max_position_embeddings": original}


LINEAR = {"rope_type": "linear", "factor": 2.0}


def longrope(pairs, **more):
    return {"type": "longrope", "rope_type": "longrope", "short_factor": [1 + 0.1 * m for m in range(pairs)],
            "long_factor": [1.0 + m for m in range(pairs)], **more}


def dbrx(kv, clip, theta, width, experts, top_k, norm):
    return {"attn_config": {"kv_n_heads": kv, "clip_qkv": clip, "rope_theta": theta},
            "ffn_config": {"ffn_hidden_size": width, "moe_num_experts": experts, "moe_top_k": top_k,
                           "moe_normalize_expert_weights": norm, "ffn_act_fn": {"name": "silu"}}}


# (family, what it is there for, changes of the config, changes of the case)
CASES = [
    ("mixtral", "one_kv_head", {"num_key_value_heads": 1, "hidden_size": 48, "num_attention_heads": 6}, {}),
    ("mixtral", "as_many_kv_heads", {"num_key_value_heads": 4, "num_local_experts": 3, "num_experts_per_tok": 1,
                                     "intermediate_size": 21, "rope_scaling": LINEAR}, {"shards": 3}),
    ("mixtral", "head_dim_of_its_own", {"head_dim": 12, "sliding_window": 3, "num_hidden_layers": 3},
     {"layout": "fused"}),
    ("mixtral", "all_experts", {"num_local_experts": 4, "num_experts_per_tok": 4, "tie_word_embeddings": True,
                                "torch_dtype": "bfloat16"}, {"extras": ("tied_head",)}),
    ("mixtral", "llama3_rope", {"rope_scaling": llama3(4.0, 1.0, 4.0, 16), "rope_theta": 100.0,
                                "num_local_experts": 9, "torch_dtype": "float16"}, {"extras": ("inv_freq",)}),

    ("olmoe", "no_clip", {"hidden_size": 40, "num_key_value_heads": 4}, {}),
    ("olmoe", "renormalised", {"norm_topk_prob": True, "clip_qkv": 0.7, "num_key_value_heads": 1}, {"shards": 2}),
    ("olmoe", "one_expert", {"num_experts": 5, "num_experts_per_tok": 1, "clip_qkv": 2.0, "num_hidden_layers": 3}, {}),
    ("olmoe", "fused", {"num_experts": 6, "intermediate_size": 19, "tie_word_embeddings": True}, {"layout": "fused"}),
    ("olmoe", "biases", {"attention_bias": True, "rope_scaling": yarn(4.0, 16),
                         "torch_dtype": "bfloat16"}, {}),

    ("qwen2_moe", "renormalised", {"norm_topk_prob": True, "shared_expert_intermediate_size": 11}, {}),
    ("qwen2_moe", "every_other_sparse", {"decoder_sparse_step": 2, "num_hidden_layers": 4, "num_experts": 5,
                                         "num_experts_per_tok": 2}, {"shards": 2}),
    ("qwen2_moe", "no_qkv_bias", {"qkv_bias": False, "hidden_size": 48, "num_attention_heads": 3,
                                  "num_key_value_heads": 1, "rope_theta": 1e6}, {"layout": "fused"}),
    ("qwen2_moe", "dense_first_and_last", {"mlp_only_layers": [0, 2], "num_hidden_layers": 3,
                                           "tie_word_embeddings": True}, {}),
    ("qwen2_moe", "sixty_experts", {"num_experts": 60, "num_experts_per_tok": 4, "moe_intermediate_size": 8,
                                    "torch_dtype": "bfloat16", "rope_scaling": yarn(4.0, 16)}, {"tokens": 14}),

    ("qwen3_moe", "not_renormalised", {"norm_topk_prob": False, "head_dim": 8, "num_key_value_heads": 4}, {}),
    ("qwen3_moe", "biases", {"attention_bias": True, "head_dim": 24, "num_attention_heads": 3,
                             "num_key_value_heads": 1}, {"layout": "fused"}),
    ("qwen3_moe", "sliding", {"use_sliding_window": True, "sliding_window": 6, "max_window_layers": 0,
                              "num_hidden_layers": 3}, {"shards": 2}),
    ("qwen3_moe", "dense_layers", {"mlp_only_layers": [1], "num_hidden_layers": 4, "decoder_sparse_step": 1,
                                   "num_experts": 16, "num_experts_per_tok": 5, "moe_intermediate_size": 9}, {}),
    ("qwen3_moe", "yarn", {"rope_scaling": yarn(4.0, 16), "rope_theta": 1e6, "tie_word_embeddings": True,
                           "torch_dtype": "bfloat16"}, {}),

    ("deepseek", "renormalised", {"norm_topk_prob": True, "num_experts_per_tok": 3}, {}),
    ("deepseek", "every_other_sparse", {"moe_layer_freq": 2, "first_k_dense_replace": 0, "num_hidden_layers": 4}, {}),
    ("deepseek", "no_shared", {"n_shared_experts": None, "num_key_value_heads": 2, "hidden_size": 48}, {}),
    ("deepseek", "three_shared", {"n_shared_experts": 3, "num_experts_per_tok": 1, "norm_topk_prob": True,
                                  "attention_bias": True, "torch_dtype": "bfloat16"}, {"shards": 2}),
    ("deepseek", "two_dense", {"first_k_dense_replace": 2, "num_hidden_layers": 3, "n_routed_experts": 11,
                               "rope_scaling": LINEAR, "tie_word_embeddings": True}, {"layout": "fused"}),

    ("deepseek_v2", "no_yarn", {"q_lora_rank": None, "kv_lora_rank": 12, "routed_scaling_factor": 2.0}, {}),
    ("deepseek_v2", "groups", {"topk_method": "group_limited_greedy", "n_group": 3, "topk_group": 2,
                               "n_routed_experts": 12, "routed_scaling_factor": 16.0}, {"shards": 2}),
    ("deepseek_v2", "renormalised", {"norm_topk_prob": True, "routed_scaling_factor": 3.0,
                                     "rope_scaling": yarn(4.0, 16, mscale=0.7, mscale_all_dim=0.7)}, {}),
    ("deepseek_v2", "mscales_differ", {"rope_scaling": yarn(4.0, 16, mscale=1.0, mscale_all_dim=0.5),
                                       "q_lora_rank": None, "num_attention_heads": 3, "num_key_value_heads": 3,
                                       "qk_nope_head_dim": 6, "qk_rope_head_dim": 4, "v_head_dim": 14}, {}),
    ("deepseek_v2", "biases", {"attention_bias": True, "num_hidden_layers": 3, "n_shared_experts": 2,
                               "first_k_dense_replace": 0, "torch_dtype": "bfloat16"}, {}),

    ("deepseek_v3", "no_yarn", {"q_lora_rank": None, "n_group": 2, "topk_group": 1}, {}),
    ("deepseek_v3", "one_group", {"n_group": 1, "topk_group": 1, "n_routed_experts": 9, "num_experts_per_tok": 4,
                                  "rope_scaling": yarn(4.0, 16, mscale=1.0, mscale_all_dim=1.0)}, {"shards": 2}),
    ("deepseek_v3", "not_renormalised", {"norm_topk_prob": False, "n_shared_experts": 2, "kv_lora_rank": 10,
                                         "qk_nope_head_dim": 6, "v_head_dim": 6}, {"extras": ("mtp",)}),
    ("deepseek_v3", "biases", {"attention_bias": True, "num_hidden_layers": 3, "first_k_dense_replace": 2,
                               "rope_scaling": yarn(4.0, 16, mscale=1.0, mscale_all_dim=0.6)}, {}),
    ("deepseek_v3", "bf16", {"torch_dtype": "bfloat16", "hidden_size": 64, "num_attention_heads": 5,
                             "num_key_value_heads": 5, "n_routed_experts": 16, "num_experts_per_tok": 3,
                             "n_group": 4, "topk_group": 3}, {"layout": "fused"}),

    ("deepseek_v3_fp8", "many_blocks", {"quantization_config": {"weight_block_size": [16, 16]}}, {}),
    ("deepseek_v3_fp8", "partial_blocks", {"hidden_size": 40, "quantization_config": {"weight_block_size": [12, 20]},
                                           "torch_dtype": "bfloat16"}, {}),
    ("deepseek_v3_fp8", "wide", {"hidden_size": 136, "kv_lora_rank": 130, "n_routed_experts": 4, "n_group": 2,
                                 "topk_group": 1, "num_attention_heads": 2, "num_key_value_heads": 2,
                                 "moe_intermediate_size": 132}, {"shards": 2, "tokens": 14}),
    ("deepseek_v3_fp8", "one_block", {"q_lora_rank": None, "rope_scaling": yarn(4.0, 16, mscale=1.0,
                                                                              mscale_all_dim=1.0)}, {}),
    ("deepseek_v3_fp8", "tall_blocks", {"quantization_config": {"weight_block_size": [32, 8]}, "n_group": 1,
                                        "topk_group": 1}, {"extras": ("mtp",)}),

    ("kimi_k2", "narrow_ramp", {"rope_theta": 100.0, "qk_rope_head_dim": 16, "max_position_embeddings": 1024,
                                "rope_scaling": yarn(4.0, 256, beta_fast=1.0, mscale=1.0, mscale_all_dim=1.0)}, {}),
    ("kimi_k2", "many_experts", {"n_routed_experts": 24, "num_experts_per_tok": 4, "moe_intermediate_size": 12,
                                 "rope_scaling": yarn(32.0, 2, beta_fast=1.0, mscale=1.0, mscale_all_dim=1.0)}, {}),
    ("kimi_k2", "bf16", {"torch_dtype": "bfloat16", "num_attention_heads": 2, "num_key_value_heads": 2,
                         "hidden_size": 64}, {"shards": 2}),
    ("kimi_k2", "fp8", {"hidden_size": 40, "quantization_config": {
        "activation_scheme": "dynamic", "fmt": "e4m3", "quant_method": "fp8", "weight_block_size": [24, 16]}}, {}),
    ("kimi_k2", "three_layers", {"num_hidden_layers": 3, "q_lora_rank": 12, "kv_lora_rank": 24, "v_head_dim": 4},
     {"extras": ("mtp",)}),
    ("kimi_k2", "one_expert", {"num_experts_per_tok": 1, "q_lora_rank": None, "n_shared_experts": 2}, {}),

    ("glm4_moe", "no_qk_norm", {"use_qk_norm": False, "routed_scaling_factor": 1.0, "num_attention_heads": 6}, {}),
    ("glm4_moe", "no_bias", {"attention_bias": False, "n_shared_experts": 2, "num_key_value_heads": 1},
     {"extras": ("mtp",)}),
    ("glm4_moe", "one_expert", {"num_experts_per_tok": 1, "head_dim": 8}, {}),
    ("glm4_moe", "quarter_rotary", {"partial_rotary_factor": 0.25, "norm_topk_prob": False}, {"layout": "fused"}),
    ("glm4_moe", "groups", {"n_group": 2, "topk_group": 1, "n_routed_experts": 10, "num_experts_per_tok": 3,
                            "num_hidden_layers": 3, "first_k_dense_replace": 2}, {"shards": 2}),
    ("glm4_moe", "whole_rotary", {"partial_rotary_factor": 1.0, "head_dim": 10, "tie_word_embeddings": True,
                                  "torch_dtype": "bfloat16"}, {}),

    ("llama4_text", "no_qk_norm", {"use_qk_norm": False, "interleave_moe_layer_step": 2}, {}),
    ("llama4_text", "listed_layers", {"no_rope_layers": [1, 0, 0, 1], "moe_layers": [1, 2], "floor_scale": 3,
                                      "attn_scale": 0.3}, {"layout": "split"}),
    ("llama4_text", "two_experts", {"num_experts_per_tok": 2, "num_local_experts": 5, "attention_chunk_size": 5,
                                    "attn_temperature_tuning": False, "num_key_value_heads": 1}, {"shards": 2}),
    ("llama4_text", "nested", {"rope_scaling": llama3(8.0, 1.0, 4.0, 16), "num_key_value_heads": 4,
                               "torch_dtype": "bfloat16"}, {"extras": ("vision",)}),
    ("llama4_text", "interval", {"no_rope_layer_interval": 2, "attention_chunk_size": 32,
                                 "tie_word_embeddings": True, "hidden_size": 40}, {}),
    ("llama4_text", "bf16", {"torch_dtype": "bfloat16", "interleave_moe_layer_step": 2, "attention_chunk_size": 3,
                             "head_dim": 8, "rope_scaling": llama3(16.0, 1.0, 1.0, 16)}, {"layout": "split"}),

    ("gpt_oss", "no_biases", {"attention_bias": False, "num_key_value_heads": 1}, {"amplify": {"gate_up_proj": 12}}),
    ("gpt_oss", "full_first", {"layer_types": ["full_attention", "sliding_attention", "full_attention"],
                               "num_hidden_layers": 3, "sliding_window": 2, "head_dim": 8}, {"shards": 2}),
    ("gpt_oss", "low_limit", {"swiglu_limit": 0.3, "num_experts_per_tok": 4, "intermediate_size": 20,
                              "hidden_size": 48}, {}),
    ("gpt_oss", "truncated", {"rope_scaling": yarn(4.0, 16, truncate=True), "num_attention_heads": 6,
                              "num_local_experts": 4}, {}),
    ("gpt_oss", "bf16", {"torch_dtype": "bfloat16", "num_key_value_heads": 4, "num_local_experts": 3,
                         "num_experts_per_tok": 1, "tie_word_embeddings": True}, {}),

    ("gpt_oss_mxfp4", "amplified", {}, {"amplify": {"gate_up_proj": 8}}),
    ("gpt_oss_mxfp4", "two_blocks", {"hidden_size": 64, "intermediate_size": 96, "num_local_experts": 3}, {}),
    ("gpt_oss_mxfp4", "bf16", {"torch_dtype": "bfloat16", "num_experts_per_tok": 3, "head_dim": 8}, {"shards": 2}),
    ("gpt_oss_mxfp4", "low_limit", {"swiglu_limit": 0.5, "num_key_value_heads": 1, "intermediate_size": 64}, {}),
    ("gpt_oss_mxfp4", "three_layers", {"num_hidden_layers": 3, "layer_types": ["sliding_attention"] * 3,
                                       "sliding_window": 4, "num_local_experts": 4}, {}),

    ("phimoe", "plain_rope", {"router_jitter_noise": 0.2, "sliding_window": 6}, {}),
    ("phimoe", "long", {"rope_scaling": longrope(4, short_mscale=1.1, long_mscale=1.3),
                        "original_max_position_embeddings": 16, "router_jitter_noise": 0.1}, {"shards": 2}),
    ("phimoe", "short", {"rope_scaling": longrope(4, short_mscale=1.2, long_mscale=1.4), "max_position_embeddings": 24,
                         "original_max_position_embeddings": 24, "num_key_value_heads": 4}, {}),
    ("phimoe", "no_biases", {"attention_bias": False, "lm_head_bias": False, "router_jitter_noise": 0.4,
                             "num_local_experts": 4}, {"layout": "fused"}),
    ("phimoe", "bf16", {"torch_dtype": "bfloat16", "num_hidden_layers": 3, "num_key_value_heads": 1,
                        "hidden_size": 48}, {"tokens": 14}),

    ("granitemoe", "untied", {"tie_word_embeddings": False, "attention_multiplier": 0.4, "logits_scaling": 1.5}, {}),
    ("granitemoe", "biases", {"attention_bias": True, "num_key_value_heads": 1, "residual_multiplier": 0.7}, {}),
    ("granitemoe", "many_experts", {"num_local_experts": 20, "num_experts_per_tok": 6, "intermediate_size": 7},
     {"shards": 2}),
    ("granitemoe", "three_layers", {"num_hidden_layers": 3, "embedding_multiplier": 3.0, "residual_multiplier": 1.0,
                                    "rope_theta": 100.0}, {"extras": ("tied_head",)}),
    ("granitemoe", "bf16", {"torch_dtype": "bfloat16", "hidden_size": 48, "num_attention_heads": 6,
                            "num_key_value_heads": 3, "rope_scaling": LINEAR}, {}),

    ("granitemoeshared", "wide_shared", {"shared_intermediate_size": 70, "num_local_experts": 4}, {}),
    ("granitemoeshared", "none_shared", {"shared_intermediate_size": 0, "residual_multiplier": 0.5}, {}),
    ("granitemoeshared", "untied", {"tie_word_embeddings": False, "attention_bias": True, "logits_scaling": 2.0}, {}),
    ("granitemoeshared", "one_expert", {"num_experts_per_tok": 1, "num_key_value_heads": 4, "hidden_size": 40},
     {"shards": 2}),
    ("granitemoeshared", "bf16", {"torch_dtype": "bfloat16", "num_hidden_layers": 3, "attention_multiplier": 0.2,
                                  "num_experts_per_tok": 5}, {}),

    ("dbrx", "no_clip", dbrx(4, None, 1e4, 20, 6, 2, 1.0), {}),
    ("dbrx", "two_norm", dbrx(1, 0.8, 5e5, 24, 8, 4, 2.0), {"shards": 2}),
    ("dbrx", "not_normalised", dbrx(2, 1.5, 5e3, 17, 5, 3, None), {}),
    ("dbrx", "wide", {**dbrx(2, 2.0, 1e4, 33, 4, 1, 1.0), "d_model": 48, "n_layers": 3}, {}),
    ("dbrx", "bf16", {**dbrx(3, 1.0, 1e5, 32, 16, 4, 1.0), "n_heads": 6, "d_model": 48, "torch_dtype": "bfloat16"},
     {}),

    ("jetmoe", "one_head", {"num_key_value_heads": 1, "kv_channels": 12}, {}),
    ("jetmoe", "one_expert", {"num_experts_per_tok": 1, "num_local_experts": 3, "hidden_size": 40}, {}),
    ("jetmoe", "three_experts", {"num_experts_per_tok": 3, "num_local_experts": 7, "num_key_value_heads": 2},
     {"shards": 2}),
    ("jetmoe", "untied", {"tie_word_embeddings": False, "num_hidden_layers": 3, "rope_theta": 500.0}, {}),
    ("jetmoe", "bf16", {"torch_dtype": "bfloat16", "kv_channels": 16, "num_key_value_heads": 4}, {}),

    ("arctic", "all_sparse", {"moe_layer_frequency": 1, "num_local_experts": 4}, {}),
    ("arctic", "no_residual", {"parallel_attn_mlp_res": False, "moe_layer_frequency": 1, "num_key_value_heads": 4},
     {}),
    ("arctic", "one_expert", {"num_experts_per_tok": 1, "hidden_size": 40, "num_hidden_layers": 4}, {"shards": 2}),
    ("arctic", "third_sparse", {"moe_layer_frequency": 3, "num_hidden_layers": 3, "num_experts_per_tok": 3,
                                "sliding_window": 5}, {}),
    ("arctic", "bf16", {"torch_dtype": "bfloat16", "num_key_value_heads": 1, "rope_theta": 1e6,
                        "moe_layer_frequency": 1}, {}),

    ("switchyard_moe", "one_expert", {"num_experts_per_tok": 1, "expert_act": "relu", "head_dim": 12}, {}),  # Switch
    ("switchyard_moe", "every_other_sparse", {  # GShard; GLaM but for its GELU
        "norm_topk_prob": True, "expert_act": "relu", "decoder_sparse_step": 2, "num_hidden_layers": 4,
        "intermediate_size": 40, "moe_intermediate_size": 24}, {"shards": 2}),
    ("switchyard_moe", "third_sparse", {"decoder_sparse_step": 3, "num_hidden_layers": 7, "mlp_only_layers": [5],
                                        "num_experts": 5, "moe_intermediate_size": 16}, {"layout": "fused"}),
    ("switchyard_moe", "noisy", {"routing": "noisy_top_k", "num_experts": 16, "num_experts_per_tok": 4,
                                 "expert_act": "relu", "num_key_value_heads": 1}, {}),  # Shazeer et al.
    ("switchyard_moe", "noisy_gated", {"routing": "noisy_top_k", "num_experts_per_tok": 3, "moe_intermediate_size": 9,
                                       "torch_dtype": "bfloat16", "tie_word_embeddings": True}, {"layout": "fused"}),
    ("switchyard_moe", "noisy_one_expert", {"routing": "noisy_top_k", "num_experts_per_tok": 1,
                                            "expert_act": "gelu_pytorch_tanh", "rope_scaling": LINEAR}, {}),
    ("switchyard_moe", "dense", {"routing": "dense_mixture", "num_experts": 5, "num_experts_per_tok": 5,
                                 "expert_act": "gelu_pytorch_tanh", "num_hidden_layers": 3}, {"shards": 3}),  # Jacobs
    ("switchyard_moe", "dense_gated", {"routing": "dense_mixture", "num_experts": 12, "num_experts_per_tok": None,
                                       "torch_dtype": "bfloat16"}, {"extras": ("inv_freq",)}),
    ("switchyard_moe", "dense_every_other", {"routing": "dense_mixture", "num_experts": 3, "num_experts_per_tok": None,
                                             "decoder_sparse_step": 2, "hidden_size": 48, "expert_act": "relu"}, {}),
]


def merged(usual, changes):
    """Objects key by key."""
    result = dict(usual)
    for key, value in changes.items():
        both_objects = isinstance(value, dict) and isinstance(usual.get(key), dict)
        result[key] = merged(usual[key], value) if both_objects else value
    return result


def all_cases():
    of_switch = [("switch_transformers", *case) for case in SWITCH_CASES]
    for family, purpose, changes, options in CASES + of_switch:
        config = merged({"model_type": family, **USUAL[family]}, changes)
        if "mtp" in options.get("extras", ()):
            config["num_nextn_predict_layers"] = 1
        yield Case(f"{family}_{purpose}", config, **options)
