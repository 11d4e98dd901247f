#!/usr/bin/env python3
"""Converts a published V-MoE checkpoint into a model folder that Switchyard serves.

    convert.py PREFIX FOLDER [--num-experts-per-tok 2] [--capacity-factor 1.5] [--batch-prioritized-routing]

PREFIX is what the files of the checkpoint begin with: PREFIX.index, PREFIX.data-00000-of-00004, ... FOLDER gets
config.json and model.safetensors in the layout of engine/vision/README.md. Sizes follow from the arrays; how many
experts a token goes to and what capacity they have do not, and come from the options (the published models have 2).
"""
import argparse
import json
import math
import pathlib
import re
import sys

import numpy as np
from safetensors.numpy import save_file

from flax_checkpoint import CheckpointError, read_parameters


class Converter:
    """Takes arrays by Flax names and keeps tensors by ours. Dense kernels are stored [in, out], ours [out, in]."""

    def __init__(self, parameters):
        self.parameters = dict(parameters)
        self.tensors = {}

    def take(self, name, *shape):
        """The array; None in `shape` stands for any size."""
        if name not in self.parameters:
            raise CheckpointError(f"the checkpoint has no {name}; is it a V-MoE with a class token?")
        array = self.parameters.pop(name)
        if len(array.shape) != len(shape) or any(want not in (None, have) for want, have in zip(shape, array.shape)):
            raise CheckpointError(f"{name} has the shape {list(array.shape)}, expected {list(shape)}")
        return array

    def keep(self, name, array):
        self.tensors[name] = np.ascontiguousarray(array, np.float32)

    def dense(self, name, array_name, num_in, num_out):
        self.keep(name + ".weight", self.take(array_name + "/kernel", num_in, num_out).T)
        self.keep(name + ".bias", self.take(array_name + "/bias", num_out))

    def norm(self, name, array_name, size):
        self.keep(name + ".weight", self.take(array_name + "/scale", size))
        self.keep(name + ".bias", self.take(array_name + "/bias", size))

    def attention(self, name, array_name, hidden, heads):
        dim = hidden // heads
        for ours, theirs in (("q_proj", "query"), ("k_proj", "key"), ("v_proj", "value")):
            kernel = self.take(f"{array_name}/{theirs}/kernel", hidden, heads, dim)
            self.keep(f"{name}.{ours}.weight", kernel.reshape(hidden, hidden).T)
            self.keep(f"{name}.{ours}.bias", self.take(f"{array_name}/{theirs}/bias", heads, dim).ravel())
        kernel = self.take(f"{array_name}/out/kernel", heads, dim, hidden)
        self.keep(f"{name}.o_proj.weight", kernel.reshape(hidden, hidden).T)
        self.keep(f"{name}.o_proj.bias", self.take(f"{array_name}/out/bias", hidden))

    def experts(self, name, array_name, hidden, width, num_experts):
        self.keep(f"{name}.router.weight", self.take(f"{array_name}/Router/dense/kernel", hidden, num_experts).T)
        for ours, theirs, num_in, num_out in (("up_proj", "Dense_0", hidden, width),
                                              ("down_proj", "Dense_1", width, hidden)):
            kernels = self.take(f"{array_name}/Mlp/{theirs}/kernel", num_experts, num_in, num_out)
            biases = self.take(f"{array_name}/Mlp/{theirs}/bias", num_experts, num_out)
            for expert, (kernel, bias) in enumerate(zip(kernels, biases)):
                self.keep(f"{name}.experts.{expert}.{ours}.weight", kernel.T)
                self.keep(f"{name}.experts.{expert}.{ours}.bias", bias)


