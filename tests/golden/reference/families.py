"""Which function makes the model of which `model_type`."""
from . import families_core as core, families_generic as generic, families_other as other
from .families_switch import switch

FAMILIES = {"mixtral": core.mixtral, "olmoe": core.olmoe, "qwen2_moe": core.qwen2_moe, "qwen3_moe": core.qwen3_moe,
            "deepseek": core.deepseek, "deepseek_v2": core.deepseek_v2, "deepseek_v3": core.deepseek_v3,
            "kimi_k2": core.deepseek_v3, "glm4_moe": core.glm4_moe, "granitemoe": other.granite,
            "granitemoeshared": other.granite, "dbrx": other.dbrx, "phimoe": other.phimoe, "arctic": other.arctic,
            "gpt_oss": other.gpt_oss, "llama4_text": other.llama4, "jetmoe": other.jetmoe,
            "switchyard_moe": generic.switchyard_moe, "switch_transformers": switch}


def build(config, tensors, num_tokens):
    """The model of `config` for a prompt of `num_tokens`: a function of its ids (an encoder-decoder: of those of either
    stack) that gives logits and routings. tensors(name, *shape) gives each tensor."""
    return FAMILIES[config["model_type"]](config, tensors, num_tokens)
