"""Limits of connections: what is half-open is closed and its work given up; age, streams, messages and headers."""

import os
import signal
import subprocess
import sys
import time

import grpc
from raw_http2 import MAX_CONCURRENT_STREAMS, MAX_HEADER_LIST_SIZE, Connection, headers
from serving import Server, arguments, check, code_of, expert_service_pb2, inference_service_pb2_grpc, pb, until

SHORT = ["--keepalive-time=1", "--keepalive-timeout=3", "--handshake-timeout=1.5"]
STREAMS, CHOICES = 128, 4  # 512,000 tokens: many more than are generated before the connection is given up
CHILD = f"""
import sys
sys.path.insert(0, sys.argv[2])
from serving import inference_service_pb2_grpc, pb
import grpc
stub = inference_service_pb2_grpc.InferenceServiceStub(grpc.insecure_channel(sys.argv[1]))
request = pb.GenerateRequest(text="The ", max_tokens=1000, n={CHOICES}, ignore_eos=True)
streams = [stub.GenerateStream(request) for _ in range({STREAMS})]
next(streams[0])
print("token", flush=True)
for stream in streams:
    list(stream)
"""


def closed_after(port, *, begin=True, send=b""):
    """Seconds that the server leaves a connection open."""
    start = time.monotonic()
    with Connection(port, begin=begin) as connection:
        connection.send(send)
        connection.read()
    return time.monotonic() - start


def seconds_of_a_call(server):
    """On a busy machine this test's own connection may miss a ping of the short keepalive: then it calls again."""
    for attempt in range(3):
        start = time.monotonic()
        try:
            server.inference.Generate(pb.GenerateRequest(text="The ", max_tokens=5))
            return time.monotonic() - start
        except grpc.RpcError as error:
            if error.code() != grpc.StatusCode.UNAVAILABLE or attempt == 2:
                raise


def check_half_open(args):
    """Clients whose TCP connection is up, but that answer nothing."""
    with Server(args, *SHORT, "--max-num-queued-reqs=1000") as server:
        server.inference.GetModel(pb.GetModelRequest())
        files = server.metric("process_open_fds")
        port = server.facts["port"]
        # The upper bounds are below what would come of the default settings, or of gRPC's.
        seconds = closed_after(port)
        check(1.5 < seconds < 12, f"a client that answers no ping is cut off after {seconds:.1f} s")
        seconds = closed_after(port, begin=False)
        check(1 < seconds < 8, f"a client that never begins is cut off after {seconds:.1f} s")
        seconds = closed_after(port, send=headers(1, "/switchyard.v1.InferenceService/Generate"))  # and never the message
        check(seconds < 12, f"so is one that begins a call and then falls silent, after {seconds:.1f} s")
        for _ in range(5):
            crowd = [Connection(port, begin=i % 2 == 0) for i in range(40)]
            seconds = seconds_of_a_call(server)
            for connection in crowd:
                connection.read()
            if seconds < 1:  # else it was the crowd, which goes after 1.5 s, or another load on this machine
                break
        check(seconds < 1, "forty of them do not hold up others")
        # A descriptor is closed a little after the connection.
        check(until(lambda: server.metric("process_open_fds") <= files + 1), "all their descriptors are free again")
        check_stopped_client(server)


def check_stopped_client(server):
    """A real client that is frozen in the middle of a stream, as by a dead machine or a cable that was cut."""
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, server.address, os.path.dirname(os.path.abspath(__file__))],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    try:
        child.stdout.readline()
        check(until(lambda: server.metric("switchyard_open_calls") == STREAMS), "a client has opened its streams")
        child.send_signal(signal.SIGSTOP)
        check(server.metric("switchyard_num_requests_running") > 0, "a client is frozen while its streams run")
        start = time.monotonic()
        check(server.wait_until_idle(), f"its requests and KV blocks are free after {time.monotonic() - start:.1f} s")
        ended = {r: server.metric("switchyard_request_success_total", finish_reason=r) for r in ("cancelled", "length")}
        check(
            sum(ended.values()) >= STREAMS * CHOICES and ended["cancelled"] >= STREAMS,
            f"because it was given up: {ended}",
        )
    finally:
        child.kill()
        child.wait()


