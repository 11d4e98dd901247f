"""An encoder over one prompt and a decoder that attends to it, with T5's relative positions (1910.10683)."""
import math
from dataclasses import dataclass
from typing import Callable, Optional

import numpy as np

from .attention import attend, split_heads, visible
from .decoder import Norm
from .feed_forward import Moe, linear


@dataclass
class RelativeBias:
    """A learned number per head and bucket of distances."""
    table: np.ndarray  # [buckets, heads]
    max_distance: int
    bidirectional: bool

    def __call__(self, num_tokens):
        """[heads, queries, keys]"""
        distance = np.arange(num_tokens)[None, :] - np.arange(num_tokens)[:, None]
        return self.table[self.bucket(distance)].transpose(2, 0, 1)

    def bucket(self, distance):
        """Of distances key - query. In float32, as in the published code: where a distance is just at the edge of two
        buckets its rounding decides."""
        count, behind = len(self.table), 0
        if self.bidirectional:
            count //= 2
            behind, steps = (distance > 0) * count, np.abs(distance)
        else:
            steps = np.maximum(-distance, 0)
        exact = count // 2
        single = np.float32
        share = (np.maximum(steps, 1).astype(single) / single(exact)).astype(np.float64)
        growth = np.log(share).astype(single) / single(math.log(self.max_distance / exact)) * single(count - exact)
        far = np.minimum(exact + growth.astype(int), count - 1)
        return behind + np.where(steps < exact, steps, far)


@dataclass
class Attention:
    """To the rows of `source`; scores are not scaled."""
    heads: int
    q: np.ndarray
    k: np.ndarray
    v: np.ndarray
    o: np.ndarray

    def __call__(self, x, source, mask, bias=0.0):
        q, k, v = (split_heads(linear(rows, w), self.heads)
                   for rows, w in ((x, self.q), (source, self.k), (source, self.v)))
        return linear(attend(q, k, v, 1.0, mask, bias=bias), self.o)


@dataclass
class Layer:
    norm: Norm
    attention: Attention
    last_norm: Norm
    feed_forward: Callable
    cross_norm: Optional[Norm] = None  # of a decoder
    cross_attention: Optional[Attention] = None


@dataclass
class Stack:
    layers: list
    final_norm: Norm
    bias: RelativeBias
    first_layer: int  # in the numbering of routings, which goes through both stacks

    def __call__(self, x, routings, encoded=None, limited=True):
        """Normed rows. `routings` gets what each router decided; `limited`: whether capacities count."""
        is_decoder = encoded is not None
        mask = visible(len(x)) if is_decoder else np.ones((len(x), len(x)), bool)
        bias = self.bias(len(x))
        for i, layer in enumerate(self.layers):
            h = layer.norm(x)
            x = x + layer.attention(h, h, mask, bias)
            if is_decoder:
                x = x + layer.cross_attention(layer.cross_norm(x), encoded, np.ones((len(x), len(encoded)), bool))
            h = layer.last_norm(x)
            if isinstance(layer.feed_forward, Moe):
                y, routings[f"layers.{self.first_layer + i}.router"] = layer.feed_forward(h, limited)
            else:
                y = layer.feed_forward(h)
            x = x + y
        return self.final_norm(x)


@dataclass
class EncoderDecoder:
    embedding: np.ndarray
    encoder: Stack
    decoder: Stack
    head: np.ndarray
    head_multiplier: float = 1.0

    def __call__(self, encoder_ids, decoder_ids, one_by_one=False):
        """Logits of the decoder's tokens, and {"layers.3.router": Routing, ...} of both stacks. `one_by_one`: the
        decoder ran once per token, and so its experts' capacity, which counts in one run, drops none."""
        routings = {}
        encoded = self.encoder(self.embedding[encoder_ids], routings)
        decoded = self.decoder(self.embedding[decoder_ids], routings, encoded, limited=not one_by_one)
        return linear(decoded * self.head_multiplier, self.head), routings
