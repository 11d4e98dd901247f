#!/usr/bin/env python3
"""Measures an exported folder: held-out loss and expert shares (with model.py), sample texts (with transformers).

    python evaluate.py --cache CACHE --model ../switchyard-demo [--samples-only] > report.md

Held-out text is read in windows of 1,024 tokens that do not overlap; every token but the first of a window counts.  Losses are made with model.py, which is many times
faster on a CPU; export.py has checked that both give the same logits.
"""

import argparse
import json
import math
import pathlib

import numpy as np
import safetensors.torch
import torch
import transformers

import model as own

DOMAINS = ["scripture", "story", "dictionary", "encyclopaedia", "manual", "code"]
WINDOW = 1024
PROMPTS = [
    "And it came to pass in those days, that",
    "Delfador: The orcs have crossed the river. We must",
    "Lanthorn, n.\n",
    "operating system\n\nA",
    "NAME\nmemcopy - copy",
    "class Queue:\n    \"\"\"",
]


@torch.no_grad()
def measure(model, stream, windows):
    """Mean loss per token and, per layer, the share of choices of each expert, over `windows` windows of the stream."""
    starts = range(0, len(stream) - WINDOW, WINDOW)
    if windows and len(starts) > windows:
        starts = [starts[i] for i in np.linspace(0, len(starts) - 1, windows).astype(int)]
    total, count = 0.0, 0
    layers, experts = model.shape.num_hidden_layers, model.shape.num_experts
    chosen = torch.zeros(layers, experts)
    for begin in range(0, len(starts), 8):
        rows = np.stack([stream[start:start + WINDOW].astype(np.int64) for start in starts[begin:begin + 8]])
        rows = torch.from_numpy(rows)
        with torch.autocast("cpu", torch.bfloat16):
            hidden, _, expert_ids = model.hidden(rows)
            logits = torch.nn.functional.linear(hidden[:, :-1], model.embed).float()
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), rows[:, 1:].flatten(), reduction="sum")
        total, count = total + loss.item(), count + rows[:, 1:].numel()
        for layer, ids in enumerate(expert_ids):
            chosen[layer] += torch.bincount(ids.flatten(), minlength=experts)
    return total / count, count, chosen / chosen.sum(1, keepdim=True)


def print_losses(model, folder, windows):
    print("| Domain | held-out tokens scored | loss (nats/token) | perplexity | bits per byte |\n|---|---:|---:|---:|---:|")
    shares, losses = {}, {}
    for domain in DOMAINS:
        stream = np.load(folder / f"{domain}.heldout.npy")
        size = int((folder / f"{domain}.heldout.bytes").read_text())
        loss, count, shares[domain] = measure(model, stream, windows)
        losses[domain] = loss
        bits = loss / math.log(2) * len(stream) / size
        print(f"| {domain} | {count} | {loss:.3f} | {math.exp(loss):.1f} | {bits:.3f} |", flush=True)
    mean = sum(losses.values()) / len(losses)
    print(f"| mean of the domains | | {mean:.3f} | {math.exp(mean):.1f} | |")
    return shares


def print_shares(shares):
    some = next(iter(shares.values()))
    layers, experts = some.shape
    for layer in range(layers):
        print(f"\nLayer {layer}, percent of the choices:\n\n| Domain | " +
              " | ".join(f"e{expert}" for expert in range(experts)) + " |\n|---|" + "---:|" * experts)
        for domain, share in shares.items():
            row = share[layer] * 100
            print(f"| {domain} | " + " | ".join(f"{value:.0f}" for value in row) + " |")
    # Half the sum of absolute differences: the part of the choices that would have to move to another expert.
    print("\n| Layer | mean distance between two domains | largest share of one expert |\n|---|---:|---:|")
    for layer in range(layers):
        rows = [share[layer] for share in shares.values()]
        pairs = [(a - b).abs().sum().item() / 2 for i, a in enumerate(rows) for b in rows[i + 1:]]
        print(f"| {layer} | {sum(pairs) / len(pairs):.2f} | {max(row.max().item() for row in rows):.0%} |")


@torch.no_grad()
def print_samples(model, tokenizer, length):
    for seed, (prompt, temperature) in enumerate([(prompt, 0.7) for prompt in PROMPTS] + [(PROMPTS[1], 1.0)], start=1):
        torch.manual_seed(seed)
        ids = tokenizer(prompt, return_tensors="pt").input_ids
        out = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=True, temperature=temperature,
                             top_p=0.9, top_k=0, max_new_tokens=length)
        text = tokenizer.decode(out[0])
        print(f"\nPrompt {json.dumps(prompt)}, temperature {temperature}, top_p 0.9, seed {seed}:\n\n```text\n{text}\n```",
              flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=pathlib.Path, required=True)
    parser.add_argument("--model", type=pathlib.Path, required=True)
    parser.add_argument("--windows", type=int, default=0, help="at most so many windows per domain (0: all)")
    parser.add_argument("--samples-only", action="store_true")
    parser.add_argument("--length", type=int, default=160, help="tokens per sample")
    options = parser.parse_args()

    torch.set_num_threads(2)
    torch.compiler.set_stance("force_eager")
    if not options.samples_only:
        weights = safetensors.torch.load_file(options.model / "model.safetensors")
        shares = print_losses(own.Model(own.Shape()).import_tensors(weights), options.cache / "data", options.windows)
        print_shares(shares)
    tokenizer = transformers.AutoTokenizer.from_pretrained(options.model)
    model = transformers.MixtralForCausalLM.from_pretrained(options.model, dtype=torch.bfloat16).eval()
    print_samples(model, tokenizer, options.length)


if __name__ == "__main__":
    main()
