"""Reads the sharded checkpoints that google-research/vmoe writes, without JAX.

A checkpoint of prefix P is P.index and P.data-00000-of-00002, P.data-00001-of-00002, ..., each one msgpack object.
Facts from vmoe/checkpoints/partitioned.py, serialization.py and types.py, and from flax/serialization.py:

    P.index   {"shard_count": int, "index": nested dict whose leaves are IndexInfo, "version": "20220622" or absent}
    P.data-*  {"__msgpack_array_chunk_a87ca2__": true, "<number>": [[[ndarray, ...], SliceNd], ...], ...}

Arrays are numbered as JAX flattens the nested dict: keys of every level sorted as text. A chunk is the elements of one
SliceNd of its array, row-major, flattened and cut into pieces of at most 1 GiB. Types of msgpack extension, each again
msgpack inside:

    1  ndarray    (shape, dtype name, bytes, little endian)
    5  Slice      (start, stop, step)
    6  SliceNd    a Slice (as bytes) per dimension
    8  IndexInfo  (bytes of (shape, dtype name, weak type, {}), a SliceNd (as bytes) per chunk, shard of each chunk)
"""
import math

import msgpack
import numpy as np

CHUNKS_KEY = "__msgpack_array_chunk_a87ca2__"
VERSIONS = ("20220622", None)
NDARRAY, SLICE, SLICE_ND, INDEX_INFO = 1, 5, 6, 8


class CheckpointError(Exception):
    """The checkpoint is not what the format says. Names the file."""


class ArrayInfo:
    """One array of the index."""

    def __init__(self, data):
        shape, slices, shards = msgpack.unpackb(data, raw=True)
        self.shape, dtype, _, _ = msgpack.unpackb(shape, raw=True)
        self.shape = tuple(self.shape)
        self.dtype = "float32" if dtype == b"bfloat16" else np.dtype(dtype.decode())  # in memory
        self.slices = [_slice_nd(each) for each in slices]
        self.shards = list(shards)
        if len(self.slices) != len(self.shards):
            raise ValueError("as many chunks as shards are needed")


def _slice(data):
    start, stop, step = msgpack.unpackb(data, raw=True)
    if step not in (None, 1) or not 0 <= start <= stop:
        raise ValueError(f"slice {start}:{stop}:{step}")
    return slice(start, stop)


def _slice_nd(data):
    return tuple(_slice(each) for each in msgpack.unpackb(data, raw=True))


def _ndarray(data):
    shape, dtype, buffer = msgpack.unpackb(data, raw=True)
    if dtype == b"bfloat16":  # the upper half of a float32
        return (np.frombuffer(buffer, "<u2").astype(np.uint32) << 16).view(np.float32).reshape(shape)
    return np.frombuffer(buffer, np.dtype(dtype.decode()).newbyteorder("<")).reshape(shape)


def _extension(code, data):
    readers = {NDARRAY: _ndarray, SLICE: _slice, SLICE_ND: _slice_nd, INDEX_INFO: ArrayInfo}
    if code not in readers:
        raise ValueError(f"msgpack extension {code}")
    return readers[code](data)


def _read(path):
    try:
        with open(path, "rb") as file:
            return msgpack.unpackb(file.read(), ext_hook=_extension, raw=False)
    except OSError as error:
        raise CheckpointError(f"{path}: {error.strerror}") from error
    except Exception as error:  # whatever msgpack and NumPy raise for bytes that are not what they should be
        raise CheckpointError(f"{path}: is not a file of such a checkpoint: {error}") from error


def _number_arrays(index, path=()):
    """[(path, ArrayInfo)] in the order of their numbers."""
    if isinstance(index, ArrayInfo):
        return [("/".join(path), index)]
    if not isinstance(index, dict) or not all(isinstance(key, str) for key in index):
        raise CheckpointError(f"index: {'/'.join(path) or 'the top'} is neither a dict nor an array")
    return [found for key in sorted(index) for found in _number_arrays(index[key], (*path, key))]


def read_parameters(prefix):
    """{"Encoder/encoderblock_0/...": array} of the model's parameters; bfloat16 becomes float32.

    A checkpoint holds either the parameters alone, as the published ones, or a whole training state with them at
    "params". CheckpointError: a file is missing or damaged, or an array is not covered by its chunks.
    """
    index = _read(f"{prefix}.index")
    if not isinstance(index, dict) or not isinstance(index.get("shard_count"), int) or "index" not in index:
        raise CheckpointError(f"{prefix}.index: has no shard_count and index")
    if index.get("version") not in VERSIONS:
        raise CheckpointError(f"{prefix}.index: version {index['version']!r} is not known")
    tree, shard_count = index["index"], index["shard_count"]
    is_state = isinstance(tree, dict) and "params" in tree
    if is_state and index.get("version") is None:
        # Such files number the arrays as a class of its day listed its fields, not by name.
        raise CheckpointError(f"{prefix}.index: a training state without a version cannot be read")
    arrays = _number_arrays(tree)
    wanted = {number: (path.removeprefix("params/"), info) for number, (path, info) in enumerate(arrays)
              if not is_state or path.startswith("params/")}
    found = {number: np.empty(info.shape, info.dtype) for number, (_, info) in wanted.items()}
    missing = {number: math.prod(info.shape) for number, (_, info) in wanted.items()}
    for shard in sorted({shard for _, info in wanted.values() for shard in info.shards}):
        path = f"{prefix}.data-{shard:05d}-of-{shard_count:05d}"
        try:
            _fill(path, {number: info for number, (_, info) in wanted.items()}, found, missing)
        except (TypeError, ValueError) as error:
            raise CheckpointError(f"{path}: the chunks are damaged: {error}") from error
    for number, count in missing.items():
        if count != 0:
            raise CheckpointError(f"{prefix}: the chunks of {wanted[number][0]} are not all of it: {count} elements "
                                  f"of shape {wanted[number][1].shape} are missing")
    return {wanted[number][0]: array for number, array in found.items()}


def _fill(path, wanted, found, missing):
    """Copies the chunks of one shard to their places, and counts them off."""
    shard = _read(path)
    if not isinstance(shard, dict) or not shard.pop(CHUNKS_KEY, False):
        raise CheckpointError(f"{path}: holds no chunks of arrays")
    for key, chunks in shard.items():
        number = int(key)
        if number not in wanted:
            continue
        for pieces, place in chunks:
            if place not in wanted[number].slices:
                raise CheckpointError(f"{path}: array {number} has a chunk {place} that the index does not know")
            target = found[number][place]
            values = np.concatenate([piece.ravel() for piece in pieces])
            if values.size != target.size:
                raise CheckpointError(f"{path}: a chunk of array {number} has {values.size} elements, not "
                                      f"{target.size}")
            found[number][place] = values.reshape(target.shape)
            missing[number] -= values.size
