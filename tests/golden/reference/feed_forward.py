"""MLPs, routers, and the Mixture-of-Experts block made of them."""
from dataclasses import dataclass
from typing import Callable, Optional

import numpy as np


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def relu(x):
    return np.maximum(x, 0)


def gelu_tanh(x):
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x ** 3)))


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def linear(x, weight, bias=None):
    """weight: [out, in]"""
    y = x @ weight.T
    return y if bias is None else y + bias


@dataclass
class Mlp:
    """down(silu(gate x) * up x); with `limit` gpt-oss's clamped form of it."""
    gate: np.ndarray  # [intermediate, hidden], like up
    up: np.ndarray
    down: np.ndarray  # [hidden, intermediate]
    biases: tuple = (None, None, None)  # of gate, up, down
    limit: Optional[float] = None

    def __call__(self, x):
        gate, up = linear(x, self.gate, self.biases[0]), linear(x, self.up, self.biases[1])
        if self.limit is None:
            inner = gate * sigmoid(gate) * up
        else:
            gate = np.minimum(gate, self.limit)
            inner = (np.clip(up, -self.limit, self.limit) + 1) * gate * sigmoid(1.702 * gate)
        return linear(inner, self.down, self.biases[2])


@dataclass
class PlainMlp:
    """down(act(up x)), the MLP of the time before gates."""
    up: np.ndarray    # [intermediate, hidden]
    down: np.ndarray  # [hidden, intermediate]
    act: Callable

    def __call__(self, x):
        return linear(self.act(linear(x, self.up)), self.down)


DROPPED = -1  # the expert of a token that found no room


@dataclass
class Routing:
    ids: np.ndarray      # [tokens, top_k], most wanted first; or DROPPED
    weights: np.ndarray  # [tokens, top_k]
    margin: np.ndarray        # [tokens] the smallest change of any compared value that changes who is chosen
    order_margin: np.ndarray  # [tokens] likewise, for the order among the chosen


@dataclass
class Router:
    """logits -> scores -> the top_k largest of scores + choice_bias, in the best groups -> weights."""
    weight: np.ndarray  # [experts, hidden]
    top_k: int
    score: str = "softmax"                # softmax | sigmoid | logit
    weigh: str = "score"                  # score | softmax_of_chosen | sigmoid | sparsemixer
    bias: Optional[np.ndarray] = None     # of the logits
    choice_bias: Optional[np.ndarray] = None
    groups: int = 1
    kept_groups: int = 1
    group_score: str = "max"              # max | top2: the sum of the two best
    norm_power: Optional[float] = None    # weights / their p-norm
    norm_eps: float = 0.0
    scale: float = 1.0
    jitter: float = 0.0                   # of sparsemixer

    def __call__(self, x):
        logits = linear(x, self.weight, self.bias)
        if self.weigh == "sparsemixer":
            return sparsemixer(logits, self.jitter)
        scores = {"softmax": softmax, "sigmoid": sigmoid, "logit": lambda z: z}[self.score](logits)
        wanted = scores if self.choice_bias is None else scores + self.choice_bias
        margin = np.full(len(x), np.inf)
        if self.groups > 1:
            wanted, margin = self._keep_groups(wanted)
        order = np.argsort(-wanted, -1, kind="stable")
        ids = order[:, :self.top_k]
        steps = -np.diff(np.take_along_axis(wanted, order, -1)[:, :self.top_k + 1])
        steps = np.where(np.isnan(steps), np.inf, steps)  # between experts of groups that are out
        if self.top_k < self.weight.shape[0]:
            margin = np.minimum(margin, steps[:, -1])
            steps = steps[:, :-1]
        return Routing(ids, self._weights(logits, scores, ids), margin, steps.min(-1, initial=np.inf))

    def _keep_groups(self, wanted):
        """-inf outside of the best groups, and the margin of that choice."""
        grouped = wanted.reshape(len(wanted), self.groups, -1)
        best = np.sort(grouped, -1)
        of_group = best[..., -1] if self.group_score == "max" else best[..., -2:].sum(-1)
        order = np.argsort(-of_group, -1, kind="stable")
        ranked = np.take_along_axis(of_group, order, -1)
        kept = np.zeros(of_group.shape, bool)
        np.put_along_axis(kept, order[:, :self.kept_groups], True, -1)
        margin = np.full(len(wanted), np.inf)
        if self.kept_groups < self.groups:
            margin = ranked[:, self.kept_groups - 1] - ranked[:, self.kept_groups]
        return np.where(kept[..., None], grouped, -np.inf).reshape(wanted.shape), margin

    def _weights(self, logits, scores, ids):
        chosen = np.take_along_axis(logits, ids, -1)
        weights = {"score": lambda: np.take_along_axis(scores, ids, -1),
                   "softmax_of_chosen": lambda: softmax(chosen),
                   "sigmoid": lambda: sigmoid(chosen)}[self.weigh]()
        if self.norm_power is not None:
            norm = (np.abs(weights) ** self.norm_power).sum(-1, keepdims=True) ** (1 / self.norm_power)
            weights = weights / (norm + self.norm_eps)
        return self.scale * weights


def sparsemixer(logits, jitter):
    """Phi-3.5-MoE: twice the best of what is left, weighed by a softmax over those near it."""
    rows = np.arange(len(logits))
    left = np.array(logits)
    ids, weights, margin = [], [], np.full(len(logits), np.inf)
    for _ in range(2):
        order = np.sort(left, -1)
        margin = np.minimum(margin, order[:, -1] - order[:, -2])
        best = order[:, -1:]
        expert = left.argmax(-1)
        distance = (best - logits) / np.maximum(np.abs(logits), best)
        margin = np.minimum(margin, np.abs(distance - 2 * jitter).min(-1))
        weights.append(softmax(np.where(distance > 2 * jitter, -np.inf, left))[rows, expert])
        ids.append(expert)
        left[rows, expert] = -np.inf
    return Routing(np.stack(ids, 1), np.stack(weights, 1), margin, np.full(len(logits), np.inf))


@dataclass
class Moe:
    router: Router
    experts: list                               # of Mlp
    shared: Optional[Mlp] = None
    shared_gate: Optional[np.ndarray] = None    # [1, hidden]: shared * sigmoid(x . gate)
    bias: Optional[np.ndarray] = None           # on the experts' sum
    weigh_input: bool = False
    capacity: Optional[int] = None              # tokens that an expert takes, in their order; of top-1 routing

    def __call__(self, x, limited=True):
        """The block's output and its Routing. `limited`: whether the capacity counts."""
        routing = self.router(x)
        if limited and self.capacity is not None:
            self._drop(routing)
        y = np.zeros_like(x)
        for token, (ids, weights) in enumerate(zip(routing.ids, routing.weights)):
            for expert, weight in zip(ids, weights):
                if expert == DROPPED:
                    continue
                if self.weigh_input:
                    y[token] += self.experts[expert](weight * x[token])
                else:
                    y[token] += weight * self.experts[expert](x[token])
        if self.bias is not None:
            y = y + self.bias
        if self.shared is not None:
            gate = 1.0 if self.shared_gate is None else sigmoid(linear(x, self.shared_gate))
            y = y + gate * self.shared(x)
        return y, routing

    def _drop(self, routing):
        wanted = routing.ids[:, 0].copy()
        for token, expert in enumerate(wanted):
            if np.count_nonzero(wanted[:token] == expert) >= self.capacity:
                routing.ids[token] = DROPPED
