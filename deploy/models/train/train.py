#!/usr/bin/env python3
"""Trains the demo model on the token files of prepare_data.py.

    python train.py --cache CACHE --steps 3600 [--resume]

The schedule counts steps, never seconds: the process may be paused (SIGSTOP) or stopped and resumed.  Learning rate:
linear warm-up, constant, then linear to zero over the last --decay of the steps.  While the rate is still constant
the length may be changed: write the new number of steps into CACHE/checkpoint.steps (read before every step).  Every
--save-every steps CACHE/checkpoint.pt is replaced atomically; SIGTERM saves and ends.  Matrices inside the layers are
trained with Muon, everything else (embedding, norms, routers) with AdamW.
"""

import argparse
import dataclasses
import itertools
import json
import os
import pathlib
import signal
import sys
import time

import numpy as np
import torch
import torch._inductor.config

from model import Model, Shape

# Share of the training tokens taken from each domain; chosen between "by size" and "equal".
MIX = {"scripture": 0.13, "story": 0.07, "dictionary": 0.24, "encyclopaedia": 0.15, "manual": 0.22, "code": 0.19}


class Batches:
    """Random windows of one domain each.  Batch `step` is a pure function of (seed, step), so a run can resume."""

    def __init__(self, folder, part, tokens_per_batch, seed):
        self.streams = {domain: np.load(folder / f"{domain}.{part}.npy") for domain in MIX}
        self.tokens_per_batch, self.seed = tokens_per_batch, seed

    def __call__(self, step):
        random = np.random.default_rng((self.seed, step))
        length = (256, 512, 256, 1024, 256, 512, 256, 512)[step % 8]  # mostly short windows, some of the full context
        rows = []
        for domain in random.choice(list(MIX), self.tokens_per_batch // length, p=list(MIX.values())):
            stream = self.streams[domain]
            start = random.integers(0, len(stream) - length - 1)
            rows.append(stream[start:start + length + 1].astype(np.int64))
        rows = torch.from_numpy(np.stack(rows))
        return rows[:, :-1], rows[:, 1:]


def orthogonalise(matrices):
    """Newton-Schulz iteration of Muon on a stack [n, rows, columns]: singular values go to about one."""
    x = matrices.to(torch.bfloat16)
    wide = x.shape[-2] <= x.shape[-1]
    x = x if wide else x.mT
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(5):
        gram = x @ x.mT
        polynomial = torch.baddbmm(gram, gram, gram, beta=-4.7750, alpha=2.0315)
        x = torch.baddbmm(x, polynomial, x, beta=3.4445)
    return x if wide else x.mT


class Muon(torch.optim.Optimizer):
    """Muon (K. Jordan, 2024) with the update scaled as in "Muon is Scalable" (2025) and decoupled weight decay."""

    def __init__(self, parameters, lr, momentum=0.95, weight_decay=0.1):
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for parameter in group["params"]:
                state = self.state[parameter]
                if "momentum" not in state:
                    state["momentum"] = torch.zeros_like(parameter)
                average = state["momentum"].lerp_(parameter.grad, 1 - group["momentum"])
                update = parameter.grad.lerp(average, group["momentum"])
                rows, columns = parameter.shape[-2:]
                update = orthogonalise(update.reshape(-1, rows, columns)).view_as(parameter)
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.add_(update, alpha=-group["lr"] * 0.2 * max(rows, columns) ** 0.5)


def make_optimizers(model, options):
    # The two halves of w13 and the parts of qkv share one update: they are one matrix here.
    hidden = [p for n, p in model.named_parameters() if n.endswith(("qkv.weight", "out.weight", "w13", "w2"))]
    known = set(map(id, hidden))
    tables = [p for p in model.parameters() if p.dim() > 1 and id(p) not in known]
    vectors = [p for p in model.parameters() if p.dim() == 1]
    adam = torch.optim.AdamW([{"params": tables, "weight_decay": 0.01}, {"params": vectors, "weight_decay": 0.0}],
                             lr=options.adam_lr, betas=(0.9, 0.95), fused=True)
    return [Muon(hidden, options.lr, weight_decay=options.weight_decay), adam]


def rate(step, options):
    decay_from = options.steps * (1 - options.decay)
    if step < options.warmup:
        return (step + 1) / options.warmup
    return 1.0 if step < decay_from else max(0.0, (options.steps - step) / (options.steps - decay_from))


@torch.no_grad()
def held_out_loss(model, folder, windows=12, length=512):
    """Mean loss per token of each domain over evenly spaced windows of its held-out stream."""
    losses = {}
    for domain in MIX:
        stream = np.load(folder / f"{domain}.heldout.npy").astype(np.int64)
        starts = np.linspace(0, len(stream) - length - 1, windows).astype(int)
        rows = torch.from_numpy(np.stack([stream[s:s + length + 1] for s in starts])).to(model.embed.device)
        with torch.autocast(rows.device.type, torch.bfloat16):
            losses[domain] = model.loss(rows[:, :-1], rows[:, 1:])[0].item()
    return losses


def save(path, model, optimizers, step, seconds):
    partial = path.with_suffix(".partial")
    torch.save({"shape": dataclasses.asdict(model.shape), "model": model.state_dict(), "step": step,
                "optimizers": [optimizer.state_dict() for optimizer in optimizers], "seconds": seconds}, partial)
    partial.replace(path)


class FreeCores:
    """How many threads the next step should use: the cores that other programs left alone during the last one.

    A step waits for its slowest thread.  Beside a busy program at low priority (nice 19) one thread on the free core is
    ten times faster than two threads of which one hardly runs.  Linux only; elsewhere always `threads`.
    """

    def __init__(self, threads):
        self.threads, self.before = threads, self.read()

    @staticmethod
    def read():
        try:
            user, nice = open("/proc/stat").readline().split()[1:3]
        except OSError:
            return None
        others = (int(user) + int(nice)) / os.sysconf("SC_CLK_TCK") - os.times().user
        return others, time.monotonic()

    def __call__(self):
        if not self.before:
            return self.threads
        (then, since), self.before = self.before, self.read()
        busy = (self.before[0] - then) / max(self.before[1] - since, 1e-3)
        return max(1, self.threads - int(busy + 0.75))


def parse_options():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=pathlib.Path, required=True, help="folder used by prepare_data.py")
    parser.add_argument("--name", default="checkpoint", help="name of the checkpoint and log files in CACHE")
    parser.add_argument("--steps", type=int, default=3600)
    parser.add_argument("--stop-after", type=int, default=None, help="end at this step (for short trials)")
    parser.add_argument("--tokens-per-batch", type=int, default=8192)
    parser.add_argument("--lr", type=float, default=4e-3, help="Muon")
    parser.add_argument("--adam-lr", type=float, default=3e-3)
    parser.add_argument("--weight-decay", type=float, default=0.1)
    parser.add_argument("--balance", type=float, default=0.01, help="weight of the load-balancing loss")
    parser.add_argument("--warmup", type=int, default=100)
    parser.add_argument("--decay", type=float, default=1 / 3, help="share of the steps with a falling rate")
    parser.add_argument("--save-every", type=int, default=100)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--resume", action="store_true")
    return parser.parse_args()


