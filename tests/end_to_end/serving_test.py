"""One server, one client: every method, cancel, deadline, abort, health, metrics, and the sums that must be exact."""

import shutil
import subprocess
import threading
import time

import grpc
from serving import NOT_SERVING, SERVING, Server, arguments, check, code_of, expert_service_pb2, health_pb2, pb

# Seconds of work: it runs while it is looked at, on fast machines too.
LONG_FIELDS = {"text": "The ", "max_tokens": 900, "n": 16, "ignore_eos": True}
LONG = pb.GenerateRequest(**LONG_FIELDS)


def check_generation(server):
    stream = list(
        server.inference.GenerateStream(pb.GenerateRequest(text="The ", max_tokens=20, seed=7, ignore_eos=True))
    )
    text = "".join(choice.text for message in stream for choice in message.choices)
    tokens = [token for message in stream for choice in message.choices for token in choice.token_ids]
    check(
        len(tokens) == 20 and stream[-1].usage.completion_tokens == 20,
        "a stream gives the tokens asked for, and counts them",
    )
    check(stream[0].HasField("prompt") and stream[0].prompt.seed == 7, "the first message has the prompt facts")
    check(stream[-1].choices[0].finish_reason == pb.FINISH_REASON_LENGTH, "the last message has the reason")
    unary = server.inference.Generate(pb.GenerateRequest(text="The ", max_tokens=20, seed=7, ignore_eos=True))
    check(
        unary.choices[0].text == text and list(unary.choices[0].token_ids) == tokens,
        "unary and stream agree for one seed",
    )
    several = server.inference.Generate(pb.GenerateRequest(text="The ", max_tokens=20, seed=7, ignore_eos=True, n=4))
    check(list(several.choices[0].token_ids) == tokens, "choice 0 of four is the same as alone")
    check(len({tuple(choice.token_ids) for choice in several.choices}) > 1, "the choices differ")
    if len(text) > 4:
        stop = text[2:4]
        stopped = server.inference.Generate(
            pb.GenerateRequest(text="The ", max_tokens=20, seed=7, ignore_eos=True, stop=[stop])
        )
        check(stopped.choices[0].text == text[: text.index(stop)], "a stop string cuts the text exactly")
    ids = server.inference.Tokenize(pb.TokenizeRequest(text="The quick brown fox")).token_ids
    check(
        "quick brown fox" in server.inference.Detokenize(pb.DetokenizeRequest(token_ids=ids)).text,
        "tokenize and detokenize",
    )
    return tokens


def check_explanation(server, model):
    request = pb.GenerateRequest(
        text="The ", max_tokens=5, logprobs=3, ignore_eos=True, explain=pb.Explain(enabled=True)
    )
    reply = server.inference.Generate(request)
    details = reply.choices[0].details
    check(len(details) == 5 and all(len(d.top_logprobs) == 3 for d in details), "log-probabilities for every token")
    for detail in details:
        layers = [routing.layer for routing in detail.routing]
        if layers != list(model.moe_layers) or any(len(r.expert_ids) != model.top_k for r in detail.routing):
            check(False, f"each token names its experts in every MoE layer: {layers}")
    check(True, "each token names its experts in every MoE layer")


def check_ends(server):
    call = server.inference.GenerateStream(LONG)
    next(call)
    call.cancel()
    check(code_of(lambda: call)[0] == grpc.StatusCode.CANCELLED, "cancel ends the call as CANCELLED")
    check(server.wait_until_idle(), "its KV blocks are free again")

    ends = ("deadline", "cancelled")  # a busy client may report its deadline so early that it looks like a cancel
    before = sum(server.metric("switchyard_request_success_total", finish_reason=reason) for reason in ends)
    timeout, began = 0.2, False
    while not began:  # on a busy machine the deadline may pass before the server has the call: then it gets more time
        call = server.inference.GenerateStream(LONG, timeout=timeout)
        try:
            for _ in call:
                began = True
        except grpc.RpcError:
            pass
        check(call.code() == grpc.StatusCode.DEADLINE_EXCEEDED, f"the call's deadline of {timeout} s ends it")
        check(server.wait_until_idle(), "its KV blocks are free again")
        after = sum(server.metric("switchyard_request_success_total", finish_reason=reason) for reason in ends)
        check(after - before in ((LONG.n,) if began else (0, LONG.n)), "and each choice is counted once")
        before, timeout = after, 2 * timeout

    call = server.inference.GenerateStream(pb.GenerateRequest(request_id="job-1", **LONG_FIELDS))
    next(call)
    check(server.inference.Abort(pb.AbortRequest(request_id="job-1")).aborted == 1, "Abort finds the call")
    last = None
    try:
        for last in call:
            pass
    except grpc.RpcError:
        pass
    check(call.code() == grpc.StatusCode.CANCELLED and last.HasField("usage"), "and ends it with what there is")