def check_age(args):
    with Server(args, "--max-connection-age=1", "--max-connection-age-grace=2") as server:
        start = time.monotonic()
        watch = server.experts.WatchExpertLoad(expert_service_pb2.WatchExpertLoadRequest(), timeout=60)
        code, _ = code_of(lambda: watch)
        seconds = time.monotonic() - start
        check(code == grpc.StatusCode.UNAVAILABLE and seconds > 1, f"an old connection ends after {seconds:.1f} s")
        end = time.monotonic() + 5
        answered = 0
        while time.monotonic() < end or answered < 20:
            server.inference.GetModel(pb.GetModelRequest(), timeout=60)
            answered += 1
        check(True, f"short calls do not notice: {answered} in a row were answered")


def refused_at_once(port):
    """Whether the server resets a new connection instead of greeting it."""
    try:
        with Connection(port) as connection:
            return connection.read(at_most=1) == b""
    except (ConnectionResetError, BrokenPipeError):
        return True


def greeted(port):
    """A connection that the server has taken; none if it has no room."""
    connection = Connection(port)
    try:
        connection.settings()
        return connection
    except (ConnectionResetError, BrokenPipeError, EOFError):
        connection.socket.close()
        return None


def check_room_after_half_open(args):
    with Server(args, *SHORT, "--max-connections=4") as server:
        port = server.facts["port"]
        crowd = [Connection(port, begin=i % 2 == 0) for i in range(4)]
        for connection in crowd:
            connection.read()
        crowd = [until(lambda: greeted(port)) for _ in range(4)]
        check(all(crowd), "half-open connections make room once they are cut off")


def check_connections(args):
    # Nothing is cut off here, however long this takes.
    flags = ["--max-connections=5", "--keepalive-time=600", "--handshake-timeout=600"]
    with Server(args, *flags) as server:
        port = server.facts["port"]
        server.inference.GetModel(pb.GetModelRequest())  # the first of the five, which answers pings
        files = server.metric("process_open_fds")
        crowd = [Connection(port, begin=i % 2 == 0) for i in range(4)]
        check(all(refused_at_once(port) for _ in range(10)), "with five connections open, others are reset")
        check(server.metric("switchyard_connections_refused_total") == 10, "and counted")
        check(server.inference.GetModel(pb.GetModelRequest()).name, "those that are in are served")
        for connection in crowd:
            connection.socket.close()
        with server.new_channel() as channel:
            stub = inference_service_pb2_grpc.InferenceServiceStub(channel)
            stub.GetModel(pb.GetModelRequest(), wait_for_ready=True, timeout=60)
        check(server.wait_until_idle(), "clients that leave make room at once")
        check(until(lambda: server.metric("process_open_fds") <= files), "no descriptor is left behind")
        stream = server.inference.GenerateStream(pb.GenerateRequest(text="The ", max_tokens=900, ignore_eos=True))
        next(stream)
        server.terminate()
        check(
            code_of(lambda: stream)[0] == grpc.StatusCode.OK and server.wait() == 0, "a drain ends as without the limit"
        )


def check_sizes(args):
    flags = ["--max-concurrent-streams=7", "--max-message-bytes=4096", "--max-metadata-bytes=2048"]
    with Server(args, *flags) as server:
        with Connection(server.facts["port"]) as connection:
            told = connection.settings()
            check(told[MAX_CONCURRENT_STREAMS] == 7, "clients are told how many calls a connection may have")
            check(told[MAX_HEADER_LIST_SIZE] == 2048, "and how large headers may be")
        for what, request, metadata in [
            ("a message", pb.GenerateRequest(text="x" * 5000, max_tokens=5), []),
            ("headers", pb.GenerateRequest(text="x", max_tokens=5), [("x-large", "x" * 3000)]),
        ]:
            code, text = code_of(lambda: server.inference.Generate(request, metadata=metadata))
            check(code == grpc.StatusCode.RESOURCE_EXHAUSTED, f"{what} over the limit: {code.name} {text[:100]}")
        with server.new_channel() as channel:  # gRPC may close a connection that brought too large headers
            stub = inference_service_pb2_grpc.InferenceServiceStub(channel)
            small = pb.GenerateRequest(text="x" * 500, max_tokens=5)
            check(stub.Generate(small, metadata=[("x-small", "x" * 500)]).choices, "smaller ones pass")


def main():
    args = arguments(__doc__)
    check_half_open(args)
    check_age(args)
    check_connections(args)
    check_room_after_half_open(args)
    check_sizes(args)


if __name__ == "__main__":
    main()
