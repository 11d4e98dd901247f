"""Mixtral, OLMoE, Qwen2-MoE, Qwen3-MoE, the DeepSeeks, Kimi-K2 and GLM-4.5: config.json and tensors -> Decoder."""

from .attention import Attention, LatentAttention
from .decoder import Decoder, Layer, Norm
from .feed_forward import Mlp, Moe, Router
from .rope import rope_of, yarn_mscale

GATE_UP_DOWN = ("gate_proj.weight", "up_proj.weight", "down_proj.weight")
W1_W3_W2 = ("w1.weight", "w3.weight", "w2.weight")


def layer_prefix(layer):
    return f"model.layers.{layer}."


def mlp(tensors, prefix, hidden, width, names=GATE_UP_DOWN):
    gate, up, down = (prefix + name for name in names)
    return Mlp(tensors(gate, width, hidden), tensors(up, width, hidden), tensors(down, hidden, width))


def experts(tensors, prefix, config, count, width, names=GATE_UP_DOWN):
    return [mlp(tensors, f"{prefix}{e}.", config["hidden_size"], width, names) for e in range(count)]


def norm(config, tensors, name, bias=False):
    hidden = config["hidden_size"]
    return Norm(tensors(name + ".weight", hidden), config["rms_norm_eps"], is_layer_norm=bias,
                bias=tensors(name + ".bias", hidden) if bias else None)


def head_dim_of(config):
    return config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]


def grouped_attention(config, tensors, layer, rope, qkv_bias=False, output_bias=False, qk_norm=None, **options):
    hidden, heads, dim = config["hidden_size"], config["num_attention_heads"], head_dim_of(config)
    kv_heads = config.get("num_key_value_heads") or heads
    prefix = layer_prefix(layer) + "self_attn."
    sizes = {"q": (heads * dim, hidden), "k": (kv_heads * dim, hidden), "v": (kv_heads * dim, hidden),
             "o": (hidden, heads * dim)}
    matrices = {name: tensors(f"{prefix}{name}_proj.weight", *size) for name, size in sizes.items()}
    biases = tuple(tensors(f"{prefix}{name}_proj.bias", size[0]) if (output_bias if name == "o" else qkv_bias) else None
                   for name, size in sizes.items())
    if qk_norm in ("full", "head"):
        widths = (sizes["q"][0], sizes["k"][0]) if qk_norm == "full" else (dim, dim)
        options.update(q_norm=tensors(prefix + "q_norm.weight", widths[0]),
                       k_norm=tensors(prefix + "k_norm.weight", widths[1]))
    options.setdefault("scale", dim ** -0.5)
    return Attention(heads, kv_heads, rope=rope, biases=biases, qk_norm=qk_norm, norm_eps=config["rms_norm_eps"],
                     **matrices, **options)


def decoder(config, tensors, make_attention, make_feed_forward, norm_bias=False, **options):
    """What most families share: norms, residuals, embedding and head. make_*(layer) make the blocks."""
    hidden, vocabulary = config["hidden_size"], config["vocab_size"]
    layers = [Layer(norm(config, tensors, layer_prefix(l) + "input_layernorm", norm_bias), make_attention(l),
                    norm(config, tensors, layer_prefix(l) + "post_attention_layernorm", norm_bias),
                    make_feed_forward(l))
              for l in range(config["num_hidden_layers"])]
    tied = config.get("tie_word_embeddings", False)
    return Decoder(tensors("model.embed_tokens.weight", vocabulary, hidden), layers,
                   norm(config, tensors, "model.norm", norm_bias),
                   tensors("model.embed_tokens.weight" if tied else "lm_head.weight", vocabulary, hidden), **options)