def find_sizes(parameters):
    """config.json of the arrays, without what they do not tell."""
    def shape(name):
        if name not in parameters:
            raise CheckpointError(f"the checkpoint has no {name}; is it a V-MoE with a class token?")
        return parameters[name].shape

    layers = sorted({int(number) for name in parameters
                     for number in re.findall(r"^Encoder/encoderblock_(\d+)/", name)})
    moe_layers = [layer for layer in layers if f"Encoder/encoderblock_{layer}/Moe/Router/dense/kernel" in parameters]
    if not moe_layers or layers != list(range(len(layers))):
        raise CheckpointError(f"the checkpoint has the layers {layers}, of which {moe_layers} have experts")
    patch, patch_width, channels, hidden = shape("embedding/kernel")
    num_patches = shape("Encoder/posembed_input/pos_embedding")[1] - 1
    grid = math.isqrt(num_patches)
    if patch != patch_width or channels != 3 or grid * grid != num_patches:
        raise CheckpointError(f"patches of {patch} x {patch_width} pixels with {channels} channels, {num_patches} of "
                              f"them, make no square image in colour")
    num_experts, _, width = shape(f"Encoder/encoderblock_{moe_layers[0]}/Moe/Mlp/Dense_0/kernel")
    return {"model_type": "vmoe", "image_size": grid * patch, "patch_size": patch,
            "num_classes": shape("head/kernel")[1], "hidden_size": hidden, "num_hidden_layers": len(layers),
            "num_attention_heads": shape("Encoder/encoderblock_0/SelfAttention/query/kernel")[1],
            "intermediate_size": width, "layer_norm_eps": 1e-6, "moe_layers": moe_layers, "num_experts": num_experts,
            "representation_size": shape("pre_logits/kernel")[1] if "pre_logits/kernel" in parameters else None,
            "torch_dtype": "float32"}


def convert(parameters):
    """(config, tensors). CheckpointError: an array is missing, left over, or of the wrong shape."""
    config = find_sizes(parameters)
    hidden, width, patch = config["hidden_size"], config["intermediate_size"], config["patch_size"]
    converter = Converter(parameters)
    kernel = converter.take("embedding/kernel", patch, patch, 3, hidden)
    converter.keep("patch_embedding.weight", kernel.reshape(-1, hidden).T)
    converter.keep("patch_embedding.bias", converter.take("embedding/bias", hidden))
    converter.keep("class_token", converter.take("cls", 1, 1, hidden)[0, 0])
    converter.keep("position_embedding", converter.take("Encoder/posembed_input/pos_embedding", 1, None, hidden)[0])
    for layer in range(config["num_hidden_layers"]):
        ours, theirs = f"layers.{layer}", f"Encoder/encoderblock_{layer}"
        converter.norm(ours + ".attention_norm", theirs + "/LayerNorm_0", hidden)
        converter.attention(ours + ".attention", theirs + "/SelfAttention", hidden, config["num_attention_heads"])
        converter.norm(ours + ".mlp_norm", theirs + "/LayerNorm_1", hidden)
        if layer in config["moe_layers"]:
            converter.experts(ours + ".moe", theirs + "/Moe", hidden, width, config["num_experts"])
        else:
            converter.dense(ours + ".mlp.up_proj", theirs + "/Mlp/Dense_0", hidden, width)
            converter.dense(ours + ".mlp.down_proj", theirs + "/Mlp/Dense_1", width, hidden)
    converter.norm("final_norm", "Encoder/encoder_norm", hidden)
    representation = config["representation_size"]
    if representation is not None:
        converter.dense("pre_logits", "pre_logits", hidden, representation)
    converter.dense("head", "head", representation or hidden, config["num_classes"])
    if converter.parameters:
        raise CheckpointError("these arrays have no place in a V-MoE: " + ", ".join(sorted(converter.parameters)))
    return config, converter.tensors


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("prefix")
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--num-experts-per-tok", type=int, default=2)
    parser.add_argument("--capacity-factor", type=float, help="default: no limit")
    parser.add_argument("--batch-prioritized-routing", action="store_true")
    options = parser.parse_args(arguments)
    try:
        config, tensors = convert(read_parameters(options.prefix))
    except CheckpointError as error:
        sys.exit(f"convert.py: {error}")
    config["num_experts_per_tok"] = options.num_experts_per_tok
    config["capacity_factor"] = options.capacity_factor
    config["batch_prioritized_routing"] = options.batch_prioritized_routing
    options.folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, options.folder / "model.safetensors")
    (options.folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    print(f"{options.folder}: {sum(tensor.size for tensor in tensors.values()):,} parameters, "
          f"{config['num_experts']} experts in the layers {config['moe_layers']}, {config['num_classes']} classes")


if __name__ == "__main__":
    main()
