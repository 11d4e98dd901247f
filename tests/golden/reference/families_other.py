"""Granite, DBRX, Phi-3.5-MoE, Arctic, gpt-oss, Llama 4 and JetMoE: config.json and tensors -> Decoder."""

import numpy as np

from .attention import Attention, MixtureOfHeads
from .decoder import Decoder, Layer, Norm
from .families_core import (W1_W3_W2, decoder, experts, grouped_attention, head_dim_of, layer_prefix, mlp, norm)
from .feed_forward import Mlp, Moe, Router
from .rope import rope_of


def fused_mlp(gate_up, down, **options):
    """gate_up: [2 * intermediate, hidden], gate first."""
    gate, up = np.split(gate_up, 2)
    return Mlp(gate, up, down, **options)


def fused_experts(tensors, prefix, config):
    """Granite and JetMoE: [experts, 2 * intermediate, hidden] and [experts, hidden, intermediate]."""
    count, hidden, width = config["num_local_experts"], config["hidden_size"], config["intermediate_size"]
    inputs = tensors(prefix + "input_linear.weight", count, 2 * width, hidden)
    return [fused_mlp(*both) for both in zip(inputs, tensors(prefix + "output_linear.weight", count, hidden, width))]


def logit_router(config, tensors, name, **options):
    options.setdefault("weigh", "softmax_of_chosen")
    return Router(tensors(name, config["num_local_experts"], config["hidden_size"]), config["num_experts_per_tok"],
                  score="logit", **options)


def granite(config, tensors, num_tokens):
    rope, hidden = rope_of(config, head_dim_of(config), 1e4), config["hidden_size"]
    bias = config.get("attention_bias", False)

    def feed_forward(l):
        prefix, width = layer_prefix(l), config.get("shared_intermediate_size")
        shared = fused_mlp(tensors(prefix + "shared_mlp.input_linear.weight", 2 * width, hidden),
                           tensors(prefix + "shared_mlp.output_linear.weight", hidden, width)) if width else None
        return Moe(logit_router(config, tensors, prefix + "block_sparse_moe.router.layer.weight"),
                   fused_experts(tensors, prefix + "block_sparse_moe.", config), shared)

    return decoder(config, tensors,
                   lambda l: grouped_attention(config, tensors, l, rope, bias, bias,
                                               scale=config["attention_multiplier"]),
                   feed_forward, embedding_multiplier=config["embedding_multiplier"],
                   residual_multiplier=config["residual_multiplier"], logits_divisor=config["logits_scaling"])


def dbrx(config, tensors, num_tokens):
    hidden, heads, attention, ffn = config["d_model"], config["n_heads"], config["attn_config"], config["ffn_config"]
    dim, kv_heads = hidden // heads, attention["kv_n_heads"]
    count, width = ffn["moe_num_experts"], ffn["ffn_hidden_size"]
    rope = rope_of({}, dim, 1e4, theta=attention["rope_theta"])
    layers = []
    for l in range(config["n_layers"]):
        prefix = f"transformer.blocks.{l}."
        both = prefix + "norm_attn_norm."
        q, k, v = np.split(tensors(both + "attn.Wqkv.weight", (heads + 2 * kv_heads) * dim, hidden),
                           [heads * dim, (heads + kv_heads) * dim])
        # Down projections are stored like the others, [intermediate, hidden], and used as they are.
        w1, v1, w2 = (tensors(f"{prefix}ffn.experts.mlp.{name}", count * width, hidden).reshape(count, width, hidden)
                      for name in ("w1", "v1", "w2"))
        router = Router(tensors(prefix + "ffn.router.layer.weight", count, hidden), ffn["moe_top_k"],
                        norm_power=ffn["moe_normalize_expert_weights"])
        layers.append(Layer(
            Norm(tensors(both + "norm_1.weight", hidden), 1e-5, is_layer_norm=True),
            Attention(heads, kv_heads, dim ** -0.5, q, k, v, tensors(both + "attn.out_proj.weight", hidden, hidden),
                      rope, clip=attention["clip_qkv"]),
            Norm(tensors(both + "norm_2.weight", hidden), 1e-5, is_layer_norm=True),
            Moe(router, [Mlp(gate, up, down.T) for gate, up, down in zip(w1, v1, w2)])))
    return Decoder(tensors("transformer.wte.weight", config["vocab_size"], hidden), layers,
                   Norm(tensors("transformer.norm_f.weight", hidden), 1e-5, is_layer_norm=True),
                   tensors("lm_head.weight", config["vocab_size"], hidden))


def phimoe(config, tensors, num_tokens):
    rope = rope_of(config, head_dim_of(config), 1e6, num_tokens=num_tokens)
    bias, count = config["attention_bias"], config["num_local_experts"]

    def feed_forward(l):
        prefix = layer_prefix(l) + "block_sparse_moe."
        router = logit_router(config, tensors, prefix + "gate.weight", weigh="sparsemixer",
                              jitter=config["router_jitter_noise"])
        return Moe(router, experts(tensors, prefix + "experts.", config, count, config["intermediate_size"], W1_W3_W2))

    head_bias = tensors("lm_head.bias", config["vocab_size"]) if config["lm_head_bias"] else None
    return decoder(config, tensors,
                   lambda l: grouped_attention(config, tensors, l, rope, bias, bias, window=config["sliding_window"]),
                   feed_forward, norm_bias=True, head_bias=head_bias)


