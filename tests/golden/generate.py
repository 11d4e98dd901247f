"""Writes the further checkpoints of configurations.py with their golden logits.

    generate.py FOLDER [NAME ...]      writes FOLDER/NAME/{config.json, model*.safetensors, golden.safetensors};
                                       without names, all

golden.safetensors holds what the fixtures' files hold: input_ids, logits [tokens, vocabulary] in float64, and ids and
weights of each router. Rounding in float32 may not decide a test, so the prompts have no close decisions: a token is
replaced where a change of less than MIN_MARGIN in any compared router value would send it to another expert, or of less
than MIN_ORDER_MARGIN would change the order of its experts.
"""
import pathlib
import shutil
import sys
import zlib

import numpy as np

from configurations import all_cases
from reference import safetensors
from reference.checkpoint import DrawnTensors
from reference.families import build
from reference.storage import write_checkpoint

MIN_MARGIN = 1e-3
MIN_ORDER_MARGIN = 2e-5
MAX_REPLACED = 1000


def draw(case):
    """tensors, input ids, logits, routings."""
    seed = zlib.crc32(case.name.encode())
    block = case.config.get("quantization_config", {}).get("weight_block_size")
    tensors = DrawnTensors(seed, case.dtype, block, case.amplify)
    model = build(case.config, tensors, case.tokens)
    generator = np.random.default_rng(seed)
    ids = generator.integers(0, case.config["vocab_size"], case.tokens)
    for _ in range(MAX_REPLACED):
        logits, routings = model(ids)
        close = np.any([(r.margin < MIN_MARGIN) | (r.order_margin < MIN_ORDER_MARGIN) for r in routings.values()], 0)
        if not close.any():
            return tensors, ids, logits, routings
        first = close.argmax()  # tokens before it do not see it
        ids[first] = generator.integers(0, case.config["vocab_size"])
    raise ValueError(f"{case.name}: token {first} is close to another expert, whichever it is")


def write(folder, case):
    tensors, ids, logits, routings = draw(case)
    shutil.rmtree(folder, ignore_errors=True)
    write_checkpoint(folder, case, tensors.stored)
    golden = {"input_ids": ids.astype(np.int64), "logits": logits}
    for name, routing in routings.items():
        golden.update({name + ".ids": routing.ids.astype(np.int64), name + ".weights": routing.weights})
    margin = min(routing.margin.min() for routing in routings.values())
    safetensors.save(folder / "golden.safetensors", golden, {"min_router_margin": f"{margin:.3g}"})


def main():
    folder, names = pathlib.Path(sys.argv[1]), sys.argv[2:]
    for case in all_cases():
        if not names or case.name in names:
            write(folder / case.name, case)


if __name__ == "__main__":
    main()
