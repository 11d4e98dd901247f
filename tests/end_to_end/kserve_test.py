"""Triton's own Python client, unchanged, against a real server: unary and streaming, threads and asyncio.

    python3 tests/end_to_end/kserve_test.py --server-binary build/server/switchyard-server --model FOLDER
"""

import asyncio
import json
import queue
import time

import grpc
import numpy as np
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from tritonclient.utils import InferenceServerException

import serving
from serving import SERVING, check, health_pb2, pb

PROMPT = "And the LORD said unto Moses,"
MANY = 200  # tokens: a busy server sends several in one piece, but not so many
SAMPLING = {"temperature": 0.7, "top_p": 0.9, "seed": 11, "max_tokens": 24, "ignore_eos": True}


def tensor(name, datatype, values):
    given = triton.InferInput(name, [len(values)], datatype)
    kinds = {"BYTES": np.object_, "BOOL": bool, "INT32": np.int32, "FP32": np.float32, "UINT64": np.uint64}
    given.set_data_from_numpy(np.array(values, dtype=kinds[datatype]))
    return given


def inputs(stream=None, prompt=PROMPT, **sampling):
    given = [tensor("text_input", "BYTES", [prompt.encode()])]
    given.append(tensor("sampling_parameters", "BYTES", [json.dumps({**SAMPLING, **sampling}).encode()]))
    if stream is not None:
        given.append(tensor("stream", "BOOL", [stream]))
    return given


def text_of(result, name="text_output"):
    return [text.decode() for text in result.as_numpy(name)]


def is_final(result):
    return result.get_response().parameters["triton_final_response"].bool_param


def native(server, prompt=PROMPT, **sampling):
    return server.inference.Generate(pb.GenerateRequest(text=prompt, **{**SAMPLING, **sampling}))


def check_facts(server, client, name):
    check(client.is_server_live() and client.is_server_ready() and client.is_model_ready(name), "live and ready")
    check(client.is_model_ready(name, "1"), "version 1 is ready")
    metadata = client.get_server_metadata()
    check(metadata.name == "switchyard" and metadata.version == server.facts["version"], "server metadata")
    metadata = client.get_model_metadata(name)
    check({"text_input", "stream", "max_tokens"} <= {t.name for t in metadata.inputs}, "the model's inputs are described")
    check(metadata.outputs[0].name == "text_output" and metadata.versions == ["1"], "and its outputs")
    health = server.health.Check(health_pb2.HealthCheckRequest(service="inference.GRPCInferenceService"))
    check(health.status == SERVING, "the service has its own health")
    reflect = server.channel.stream_stream("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo")
    check(b"inference.GRPCInferenceService" in next(reflect(iter([b"\x3a\x01*"]))), "reflection lists it")
    file = next(reflect(iter([b"\x22\x1einference.GRPCInferenceService"])))  # file_containing_symbol
    check(b"ModelStreamInferResponse" in file, "and describes it")


def check_unary(server, client, name):
    expected = native(server)
    result = client.infer(name, inputs(), request_id="job-7")
    check(text_of(result) == [expected.choices[0].text], "ModelInfer gives the text of Generate for one seed")
    check(result.get_response().id == "job-7" and result.get_response().model_version == "1", "the id comes back")
    separate = [
        tensor("text_input", "BYTES", [PROMPT.encode()]),
        tensor("temperature", "FP32", [0.7]),
        tensor("top_p", "FP32", [0.9]),
        tensor("seed", "UINT64", [11]),
        tensor("max_tokens", "INT32", [24]),
        tensor("ignore_eos", "BOOL", [True]),
    ]
    check(text_of(client.infer(name, separate)) == text_of(result), "so do separate tensors")
    parameters = {"temperature": "0.7", "top_p": "0.9", "seed": 11, "max_tokens": 24, "ignore_eos": True}
    only_text = [tensor("text_input", "BYTES", [PROMPT.encode()])]
    check(text_of(client.infer(name, only_text, parameters=parameters)) == text_of(result), "so do parameters")

    outputs = [triton.InferRequestedOutput(n) for n in ("text_output", "finish_reason", "num_input_tokens", "num_output_tokens")]
    several = client.infer(name, inputs(n=3), outputs=outputs)
    expected = native(server, n=3)
    check(text_of(several) == [choice.text for choice in expected.choices], "three choices are three elements")
    check(text_of(several, "finish_reason") == ["length"] * 3, "with a reason for each")
    check(list(several.as_numpy("num_output_tokens")) == [24] * 3, "and a count of tokens for each")
    check(list(several.as_numpy("num_input_tokens")) == [expected.usage.prompt_tokens], "and one of the prompt's")

    stop = expected.choices[0].text[5:8]
    stopped = client.infer(name, inputs(stop=[stop]), outputs=outputs)
    check(text_of(stopped) == [native(server, stop=[stop]).choices[0].text], "a stop string cuts as in Generate")
    check(text_of(stopped, "finish_reason") == ["stop"], "and is the reason")
    echo = client.infer(name, inputs() + [tensor("exclude_input_in_output", "BOOL", [False])])
    check(text_of(echo) == [PROMPT + text_of(result)[0]], "the prompt comes back where it is asked for")


