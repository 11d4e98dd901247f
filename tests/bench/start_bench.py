"""How long a server takes from its start to ready, against reading the same files once, and its peak memory.

    python3 tests/bench/start_bench.py --server build/server/switchyard-server [--gib 4] [--rounds 3] [--keep FOLDER]

Makes a Mixtral folder of random bfloat16 weights in shards of 1 GiB, then in turn: `cat` of the shards to /dev/null and
a start of the server until /readyz answers 200. Needs Python 3 alone. The states:

    cold    the page cache was just dropped (needs root)
    warm    the files are in the page cache; nothing freed memory for 5 s
    freed   the files are in the page cache; a process just used and freed more memory than the start takes

The floor of a start is the `cat` of the same state, and the time that the system takes to give a process as much new
memory, which `cat` does not ask for: measured too, with one thread. A virtual machine whose host takes back what is
free pays for each page again where it was not just freed; elsewhere warm and freed are the same.
"""

import argparse
import http.client
import json
import mmap
import os
import pathlib
import shutil
import signal
import socket
import statistics
import struct
import subprocess
import tempfile
import time

HIDDEN, WIDTH, EXPERTS, VOCAB, HEADS = 2048, 2048, 16, 4096, 16
SHARD_BYTES = 1 << 30
REST_SECONDS = 5  # hosts that take back free memory have done so by then
# Of the bundled model, whose vocabulary has VOCAB entries.
TOKENIZER = pathlib.Path(__file__).resolve().parents[2] / "deploy/models/switchyard-demo/tokenizer.json"


def tensors(num_layers):
    """(name, shape) of every tensor, in an order as checkpoints have it."""
    yield "model.embed_tokens.weight", (VOCAB, HIDDEN)
    for layer in range(num_layers):
        prefix = f"model.layers.{layer}."
        yield prefix + "input_layernorm.weight", (HIDDEN,)
        yield prefix + "post_attention_layernorm.weight", (HIDDEN,)
        for name in "qkvo":
            yield f"{prefix}self_attn.{name}_proj.weight", (HIDDEN, HIDDEN)
        yield prefix + "block_sparse_moe.gate.weight", (EXPERTS, HIDDEN)
        for expert in range(EXPERTS):
            for name, shape in (("w1", (WIDTH, HIDDEN)), ("w2", (HIDDEN, WIDTH)), ("w3", (WIDTH, HIDDEN))):
                yield f"{prefix}block_sparse_moe.experts.{expert}.{name}.weight", shape
    yield "model.norm.weight", (HIDDEN,)
    yield "lm_head.weight", (VOCAB, HIDDEN)


def num_bytes(shape):
    elements = 1
    for size in shape:
        elements *= size
    return 2 * elements


def write_shard(path, content, noise):
    header, offset = {}, 0
    for name, shape in content:
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [offset, offset + num_bytes(shape)]}
        offset += num_bytes(shape)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        while offset > 0:
            offset -= file.write(noise[: min(offset, len(noise))])
        file.flush()
        os.fsync(file.fileno())


def make_folder(folder, gib):
    """Random finite bfloat16 numbers around 0.01; returns the bytes of all tensors."""
    per_layer = sum(num_bytes(shape) for name, shape in tensors(1) if ".layers." in name)
    num_layers = max(1, round(gib * (1 << 30) / per_layer))
    config = {
        "model_type": "mixtral", "hidden_size": HIDDEN, "intermediate_size": WIDTH, "num_hidden_layers": num_layers,
        "num_attention_heads": HEADS, "num_key_value_heads": HEADS, "num_local_experts": EXPERTS,
        "num_experts_per_tok": 2, "vocab_size": VOCAB, "max_position_embeddings": 2048, "torch_dtype": "bfloat16",
    }
    (folder / "config.json").write_text(json.dumps(config))
    shutil.copy(TOKENIZER, folder)
    noise = bytearray(os.urandom(1 << 24))
    noise[1::2] = bytes(0x3C | (byte & 0x80) for byte in noise[1::2])  # sign, and exponents that keep values small
    shards, size = [[]], 0
    for name, shape in tensors(num_layers):
        if size > 0 and size + num_bytes(shape) > SHARD_BYTES:
            shards.append([])
            size = 0
        shards[-1].append((name, shape))
        size += num_bytes(shape)
    weight_map = {}
    for i, content in enumerate(shards):
        file_name = f"model-{i + 1:05}-of-{len(shards):05}.safetensors"
        write_shard(folder / file_name, content, noise)
        weight_map.update((name, file_name) for name, _ in content)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return sum(num_bytes(shape) for name, shape in tensors(num_layers))