def arctic(config, tensors, num_tokens):
    """On MoE layers, if asked, an MLP stands where the MoE would, and the MoE reads what the attention read."""
    rope, hidden = rope_of(config, head_dim_of(config), 1e6), config["hidden_size"]
    count, width = config["num_local_experts"], config["intermediate_size"]

    def is_moe(l):
        return (l + 1) % config["moe_layer_frequency"] == 0

    def feed_forward(l):
        prefix = layer_prefix(l) + "block_sparse_moe."
        if not is_moe(l):
            return mlp(tensors, prefix + "mlp.", hidden, width, W1_W3_W2)
        top_k = config["num_experts_per_tok"]
        router = Router(tensors(prefix + "gate.weight", count, hidden), top_k, norm_power=1 if top_k > 1 else None)
        return Moe(router, experts(tensors, prefix + "experts.", config, count, width, W1_W3_W2))

    model = decoder(config, tensors,
                    lambda l: grouped_attention(config, tensors, l, rope, window=config.get("sliding_window")),
                    feed_forward)
    for l, layer in enumerate(model.layers):
        if is_moe(l) and config["parallel_attn_mlp_res"]:
            layer.parallel_norm = norm(config, tensors, layer_prefix(l) + "residual_layernorm")
            layer.parallel = mlp(tensors, layer_prefix(l) + "residual_mlp.", hidden, hidden, W1_W3_W2)
    return model


def gpt_oss(config, tensors, num_tokens):
    rope, hidden = rope_of(config, head_dim_of(config), 1.5e5), config["hidden_size"]
    count, width = config["num_local_experts"], config["intermediate_size"]
    is_mxfp4 = "quantization_config" in config
    bias = config["attention_bias"]

    def matrix(name, rows, cols):
        """[experts, rows, cols]; without quantisation stored as [experts, cols, rows]."""
        if is_mxfp4:
            return tensors.mxfp4(name, count, rows, cols)
        return tensors(name, count, cols, rows).transpose(0, 2, 1)

    def feed_forward(l):
        prefix = layer_prefix(l) + "mlp."
        gate_up, down = prefix + "experts.gate_up_proj", prefix + "experts.down_proj"
        both, both_bias = matrix(gate_up, 2 * width, hidden), tensors(gate_up + "_bias", count, 2 * width)
        downs, down_bias = matrix(down, hidden, width), tensors(down + "_bias", count, hidden)
        router = logit_router(config, tensors, prefix + "router.weight", bias=tensors(prefix + "router.bias", count))
        # Gate and up alternate.
        return Moe(router, [Mlp(both[e, 0::2], both[e, 1::2], downs[e], limit=config["swiglu_limit"],
                                biases=(both_bias[e, 0::2], both_bias[e, 1::2], down_bias[e]))
                            for e in range(count)])

    def attention(l):
        slides = config["layer_types"][l] == "sliding_attention"
        sinks = tensors(layer_prefix(l) + "self_attn.sinks", config["num_attention_heads"])
        return grouped_attention(config, tensors, l, rope, bias, bias, sinks=sinks,
                                 window=config["sliding_window"] if slides else None)

    return decoder(config, tensors, attention, feed_forward)


def llama4(config, tensors, num_tokens):
    num_layers, hidden = config["num_hidden_layers"], config["hidden_size"]
    count, width = config["num_local_experts"], config["intermediate_size"]
    rope = rope_of(config, head_dim_of(config), 5e5, interleaved=True)
    has_rope = config.get("no_rope_layers") or [(l + 1) % config.get("no_rope_layer_interval", 4) != 0
                                                for l in range(num_layers)]
    step = config["interleave_moe_layer_step"]
    moe_layers = config["moe_layers"] if config.get("moe_layers") is not None else range(step - 1, num_layers, step)
    bias = config.get("attention_bias", False)

    def attention(l):
        if has_rope[l]:
            return grouped_attention(config, tensors, l, rope, bias, bias, chunk=config["attention_chunk_size"],
                                     qk_norm="l2_after_rope" if config["use_qk_norm"] else None)
        temperature = (config["floor_scale"], config["attn_scale"]) if config["attn_temperature_tuning"] else None
        return grouped_attention(config, tensors, l, None, bias, bias, temperature=temperature)

    def feed_forward(l):
        prefix = layer_prefix(l) + "feed_forward."
        if l not in moe_layers:
            return mlp(tensors, prefix, hidden, config["intermediate_size_mlp"])
        gate_up = tensors(prefix + "experts.gate_up_proj", count, hidden, 2 * width)
        down = tensors(prefix + "experts.down_proj", count, width, hidden)
        return Moe(logit_router(config, tensors, prefix + "router.weight", weigh="sigmoid"),
                   [fused_mlp(gate_up[e].T, down[e].T) for e in range(count)],
                   mlp(tensors, prefix + "shared_expert.", hidden, width), weigh_input=True)

    return decoder(config, tensors, attention, feed_forward)


def jetmoe(config, tensors, num_tokens):
    hidden, count = config["hidden_size"], config["num_local_experts"]
    kv_heads, dim = config["num_key_value_heads"], config["kv_channels"]
    rope = rope_of(config, dim, 1e4)

    def attention(l):
        prefix = layer_prefix(l) + "self_attention."
        return MixtureOfHeads(
            kv_heads, logit_router(config, tensors, prefix + "experts.router.layer.weight"),
            tensors(prefix + "kv_proj.weight", 2 * kv_heads * dim, hidden),
            tensors(prefix + "experts.input_linear.weight", count, kv_heads * dim, hidden),
            tensors(prefix + "experts.output_linear.weight", count, hidden, kv_heads * dim),
            tensors(prefix + "experts.bias", hidden), rope)

    def feed_forward(l):
        prefix = layer_prefix(l) + "mlp."
        return Moe(logit_router(config, tensors, prefix + "router.layer.weight"),
                   fused_experts(tensors, prefix, config), bias=tensors(prefix + "bias", hidden))

    return decoder(config, tensors, attention, feed_forward)