def mixtral(config, tensors, num_tokens):
    rope = rope_of(config, head_dim_of(config), 1e6)
    count = config["num_local_experts"]

    def feed_forward(l):
        prefix = layer_prefix(l) + "block_sparse_moe."
        router = Router(tensors(prefix + "gate.weight", count, config["hidden_size"]), config["num_experts_per_tok"],
                        norm_power=1)
        return Moe(router, experts(tensors, prefix + "experts.", config, count, config["intermediate_size"], W1_W3_W2))

    return decoder(config, tensors,
                   lambda l: grouped_attention(config, tensors, l, rope, window=config["sliding_window"]),
                   feed_forward)


def softmax_moe(config, tensors, prefix, width, **shared):
    """OLMoE and Qwen."""
    count = config["num_experts"]
    router = Router(tensors(prefix + "gate.weight", count, config["hidden_size"]), config["num_experts_per_tok"],
                    norm_power=1 if config["norm_topk_prob"] else None)
    return Moe(router, experts(tensors, prefix + "experts.", config, count, width), **shared)


def olmoe(config, tensors, num_tokens):
    rope = rope_of(config, head_dim_of(config), 1e4)
    bias = config.get("attention_bias", False)
    return decoder(config, tensors,
                   lambda l: grouped_attention(config, tensors, l, rope, bias, bias, qk_norm="full",
                                               clip=config.get("clip_qkv")),
                   lambda l: softmax_moe(config, tensors, layer_prefix(l) + "mlp.", config["intermediate_size"]))


def is_qwen_moe(config, layer):
    return layer not in (config.get("mlp_only_layers") or []) and (layer + 1) % config.get("decoder_sparse_step", 1) == 0


def qwen2_moe(config, tensors, num_tokens):
    rope, hidden = rope_of(config, head_dim_of(config), 1e4), config["hidden_size"]

    def window(l):
        slides = config.get("use_sliding_window") and config["layer_types"][l] == "sliding_attention"
        return config["sliding_window"] if slides else None

    def feed_forward(l):
        prefix = layer_prefix(l) + "mlp."
        if not is_qwen_moe(config, l):
            return mlp(tensors, prefix, hidden, config["intermediate_size"])
        return softmax_moe(
            config, tensors, prefix, config["moe_intermediate_size"],
            shared=mlp(tensors, prefix + "shared_expert.", hidden, config["shared_expert_intermediate_size"]),
            shared_gate=tensors(prefix + "shared_expert_gate.weight", 1, hidden))

    return decoder(config, tensors,
                   lambda l: grouped_attention(config, tensors, l, rope, config.get("qkv_bias", True),
                                               window=window(l)),
                   feed_forward)


def qwen3_moe(config, tensors, num_tokens):
    rope = rope_of(config, head_dim_of(config), 1e4)
    bias = config.get("attention_bias", False)
    window = config["sliding_window"] if config.get("use_sliding_window") else None

    def feed_forward(l):
        prefix = layer_prefix(l) + "mlp."
        if not is_qwen_moe(config, l):
            return mlp(tensors, prefix, config["hidden_size"], config["intermediate_size"])
        return softmax_moe(config, tensors, prefix, config["moe_intermediate_size"])

    return decoder(config, tensors,
                   lambda l: grouped_attention(config, tensors, l, rope, bias, bias, qk_norm="head", window=window),
                   feed_forward)


def deepseek_feed_forward(config, tensors, l, **router):
    """First layers dense; in the others `n_shared_experts` stored as one MLP. `router` is what versions differ in."""
    prefix, hidden, width = layer_prefix(l) + "mlp.", config["hidden_size"], config["moe_intermediate_size"]
    if l < config["first_k_dense_replace"] or l % config.get("moe_layer_freq", 1) != 0:
        return mlp(tensors, prefix, hidden, config["intermediate_size"])
    count, top_k = config["n_routed_experts"], config["num_experts_per_tok"]
    is_sigmoid = router.get("score") == "sigmoid"
    if config["norm_topk_prob"] and (top_k > 1 or is_sigmoid):
        router.update(norm_power=1, norm_eps=1e-20)
    if is_sigmoid:
        router["choice_bias"] = tensors(prefix + "gate.e_score_correction_bias", count)
    shared = None
    if config.get("n_shared_experts"):
        shared = mlp(tensors, prefix + "shared_experts.", hidden, config["n_shared_experts"] * width)
    return Moe(Router(tensors(prefix + "gate.weight", count, hidden), top_k, **router),
               experts(tensors, prefix + "experts.", config, count, width), shared)