def check_stream(server, client, name):
    answers = queue.Queue()
    client.start_stream(callback=lambda result, error: answers.put((result, error)))
    prompts = {f"r{i}": f"{PROMPT} {i}" for i in range(5)}
    for request_id, prompt in prompts.items():
        given = inputs(stream=True, prompt=prompt, max_tokens=MANY)
        client.async_stream_infer(name, given, request_id=request_id, enable_empty_final_response=True)
    texts, ends, pieces = dict.fromkeys(prompts, ""), 0, 0
    while ends < len(prompts):
        result, error = answers.get(timeout=60)
        check(error is None, "no error") if error else None
        texts[result.get_response().id] += text_of(result)[0]
        ends += is_final(result)
        pieces += 1
    check(all(texts[i] == native(server, prompt=p, max_tokens=MANY).choices[0].text for i, p in prompts.items()),
          f"five requests of one stream, in {pieces} pieces, are the texts of Generate")
    check(pieces > 2 * len(prompts), "they came piece by piece")

    client.async_stream_infer(name, inputs(stream=False), request_id="whole")
    result, error = answers.get(timeout=60)
    check(is_final(result) and text_of(result) == [native(server).choices[0].text], "stream=False is one answer")
    client.async_stream_infer(name, inputs(stream=True, top_p=7))
    result, error = answers.get(timeout=60)
    check("top_p is 7; use a value above 0, at most 1" in str(error), f"an error is the request's own: {error}")
    client.async_stream_infer(name, inputs(), request_id="after")
    result, error = answers.get(timeout=60)
    check(error is None and result.get_response().id == "after", "and the stream goes on")
    client.stop_stream()
    check(answers.empty() and server.wait_until_idle(), "stop_stream ends it with nothing left")


def check_ends(server, client, name):
    answers = queue.Queue()
    client.start_stream(callback=lambda result, error: answers.put((result, error)))
    client.async_stream_infer(name, inputs(stream=True, max_tokens=900), request_id="long")
    answers.get(timeout=60)
    client.stop_stream(cancel_requests=True)
    check(server.wait_until_idle(), "a cancelled stream leaves nothing behind")

    try:
        client.infer(name, inputs(max_tokens=900, n=16), client_timeout=0.2)
        check(False, "a deadline ends the call")
    except InferenceServerException as error:
        check("DEADLINE_EXCEEDED" in str(error.status()), "a deadline ends the call")
    try:
        client.infer(name, inputs(max_tokens=900, n=16), timeout=150_000)
        check(False, "the timeout parameter ends the request")
    except InferenceServerException as error:
        check("DEADLINE_EXCEEDED" in str(error.status()), "the timeout parameter ends the request")
    check(server.wait_until_idle(), "they leave nothing behind")

    call = client.async_infer(name, inputs(max_tokens=900), callback=lambda result, error: answers.put((result, error)))
    time.sleep(0.1)
    call.cancel()
    check(server.wait_until_idle(), "a cancelled unary call leaves nothing behind")

    for what, code, arguments in (
        ("another model", "NOT_FOUND", {"model_name": "other", "inputs": inputs()}),
        ("another version", "NOT_FOUND", {"model_name": name, "model_version": "3", "inputs": inputs()}),
        ("an unknown tensor", "INVALID_ARGUMENT", {"model_name": name, "inputs": inputs() + [tensor("x", "FP32", [1])]}),
        ("an unknown output", "INVALID_ARGUMENT",
         {"model_name": name, "inputs": inputs(), "outputs": [triton.InferRequestedOutput("x")]}),
    ):
        try:
            client.infer(**arguments)
            check(False, f"{what} is {code}")
        except InferenceServerException as error:
            check(code in str(error.status()), f"{what} is {code}: {error.message()}")


