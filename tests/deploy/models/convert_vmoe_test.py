"""The V-MoE converter on checkpoints written here in the format of google-research/vmoe.

Public checkpoints cannot be stored in this repository. Their format is that of vmoe/checkpoints/partitioned.py (which
array is which number, how arrays are cut), serialization.py (the extension types) and flax/serialization.py (arrays).
"""
import contextlib
import io
import json
import pathlib
import sys
import tempfile
import unittest

import msgpack
import numpy as np
from safetensors.numpy import load_file

ROOT = pathlib.Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "deploy/models/vmoe"))
import convert  # noqa: E402
from flax_checkpoint import CheckpointError, read_parameters  # noqa: E402

PIECE = 100    # elements: the format's is 1 GiB, which a test cannot reach
VERSION = "20220622"


# ------------------------------------------------------------------------------------------------- writing

def pack(value):
    return msgpack.packb(value, use_bin_type=True)


def slice_nd_bytes(place):
    return pack([pack([start, stop, None]) for start, stop in place])


def ndarray_extension(array, dtype):
    return msgpack.ExtType(1, pack([list(array.shape), dtype, array.tobytes()]))


def index_extension(shape, dtype, places, shards):
    described = pack([list(shape), dtype, False, {}])
    return msgpack.ExtType(8, pack([described, [slice_nd_bytes(place) for place in places], shards]))


def cut(shape):
    """The whole array in one place, or in two along its longest side."""
    whole = [(0, size) for size in shape]
    if np.prod(shape, dtype=int) < 64:
        return [whole]
    axis = int(np.argmax(shape))
    middle = shape[axis] // 2
    return [[*whole[:axis], part, *whole[axis + 1:]] for part in ((0, middle), (middle, shape[axis]))]


def to_bfloat16(array):
    """Truncated: as good as rounded for numbers that were made to fit."""
    return (np.ascontiguousarray(array, np.float32).view(np.uint32) >> 16).astype(np.uint16)


def write_checkpoint(prefix, tree, shard_count=3, version=VERSION, bfloat16=False):
    """`tree`: nested dict of float32 arrays."""
    shards = [{"__msgpack_array_chunk_a87ca2__": True} for _ in range(shard_count)]
    counter = iter(range(1_000_000))
    dtype = "bfloat16" if bfloat16 else "float32"

    def visit(node):
        if isinstance(node, dict):
            return {key: visit(node[key]) for key in sorted(node)}
        number, places = next(counter), cut(node.shape)
        homes = [(number + i) % shard_count for i in range(len(places))]
        for place, home in zip(places, homes):
            chunk = node[tuple(slice(*part) for part in place)].ravel()
            chunk = to_bfloat16(chunk) if bfloat16 else chunk
            pieces = [ndarray_extension(chunk[i:i + PIECE], dtype) for i in range(0, chunk.size, PIECE)]
            chunks = shards[home].setdefault(str(number), [])
            chunks.append([pieces, msgpack.ExtType(6, slice_nd_bytes(place))])
        return index_extension(node.shape, dtype, places, homes)

    index = {"shard_count": shard_count, "index": visit(tree)}
    if version is not None:
        index["version"] = version
    pathlib.Path(f"{prefix}.index").write_bytes(pack(index))
    for i, shard in enumerate(shards):
        pathlib.Path(f"{prefix}.data-{i:05d}-of-{shard_count:05d}").write_bytes(pack(shard))


# ------------------------------------------------------------------------------------------------- a model