def keep_freed_memory():
    """Starts the program again with a malloc that gives nothing back: page faults took half of every CPU step."""
    wanted = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "20000000000", "MALLOC_TOP_PAD_": "268435456",
              "MALLOC_ARENA_MAX": "1", "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
    if any(os.environ.get(name) != value for name, value in wanted.items()):
        os.environ.update(wanted)
        os.execv(sys.executable, [sys.executable, *sys.argv])


def main():
    options = parse_options()
    keep_freed_memory()
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    folder = options.cache / "data"
    checkpoint, log = options.cache / f"{options.name}.pt", options.cache / f"{options.name}.jsonl"

    length = options.cache / f"{options.name}.steps"

    model = Model(Shape()).to(device)
    optimizers = make_optimizers(model, options)
    first_rates = [[group["lr"] for group in optimizer.param_groups] for optimizer in optimizers]
    first, spent = 0, 0.0
    if options.resume:
        saved = torch.load(checkpoint, map_location=device)
        model.load_state_dict(saved["model"])
        for optimizer, state in zip(optimizers, saved["optimizers"]):
            optimizer.load_state_dict(state)
        first, spent = saved["step"], saved["seconds"]
    print(f"{sum(p.numel() for p in model.parameters())} parameters on {device}, from step {first}", flush=True)

    free_cores, threads_used = FreeCores(options.threads), []
    torch._inductor.config.cpp.dynamic_threads = True  # compiled parts, too, follow set_num_threads
    stop = []
    signal.signal(signal.SIGTERM, lambda *_: stop.append(True))
    batches = Batches(folder, "train", options.tokens_per_batch, options.seed)
    started, recent, window = time.monotonic(), [], time.monotonic()
    for step in itertools.count(first):
        if length.exists():
            options.steps = int(length.read_text())
        factor = rate(step, options)
        for optimizer, rates in zip(optimizers, first_rates):
            for group, full in zip(optimizer.param_groups, rates):
                group["lr"] = full * factor
        threads_used.append(free_cores())
        torch.set_num_threads(threads_used[-1])
        ids, targets = (tensor.to(device) for tensor in batches(step))
        with torch.autocast(device.type, torch.bfloat16):
            loss, balance = model.loss(ids, targets)
        (loss + options.balance * balance).backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        recent.append((loss.item(), balance.item(), norm.item()))

        done = step + 1
        if done % 20 == 0:
            speed = len(recent) * options.tokens_per_batch / (time.monotonic() - window)
            means = np.mean(recent, axis=0)
            line = {"step": done, "loss": round(means[0], 4), "balance": round(means[1], 4),
                    "gradient_norm": round(means[2], 3), "tokens_per_second": round(speed), "threads": round(float(np.mean(threads_used)), 2), "rate": round(factor, 4)}
            if done % options.save_every == 0:
                line["held_out"] = {k: round(v, 4) for k, v in held_out_loss(model, folder).items()}
            print(json.dumps(line), flush=True)
            with log.open("a") as file:
                file.write(json.dumps(line) + "\n")
            recent, threads_used, window = [], [], time.monotonic()
        last = done >= options.steps or done == options.stop_after or bool(stop)
        if done % options.save_every == 0 or last:
            save(checkpoint, model, optimizers, done, spent + time.monotonic() - started)
        if last:
            break


if __name__ == "__main__":
    main()
