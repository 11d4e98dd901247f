"""A model whose router is broken on purpose in one layer: every token of it goes to the same two experts."""

import json
import shutil
import struct

BROKEN_LAYER = "2"
HOT, DEAD = {"0", "1"}, {"2", "3", "4", "5", "6", "7"}


def break_router(source, target):
    """Copies a model and sets the router of BROKEN_LAYER to 0: ties go to the experts with the lowest numbers."""
    shutil.copytree(source, target)
    with open(target / "model.safetensors", "r+b") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        begin, end = json.loads(file.read(length))[f"model.layers.{BROKEN_LAYER}.block_sparse_moe.gate.weight"][
            "data_offsets"
        ]
        file.seek(8 + length + begin)
        file.write(bytes(end - begin))
