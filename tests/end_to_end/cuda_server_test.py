"""The whole server on the CUDA backend, next to the same server on the CPU: the same greedy tokens in fp32, alone and
with other requests; per-expert counts that add up; the experts' provider as a table chooses it; a clean end.

With --plugin-dir and --driver-dir the device is an emulated one. Exits 77, having said why, where there is no device.
"""

import concurrent.futures
import json
import os
import pathlib
import sys
import tempfile

from serving import Server, arguments, check, pb

PROMPTS = ["In the beginning", "The quick brown fox", "int main(", "LEOPARD (n.)"]
NO_DEVICE = 77


def missing_device(args, variables):
    """What the server says that finds no device; nothing if it finds one."""
    server = Server(args, "--device=cuda", wait=False, variables=variables)
    server.wait_for_start()
    if any('"event":"serving"' in line for line in server.log):
        server.terminate()
        server.wait()
        return None
    server.wait()
    return server.log[-1].strip()


def generate(server, prompt, tokens, temperature=0.0, **wishes):
    request = pb.GenerateRequest(text=prompt, max_tokens=tokens, temperature=temperature, ignore_eos=True, **wishes)
    return list(server.inference.Generate(request, timeout=300).choices[0].token_ids)


def check_draws(server, tokens):
    """Steps are launched ahead of tokens that the device draws, and wait for one that the host does."""

    def draw(i):
        wishes = {"logprobs": 1} if i == 0 else {}
        return generate(server, PROMPTS[i], tokens + 2 * i, temperature=0.8, seed=i + 1, **wishes)

    alone = [draw(i) for i in range(len(PROMPTS))]
    with concurrent.futures.ThreadPoolExecutor(len(PROMPTS)) as pool:
        check(list(pool.map(draw, range(len(PROMPTS)))) == alone, "drawn tokens do not depend on who shares the batch")


def check_failure_of_unknown_library(args):
    """A named device that is not there is an error that says so."""
    server = Server(args, "--device=cuda", wait=False, variables={"SWITCHYARD_PLUGIN_DIR": "/nonexistent"})
    check(server.wait() != 0, "without a plugin --device cuda ends the server")


def write_table(folder, args, backend):
    """For --expert-gemm-table: native always; fastest is cublas_padded for steps of up to 256 tokens."""
    config = json.loads((pathlib.Path(args.model) / "config.json").read_text())
    entry = {
        "device": backend.removeprefix("cuda (").split(",")[0],
        "hidden": config["hidden_size"],
        "intermediate": config["intermediate_size"],
        "experts": config["num_local_experts"],
        "top_k": config["num_experts_per_tok"],
        "dtype": "bfloat16",
        "always": "native",
        "fastest": [{"max_tokens": 256, "provider": "cublas_padded"}],
    }
    table = pathlib.Path(folder) / "table.json"
    table.write_text(json.dumps({"format": "switchyard expert gemm table 1", "entries": [entry]}))
    return f"--expert-gemm-table={table}"


def layers_by(server, provider):
    return server.metric("switchyard_expert_gemm_layers_total", provider=provider)


def main():
    args = arguments(__doc__, plugin_dir="", driver_dir="", tokens=12)
    variables = {"SWITCHYARD_PLUGIN_DIR": args.plugin_dir, "SWITCHYARD_FAKE_DEVICES": "1"}
    if args.driver_dir:
        variables["LD_LIBRARY_PATH"] = args.driver_dir + ":" + os.environ.get("LD_LIBRARY_PATH", "")

    why_not = missing_device(args, variables)
    if why_not:
        print("no GPU to test on: " + why_not)
        sys.exit(NO_DEVICE)

    with Server(args, "--device=cpu", "--dtype=float32") as server:
        expected = [generate(server, prompt, args.tokens) for prompt in PROMPTS]

    with Server(args, "--device=cuda", "--dtype=float32", variables=variables) as server:
        check(server.facts["backend"].startswith("cuda ("), f"it runs on {server.facts['backend']}")
        model = server.inference.GetModel(pb.GetModelRequest())
        for prompt, tokens in zip(PROMPTS, expected):
            check(generate(server, prompt, args.tokens) == tokens, f"{prompt!r} goes on as on the CPU")
        server.wait_until_idle()  # counted to the end
        before = server.metric("switchyard_moe_expert_tokens_total")
        with concurrent.futures.ThreadPoolExecutor(len(PROMPTS)) as pool:
            together = list(pool.map(lambda prompt: generate(server, prompt, args.tokens), PROMPTS))
        check(together == expected, "all at once give the same tokens")
        prompts = sum(len(server.inference.Tokenize(pb.TokenizeRequest(text=p)).token_ids) for p in PROMPTS)
        # The prompts are still cached but for their last blocks, which are shorter than one: all is computed again.
        computed = prompts + len(PROMPTS) * (args.tokens - 1)
        server.wait_until_idle()
        counted = server.metric("switchyard_moe_expert_tokens_total") - before
        check(
            counted == computed * model.top_k * len(model.moe_layers),
            f"experts counted {counted:.0f} rows: tokens x top_k x layers",
        )
        layers, steps = layers_by(server, "native"), server.metric("switchyard_steps_total")
        check(layers == steps * len(model.moe_layers), f"native counted {layers:.0f} layers of {steps:.0f} steps")
        backend = server.facts["backend"]
        check_draws(server, args.tokens)
        server.terminate()
        check(server.wait() == 0, "SIGTERM ends it with exit code 0")

    folder = tempfile.TemporaryDirectory()
    table = write_table(folder.name, args, backend)
    with Server(args, "--device=cuda", "--dtype=bfloat16", table, variables=variables) as server:
        alone = [generate(server, prompt, args.tokens) for prompt in PROMPTS]
        with concurrent.futures.ThreadPoolExecutor(len(PROMPTS)) as pool:
            together = list(pool.map(lambda prompt: generate(server, prompt, args.tokens), PROMPTS))
        check(together == alone, "in bfloat16, too, tokens do not depend on who shares the batch")
        check(layers_by(server, "native") > 0, "auto took the table's one provider")
        check(layers_by(server, "cublas_padded") == 0, "and none that it has for some steps")
    fastest = (table, "--expert-gemm=fastest")
    with Server(args, "--device=cuda", "--dtype=bfloat16", *fastest, variables=variables) as server:
        generate(server, PROMPTS[0], args.tokens)
        check(layers_by(server, "cublas_padded") > 0, "fastest took it")
        check(layers_by(server, "native") == 0, "for every step")
    check_failure_of_unknown_library(args)


if __name__ == "__main__":
    main()
