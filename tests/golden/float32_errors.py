"""How far the reference itself is from its float64 answers when it is evaluated in float32, on the further checkpoints:
what a tolerance for an engine in float32 cannot be below.

    float32_errors.py [NAME ...]
"""
import collections
import sys

import numpy as np

from configurations import all_cases
from generate import draw
from reference.families import build


class SinglePrecision:
    """The same tensors, rounded."""

    def __init__(self, tensors):
        self.values = tensors.values

    def __call__(self, name, *shape):
        return self.values[name].astype(np.float32)

    mxfp4 = __call__


def errors(case):
    """Of the largest logit, and of router weights as a share of the factor that scales them; ids must be the same."""
    tensors, model, prompts = draw(case)
    logits, routings = model(*prompts)
    single, single_routings = build(case.config, SinglePrecision(tensors), case.tokens)(*prompts)
    assert single.dtype == np.float32
    weight_error = 0.0
    for name, routing in routings.items():
        assert np.array_equal(routing.ids, single_routings[name].ids), (case.name, name)
        error = np.abs(routing.weights - single_routings[name].weights).max()
        weight_error = max(weight_error, error / max(1.0, case.config.get("routed_scaling_factor", 1.0)))
    return np.abs(logits - single).max() / np.abs(logits).max(), weight_error


def main():
    worst = collections.defaultdict(lambda: (0.0, 0.0))
    for case in all_cases():
        if not sys.argv[1:] or case.name in sys.argv[1:]:
            found = errors(case)
            worst[case.config["model_type"]] = tuple(map(max, worst[case.config["model_type"]], found))
            print(f"{case.name:32} logits {found[0]:.1e}, router weights {found[1]:.1e}")
    for family, found in worst.items():
        print(f"largest of {family:20} logits {found[0]:.1e}, router weights {found[1]:.1e}")


if __name__ == "__main__":
    main()
