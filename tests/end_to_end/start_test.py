"""What cannot start says why and exits 2 or 3 at once; logging never holds up serving."""

import fcntl
import os
import socket
import subprocess
import tempfile
import time

import grpc
from serving import Server, arguments, check, free_port, inference_service_pb2_grpc, pb, until


def run(args, *flags, environment=None):
    """(exit code, seconds, stderr) of a start that must fail."""
    start = time.monotonic()
    result = subprocess.run(
        [args.server_binary, *flags],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, **(environment or {})},
    )
    return result.returncode, time.monotonic() - start, result.stderr


def check_refusals(args):
    code, seconds, text = run(
        args, "--max-num-seqs=0", "--bogus", "--port=x", environment={"SWITCHYARD_BLOCK_SIZE": "many"}
    )
    named = [
        flag for flag in ("--max-num-seqs", "--bogus", "--port", "SWITCHYARD_BLOCK_SIZE", "--model") if flag in text
    ]
    check(code == 2 and len(named) == 5, f"five mistakes are listed at once, exit 2, {seconds:.2f} s")
    with tempfile.TemporaryDirectory() as empty:
        for model in ("/nonexistent-model", empty):
            code, seconds, text = run(args, "--model", model, "--port=0", "--admin-port=0")
            check(
                code == 2 and text.strip(), f"a folder without a model: exit 2: {text.strip().splitlines()[-1][:120]}"
            )
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        for flag, other in (("--port", "--admin-port"), ("--admin-port", "--port")):
            code, seconds, text = run(
                args,
                "--model",
                args.model,
                "--host=127.0.0.1",
                "--admin-host=127.0.0.1",
                f"{flag}={port}",
                f"{other}=0",
            )
            check(
                code == 2 and f"127.0.0.1:{port}" in text, f"{flag} in use: exit 2, names the address, {seconds:.2f} s"
            )
    code, seconds, text = run(
        args,
        "--model",
        args.model,
        "--port=0",
        "--admin-port=0",
        "--kv-cache-memory=64T",
        "--max-num-seqs=60000",
        "--max-num-batched-tokens=60000",
    )
    check(code == 3, f"not enough memory: exit {code}: {text.strip().splitlines()[-1][:160]}")
    code, seconds, refused = run(
        args, "--model", args.model, "--port=0", "--admin-port=0", "--no-enable-chunked-prefill"
    )
    named = all(flag in refused for flag in ("--max-num-batched-tokens", "--max-num-seqs", "--max-model-len"))
    check(
        code == 2 and named,
        f"steps too small for unchunked prompts: exit 2, {seconds:.2f} s: {refused.strip()[-160:]}",
    )
    for text in (run(args, "--bogus")[2], text):
        check("terminate called" not in text and "Aborted" not in text, "no stack trace, no abort")


def check_blocked_log(args):
    """stderr is a full disk, or a pipe that nobody reads and that is full already."""
    unread, full_pipe = os.pipe()
    fcntl.fcntl(full_pipe, fcntl.F_SETFL, os.O_NONBLOCK)
    try:
        while True:
            os.write(full_pipe, b"x" * 4096)
    except BlockingIOError:
        fcntl.fcntl(full_pipe, fcntl.F_SETFL, 0)
    for stderr, what in ((os.open("/dev/full", os.O_WRONLY), "a full disk"), (full_pipe, "a full pipe")):
        port = free_port()
        process = subprocess.Popen(
            [
                args.server_binary,
                "--model",
                args.model,
                "--host=127.0.0.1",
                f"--port={port}",
                "--admin-port=0",
                "--kv-cache-memory=64M",
                "--log-level=debug",
            ],
            stderr=stderr,
        )
        try:
            check_serves(port, what)
            process.terminate()
            check(process.wait(60) == 0, "and exits 0")
        finally:
            process.kill()


def check_serves(port, what):
    request = pb.GenerateRequest(text="The ", max_tokens=5, ignore_eos=True)

    def reply():
        # A channel of its own each time: one that was refused once backs off for longer than the server needs.
        with grpc.insecure_channel(f"127.0.0.1:{port}", [("grpc.use_local_subchannel_pool", 1)]) as channel:
            try:
                return inference_service_pb2_grpc.InferenceServiceStub(channel).Generate(request, timeout=30)
            except grpc.RpcError:
                return None

    answer = until(reply)
    check(answer is not None and answer.usage.completion_tokens == 5, f"serves with stderr on {what}")


def check_kill_and_restart(args):
    port = free_port()
    texts = set()
    for _ in range(3):
        with Server(args, f"--port={port}") as server:
            texts.add(server.inference.Generate(pb.GenerateRequest(text="The ", max_tokens=10, seed=3)).choices[0].text)
            server.process.kill()
            server.process.wait()
    check(len(texts) == 1, "killed and restarted on the same port three times: the same answer each time")


def main():
    args = arguments(__doc__)
    check_refusals(args)
    check_blocked_log(args)
    check_kill_and_restart(args)


if __name__ == "__main__":
    main()
