"""SIGTERM with 64 streams in flight: every call gets a terminal status, none loses a token, the server exits 0."""

import signal
import threading
import time

import grpc
from serving import Server, arguments, check, code_of, pb


def start_streams(server, count, max_tokens):
    """Threads that each read one stream; (results, threads). A result is (code, tokens received, had usage)."""
    results = [None] * count
    started = threading.Semaphore(0)
    channels = [server.new_channel() for _ in range(4)]

    def read(i):
        call = channels[i % 4].unary_stream(
            "/switchyard.v1.InferenceService/GenerateStream",
            request_serializer=pb.GenerateRequest.SerializeToString,
            response_deserializer=pb.GenerateStreamResponse.FromString,
        )(pb.GenerateRequest(text="The story of ", max_tokens=max_tokens, ignore_eos=True, seed=i))
        tokens, usage = 0, None
        try:
            for message in call:
                if tokens == 0:
                    started.release()
                tokens += sum(len(choice.token_ids) for choice in message.choices)
                usage = message.usage if message.HasField("usage") else usage
        except grpc.RpcError:
            pass
        results[i] = (call.code(), tokens, usage.completion_tokens if usage else None)

    threads = [threading.Thread(target=read, args=(i,)) for i in range(count)]
    for thread in threads:
        thread.start()
    for _ in range(count):
        started.acquire()
    return results, threads


def finish(threads, server):
    start = time.monotonic()
    code = server.wait()
    seconds = time.monotonic() - start
    for thread in threads:
        thread.join(60)
    return code, seconds


def call_until_refused(server):
    """The code of the first call that is refused, and how many were let in: the signal may be on its way yet."""
    server.has_logged("draining")
    admitted = 0
    while True:
        code, _ = code_of(lambda: server.inference.Generate(pb.GenerateRequest(text="x", max_tokens=1)))
        if code != grpc.StatusCode.OK:
            return code, admitted
        admitted += 1


def drain_to_the_end(args, repeat):
    with Server(args, "--max-num-seqs=64") as server:
        results, threads = start_streams(server, 64, 60)
        server.terminate()
        late, admitted = call_until_refused(server)
        code, seconds = finish(threads, server)
        complete = sum(1 for r in results if r == (grpc.StatusCode.OK, 60, 60))
        check(
            complete == 64 and code == 0,
            f"drain {repeat}: {complete} of 64 streams complete, exit {code} after {seconds:.2f} s",
        )
        # The drain takes some sixty steps, and a call that is let in one or two of them.
        check(
            late == grpc.StatusCode.UNAVAILABLE and admitted < 10,
            f"a call after SIGTERM is UNAVAILABLE ({admitted} came before)",
        )


def drain_to_the_limit(args):
    with Server(args, "--shutdown-timeout=0.3") as server:
        results, threads = start_streams(server, 64, 900)
        server.terminate()
        code, seconds = finish(threads, server)
        ended = sum(
            1
            for status, tokens, counted in results
            if status in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.OK) and tokens == counted
        )
        check(ended == 64, f"at the limit {ended} of 64 streams got their status, all tokens and the usage")
        # There is work for seconds, even where it is done ten times as fast.
        cut = sum(1 for status, _, _ in results if status == grpc.StatusCode.UNAVAILABLE)
        check(code == 0 and cut > 0, f"exit {code} after {seconds:.2f} s with a limit of 0.3 s, which cut {cut} off")


def second_signal(args):
    for number, expected in ((signal.SIGTERM, 143), (signal.SIGINT, 130)):
        with Server(args) as server:
            results, threads = start_streams(server, 64, 900)
            server.terminate()
            check(server.has_logged("draining"), "a first signal drains")
            server.terminate(number)
            code, seconds = finish(threads, server)
            code = 128 - code if code < 0 else code
            complete = sum(1 for status, _, _ in results if status == grpc.StatusCode.OK)
            check(
                code == expected and complete == 0,
                f"a second signal ends it with {expected}, and waits for none of 64 streams ({seconds:.2f} s)",
            )


def main():
    args = arguments(__doc__, repeats=3)
    for repeat in range(args.repeats):
        drain_to_the_end(args, repeat + 1)
    drain_to_the_limit(args)
    second_signal(args)


if __name__ == "__main__":
    main()