def check_refusals(server):
    code, text = code_of(lambda: server.inference.Generate(pb.GenerateRequest()))
    check(
        code == grpc.StatusCode.INVALID_ARGUMENT and text == "prompt is empty; give text, token_ids or chat",
        "empty prompts are refused",
    )
    code, text = code_of(lambda: server.inference.Generate(pb.GenerateRequest(text="x", model="../../etc/passwd")))
    check(code == grpc.StatusCode.NOT_FOUND, "unknown models are not found")
    garbage = server.channel.unary_unary("/switchyard.v1.InferenceService/Generate")
    code, text = code_of(lambda: garbage(b"\xff\xff\xff"))
    check(code == grpc.StatusCode.INVALID_ARGUMENT, f"garbage is INVALID_ARGUMENT: {text}")
    two = server.channel.stream_unary("/switchyard.v1.InferenceService/GetModel")
    code, text = code_of(lambda: two(iter([b"", b""])))
    check(code == grpc.StatusCode.OK, f"of two messages on a unary call the first counts: {code.name}")
    none = server.channel.stream_unary("/switchyard.v1.InferenceService/GetModel")
    code, text = code_of(lambda: none(iter([])))
    check(
        code == grpc.StatusCode.INVALID_ARGUMENT and text == "the request has no message",
        f"no message on a unary call: {code.name} {text}",
    )


def check_reflection(server):
    reflect = server.channel.stream_stream("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo")
    listed = next(reflect(iter([b"\x3a\x01*"])))  # list_services: "*"
    names = [b"switchyard.v1.InferenceService", b"switchyard.v1.ExpertService", b"grpc.health.v1.Health"]
    check(all(name in listed for name in names), "reflection lists the services")


def check_expert_load(server, model):
    watch = server.experts.WatchExpertLoad(expert_service_pb2.WatchExpertLoadRequest())
    check(len(next(watch).layers) == len(model.moe_layers), "WatchExpertLoad sends at once")
    watch.cancel()
    threads = [
        threading.Thread(
            target=server.inference.Generate, args=(pb.GenerateRequest(text="Once upon " * (i + 1), max_tokens=10 + i),)
        )
        for i in range(16)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    check(server.wait_until_idle(), "16 requests at once are served")
    rows = server.metric("switchyard_moe_expert_tokens_total")
    tokens = server.metric("switchyard_engine_tokens_total")
    check(
        tokens > 0 and rows == tokens * model.top_k * len(model.moe_layers),
        f"sum of moe_expert_tokens_total is exactly tokens x top_k x MoE layers: {rows:.0f}",
    )
    load = server.experts.GetExpertLoad(expert_service_pb2.GetExpertLoadRequest())
    check(sum(sum(layer.tokens_per_expert) for layer in load.layers) == rows, "GetExpertLoad says the same as /metrics")
    reused = server.metric("switchyard_prefix_cache_hits_total")
    expected = (
        server.metric("switchyard_prompt_tokens_total") - reused + server.metric("switchyard_recomputed_tokens_total")
    )
    prefill = server.metric("switchyard_engine_tokens_total", kind="prefill")
    check(
        prefill <= expected,
        f"prefill ran at most the prompt tokens that were not reused: {prefill:.0f} of {expected:.0f}",
    )


def check_metrics(server):
    page = server.admin("/metrics")
    check(
        "switchyard_internal_errors_total" in page and server.metric("switchyard_internal_errors_total") == 0,
        "no internal error happened",
    )
    promtool = shutil.which("promtool")
    if promtool is None:
        print("skipped: promtool is not installed", flush=True)
        return
    result = subprocess.run([promtool, "check", "metrics"], input=page, text=True, capture_output=True)
    check(result.returncode == 0, f"promtool check metrics is clean {result.stdout}{result.stderr}")


def check_health(server):
    for service in ("", "switchyard.v1.InferenceService", "switchyard.v1.ExpertService"):
        check(
            server.health.Check(health_pb2.HealthCheckRequest(service=service)).status == SERVING,
            f"health of {service!r} is SERVING",
        )
    seen = []
    watch = server.health.Watch(health_pb2.HealthCheckRequest())

    def read():
        try:
            for response in watch:
                seen.append(response.status)
        except grpc.RpcError:
            pass

    reader = threading.Thread(target=read)
    reader.start()
    while not seen:
        time.sleep(0.01)
    check(server.admin("/readyz") == "ok\n" and server.admin("/livez") == "ok\n", "/readyz and /livez say ok")
    check('"version"' in server.admin("/version"), "/version answers")
    server.terminate()
    check(server.wait() == 0, "SIGTERM ends the server with exit code 0")
    reader.join(60)
    check(seen == [SERVING, NOT_SERVING], "Watch saw SERVING, then NOT_SERVING")


def main():
    args = arguments(__doc__)
    with Server(args) as server:
        model = server.inference.GetModel(pb.GetModelRequest())
        tokens = check_generation(server)
        check_explanation(server, model)
        check_ends(server)
        check_refusals(server)
        check_reflection(server)
        check_expert_load(server, model)
        check_metrics(server)
        check_health(server)
    with Server(args) as server:
        again = server.inference.Generate(pb.GenerateRequest(text="The ", max_tokens=20, seed=7, ignore_eos=True))
        check(list(again.choices[0].token_ids) == tokens, "a restarted server gives the same tokens for the same seed")


if __name__ == "__main__":
    main()
