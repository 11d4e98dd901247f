"""Thousands of streams cut at random moments by cancel, deadline or a closed connection: nothing may stay behind."""

import asyncio
import collections
import random
import time

import grpc
from serving import Server, arguments, check, inference_service_pb2_grpc, pb, until


async def one_stream(stub, rng, codes):
    cut_after = rng.randrange(12)
    timeout = rng.uniform(0.0005, 0.05) if rng.random() < 0.25 else None
    request = pb.GenerateRequest(text="The " * rng.randrange(1, 40), max_tokens=rng.randrange(1, 40), ignore_eos=True)
    call = stub.GenerateStream(request, timeout=timeout)
    try:
        if cut_after == 0:
            await asyncio.sleep(rng.uniform(0, 0.01))
            call.cancel()
        for _ in range(cut_after):
            if await call.read() is grpc.aio.EOF:
                break
        else:
            call.cancel()
        codes[await call.code()] += 1
    except asyncio.CancelledError:
        codes[grpc.StatusCode.CANCELLED] += 1
    except grpc.RpcError as error:
        codes[error.code()] += 1


async def cut_streams(address, count, seed):
    rng = random.Random(seed)
    codes = collections.Counter()
    left = count

    async def client():
        nonlocal left
        while left > 0:
            # A fresh connection now and then; closing it cuts what is still open on it.
            async with grpc.aio.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
                stub = inference_service_pb2_grpc.InferenceServiceStub(channel)
                for _ in range(50):
                    if left <= 0:
                        break
                    left -= 1
                    await one_stream(stub, rng, codes)

    await asyncio.gather(*(client() for _ in range(48)))
    return codes


def resources(server):
    names = ("process_resident_memory_bytes", "process_open_fds", "process_threads")
    return [server.metric(name) for name in names]


def main():
    args = arguments(__doc__, streams=10_000, seed=1)
    with Server(args, "--kv-cache-memory=16M") as server:  # small, so that all of it is touched in the warm-up
        asyncio.run(cut_streams(server.address, min(500, args.streams), args.seed + 1))  # what is allocated once
        check(server.wait_until_idle(), "idle after the warm-up")
        memory, files, threads = resources(server)
        start = time.monotonic()
        codes = asyncio.run(cut_streams(server.address, args.streams, args.seed))
        seconds = time.monotonic() - start
        print(
            f"{sum(codes.values())} streams in {seconds:.1f} s:",
            {code.name: n for code, n in codes.items()},
            flush=True,
        )
        allowed = {grpc.StatusCode.OK, grpc.StatusCode.CANCELLED, grpc.StatusCode.DEADLINE_EXCEEDED}
        check(set(codes) <= allowed, "every stream ended as OK, CANCELLED or DEADLINE_EXCEEDED")
        check(server.wait_until_idle(), "no KV block, sequence or call stayed behind")
        # Connections that were closed under load leave a little later than their calls.
        after = [memory, files, threads]

        def are_gone():
            after[:] = resources(server)
            return after[1] <= files and after[2] <= threads + 4

        until(are_gone)
        memory_after, files_after, threads_after = after
        grown = (memory_after - memory) / 2**20
        check(grown < 64, f"resident memory grew by {grown:.1f} MiB")
        check(files_after <= files, f"open files: {files:.0f} before, {files_after:.0f} after")
        check(
            threads_after <= threads + 4,
            f"threads (gRPC's own pool may grow a little): {threads:.0f} before, {threads_after:.0f} after",
        )
        check(server.metric("switchyard_internal_errors_total") == 0, "no internal error happened")
        reply = server.inference.Generate(pb.GenerateRequest(text="The ", max_tokens=5, ignore_eos=True))
        check(reply.usage.completion_tokens == 5, "the server serves on")
        server.terminate()
        check(server.wait() == 0, "and exits 0")


if __name__ == "__main__":
    main()
