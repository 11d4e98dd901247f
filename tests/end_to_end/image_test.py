"""An image classifier behind Triton's own Python client: golden logits, batches, text refused, experts counted.

    python3 tests/end_to_end/image_test.py --server-binary build/server/switchyard-server --model FOLDER
"""

import asyncio
import pathlib

import grpc
import numpy as np
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from safetensors.numpy import load_file
from tritonclient.utils import InferenceServerException

import serving
from serving import SERVING, check, code_of, expert_service_pb2, health_pb2, pb


def tensor(images, datatype="FP32"):
    given = triton.InferInput("images", list(images.shape), datatype)
    given.set_data_from_numpy(images)
    return given


def logits(client, name, images, datatype="FP32"):
    return client.infer(name, [tensor(images, datatype)]).as_numpy("logits")


def check_logits(client, name, golden):
    images = golden["images"].astype(np.float32)
    got = logits(client, name, images)
    limit = 1e-5 * np.abs(golden["logits"]).max()
    check(np.abs(got - golden["logits"]).max() <= limit, f"{len(images)} images have the golden logits")
    alone = np.concatenate([logits(client, name, images[i : i + 1]) for i in range(len(images))])
    check((alone == got).all(), "one by one they have the same, bit for bit")
    pixels = np.random.default_rng(1).integers(0, 256, images.shape, dtype=np.uint8)
    floats = (pixels.astype(np.float32) / np.float32(127.5) - 1).astype(np.float32)
    check(np.allclose(logits(client, name, pixels, "UINT8"), logits(client, name, floats), atol=1e-5), "bytes are pixels")
    return images, got


async def check_many(server, name, images, expected):
    async with triton_aio.InferenceServerClient(server.address) as client:
        results = await asyncio.gather(*(client.infer(name, [tensor(images)]) for _ in range(40)))
        check(all((r.as_numpy("logits") == expected).all() for r in results), "40 calls at once have the same logits")

        async def requests():
            for i in range(80):
                yield {"model_name": name, "inputs": [tensor(images)], "request_id": str(i)}

        seen = set()
        async for result, error in client.stream_infer(requests()):
            assert error is None and (result.as_numpy("logits") == expected).all(), error
            seen.add(result.get_response().id)
        check(len(seen) == 80, "and so have 80 of one stream")


def main():
    args = serving.arguments(__doc__)
    golden = load_file(pathlib.Path(args.model) / "golden.safetensors")
    with serving.Server(args) as server, triton.InferenceServerClient(server.address) as client:
        name = server.facts["model"]
        metadata = client.get_model_metadata(name)
        size = golden["images"].shape[1]
        check(list(metadata.inputs[0].shape) == [-1, size, size, 3], "the input is described")
        check(list(metadata.outputs[0].shape) == [-1, golden["logits"].shape[1]], "and the output")
        check(client.is_model_ready(name), "the model is ready")
        check(server.health.Check(health_pb2.HealthCheckRequest()).status == SERVING, "health says so, too")
        images, expected = check_logits(client, name, golden)
        asyncio.run(check_many(server, name, images, expected))
        check(server.wait_until_idle(), "nothing is left")

        model = server.inference.GetModel(pb.GetModelRequest())
        rows = server.metric("switchyard_moe_expert_tokens_total")
        rows += server.metric("switchyard_moe_layer_dropped_tokens_total")
        tokens = server.metric("switchyard_engine_tokens_total")
        check(tokens > 0 and rows == tokens * model.top_k * len(model.moe_layers), f"all rows are counted: {rows:.0f}")
        load = server.experts.GetExpertLoad(expert_service_pb2.GetExpertLoadRequest())
        check(sum(sum(layer.tokens_per_expert) for layer in load.layers) > 0, "GetExpertLoad shows them")

        code, text = code_of(lambda: server.inference.Generate(pb.GenerateRequest(text="hello")))
        check(code == grpc.StatusCode.FAILED_PRECONDITION, f"text is refused: {text}")
        try:
            given = triton.InferInput("text_input", [1], "BYTES")
            given.set_data_from_numpy(np.array([b"hello"], dtype=np.object_))
            client.infer(name, [given])
            check(False, "text as a tensor is refused")
        except InferenceServerException as error:
            check("FAILED_PRECONDITION" in str(error.status()), f"text as a tensor is refused: {error.message()}")
        check(server.metric("switchyard_internal_errors_total") == 0, "no internal error happened")
        server.terminate()
        check(server.wait() == 0, "SIGTERM ends the server with exit code 0")


if __name__ == "__main__":
    main()
