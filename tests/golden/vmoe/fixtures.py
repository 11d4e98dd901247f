"""The V-MoE fixtures: what they are, and how to make or to check them.

    fixtures.py check     the golden logits and routing in ../fixtures are what the reference gives
    fixtures.py make      writes them anew
"""
import json
import pathlib
import sys

import numpy as np
from safetensors.numpy import load_file, save_file

from reference import DROPPED, VisionMoe

FIXTURES = pathlib.Path(__file__).resolve().parent.parent / "fixtures"
NUM_IMAGES = 3
# So that float32 picks the same experts: how near two probabilities that decide may come, and two tokens that compete.
MIN_GATE_GAP, MIN_PRIORITY_GAP = 1e-4, 2e-5

BASE = {"model_type": "vmoe", "image_size": 16, "patch_size": 4, "num_classes": 7, "hidden_size": 32,
        "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 48, "moe_layers": [1, 3],
        "num_experts": 8, "num_experts_per_tok": 2, "representation_size": None, "capacity_factor": None,
        "batch_prioritized_routing": False}
CONFIGS = {
    "vmoe_plain": {"representation_size": 32},
    "vmoe_capacity": {"capacity_factor": 1.05},
    "vmoe_batch_priority": {"capacity_factor": 0.5, "batch_prioritized_routing": True, "num_hidden_layers": 3,
                            "moe_layers": [1, 2]},
    "vmoe_top1": {"image_size": 14, "patch_size": 7, "hidden_size": 24, "num_attention_heads": 3, "num_experts": 3,
                  "num_experts_per_tok": 1, "intermediate_size": 33, "num_classes": 1},
    "vmoe_all_experts": {"image_size": 24, "patch_size": 8, "hidden_size": 20, "num_attention_heads": 5,
                         "num_hidden_layers": 2, "moe_layers": [0], "num_experts": 2, "intermediate_size": 20,
                         "layer_norm_eps": 1e-3, "num_classes": 40},
    "vmoe_top3": {"image_size": 10, "patch_size": 2, "hidden_size": 20, "num_attention_heads": 2,
                  "num_hidden_layers": 3, "moe_layers": [0, 1, 2], "num_experts": 5, "num_experts_per_tok": 3,
                  "intermediate_size": 16, "representation_size": 10, "capacity_factor": 0.8,
                  "batch_prioritized_routing": True},
}


def config_of(name):
    return BASE | CONFIGS[name]


def draw_tensors(config, rng):
    """Default initialisation (small, zero biases, unit norms) would hide most mistakes."""
    tensors = {}

    def draw(name, *shape, mean=0.0, deviation=0.15):
        tensors[name] = (mean + deviation * rng.standard_normal(shape)).astype(np.float32)

    def dense(name, out, features):
        draw(name + ".weight", out, features)
        draw(name + ".bias", out)

    def norm(name):
        draw(name + ".weight", hidden, mean=1.0, deviation=0.2)
        draw(name + ".bias", hidden)

    def mlp(prefix):
        dense(prefix + "up_proj", config["intermediate_size"], hidden)
        dense(prefix + "down_proj", hidden, config["intermediate_size"])

    hidden, patch = config["hidden_size"], config["patch_size"]
    dense("patch_embedding", hidden, patch * patch * 3)
    draw("class_token", hidden, deviation=0.5)
    draw("position_embedding", (config["image_size"] // patch) ** 2 + 1, hidden, deviation=0.5)
    for layer in range(config["num_hidden_layers"]):
        prefix = f"layers.{layer}."
        norm(prefix + "attention_norm")
        for projection in ("q_proj", "k_proj", "v_proj", "o_proj"):
            dense(prefix + "attention." + projection, hidden, hidden)
        norm(prefix + "mlp_norm")
        if layer not in config["moe_layers"]:
            mlp(prefix + "mlp.")
            continue
        draw(prefix + "moe.router.weight", config["num_experts"], hidden, deviation=0.5)
        for expert in range(config["num_experts"]):
            mlp(f"{prefix}moe.experts.{expert}.")
    norm("final_norm")
    if config["representation_size"]:
        dense("pre_logits", config["representation_size"], hidden)
    dense("head", config["num_classes"], config["representation_size"] or hidden)
    return tensors


def run(config, tensors, images):
    """What golden.safetensors holds, and the gates of each layer and image."""
    model = VisionMoe(config, tensors)
    routings = [{} for _ in images]
    golden = {"images": images,
              "logits": np.stack([model(image, routing) for image, routing in zip(images, routings)])}
    for layer in config["moe_layers"]:
        golden[f"layers.{layer}.router.ids"] = np.concatenate([r[layer][0] for r in routings]).astype(np.int64)
        golden[f"layers.{layer}.router.weights"] = np.concatenate([r[layer][1] for r in routings])
    return golden, [routing[layer][2] for routing in routings for layer in config["moe_layers"]]


def is_clear(gates, top_k):
    """No two probabilities or tokens whose order decides are near each other."""
    ranked = -np.sort(-gates, axis=1)[:, :top_k + 1]
    gaps = np.diff(-ranked, axis=1)
    return gaps.min() >= MIN_GATE_GAP and np.diff(np.sort(gates.max(1))).min() >= MIN_PRIORITY_GAP


def make(name):
    config = config_of(name)
    side = config["image_size"]
    for seed in range(1000):
        rng = np.random.default_rng([seed, *name.encode()])
        tensors = draw_tensors(config, rng)
        images = rng.uniform(-1, 1, (NUM_IMAGES, side, side, 3)).astype(np.float32).astype(np.float64)
        golden, gates = run(config, tensors, images)
        drops = sum((golden[key] == DROPPED).sum() for key in golden if key.endswith(".ids"))
        if all(is_clear(g, config["num_experts_per_tok"]) for g in gates) and \
                (drops > 0) == (config["capacity_factor"] is not None):
            break
    else:
        raise SystemExit(f"{name}: no seed gives clear routing")
    folder = FIXTURES / name
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    save_file(tensors, folder / "model.safetensors")
    save_file(golden, folder / "golden.safetensors")
    print(f"{name}: seed {seed}, {drops} choices dropped")


def check(name):
    folder = FIXTURES / name
    config = json.loads((folder / "config.json").read_text())
    stored = load_file(folder / "golden.safetensors")
    golden, _ = run(config, load_file(folder / "model.safetensors"), stored["images"])
    error = np.abs(golden["logits"] - stored["logits"]).max() / np.abs(stored["logits"]).max()
    same = set(golden) == set(stored) and all(
        np.array_equal(golden[key], stored[key]) if key.endswith(".ids") else
        np.allclose(golden[key], stored[key], rtol=0, atol=1e-9) for key in stored if "router" in key)
    passed = config == config_of(name) and error <= 1e-9 and same
    print(f"{name:20} relative error {error:.1e}, routing {'the same' if same else 'DIFFERS'}"
          f"{'' if passed else '   FAILED'}")
    return passed


if __name__ == "__main__":
    if sys.argv[1:] == ["make"]:
        for each in CONFIGS:
            make(each)
    elif sys.argv[1:] == ["check"]:
        sys.exit(0 if all([check(each) for each in CONFIGS]) else 1)
    else:
        sys.exit(__doc__)
