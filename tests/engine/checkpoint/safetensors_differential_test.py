"""Reads thousands of mutated safetensors files with our parser and with the reference: what the reference refuses, we
refuse too.

    safetensors_differential_test.py PATH_OF_safetensors_probe

Both ways: files that were only rewritten (spaces, order of entries, metadata) must be accepted by both. We are stricter
than the reference, on purpose, in these things only; a file that it accepts and we refuse must be one of them:
  * duplicate keys, of tensors and inside entries and metadata
  * unknown keys inside an entry; an entry written as an array; metadata that is null
  * names above 4096 bytes, ranks above 8, more than 250,000 tensors
  * integers above 2^53
  * space before the header's '{', which the format text forbids
  * types that the reference knows and we do not
"""

import json
import pathlib
import random
import struct
import subprocess
import sys
import tempfile

import safetensors

NUM_FILES = 6000
STRICTER = ("duplicate key", "unknown key", "an array where none belongs", "__metadata__: null", "a tensor name has",
            "more than 8 numbers", "more than 250000 tensors", "an integer above 2^53", "does not begin with '{'",
            "unknown dtype")
SIZES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1,
         "F8_E4M3": 1, "F8_E5M2": 1}
STRANGE = [0, 1, -1, 2, 8, 9, 255, 2**31, 2**32, 2**53, 2**53 + 1, 2**61, 2**63, 2**64 - 1, 2**64, 1.0, 0.5, 1e300, -0.0,
           None, True, "", "4", "F32", "BF16", "U8", "F128", [], [0], [1, 2, 3], [[1]], {}, {"a": 1}]


def pack(header, data):
    if not isinstance(header, bytes):
        header = json.dumps(header).encode()
    return struct.pack("<Q", len(header)) + header + data


def valid(rng):
    """A correct header as a dict, and its data."""
    header, offset = {}, 0
    for i in range(rng.randint(0, 5)):
        dtype = rng.choice(list(SIZES))
        shape = [rng.randint(0, 4) for _ in range(rng.randint(0, 4))]
        size = SIZES[dtype]
        for dim in shape:
            size *= dim
        header[f"t{i}"] = {"dtype": dtype, "shape": shape, "data_offsets": [offset, offset + size]}
        offset += size
    return header, rng.randbytes(offset)


def rewritten(rng):
    """Still correct: order, spaces and metadata changed."""
    header, data = valid(rng)
    entries = list(header.items())
    rng.shuffle(entries)
    if rng.random() < 0.5:
        entries.insert(0, ("__metadata__", {"format": "pt", "é\n": ""}))
    entries = {k: dict(rng.sample(list(v.items()), len(v))) for k, v in entries}
    text = json.dumps(entries, indent=rng.choice([None, 0, 2]), ensure_ascii=rng.random() < 0.5)
    return pack(text.encode() + b" " * rng.randint(0, 9), data)


def changed_value(rng):
    """One value somewhere in the header replaced."""
    header, data = valid(rng)
    header.setdefault("t0", {"dtype": "U8", "shape": [0], "data_offsets": [len(data)] * 2})
    entry = rng.choice(list(header.values()))
    where = rng.choice(["dtype", "shape", "data_offsets", "dim", "offset", "entry", "extra", "drop", "metadata"])
    strange = rng.choice(STRANGE)
    if where in ("dtype", "shape", "data_offsets"):
        entry[where] = strange
    elif where == "dim":
        entry["shape"].insert(rng.randint(0, len(entry["shape"])), strange)
    elif where == "offset":
        entry["data_offsets"][rng.randint(0, 1)] = strange
    elif where == "entry":
        header[rng.choice(list(header))] = strange
    elif where == "extra":
        entry["extra"] = strange
    elif where == "drop":
        entry.pop(rng.choice(list(entry)))
    else:
        header["__metadata__"] = rng.choice([strange, {"k": strange}])
    return pack(header, data)


