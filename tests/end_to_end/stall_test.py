"""An engine that makes no progress: every call still gets a status that says so, and the server exits 70.

One step over thousands of tokens on one thread with plain loops takes many seconds: for the watchdog it hangs.
"""

import threading
import time

import grpc
from serving import NOT_SERVING, Server, arguments, check, health_pb2, pb, until

SLOW = (
    "--cpu-isa=scalar",
    "--num-threads=1",
    "--max-num-batched-tokens=16384",
    "--no-enable-prefix-caching",
)


def start_calls(server):
    """A stream that runs, then a call whose prompts make the step that hangs. Results: (code, has the reason)."""
    results, threads, messages = {}, [], []

    def record(name, call, reason):
        try:
            for message in call:
                messages.append(message)
        except grpc.RpcError:
            pass
        details = dict(call.trailing_metadata()).get("grpc-status-details-bin", b"")
        results[name] = (call.code(), reason in details)

    def start(name, request, reason):
        call = server.inference.GenerateStream(request)
        threads.append(threading.Thread(target=record, args=(name, call, reason)))
        threads[-1].start()

    def start_all(reason):
        start("running", pb.GenerateRequest(text="The ", max_tokens=900, ignore_eos=True), reason)
        until(lambda: messages)
        start("prompts", pb.GenerateRequest(token_ids=pb.TokenIds(ids=[5] * 1000), max_tokens=20, n=16), reason)

    def hangs():
        """The stream waits for the step that the prompts are in."""
        before = len(messages)
        time.sleep(1)
        return server.metric("switchyard_open_calls") == 2 and len(messages) == before

    return results, threads, start_all, hangs


def check_statuses(results, threads):
    for thread in threads:
        thread.join(60)
    check(
        results == dict.fromkeys(("running", "prompts"), (grpc.StatusCode.UNAVAILABLE, True)),
        f"all calls end as UNAVAILABLE with the reason: {results}",
    )


def stall(args):
    with Server(args, *SLOW, "--stall-timeout=2.5") as server:
        results, threads, start_all, _ = start_calls(server)
        statuses = []
        watch = server.health.Watch(health_pb2.HealthCheckRequest())

        def read():
            try:
                for response in watch:
                    statuses.append(response.status)
            except grpc.RpcError:
                pass

        threads.append(threading.Thread(target=read))
        threads[-1].start()
        start_all(b"ENGINE_FAILED")
        code = server.wait()
        check(code == 70, f"no progress for --stall-timeout: exit code {code}")
        check_statuses(results, threads)
        check(statuses[-1] == NOT_SERVING, "health said NOT_SERVING")
        check(any('"event":"engine_failed"' in line for line in server.log), "the log says engine_failed")


def stall_while_draining(args):
    with Server(args, *SLOW, "--shutdown-timeout=0.2") as server:
        results, threads, start_all, hangs = start_calls(server)
        start_all(b"DRAINING")
        check(until(hangs), "a step goes on and on")
        start = time.monotonic()
        server.terminate()
        code = server.wait()
        seconds = time.monotonic() - start
        check(code == 70 and seconds < 15, f"SIGTERM while the engine hangs: exit code {code} after {seconds:.2f} s")
        check_statuses(results, threads)


def main():
    args = arguments(__doc__)
    stall(args)
    stall_while_draining(args)


if __name__ == "__main__":
    main()