def deepseek(config, tensors, num_tokens):
    rope = rope_of(config, head_dim_of(config), 1e4)
    bias = config.get("attention_bias", False)
    return decoder(config, tensors, lambda l: grouped_attention(config, tensors, l, rope, bias, bias),
                   lambda l: deepseek_feed_forward(config, tensors, l))


def latent_attention(config, tensors, l, rope):
    hidden, heads, prefix = config["hidden_size"], config["num_attention_heads"], layer_prefix(l) + "self_attn."
    nope, rope_dim, value = config["qk_nope_head_dim"], config["qk_rope_head_dim"], config["v_head_dim"]
    q_rank, rank, bias = config.get("q_lora_rank"), config["kv_lora_rank"], config.get("attention_bias", False)

    def bias_of(name, size):
        return tensors(prefix + name + ".bias", size) if bias else None

    if q_rank:
        queries = {"q_a": tensors(prefix + "q_a_proj.weight", q_rank, hidden),
                   "q_a_norm": tensors(prefix + "q_a_layernorm.weight", q_rank),
                   "q_b": tensors(prefix + "q_b_proj.weight", heads * (nope + rope_dim), q_rank)}
    else:
        queries = {"q": tensors(prefix + "q_proj.weight", heads * (nope + rope_dim), hidden)}
    scaling = config.get("rope_scaling") or {}
    mscale = yarn_mscale(scaling["factor"], scaling.get("mscale_all_dim") or 0) if scaling else 1.0
    return LatentAttention(
        heads, nope, rope_dim, value, rope, scale=(nope + rope_dim) ** -0.5 * mscale ** 2,
        kv_a=tensors(prefix + "kv_a_proj_with_mqa.weight", rank + rope_dim, hidden),
        kv_a_norm=tensors(prefix + "kv_a_layernorm.weight", rank),
        kv_b=tensors(prefix + "kv_b_proj.weight", heads * (nope + value), rank),
        o=tensors(prefix + "o_proj.weight", hidden, heads * value),
        biases=(bias_of("q_a_proj", q_rank) if q_rank else None, bias_of("kv_a_proj_with_mqa", rank + rope_dim),
                bias_of("o_proj", hidden)),
        **queries)


def latent_decoder(config, tensors, **router):
    rope = rope_of(config, config["qk_rope_head_dim"], 1e4, interleaved=True)
    return decoder(config, tensors, lambda l: latent_attention(config, tensors, l, rope),
                   lambda l: deepseek_feed_forward(config, tensors, l, **router))


def deepseek_v2(config, tensors, num_tokens):
    """Weights are normalised or scaled, never both."""
    router = {}
    if not (config["norm_topk_prob"] and config["num_experts_per_tok"] > 1):
        router["scale"] = config["routed_scaling_factor"]
    if config["topk_method"] == "group_limited_greedy":
        router.update(groups=config["n_group"], kept_groups=config["topk_group"])
    return latent_decoder(config, tensors, **router)


def v3_router(config):
    return {"score": "sigmoid", "groups": config["n_group"], "kept_groups": config["topk_group"],
            "group_score": "top2", "scale": config["routed_scaling_factor"]}


def deepseek_v3(config, tensors, num_tokens):
    return latent_decoder(config, tensors, **v3_router(config))


def glm4_moe(config, tensors, num_tokens):
    rope = rope_of(config, int(head_dim_of(config) * config["partial_rotary_factor"]), 1e4)
    return decoder(config, tensors,
                   lambda l: grouped_attention(config, tensors, l, rope, config["attention_bias"],
                                               qk_norm="head" if config["use_qk_norm"] else None),
                   lambda l: deepseek_feed_forward(config, tensors, l, **v3_router(config)))