def flax_tree(config, tensors):
    """The parameters of vmoe's VisionTransformerMoe, whose values are our tensors."""
    hidden, patch, heads = config["hidden_size"], config["patch_size"], config["num_attention_heads"]
    dense = lambda name: {"kernel": tensors[name + ".weight"].T, "bias": tensors[name + ".bias"]}
    norm = lambda name: {"scale": tensors[name + ".weight"], "bias": tensors[name + ".bias"]}

    def projection(name):
        both = dense(name)
        return {"kernel": both["kernel"].reshape(hidden, heads, -1), "bias": both["bias"].reshape(heads, -1)}

    def block(layer):
        ours = f"layers.{layer}."
        output = dense(ours + "attention.o_proj")
        tree = {"LayerNorm_0": norm(ours + "attention_norm"), "LayerNorm_1": norm(ours + "mlp_norm"),
                "SelfAttention": {theirs: projection(f"{ours}attention.{name}") for theirs, name in
                                  (("query", "q_proj"), ("key", "k_proj"), ("value", "v_proj"))}}
        tree["SelfAttention"]["out"] = output | {"kernel": output["kernel"].reshape(heads, -1, hidden)}
        if layer not in config["moe_layers"]:
            return tree | {"Mlp": {"Dense_0": dense(ours + "mlp.up_proj"), "Dense_1": dense(ours + "mlp.down_proj")}}
        experts = {theirs: [dense(f"{ours}moe.experts.{e}.{name}") for e in range(config["num_experts"])]
                   for theirs, name in (("Dense_0", "up_proj"), ("Dense_1", "down_proj"))}
        return tree | {"Moe": {
            "Router": {"dense": {"kernel": tensors[ours + "moe.router.weight"].T}},
            "Mlp": {name: {part: np.stack([one[part] for one in each]) for part in ("kernel", "bias")}
                    for name, each in experts.items()}}}

    tree = {"cls": tensors["class_token"].reshape(1, 1, hidden), "head": dense("head"),
            "embedding": {"kernel": dense("patch_embedding")["kernel"].reshape(patch, patch, 3, hidden),
                          "bias": tensors["patch_embedding.bias"]},
            "Encoder": {"encoder_norm": norm("final_norm"),
                        "posembed_input": {"pos_embedding": tensors["position_embedding"][None]}}}
    tree["Encoder"] |= {f"encoderblock_{layer}": block(layer) for layer in range(config["num_hidden_layers"])}
    return tree | ({"pre_logits": dense("pre_logits")} if config["representation_size"] else {})


def fixture(name):
    folder = ROOT / "tests/golden/fixtures" / name
    return json.loads((folder / "config.json").read_text()), load_file(folder / "model.safetensors")


class ConvertTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        self.prefix = str(self.folder / "checkpoint")

    def convert(self, *options):
        with contextlib.redirect_stdout(io.StringIO()):
            convert.main([self.prefix, str(self.folder / "model"), *options])
        return (json.loads((self.folder / "model/config.json").read_text()),
                load_file(self.folder / "model/model.safetensors"))

    def expect_tensors(self, actual, expected):
        self.assertEqual(set(actual), set(expected))
        for name, tensor in expected.items():
            np.testing.assert_array_equal(actual[name], tensor, err_msg=name)

    def expect_refused(self, message):
        with self.assertRaisesRegex(SystemExit, message):
            self.convert()

    def test_tensors_and_config_come_back(self):
        options = {"vmoe_plain": [], "vmoe_top1": ["--num-experts-per-tok", "1"],
                   "vmoe_batch_priority": ["--capacity-factor", "0.5", "--batch-prioritized-routing"]}
        for name, flags in options.items():
            with self.subTest(name):
                config, tensors = fixture(name)
                write_checkpoint(self.prefix, flax_tree(config, tensors))
                actual_config, actual = self.convert(*flags)
                self.expect_tensors(actual, tensors)
                self.assertEqual(actual_config, config | {"layer_norm_eps": 1e-6, "torch_dtype": "float32"})

    def test_layers_beyond_the_tenth_are_in_their_places(self):
        config, tensors = fixture("vmoe_all_experts")
        config["num_hidden_layers"] = 12
        for layer in range(2, 12):
            for name in [name for name in tensors if name.startswith("layers.1.")]:
                tensors[name.replace("layers.1.", f"layers.{layer}.")] = tensors[name] + np.float32(layer)
        write_checkpoint(self.prefix, flax_tree(config, tensors))
        self.expect_tensors(self.convert()[1], tensors)

    def test_parameters_inside_a_training_state(self):
        config, tensors = fixture("vmoe_plain")
        tree = flax_tree(config, tensors)
        state = {"params": tree, "opt_state": {"0": {"mu": tree}}, "step": np.zeros((), np.float32)}
        write_checkpoint(self.prefix, state)
        self.expect_tensors(self.convert()[1], tensors)
        write_checkpoint(self.prefix, state, version=None)
        self.expect_refused("training state without a version")

    def test_files_without_a_version_hold_parameters_alone(self):
        config, tensors = fixture("vmoe_top1")
        write_checkpoint(self.prefix, flax_tree(config, tensors), version=None)
        self.expect_tensors(self.convert()[1], tensors)

    def test_bfloat16_becomes_float32(self):
        config, tensors = fixture("vmoe_top1")
        rounded = {name: (to_bfloat16(tensor).astype(np.uint32) << 16).view(np.float32)
                   for name, tensor in tensors.items()}
        write_checkpoint(self.prefix, flax_tree(config, tensors), bfloat16=True)
        self.expect_tensors(self.convert()[1], rounded)

    def test_damaged_files_are_refused_by_name(self):
        config, tensors = fixture("vmoe_top1")
        tree = flax_tree(config, tensors)
        shard = pathlib.Path(f"{self.prefix}.data-00001-of-00003")
        write_checkpoint(self.prefix, tree)
        whole = shard.read_bytes()
        shard.unlink()
        self.expect_refused("data-00001-of-00003: No such file")
        shard.write_bytes(whole[:-10])
        self.expect_refused("data-00001-of-00003: is not a file of such a checkpoint")
        shard.write_bytes(pack({"__msgpack_array_chunk_a87ca2__": True}))
        self.expect_refused("elements of shape .* are missing")
        shard.write_bytes(pack({"__msgpack_array_chunk_a87ca2__": True, "0": [[[], 5]]}))
        self.expect_refused("data-00001-of-00003")
        shard.write_bytes(pack([1, 2]))
        self.expect_refused("holds no chunks")
        write_checkpoint(self.prefix, tree, version="20300101")
        self.expect_refused("version '20300101' is not known")
        pathlib.Path(f"{self.prefix}.index").write_bytes(b"")
        self.expect_refused("checkpoint.index: is not a file of such a checkpoint")

    def test_a_chunk_twice_or_of_the_wrong_size_is_refused(self):
        array = np.arange(6, dtype=np.float32)
        write_checkpoint(self.prefix, {"a": array}, shard_count=1)
        shard = pathlib.Path(f"{self.prefix}.data-00000-of-00001")
        place = msgpack.ExtType(6, slice_nd_bytes([(0, 6)]))
        for chunks, message in (([[[ndarray_extension(array, "float32")], place]] * 2, "missing"),
                                ([[[ndarray_extension(array[:5], "float32")], place]], "has 5 elements, not 6")):
            shard.write_bytes(pack({"__msgpack_array_chunk_a87ca2__": True, "0": chunks}))
            with self.assertRaisesRegex(CheckpointError, message):
                read_parameters(self.prefix)

    def test_other_models_are_refused_by_array(self):
        config, tensors = fixture("vmoe_top1")
        tree = flax_tree(config, tensors)
        write_checkpoint(self.prefix, tree | {"MapHead": {"probe": np.ones((1, 1, 8), np.float32)}})
        self.expect_refused("no place in a V-MoE: MapHead/probe")
        write_checkpoint(self.prefix, {name: node for name, node in tree.items() if name != "cls"})
        self.expect_refused("has no cls")
        tree["head"]["bias"] = np.ones(5, np.float32)
        write_checkpoint(self.prefix, tree)
        self.expect_refused(r"head/bias has the shape \[5\], expected \[1\]")


if __name__ == "__main__":
    unittest.main()