async def check_asyncio(server, name):
    async with triton_aio.InferenceServerClient(server.address) as client:
        check(await client.is_server_ready(), "asyncio: ready")
        expected = native(server).choices[0].text
        results = await asyncio.gather(*(client.infer(name, inputs()) for _ in range(8)))
        check([text_of(result) for result in results] == [[expected]] * 8, "asyncio: eight calls at once agree")

        async def requests(max_tokens):
            for i in range(100):  # more than run at a time
                given = inputs(stream=i % 2 == 0, max_tokens=max_tokens)
                yield {"model_name": name, "inputs": given, "request_id": str(i)}

        texts, ends = {}, 0
        async for result, error in client.stream_infer(requests(8)):
            assert error is None, error
            request_id = result.get_response().id
            texts[request_id] = texts.get(request_id, "") + text_of(result)[0]
            ends += is_final(result)
        expected = native(server, max_tokens=8).choices[0].text
        check(ends == 100 and set(texts.values()) == {expected}, "asyncio: a hundred requests of one stream agree")

        iterator = client.stream_infer(requests(900), stream_timeout=0.05)
        try:
            async for result, error in iterator:
                pass
            check(False, "asyncio: the stream's deadline ends it")
        except grpc.RpcError as error:
            check(error.code() == grpc.StatusCode.DEADLINE_EXCEEDED, "asyncio: the stream's deadline ends it")
        check(server.wait_until_idle(), "asyncio: nothing is left")

        async def one_bad():
            yield {"model_name": "other", "inputs": inputs(), "request_id": "bad"}
            await asyncio.sleep(30)

        try:
            async for result, error in client.stream_infer(one_bad(), headers={"triton_grpc_error": "true"}):
                check(False, f"asyncio: a strict stream ends with the error's status, not with {result} {error}")
            check(False, "asyncio: a strict stream ends with the error's status")
        except grpc.RpcError as error:
            check(error.code() == grpc.StatusCode.NOT_FOUND, "asyncio: a strict stream ends with the error's status")


def check_counts(server):
    check(server.metric("switchyard_internal_errors_total") == 0, "no internal error happened")
    for code in ("INTERNAL", "UNKNOWN", "UNIMPLEMENTED"):
        check(server.metric("switchyard_request_status_total", grpc_code=code) == 0, f"no call ended as {code}")


def check_drain(server, client, name):
    answers = queue.Queue()
    client.start_stream(callback=lambda result, error: answers.put((result, error)))
    client.async_stream_infer(name, inputs(stream=True, max_tokens=200), request_id="drained")
    answers.get(timeout=60)
    server.terminate()
    check(server.wait() == 0, "SIGTERM ends the server with exit code 0, long before its limit, with a stream open")
    ends, last = 0, None
    while last is None:
        result, error = answers.get(timeout=60)
        ends += result is not None and is_final(result)
        last = error or last
    check(ends == 1, "its request was answered to the end")
    check(last is not None and "UNAVAILABLE" in str(last.status()), f"and the stream ended as UNAVAILABLE: {last}")
    client.stop_stream()


def main():
    args = serving.arguments(__doc__)
    with serving.Server(args, "--shutdown-timeout=300") as server:
        name = server.facts["model"]
        with triton.InferenceServerClient(server.address) as client:
            check_facts(server, client, name)
            check_unary(server, client, name)
            check_stream(server, client, name)
            check_ends(server, client, name)
            asyncio.run(check_asyncio(server, name))
            check_counts(server)
            check_drain(server, client, name)


if __name__ == "__main__":
    main()
