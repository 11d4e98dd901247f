"""A real server process and a real gRPC client for the scripts of this folder.

    with Server(args) as server:
        reply = server.inference.Generate(pb.GenerateRequest(text="hello", max_tokens=5))

Stubs are generated from proto/ into a temporary folder when this module is imported.
"""

import argparse
import json
import os
import pathlib
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

import grpc
import grpc_tools
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_tools import protoc

ROOT = pathlib.Path(__file__).resolve().parents[2]


def _generate_stubs():
    folder = tempfile.mkdtemp(prefix="switchyard-stubs-")
    well_known = pathlib.Path(grpc_tools.__file__).parent / "_proto"
    protos = sorted((ROOT / "proto" / "switchyard" / "v1").glob("*.proto"))
    if protoc.main(
        [
            "protoc",
            f"-I{ROOT / 'proto'}",
            f"-I{well_known}",
            f"--python_out={folder}",
            f"--grpc_python_out={folder}",
            *map(str, protos),
        ]
    ):
        sys.exit("proto/ could not be compiled")
    sys.path.insert(0, folder)


_generate_stubs()
from switchyard.v1 import expert_service_pb2, expert_service_pb2_grpc  # noqa: E402
from switchyard.v1 import inference_service_pb2 as pb, inference_service_pb2_grpc  # noqa: E402

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


def arguments(description, **more):
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--server-binary", required=True)
    parser.add_argument("--model", required=True, help="folder of a model")
    for name, default in more.items():
        parser.add_argument("--" + name.replace("_", "-"), type=type(default), default=default)
    return parser.parse_args()


def free_port():
    """For programs that must be told one. None of those that the kernel gives to connections meanwhile, nor to who asks
    for any."""
    for port in random.sample(range(10_000, 32_000), 1000):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
                return port
            except OSError:
                pass
    raise RuntimeError("no port is free")


def until(condition, seconds=60):
    """What `condition()` gives once it holds, else what it gave last. Patient, because machines are busy: how soon
    something must hold is no business of a test."""
    end = time.monotonic() + seconds
    while not (result := condition()) and time.monotonic() < end:
        time.sleep(0.05)
    return result


def check(condition, what):
    """Prints what holds, or ends the script."""
    if not condition:
        print(f"FAILED: {what}", flush=True)
        sys.exit(1)
    print(f"ok: {what}", flush=True)


class Server:
    """One server process on free ports. `flags` are added to the command line, `variables` to the environment."""

    def __init__(self, args, *flags, wait=True, variables=None):
        command = [
            args.server_binary,
            "--model",
            args.model,
            "--host=127.0.0.1",
            "--admin-host=127.0.0.1",
            "--port=0",
            "--admin-port=0",
            "--kv-cache-memory=128M",
            *flags,
        ]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("SWITCHYARD_")}
        environment.update(variables or {})
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
        self.log = []
        self._serving = threading.Event()
        self._reader = threading.Thread(target=self._read_log, daemon=True)
        self._reader.start()
        if wait:
            self.wait_until_serving()

    def _read_log(self):
        for line in self.process.stderr:
            self.log.append(line)
            if '"event":"serving"' in line:
                self._serving.set()
        self._serving.set()

    def wait_for_start(self):
        """Returns when it serves or has given up."""
        self._serving.wait(120)

    def wait_until_serving(self):
        self.wait_for_start()
        lines = [json.loads(line) for line in self.log if '"event":"serving"' in line]
        if not lines:
            sys.exit("the server did not start:\n" + "".join(self.log))
        self.facts = lines[0]
        self.address = f"127.0.0.1:{self.facts['port']}"
        self.channel = self.new_channel()
        self.inference = inference_service_pb2_grpc.InferenceServiceStub(self.channel)
        self.experts = expert_service_pb2_grpc.ExpertServiceStub(self.channel)
        self.health = health_pb2_grpc.HealthStub(self.channel)

    def new_channel(self):
        return grpc.insecure_channel(self.address, options=[("grpc.use_local_subchannel_pool", 1)])

    def admin(self, path):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.facts['admin_port']}{path}", timeout=60) as answer:
            return answer.read().decode()

    def metrics(self):
        """name -> list of (labels, value)"""
        series = {}
        for line in self.admin("/metrics").splitlines():
            match = re.fullmatch(r"([a-z0-9_]+)(?:\{(.*)\})? (\S+)", line)
            if match and not line.startswith("#"):
                labels = dict(re.findall(r'([a-z_]+)="([^"]*)"', match[2] or ""))
                series.setdefault(match[1], []).append((labels, float(match[3])))
        return series

    def metric(self, name, **labels):
        """Sum over the series of `name` that have these labels."""
        found = [value for have, value in self.metrics()[name] if labels.items() <= have.items()]
        return sum(found)

    def wait_until_idle(self):
        names = (
            "switchyard_num_requests_running",
            "switchyard_num_requests_waiting",
            "switchyard_kv_blocks_used",
            "switchyard_open_calls",
        )
        return until(lambda: all(self.metric(name) == 0 for name in names))

    def has_logged(self, event):
        """Waits for it, and until the server has ended at most."""
        written = lambda: any(f'"event":"{event}"' in line for line in list(self.log))
        return until(lambda: written() or not self._reader.is_alive()) and written()

    def terminate(self, signal_number=signal.SIGTERM):
        self.process.send_signal(signal_number)

    def wait(self, seconds=60):
        """The exit code."""
        code = self.process.wait(seconds)
        self._reader.join(60)
        return code

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


def code_of(call):
    """The gRPC status code that `call()` ends with, and its text."""
    try:
        result = call()
        if hasattr(result, "code"):
            for _ in result:
                pass
        return grpc.StatusCode.OK, ""
    except grpc.RpcError as error:
        return error.code(), error.details()
