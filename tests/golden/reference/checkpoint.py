"""The tensors of a checkpoint: read from a folder, or drawn at random as the model asks for them.

A family's function asks `tensors(name, *shape)` for each tensor that its Hugging Face class has. Read tensors must have
that shape; drawn ones get it. So the names and shapes of a family are written once.
"""
import json
import zlib

import numpy as np

from . import safetensors
from .number_formats import from_e4m3_blocks, from_mxfp4, round_to_bf16, to_e4m3_blocks, to_mxfp4


class StoredTensors:
    """Of a folder."""

    def __init__(self, folder):
        self.stored = {}
        for path in sorted(folder.glob("model*.safetensors")):
            self.stored.update(safetensors.load(path))
        self.block = json.loads((folder / "config.json").read_text()).get("quantization_config", {}).get(
            "weight_block_size")
        self.asked = set()

    def __call__(self, name, *shape):
        self.asked.add(name)
        array = np.asarray(self.stored[name], np.float64)
        assert array.shape == shape, (name, array.shape, shape)
        if name + "_scale_inv" in self.stored:
            self.asked.add(name + "_scale_inv")
            array = from_e4m3_blocks(array, self.stored[name + "_scale_inv"], self.block)
        return array

    def mxfp4(self, name, *shape):
        """[..., out, in]"""
        self.asked.update({name + "_blocks", name + "_scales"})
        array = from_mxfp4(self.stored[name + "_blocks"], self.stored[name + "_scales"])
        assert array.shape == shape, (name, array.shape, shape)
        return array

    def unused(self):
        return sorted(set(self.stored) - self.asked)


# Deviation from the mean, by how a name ends. The usual initialisation (0.02, biases 0, norms 1) would hide mistakes.
DEVIATIONS = {"norm.weight": 0.2, "norm_1.weight": 0.2, "norm_2.weight": 0.2, "norm_f.weight": 0.2,
              "gate.weight": 0.5, "router.weight": 0.5, "router.layer.weight": 0.5, "router.classifier.weight": 0.5,
              "e_score_correction_bias": 0.3, "sinks": 0.5, "relative_attention_bias.weight": 0.5}
ONES = ("norm.weight", "norm_1.weight", "norm_2.weight", "norm_f.weight", "sinks")


class DrawnTensors:
    """Normal numbers by (seed, name), rounded to what is stored. `stored` is what a file of them holds."""

    def __init__(self, seed, dtype="float32", block=None, amplified=()):
        self.seed, self.dtype, self.block, self.amplified = seed, dtype, block, dict(amplified)
        self.stored, self.values = {}, {}

    def _draw(self, name, shape):
        generator = np.random.default_rng([self.seed, zlib.crc32(name.encode())])
        deviation = next((value for ending, value in DEVIATIONS.items() if name.endswith(ending)), 0.15)
        factor = next((value for part, value in self.amplified.items() if part in name), 1.0)
        return factor * deviation * generator.standard_normal(shape) + (1.0 if name.endswith(ONES) else 0.0)

    def __call__(self, name, *shape):
        if name in self.values:  # tied
            return self.values[name]
        array = self._draw(name, shape)
        if self.block and name.endswith(("_proj.weight", "kv_a_proj_with_mqa.weight")):
            codes, scales = to_e4m3_blocks(array, self.block)
            self.stored[name], self.stored[name + "_scale_inv"] = codes.view(safetensors.E4m3), scales
            array = from_e4m3_blocks(safetensors.e4m3_values(codes), scales, self.block)
        elif self.dtype == "bfloat16" and not name.endswith("e_score_correction_bias"):
            array = round_to_bf16(array)
            self.stored[name] = array.view(safetensors.Bf16)
        else:
            array = array.astype({"float16": np.float16}.get(self.dtype, np.float32))
            self.stored[name] = array
        self.values[name] = array.astype(np.float64)
        return self.values[name]

    def mxfp4(self, name, *shape):
        self.stored[name + "_blocks"], self.stored[name + "_scales"] = to_mxfp4(self._draw(name, shape))
        self.values[name] = from_mxfp4(self.stored[name + "_blocks"], self.stored[name + "_scales"])
        return self.values[name]
