"""Writes the further checkpoints of configurations.py with their golden logits.

    generate.py FOLDER [NAME ...]      writes FOLDER/NAME/{config.json, model*.safetensors, golden.safetensors};
                                       without names, all

golden.safetensors holds what the fixtures' files hold: input_ids, logits [tokens, vocabulary] in float64, and ids and
weights of each router; of an encoder-decoder also decoder_input_ids, whose the logits are, and one_by_one.logits, where
the decoder ran once per token. Rounding in float32 may not decide a test, so the prompts have no close decisions: a
token is replaced where a change of less than MIN_MARGIN in any compared router value would send it to another expert,
or of less than MIN_ORDER_MARGIN would change the order of its experts.
"""
import pathlib
import shutil
import sys
import zlib

import numpy as np

from configurations import all_cases
from reference import safetensors
from reference.checkpoint import DrawnTensors
from reference.families import build
from reference.storage import write_checkpoint

MIN_MARGIN = 1e-3
MIN_ORDER_MARGIN = 2e-5
MAX_REPLACED = 1000


def draw(case):
    """tensors, the model of them, its prompts. Only an encoder-decoder has two prompts."""
    seed = zlib.crc32(case.name.encode())
    block = case.config.get("quantization_config", {}).get("weight_block_size")
    tensors = DrawnTensors(seed, case.dtype, block, case.amplify)
    model = build(case.config, tensors, case.tokens)
    generator = np.random.default_rng(seed)
    lengths = [case.tokens, case.decoder_tokens] if case.is_encoder_decoder else [case.tokens]
    prompts = [generator.integers(0, case.config["vocab_size"], length) for length in lengths]
    for _ in range(MAX_REPLACED):
        close = first_close(case, prompts, [routings for _, routings in runs(case, model, prompts)])
        if close is None:
            return tensors, model, prompts
        prompt, token = close  # a decoder's tokens before it do not see it
        prompt[token] = generator.integers(0, case.config["vocab_size"])
    raise ValueError(f"{case.name}: token {token} is close to another expert, whichever it is")


def runs(case, model, prompts):
    """(logits, routings) at once and, of an encoder-decoder, one by one."""
    return [model(*prompts)] + ([model(*prompts, one_by_one=True)] if case.is_encoder_decoder else [])


def first_close(case, prompts, routings_of_runs):
    """(prompt, token), or None."""
    close = [np.zeros(len(prompt), bool) for prompt in prompts]
    for routings in routings_of_runs:
        for name, r in routings.items():
            is_last = not case.is_encoder_decoder or int(name.split(".")[1]) >= case.config["num_layers"]
            close[-1 if is_last else 0] |= (r.margin < MIN_MARGIN) | (r.order_margin < MIN_ORDER_MARGIN)
    return next(((prompt, c.argmax()) for prompt, c in zip(prompts, close) if c.any()), None)


def write(folder, case):
    tensors, model, prompts = draw(case)
    shutil.rmtree(folder, ignore_errors=True)
    write_checkpoint(folder, case, tensors.stored)
    (logits, routings), *one_by_one = runs(case, model, prompts)
    golden = dict(zip(("input_ids", "decoder_input_ids"), (ids.astype(np.int64) for ids in prompts)), logits=logits)
    for name, routing in routings.items():
        golden.update({name + ".ids": routing.ids.astype(np.int64), name + ".weights": routing.weights})
    for other_logits, _ in one_by_one:
        golden["one_by_one.logits"] = other_logits
    margin = min(routing.margin.min() for routing in routings.values())
    safetensors.save(folder / "golden.safetensors", golden, {"min_router_margin": f"{margin:.3g}"})


def main():
    folder, names = pathlib.Path(sys.argv[1]), sys.argv[2:]
    for case in all_cases():
        if not names or case.name in names:
            write(folder / case.name, case)


if __name__ == "__main__":
    main()
