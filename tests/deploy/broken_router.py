"""A model whose router favours one expert of one layer on purpose: every token goes there.

The layer has 8 experts and a token goes to 2 of them. The logits of expert 0 are those of a trained row, those of
expert 1 their negatives: one of the two is above 0, and each is chosen by about half of the tokens. All others are 0,
and ties go to the lowest number, so that expert 2 is the other choice of every token: half of the layer's rows, 4 times
the mean. The layer's experts 3 to 7 get nothing.
"""

import json
import shutil
import struct

import numpy as np

BROKEN_LAYER = "3"
HOT, EVEN, DEAD = "2", ("0", "1"), ("3", "4", "5", "6", "7")
NUM_EXPERTS = 8
HOT_RATIO = 4.0  # to the mean of the layer: the most there can be
TRAINED_ROW = 0  # of the eight, the one that divides ordinary text most evenly
SIGN = {"BF16": np.uint16(1 << 15), "F32": np.uint32(1 << 31)}


def break_router(source, target):
    """Copies a model and rewrites the router of BROKEN_LAYER."""
    shutil.copytree(source, target)
    with open(target / "model.safetensors", "r+b") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        gate = json.loads(file.read(length))[f"model.layers.{BROKEN_LAYER}.block_sparse_moe.gate.weight"]
        begin, end = (8 + length + offset for offset in gate["data_offsets"])
        sign = SIGN[gate["dtype"]]
        file.seek(begin)
        trained = np.frombuffer(file.read(end - begin), sign.dtype).reshape(gate["shape"])
        router = np.zeros_like(trained)
        router[0], router[1] = trained[TRAINED_ROW], trained[TRAINED_ROW] ^ sign
        file.seek(begin)
        file.write(router.tobytes())
