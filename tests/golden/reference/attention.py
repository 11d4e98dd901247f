"""The three kinds of attention: grouped queries (GQA), latent (MLA), and a mixture of query heads (JetMoE)."""
import math
from dataclasses import dataclass
from typing import Optional

import numpy as np

from .feed_forward import Router, linear, softmax
from .rope import Rope


def rms_norm(x, eps, weight=1.0):
    return x / np.sqrt((x ** 2).mean(-1, keepdims=True) + eps) * weight


def visible(num_tokens, window=None, chunk=None):
    """[queries, keys]: causal; at most the last `window` keys; only keys of the query's chunk of positions."""
    query, key = np.arange(num_tokens)[:, None], np.arange(num_tokens)[None, :]
    mask = key <= query
    if window:
        mask &= key > query - window
    if chunk:
        mask &= key // chunk == query // chunk
    return mask


def attend(q, k, v, scale, mask, sinks=None, bias=0.0):
    """q, k: [heads, tokens, d]; v: [heads, tokens, dv] -> [tokens, heads * dv]. A sink is one more logit per head, and
    a bias [heads, queries, keys] joins the scores."""
    scores = np.where(mask, scale * q @ k.transpose(0, 2, 1) + bias, -np.inf)
    if sinks is not None:
        column = np.broadcast_to(sinks[:, None, None], scores.shape[:2] + (1,))
        probabilities = softmax(np.concatenate([scores, column], -1))[..., :-1]
    else:
        probabilities = softmax(scores)
    return (probabilities @ v).transpose(1, 0, 2).reshape(q.shape[1], -1)


def split_heads(x, heads):
    """[tokens, heads * d] -> [heads, tokens, d]"""
    return x.reshape(len(x), heads, -1).transpose(1, 0, 2)


@dataclass
class Attention:
    """GQA. Query head n reads KV head n // (heads // kv_heads)."""
    heads: int
    kv_heads: int
    scale: float
    q: np.ndarray
    k: np.ndarray
    v: np.ndarray
    o: np.ndarray
    rope: Optional[Rope]
    biases: tuple = (None, None, None, None)  # of q, k, v, o
    qk_norm: Optional[str] = None             # full | head | l2_after_rope
    q_norm: Optional[np.ndarray] = None
    k_norm: Optional[np.ndarray] = None
    norm_eps: float = 0.0
    clip: Optional[float] = None
    window: Optional[int] = None
    chunk: Optional[int] = None
    sinks: Optional[np.ndarray] = None        # [heads]
    temperature: Optional[tuple] = None       # (floor, scale), in layers without RoPE

    def __call__(self, x):
        q, k, v = (linear(x, w, b) for w, b in zip((self.q, self.k, self.v), self.biases))
        if self.qk_norm == "full":
            q, k = rms_norm(q, self.norm_eps, self.q_norm), rms_norm(k, self.norm_eps, self.k_norm)
        if self.clip is not None:
            q, k, v = (np.clip(part, -self.clip, self.clip) for part in (q, k, v))
        q, k, v = split_heads(q, self.heads), split_heads(k, self.kv_heads), split_heads(v, self.kv_heads)
        if self.qk_norm == "head":
            q, k = rms_norm(q, self.norm_eps, self.q_norm), rms_norm(k, self.norm_eps, self.k_norm)
        if self.rope is not None:
            q, k = self.rope(q), self.rope(k)
        if self.qk_norm == "l2_after_rope":
            q, k = rms_norm(q, self.norm_eps), rms_norm(k, self.norm_eps)
        if self.temperature is not None:
            floor, scale = self.temperature
            position = np.arange(len(x))[:, None]
            q = q * (1 + scale * np.log1p(np.floor((position + 1) / floor))).astype(q.dtype)
        repeat = self.heads // self.kv_heads
        k, v = np.repeat(k, repeat, 0), np.repeat(v, repeat, 0)
        mask = visible(len(x), self.window, self.chunk)
        return linear(attend(q, k, v, self.scale, mask, self.sinks), self.o, self.biases[3])


@dataclass
class LatentAttention:
    """MLA in its expanded form: keys and values of every head, out of one latent vector per token."""
    heads: int
    nope_dim: int
    rope_dim: int
    value_dim: int
    rope: Rope
    scale: float
    kv_a: np.ndarray
    kv_a_norm: np.ndarray
    kv_b: np.ndarray
    o: np.ndarray
    q: Optional[np.ndarray] = None      # or, with compressed queries:
    q_a: Optional[np.ndarray] = None
    q_a_norm: Optional[np.ndarray] = None
    q_b: Optional[np.ndarray] = None
    biases: tuple = (None, None, None)  # of q_a, kv_a, o

    LATENT_EPS = 1e-6  # whatever the config says of other norms

    def __call__(self, x):
        if self.q is not None:
            q = linear(x, self.q)
        else:
            q = linear(rms_norm(linear(x, self.q_a, self.biases[0]), self.LATENT_EPS, self.q_a_norm), self.q_b)
        q = split_heads(q, self.heads)
        compressed = linear(x, self.kv_a, self.biases[1])
        latent, key = compressed[:, :-self.rope_dim], compressed[:, -self.rope_dim:]
        kv = split_heads(linear(rms_norm(latent, self.LATENT_EPS, self.kv_a_norm), self.kv_b), self.heads)
        shared_key = np.broadcast_to(self.rope(key), (self.heads,) + key.shape)
        q = np.concatenate([q[..., :self.nope_dim], self.rope(q[..., self.nope_dim:])], -1)
        k = np.concatenate([kv[..., :self.nope_dim], shared_key], -1)
        return linear(attend(q, k, kv[..., self.nope_dim:], self.scale, visible(len(x))), self.o, self.biases[2])


@dataclass
class MixtureOfHeads:
    """Each token's experts make its queries and take what these attended to; keys and values are everybody's."""
    kv_heads: int
    router: Router
    kv: np.ndarray        # [2 * kv_heads * d, hidden], keys first
    into: np.ndarray      # [experts, kv_heads * d, hidden]
    out_of: np.ndarray    # [experts, hidden, kv_heads * d]
    bias: np.ndarray      # [hidden], on the experts' sum
    rope: Rope

    def __call__(self, x):
        """The block's output and its Routing."""
        routing = self.router(x)
        k, v = (split_heads(part, self.kv_heads) for part in np.split(linear(x, self.kv), 2, -1))
        k = self.rope(k)
        mask, y = visible(len(x)), np.zeros_like(x) + self.bias
        for ids, weights in zip(routing.ids.T, routing.weights.T):
            q = self.rope(split_heads(np.einsum("toi,ti->to", self.into[ids], x), self.kv_heads))
            attended = attend(q, k, v, 1 / math.sqrt(k.shape[-1]), mask)
            y += weights[:, None] * np.einsum("toi,ti->to", self.out_of[ids], attended)
        return y, routing