def shifted(rng):
    """Offsets moved a little: holes, overlaps, swaps, wrong ends."""
    header, data = valid(rng)
    for entry in header.values():
        if rng.random() < 0.5:
            entry["data_offsets"] = [max(0, o + rng.choice([-8, -1, 0, 0, 1, 4])) for o in entry["data_offsets"]]
    return pack(header, data + rng.choice([b"", b"", b"\0", b"\0" * 8]))


def changed_bytes(rng):
    """Bytes of the whole file flipped, dropped, doubled or cut."""
    file = bytearray(rewritten(rng))
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(len(file))
        kind = rng.randrange(5)
        if kind == 0:
            file[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            file[at] = rng.choice(b'{}[]",:0-\x00 ef.\xff')
        elif kind == 2:
            del file[at]
        elif kind == 3:
            file.insert(at, file[at])
        else:
            del file[at:]
        if not file:
            break
    return bytes(file)


def changed_text(rng):
    """Pieces of the header's text replaced, length kept right."""
    header, data = valid(rng)
    text = json.dumps(header)
    pairs = [("[", "[0,"), ("]", ",1]"), ("]", "]]"), ("}", "}}"), ('"t0"', '"t1"'), ('"shape"', '"dtype"'), (": ", ":-"),
             (", ", ",,"), ('"', "'"), ("0", "00"), ("1", "1e0"), ("1", "1.0"), ("{", "{ "), ("}", "}\0"), ("}", "} x"),
             ('"t0"', '"\\u0074\\u0031"'), ('"t0"', '"\\ud800"'), ("{", '{"t0":{},'), ("{", "\ufeff{"), ("{", " {"),
             ('"dtype"', '"dtype": "U8", "dtype"'), ("[0", "[-0"), ("[", "[" * 200)]
    old, new = rng.choice(pairs)
    return pack(text.replace(old, new, rng.choice([1, 1, -1])).encode(), data)


def length_field(rng):
    file = bytearray(rewritten(rng))
    length = struct.unpack("<Q", file[:8])[0]
    file[:8] = struct.pack("<Q", rng.choice([0, 1, length - 1, length + 1, len(file) - 8, len(file), 2**32, 2**63,
                                             2**64 - 8, 2**64 - 1, 100_000_000, 100_000_001]) % 2**64)
    return bytes(file)


def reference_accepts(file):
    try:
        safetensors.deserialize(file)
        return True
    except Exception:  # the reference raises several types
        return False


def main():
    rng = random.Random(20240607)
    makers = [rewritten, changed_value, shifted, changed_bytes, changed_text, length_field]
    files = [(maker.__name__, maker(rng)) for maker in (makers[i % len(makers)] for i in range(NUM_FILES))]
    with tempfile.TemporaryDirectory() as folder:
        paths = []
        for i, (_, file) in enumerate(files):
            paths.append(pathlib.Path(folder) / f"{i}.safetensors")
            paths[-1].write_bytes(file)
        probe = subprocess.run([sys.argv[1]], input="\n".join(map(str, paths)) + "\n", capture_output=True, text=True,
                               check=True)
    ours = probe.stdout.splitlines()
    assert len(ours) == len(files), f"{len(ours)} answers for {len(files)} files"

    both = neither = stricter = 0
    failures = []
    for (kind, file), answer in zip(files, ours):
        reference = reference_accepts(file)
        accepted = answer == "ok"
        both += reference and accepted
        neither += not reference and not accepted
        stricter += reference and not accepted
        if accepted and not reference:
            failures.append(f"{kind}: the reference refuses this and we accept it: {file[:300]!r}")
        elif reference and not accepted and (kind == "rewritten" or not any(reason in answer for reason in STRICTER)):
            failures.append(f"{kind}: the reference accepts this and we say {answer!r}: {file[:300]!r}")
    print(f"{len(files)} files: both accept {both}, both refuse {neither}, only we refuse {stricter}")
    print("\n".join(failures[:20]))
    assert both > NUM_FILES / 10 and neither > NUM_FILES / 10
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