def drop_cache():
    os.sync()
    pathlib.Path("/proc/sys/vm/drop_caches").write_text("3")


def read_all(folder):
    start = time.monotonic()
    with open(os.devnull, "wb") as null:
        subprocess.run(["cat", *sorted(folder.glob("*.safetensors"))], stdout=null, check=True)
    return time.monotonic() - start


def touch_memory(size):
    """Seconds until each 2 MiB of new memory was written to once."""
    start = time.monotonic()
    with mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        memory.madvise(mmap.MADV_HUGEPAGE)
        for offset in range(0, size, 1 << 21):
            memory[offset] = 1
        return time.monotonic() - start


def prepare(state, folder, size):
    """The page cache and the free memory of a state, for what reads the files or takes `size` bytes of memory."""
    if state == "cold":
        drop_cache()
        return
    if state == "warm":
        time.sleep(REST_SECONDS)
    else:
        touch_memory(size * 9 // 8)
    read_all(folder)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def is_ready(port):
    try:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=1)
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except OSError:
        return False


def start_server(server, folder):
    """Seconds until ready, and the peak of resident memory in bytes until then."""
    port = free_port()
    command = [server, "--model", str(folder), "--port", str(free_port()), "--admin-port", str(port), "--device", "cpu",
               "--max-model-len", "512", "--kv-cache-memory", "256M"]
    start = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    while not is_ready(port):
        if process.poll() is not None:
            raise SystemExit(f"the server ended with {process.returncode}:\n{process.stderr.read()}")
        time.sleep(0.005)
    seconds = time.monotonic() - start
    status = pathlib.Path(f"/proc/{process.pid}/status").read_text()
    peak = next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM"))
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    return seconds, peak


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", required=True)
    parser.add_argument("--gib", type=float, default=4.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--states", nargs="+", choices=("cold", "warm", "freed"), default=("cold", "warm", "freed"))
    parser.add_argument("--keep", type=pathlib.Path, help="make the model here, or use what is there")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or pathlib.Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / "model.safetensors.index.json").exists():
            make_folder(folder, options.gib)
        weights = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
        print(f"{weights / (1 << 30):.2f} GiB in {len(list(folder.glob('*.safetensors')))} shards")
        for state in options.states:
            reads, touches, starts, peaks = [], [], [], []
            for _ in range(options.rounds):
                prepare(state, folder, weights)
                touches.append(touch_memory(weights))
                prepare(state, folder, weights)
                reads.append(read_all(folder))
                prepare(state, folder, weights)
                seconds, peak = start_server(options.server, folder)
                starts.append(seconds)
                peaks.append(peak)
            read, start = statistics.median(reads), statistics.median(starts)
            print(f"{state}: cat {read:.2f} s ({', '.join(f'{r:.2f}' for r in reads)}), "
                  f"as much new memory {statistics.median(touches):.2f} s, "
                  f"start {start:.2f} s ({', '.join(f'{s:.2f}' for s in starts)}), ratio {start / read:.2f}; "
                  f"peak memory {max(peaks) / weights:.3f} x the weights", flush=True)


if __name__ == "__main__":
    main()
