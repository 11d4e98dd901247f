"""V-MoE in NumPy, float64, one image at a time: what the golden logits come from.

Written from the paper (Riquelme et al., 2106.05974) and its published code (google-research/vmoe: nn/vit_moe.py,
nn/routing.py, moe.py). Config and tensors are those of engine/vision/README.md. See README.md beside this file for what
it was compared with.
"""
import math

import numpy as np

DROPPED = -1


def layer_norm(x, weight, bias, eps):
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred ** 2).mean(-1, keepdims=True) + eps) * weight + bias


def gelu_tanh(x):
    return 0.5 * x * (1.0 + np.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x ** 3)))


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def capacity(num_tokens, config):
    """Choices that an expert runs of a group of num_tokens; None: all (moe.py, compute_capacity)."""
    factor = config.get("capacity_factor")
    if factor is None:
        return None
    places = math.ceil(num_tokens * config["num_experts_per_tok"] * factor / config["num_experts"])
    return places + -places % 4


def choose(gates, top_k, places, batch_prioritized):
    """[tokens, top_k] ids of experts by decreasing gate, DROPPED where the expert had no place left.

    First choices are placed before all second ones; within a rank tokens come in their order or, prioritized, by
    decreasing largest gate.
    """
    ids = np.argsort(-gates, axis=1, kind="stable")[:, :top_k]
    if places is None:
        return ids
    order = np.argsort(-gates.max(1), kind="stable") if batch_prioritized else np.arange(len(gates))
    used, placed = np.zeros(gates.shape[1], int), np.full_like(ids, DROPPED)
    for rank in range(top_k):
        for token in order:
            expert = ids[token, rank]
            if used[expert] < places:
                used[expert] += 1
                placed[token, rank] = expert
    return placed


class VisionMoe:
    def __init__(self, config, tensors):
        self.config = config
        self.tensors = {name: np.asarray(value, np.float64) for name, value in tensors.items()}

    def __call__(self, image, routing=None):
        """Logits of one image [size, size, 3]. `routing`, if given, gets {layer: (ids, weights, gates)}."""
        x = self.embed(np.asarray(image, np.float64))
        for layer in range(self.config["num_hidden_layers"]):
            prefix = f"layers.{layer}."
            x = x + self.attend(self.norm(x, prefix + "attention_norm"), prefix + "attention.")
            h = self.norm(x, prefix + "mlp_norm")
            if layer in self.config["moe_layers"]:
                y, decided = self.mixture(h, prefix + "moe.")
                if routing is not None:
                    routing[layer] = decided
            else:
                y = self.mlp(h, prefix + "mlp.")
            x = x + y
        x = self.norm(x[0], "final_norm")
        if self.config.get("representation_size"):
            x = np.tanh(self.dense(x, "pre_logits"))
        return self.dense(x, "head")

    def dense(self, x, name):
        return x @ self.tensors[name + ".weight"].T + self.tensors[name + ".bias"]

    def norm(self, x, name):
        return layer_norm(x, self.tensors[name + ".weight"], self.tensors[name + ".bias"],
                          self.config.get("layer_norm_eps", 1e-6))

    def embed(self, image):
        side, patch = self.config["image_size"], self.config["patch_size"]
        patches = [self.dense(image[y:y + patch, x:x + patch].ravel(), "patch_embedding")
                   for y in range(0, side, patch) for x in range(0, side, patch)]
        return np.stack([self.tensors["class_token"], *patches]) + self.tensors["position_embedding"]

    def attend(self, h, prefix):
        heads = self.config["num_attention_heads"]
        q, k, v = (self.dense(h, prefix + name).reshape(len(h), heads, -1).transpose(1, 0, 2)
                   for name in ("q_proj", "k_proj", "v_proj"))
        p = softmax(q @ k.transpose(0, 2, 1) / math.sqrt(q.shape[-1]))
        return self.dense((p @ v).transpose(1, 0, 2).reshape(len(h), -1), prefix + "o_proj")

    def mlp(self, h, prefix):
        return self.dense(gelu_tanh(self.dense(h, prefix + "up_proj")), prefix + "down_proj")

    def mixture(self, h, prefix):
        """The tokens of one image are one group, and the gates are not renormalised over the chosen."""
        gates = softmax(h @ self.tensors[prefix + "router.weight"].T)
        top_k = self.config["num_experts_per_tok"]
        ids = choose(gates, top_k, capacity(len(h), self.config), self.config.get("batch_prioritized_routing", False))
        weights = -np.sort(-gates, axis=1)[:, :top_k]
        out = np.zeros_like(h)
        for token, rank in zip(*np.nonzero(ids != DROPPED)):
            expert = f"{prefix}experts.{ids[token, rank]}."
            out[token] += weights[token, rank] * self.mlp(h[token], expert)
        return out, (ids, weights, gates)
