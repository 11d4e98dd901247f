"""Reads and writes .safetensors files: a length, a JSON header, raw little-endian numbers."""
import json
import struct

import numpy as np

from .number_formats import bf16_bits, bf16_values, e4m3_values

NUMPY = {"F64": np.float64, "F32": np.float32, "F16": np.float16, "I64": np.int64, "U8": np.uint8,
         "BF16": np.uint16, "F8_E4M3": np.uint8}
NAMES = {np.dtype(np.float64): "F64", np.dtype(np.float32): "F32", np.dtype(np.float16): "F16",
         np.dtype(np.int64): "I64", np.dtype(np.uint8): "U8"}


class Bf16(np.ndarray):
    """Float32 numbers that bfloat16 holds exactly, to be written as such."""


class E4m3(np.ndarray):
    """Codes (uint8) of F8_E4M3 numbers."""


def encode(array):
    """(dtype name, bytes)"""
    if isinstance(array, Bf16):
        return "BF16", bf16_bits(np.asarray(array)).tobytes()
    if isinstance(array, E4m3):
        return "F8_E4M3", np.ascontiguousarray(array).tobytes()
    return NAMES[array.dtype], np.ascontiguousarray(array).tobytes()


def save(path, tensors, metadata=None):
    header, blobs, offset = {"__metadata__": metadata or {"format": "pt"}}, [], 0
    for name in sorted(tensors):
        dtype, blob = encode(tensors[name])
        header[name] = {"dtype": dtype, "shape": list(tensors[name].shape),
                        "data_offsets": [offset, offset + len(blob)]}
        blobs.append(blob)
        offset += len(blob)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(blobs))


def load(path):
    """name -> array; BF16 and F8_E4M3 as the numbers that they stand for."""
    data = path.read_bytes()
    size = struct.unpack("<Q", data[:8])[0]
    tensors = {}
    for name, entry in json.loads(data[8:8 + size]).items():
        if name == "__metadata__":
            continue
        begin, end = entry["data_offsets"]
        array = np.frombuffer(data[8 + size + begin:8 + size + end], NUMPY[entry["dtype"]]).reshape(entry["shape"])
        tensors[name] = {"BF16": bf16_values, "F8_E4M3": e4m3_values}.get(entry["dtype"], lambda a: a)(array)
    return tensors
