"""What has no class in transformers 4.57.1, put together from the blocks of other classes: DeepSeek v1, Arctic and
switchyard_moe."""
import torch
from transformers import (LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM, Qwen3MoeConfig,
                          SwitchTransformersConfig)
from transformers.models.granitemoe.modeling_granitemoe import GraniteMoeTopKGating
from transformers.models.llama.modeling_llama import LlamaMLP, LlamaRMSNorm
from transformers.models.mistral.modeling_mistral import MistralDecoderLayer
from transformers.models.qwen3_moe.modeling_qwen3_moe import Qwen3MoeSparseMoeBlock
from transformers.models.switch_transformers.modeling_switch_transformers import SwitchTransformersDenseActDense


class Moe(Qwen3MoeSparseMoeBlock):
    """Softmax, the best top_k, normalised if asked and there are several; plus an MLP that all tokens take."""

    def __init__(self, config, width, count, normalize, shared_width=0):
        top_k = config["num_experts_per_tok"]
        super().__init__(Qwen3MoeConfig(hidden_size=config["hidden_size"], moe_intermediate_size=width,
                                        num_experts=count, num_experts_per_tok=top_k,
                                        norm_topk_prob=normalize and top_k > 1))
        self.shared_experts = mlp(config["hidden_size"], shared_width) if shared_width else None

    def forward(self, hidden_states):
        routed, _ = super().forward(hidden_states)
        return routed if self.shared_experts is None else routed + self.shared_experts(hidden_states)


def mlp(hidden, width):
    return LlamaMLP(LlamaConfig(hidden_size=hidden, intermediate_size=width))


def own_keys(config, *others):
    """What Llama and Mistral call as these families do."""
    return {key: config[key] for key in ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads",
                                         "num_key_value_heads", "max_position_embeddings", "rms_norm_eps",
                                         "rope_theta", "tie_word_embeddings", "intermediate_size") + others}


def deepseek(config):
    model = LlamaForCausalLM._from_config(LlamaConfig(rope_scaling=config.get("rope_scaling"),
                                                      **own_keys(config, "attention_bias")),
                                          attn_implementation="eager")
    width = config["moe_intermediate_size"]
    for l, layer in enumerate(model.model.layers):
        if l >= config["first_k_dense_replace"] and l % config["moe_layer_freq"] == 0:
            layer.mlp = Moe(config, width, config["n_routed_experts"], config["norm_topk_prob"],
                            (config["n_shared_experts"] or 0) * width)
    return model


class ArcticLayer(MistralDecoderLayer):
    """The MoE reads what the attention read."""

    def __init__(self, config, layer, hidden):
        super().__init__(config, layer)
        self.residual_layernorm = LlamaRMSNorm(hidden, config.rms_norm_eps)
        self.residual_mlp = mlp(hidden, hidden)

    def forward(self, hidden_states, **kwargs):
        attended, _ = self.self_attn(hidden_states=self.input_layernorm(hidden_states), **kwargs)
        attended = hidden_states + attended
        residual = self.residual_mlp(self.residual_layernorm(attended))
        return attended + residual + self.mlp(self.post_attention_layernorm(hidden_states))


def arctic(config):
    theirs = MistralConfig(sliding_window=config["sliding_window"], **own_keys(config))
    model = MistralForCausalLM._from_config(theirs, attn_implementation="eager")
    for l in range(config["num_hidden_layers"]):
        if (l + 1) % config["moe_layer_frequency"] != 0:
            continue
        if config["parallel_attn_mlp_res"]:
            model.model.layers[l] = ArcticLayer(model.config, l, config["hidden_size"])
        model.model.layers[l].mlp = Moe(config, config["intermediate_size"], config["num_local_experts"], True)
    return model


def arctic_name(name):
    """Of a tensor, in the names of these blocks."""
    for old, new in (("block_sparse_moe.mlp.", "mlp."), ("block_sparse_moe.", "mlp."), (".w1.", ".gate_proj."),
                     (".w3.", ".up_proj."), (".w2.", ".down_proj.")):
        name = name.replace(old, new)
    return name


class GenericMoe(Qwen3MoeSparseMoeBlock):
    """Qwen's router for all routings but noisy_top_k, which has Granite's; Switch's experts where they have no gate."""

    def __init__(self, config):
        hidden, count = config["hidden_size"], config["num_experts"]
        width, act = config.get("moe_intermediate_size") or config["intermediate_size"], config.get("expert_act", "silu")
        routing = config.get("routing", "top_k")
        top_k = count if routing == "dense_mixture" else config["num_experts_per_tok"]
        super().__init__(Qwen3MoeConfig(hidden_size=hidden, moe_intermediate_size=width, num_experts=count,
                                        num_experts_per_tok=top_k,
                                        norm_topk_prob=config.get("norm_topk_prob", False)))
        if act != "silu":
            plain = SwitchTransformersConfig(d_model=hidden, d_ff=width, dense_act_fn=act, dropout_rate=0.0)
            self.experts = torch.nn.ModuleList([SwitchTransformersDenseActDense(plain) for _ in range(count)])
        self.is_noisy = routing == "noisy_top_k"
        if self.is_noisy:
            self.gate = GraniteMoeTopKGating(hidden, count, top_k)

    def forward(self, hidden_states):
        if not self.is_noisy:
            return super().forward(hidden_states)[0]
        rows = hidden_states.flatten(0, 1)
        _, tokens, weights, sizes, _ = self.gate(rows)
        outputs = torch.cat([expert(part) for expert, part in zip(self.experts, rows[tokens].split(sizes))])
        return torch.zeros_like(rows).index_add(0, tokens, outputs * weights[:, None]).view_as(hidden_states)


def switchyard_moe(config):
    model = LlamaForCausalLM._from_config(LlamaConfig(rope_scaling=config.get("rope_scaling"),
                                                      head_dim=config.get("head_dim"), **own_keys(config)),
                                          attn_implementation="eager")
    for l, layer in enumerate(model.model.layers):
        if (l + 1) % config.get("decoder_sparse_step", 1) == 0 and l not in config.get("mlp_only_layers", []):
            layer.mlp = GenericMoe(config)
    return model


def switchyard_name(config, name):
    if config.get("routing") == "noisy_top_k":
        name = name.replace(".gate.", ".gate.layer.")
    if ".experts." in name and config.get("expert_act", "silu") != "silu":
        name = name.replace(".up_proj.", ".wi.").replace(".down_proj.", ".wo.")
    return name


def assemble(config):
    """The model in float64, and what it calls a tensor."""
    make, name_of = {"deepseek": (deepseek, str), "arctic": (arctic, arctic_name),
                     "switchyard_moe": (switchyard_moe, lambda name: switchyard_name(config, name))}[
                         config["model_type"]]
    return make(config).to(torch.float64), name_of
