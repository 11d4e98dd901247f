"""Routing that was published without weights (model_type switchyard_moe): config.json and tensors -> Decoder."""
from .families_core import decoder, experts, grouped_attention, head_dim_of, is_qwen_moe, layer_prefix, mlp
from .feed_forward import Moe, PlainMlp, Router, gelu_tanh, relu
from .rope import rope_of


def router_rules(config):
    """top_k and what else a Router takes: GShard's and GLaM's top k, Shazeer's, and Jacobs's mixture of all."""
    routing = config.get("routing", "top_k")
    if routing == "dense_mixture":
        return {"top_k": config["num_experts"]}
    rules = {"top_k": config["num_experts_per_tok"]}
    if routing == "noisy_top_k":
        return {**rules, "score": "logit", "weigh": "softmax_of_chosen"}
    assert routing == "top_k", routing
    return {**rules, "norm_power": 1 if config.get("norm_topk_prob") else None}


def expert_list(config, tensors, prefix):
    count, hidden = config["num_experts"], config["hidden_size"]
    width, act = config.get("moe_intermediate_size") or config["intermediate_size"], config.get("expert_act", "silu")
    if act == "silu":
        return experts(tensors, prefix, config, count, width)
    plain = {"relu": relu, "gelu_pytorch_tanh": gelu_tanh}[act]
    return [PlainMlp(tensors(f"{prefix}{e}.up_proj.weight", width, hidden),
                     tensors(f"{prefix}{e}.down_proj.weight", hidden, width), plain) for e in range(count)]


def switchyard_moe(config, tensors, num_tokens):
    rope, hidden = rope_of(config, head_dim_of(config), 1e4), config["hidden_size"]

    def feed_forward(l):
        prefix = layer_prefix(l) + "mlp."
        if not is_qwen_moe(config, l):
            return mlp(tensors, prefix, hidden, config["intermediate_size"])
        router = Router(tensors(prefix + "gate.weight", config["num_experts"], hidden), **router_rules(config))
        return Moe(router, expert_list(config, tensors, prefix + "experts."))

    return decoder(config, tensors, lambda l: grouped_attention(config, tensors, l, rope), feed_forward)
