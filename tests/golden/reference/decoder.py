"""Layers of attention and feed-forward blocks, from token ids to logits."""
from dataclasses import dataclass
from typing import Callable, Optional

import numpy as np

from .attention import MixtureOfHeads, rms_norm
from .feed_forward import Moe, linear


@dataclass
class Norm:
    weight: np.ndarray
    eps: float
    is_layer_norm: bool = False
    bias: Optional[np.ndarray] = None

    def __call__(self, x):
        if not self.is_layer_norm:
            return rms_norm(x, self.eps, self.weight)
        centred = x - x.mean(-1, keepdims=True)
        y = rms_norm(centred, self.eps, self.weight)
        return y if self.bias is None else y + self.bias


@dataclass
class Layer:
    input_norm: Norm
    attention: Callable
    post_norm: Norm
    feed_forward: Callable
    # Arctic: the MoE reads the layer's input, and this MLP, after its norm, stands where the MoE would.
    parallel_norm: Optional[Norm] = None
    parallel: Optional[Callable] = None


@dataclass
class Decoder:
    embedding: np.ndarray
    layers: list
    final_norm: Norm
    head: np.ndarray
    head_bias: Optional[np.ndarray] = None
    embedding_multiplier: float = 1.0
    residual_multiplier: float = 1.0
    logits_divisor: float = 1.0

    def __call__(self, ids):
        """logits [tokens, vocabulary], and what each router decided: {"layers.3.router": Routing, ...}."""
        x = self.embedding_multiplier * self.embedding[ids]
        routings = {}

        def run(block, value, layer, name):
            if not isinstance(block, (Moe, MixtureOfHeads)):
                return self.residual_multiplier * block(value)
            y, routings[f"layers.{layer}.{name}"] = block(value)
            return self.residual_multiplier * y

        for i, layer in enumerate(self.layers):
            attended = x + run(layer.attention, layer.input_norm(x), i, "attn_router")
            if layer.parallel is None:
                x = attended + run(layer.feed_forward, layer.post_norm(attended), i, "router")
            else:
                x = attended + layer.parallel(layer.parallel_norm(attended)) + \
                    run(layer.feed_forward, layer.post_norm(x), i, "router")
        return linear(self.final_norm(x), self.head, self.head_bias) / self.logits_divisor, routings
