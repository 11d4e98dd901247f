"""How a checkpoint's tensors lie on the disk: expert layouts, shards, and tensors that loaders leave alone."""
import json
import re

import numpy as np

from . import safetensors

EXPERT = re.compile(r"(model\.layers\.\d+\.)(\w+)\.experts\.(\d+)\.(\w+)\.weight")
ROUTER = re.compile(r"(model\.layers\.\d+\.)(\w+)\.(gate|router)\.(weight|e_score_correction_bias)")
LLAMA4_GATE_UP = re.compile(r"(model\.layers\.\d+\.feed_forward\.experts\.)(gate_up|down)_proj")


def fuse_experts(tensors, router):
    """As transformers 5 saves them: P mlp.experts.gate_up_proj [E, 2I, H] and P mlp.experts.down_proj [E, H, I]."""
    fused, parts = {}, {}
    for name, array in tensors.items():
        if match := EXPERT.fullmatch(name):
            prefix, _, expert, matrix = match.groups()
            parts.setdefault(prefix, {})[int(expert), {"w1": "gate_proj", "w3": "up_proj", "w2": "down_proj"}.get(
                matrix, matrix)] = array
        elif match := ROUTER.fullmatch(name):
            fused[f"{match[1]}mlp.{router}.{match[4]}"] = array
        else:
            fused[name] = array
    for prefix, experts in parts.items():
        kind = type(next(iter(experts.values())))
        count = 1 + max(expert for expert, _ in experts)
        gate_up = [np.concatenate([experts[e, "gate_proj"], experts[e, "up_proj"]]) for e in range(count)]
        fused[prefix + "mlp.experts.gate_up_proj"] = np.stack(gate_up).view(kind)
        fused[prefix + "mlp.experts.down_proj"] = np.stack([experts[e, "down_proj"] for e in range(count)]).view(kind)
    return fused


def split_llama4(tensors):
    """One tensor per expert and matrix, [out, in], as quantised Llama 4 checkpoints have them."""
    split = {}
    for name, array in tensors.items():
        match = LLAMA4_GATE_UP.fullmatch(name)
        if not match:
            split[name] = array
            continue
        for e, matrix in enumerate(array):
            parts = {"down_proj": matrix.T}
            if match[2] == "gate_up":
                gate, up = np.split(matrix.T, 2)
                parts = {"gate_proj": gate, "up_proj": up}
            split.update({f"{match[1]}{e}.{part}.weight": np.ascontiguousarray(value) for part, value in parts.items()})
    return split


def in_layout(tensors, case):
    if case.layout == "fused":
        return fuse_experts(tensors, "router" if case.config["model_type"] == "phimoe" else "gate")
    return split_llama4(tensors) if case.layout == "split" else dict(tensors)


def embedding_name(config):
    return "shared.weight" if config["model_type"] == "switch_transformers" else "model.embed_tokens.weight"


def with_extras(tensors, config, extras):
    """Tensors beside the model's own, and the config that goes with them."""
    tensors, hidden = dict(tensors), config.get("hidden_size")
    if "mtp" in extras:
        prefix = f"model.layers.{config['num_hidden_layers']}."
        tensors[prefix + "eh_proj.weight"] = np.ones((hidden, 2 * hidden), np.float32)
        tensors[prefix + "enorm.weight"] = np.ones(hidden, np.float32)
    if "inv_freq" in extras:
        tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = np.ones(4, np.float32)
    if "tied_head" in extras:
        tensors["lm_head.weight"] = np.zeros_like(tensors[embedding_name(config)])
    if "embedding_copies" in extras:
        for stack in ("encoder", "decoder"):
            tensors[stack + ".embed_tokens.weight"] = np.zeros_like(tensors[embedding_name(config)])
    if "vision" in extras:
        tensors = {"language_model." + name: array for name, array in tensors.items()}
        tensors["vision_model.patch_embedding.weight"] = np.ones((4, 4), np.float32)
        config = {"model_type": "llama4", "text_config": config}
    return tensors, config


def write_checkpoint(folder, case, tensors):
    stored, config = with_extras(in_layout(tensors, case), case.config, case.extras)
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    if case.shards == 1:
        safetensors.save(folder / "model.safetensors", stored)
        return
    names, files = sorted(stored), {}
    for i in range(case.shards):
        file = f"model-{i + 1:05}-of-{case.shards:05}.safetensors"
        safetensors.save(folder / file, {name: stored[name] for name in names[i::case.shards]})
        files.update({name: file for name in names[i::case.shards]})
    index = {"metadata": {}, "weight_map": files}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
