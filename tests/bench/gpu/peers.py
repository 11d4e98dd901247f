#!/usr/bin/env python3
"""What others do with the MoE layers that switchyard_bench_gpu measures.

torch's grouped_mm, the experts of transformers, and a fused MoE kernel written in Triton here, on the same shapes, with
the same expert ids (written by `switchyard_bench_gpu --write-routing FOLDER`), four sets of weights in turn, a CUDA
graph of up to 20 layer calls where the provider can be captured, medians of its replays. The same part of the layer is
timed: gate, up, SiLU, down and combine; the grouping by expert is not (transformers' own experts do it inside).

    peers.py --routing FOLDER [--bench bench.json] [--json FILE] [--quick] [--model NAME]
"""
import argparse
import json
import sys
import time

SETS = 4
# name: hidden, intermediate, experts, top_k
MODELS = {
    "Mixtral-8x7B": (4096, 14336, 8, 2),
    "OLMoE-1B-7B": (2048, 1024, 64, 8),
    "Qwen3-30B-A3B": (2048, 768, 128, 8),
    "DeepSeekMoE-16B": (2048, 1408, 64, 6),
}
TOKENS = (1, 2, 4, 8, 16, 32, 64, 128, 512, 1024, 4096, 8192)
QUICK_TOKENS = (1, 8, 32, 128, 8192)
MAX_BATCHED_BYTES = 8 << 30  # transformers' batched_mm copies the weights of every choice

try:
    import torch
except ImportError:
    print("skipped: torch is not installed")
    sys.exit(0)
if not torch.cuda.is_available():
    print("no NVIDIA GPU: torch.cuda.is_available() is false")
    sys.exit(0)

try:
    import triton
    import triton.language as tl
except ImportError:
    triton = None
    print("skipped: triton is not installed")

if triton is not None:

    @triton.jit
    def locate(num_tiles, num_blocks, GROUP: tl.constexpr):
        """Tiles of rows in groups, so that blocks that run together share weights."""
        pid = tl.program_id(0)
        per_group = GROUP * num_blocks
        first = pid // per_group * GROUP
        size = tl.minimum(num_tiles - first, GROUP)
        return first + pid % per_group % size, pid % per_group // size

    @triton.jit
    def gate_up_kernel(x, weight, out, row_to_token, tile_expert, tile_row, tile_rows, num_tiles, num_blocks, d, f,
                       BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr):
        tile, block = locate(num_tiles, num_blocks, 8)
        expert = tl.load(tile_expert + tile).to(tl.int64)
        m = tl.arange(0, BM)
        inside = m < tl.load(tile_rows + tile)
        rows = tl.load(tile_row + tile) + m
        tokens = tl.load(row_to_token + rows, mask=inside, other=0).to(tl.int64)
        cols = block * BN + tl.arange(0, BN)
        k = tl.arange(0, BK)
        a_at = x + tokens[:, None] * d + k[None, :]
        gate_at = weight + expert * 2 * f * d + cols[None, :].to(tl.int64) * d + k[:, None]
        up_at = gate_at + f.to(tl.int64) * d
        gate = tl.zeros((BM, BN), dtype=tl.float32)
        up = tl.zeros((BM, BN), dtype=tl.float32)
        for step in range(0, d, BK):
            a = tl.load(a_at + step, mask=inside[:, None], other=0.0)
            gate = tl.dot(a, tl.load(gate_at + step), gate)
            up = tl.dot(a, tl.load(up_at + step), up)
        value = gate * tl.sigmoid(gate) * up
        tl.store(out + rows[:, None].to(tl.int64) * f + cols[None, :], value.to(tl.bfloat16), mask=inside[:, None])

    @triton.jit
    def down_kernel(x, weight, out, tile_expert, tile_row, tile_rows, num_tiles, num_blocks, d, f, BM: tl.constexpr,
                    BN: tl.constexpr, BK: tl.constexpr):
        tile, block = locate(num_tiles, num_blocks, 8)
        expert = tl.load(tile_expert + tile).to(tl.int64)
        m = tl.arange(0, BM)
        inside = m < tl.load(tile_rows + tile)
        rows = (tl.load(tile_row + tile) + m).to(tl.int64)
        cols = block * BN + tl.arange(0, BN)
        k = tl.arange(0, BK)
        a_at = x + rows[:, None] * f + k[None, :]
        b_at = weight + expert * d * f + cols[None, :].to(tl.int64) * f + k[:, None]
        acc = tl.zeros((BM, BN), dtype=tl.float32)
        for step in range(0, f, BK):
            a = tl.load(a_at + step, mask=inside[:, None], other=0.0)
            acc = tl.dot(a, tl.load(b_at + step), acc)
        tl.store(out + rows[:, None] * d + cols[None, :], acc.to(tl.bfloat16), mask=inside[:, None])

    @triton.jit
    def combine_kernel(rows, weights, choice_to_row, out, d, K: tl.constexpr, BD: tl.constexpr):
        token = tl.program_id(0).to(tl.int64)
        cols = tl.program_id(1) * BD + tl.arange(0, BD)
        total = tl.load(out + token * d + cols)
        for j in range(K):
            row = tl.load(choice_to_row + token * K + j).to(tl.int64)
            total += tl.load(weights + token * K + j) * tl.load(rows + row * d + cols).to(tl.float32)
        tl.store(out + token * d + cols, total)


class Weights:
    """One set: w13 [experts, 2 intermediate, hidden] (gate rows, then up), w2 [experts, hidden, intermediate]."""

    def __init__(self, shape, seed):
        hidden, intermediate, experts, _ = shape
        generator = torch.Generator("cuda").manual_seed(seed)

        def normal(*size):
            return torch.empty(size, dtype=torch.bfloat16, device="cuda").normal_(0, 0.02, generator=generator)

        self.w13 = normal(experts, 2 * intermediate, hidden)
        self.w2 = normal(experts, hidden, intermediate)


class Routed:
    """One draw of expert ids, grouped by expert."""

    def __init__(self, ids, experts):
        self.ids = ids  # int64 [tokens, top_k]
        tokens, top_k = ids.shape
        flat = ids.reshape(-1)
        order = torch.argsort(flat, stable=True)
        counts = torch.bincount(flat, minlength=experts)
        self.touched = int((counts > 0).sum())
        self.counts = counts.tolist()
        self.ends = torch.cumsum(counts, 0).to(torch.int32)
        self.row_to_token = (order // top_k).to(torch.int32)
        self.row_to_token_long = order // top_k
        self.choice_to_row = torch.argsort(order).to(torch.int32)
        self.choice_to_row_long = self.choice_to_row.long()
        generator = torch.Generator("cuda").manual_seed(5)
        weights = torch.rand(ids.shape, generator=generator, device="cuda") + 0.1
        self.weights = weights / weights.sum(1, keepdim=True)
        self.tiles = {}

    def tiles_of(self, rows_per_tile):
        if rows_per_tile not in self.tiles:
            expert, first, count = [], [], []
            row = 0
            for e, n in enumerate(self.counts):
                for at in range(0, n, rows_per_tile):
                    expert.append(e)
                    first.append(row + at)
                    count.append(min(rows_per_tile, n - at))
                row += n
            self.tiles[rows_per_tile] = tuple(
                torch.tensor(v, dtype=torch.int32, device="cuda") for v in (expert, first, count))
        return self.tiles[rows_per_tile]


class Case:
    def __init__(self, shape, weights, routed):
        self.hidden, self.intermediate, self.experts, self.top_k = shape
        self.weights, self.routed = weights, routed
        self.tokens = routed[0].ids.shape[0]
        self.h = torch.randn(self.tokens, self.hidden, device="cuda").to(torch.bfloat16)
        self.x = torch.zeros(self.tokens, self.hidden, device="cuda")
        rows = self.tokens * self.top_k
        self.product = torch.empty(rows, self.intermediate, dtype=torch.bfloat16, device="cuda")
        self.rows = torch.empty(rows, self.hidden, dtype=torch.bfloat16, device="cuda")
        self.touched = sum(r.touched for r in routed) / len(routed)


def reference(case, tokens):
    """What the layer adds for some tokens of set 0, in fp32."""
    out = []
    for t in tokens:
        total = 0
        for j in range(case.top_k):
            e = int(case.routed[0].ids[t, j])
            gate, up = (case.weights[0].w13[e].float() @ case.h[t].float()).chunk(2)
            total = total + case.routed[0].weights[t, j] * (
                case.weights[0].w2[e].float() @ (torch.nn.functional.silu(gate) * up))
        out.append(total)
    return torch.stack(out)


def torch_grouped(case):
    """gather, grouped_mm, silu * up, grouped_mm, weighted sum."""
    public = getattr(torch.nn.functional, "grouped_mm", None)
    grouped_mm = public or torch._grouped_mm

    def run(call):
        w, r = case.weights[call % SETS], case.routed[call % SETS]
        gate, up = grouped_mm(case.h[r.row_to_token_long], w.w13.transpose(1, 2), offs=r.ends).chunk(2, dim=-1)
        rows = grouped_mm(torch.nn.functional.silu(gate) * up, w.w2.transpose(1, 2), offs=r.ends)
        chosen = rows[r.choice_to_row_long].view(case.tokens, case.top_k, case.hidden)
        case.x += (chosen * r.weights[:, :, None]).sum(1)

    return run


def transformers_experts(case, implementation):
    from transformers import MixtralConfig
    from transformers.models.mixtral.modeling_mixtral import MixtralExperts
    config = MixtralConfig(hidden_size=case.hidden, intermediate_size=case.intermediate,
                           num_local_experts=case.experts, num_experts_per_tok=case.top_k)
    config._experts_implementation = implementation
    modules = []
    for w in case.weights:
        with torch.device("meta"):
            module = MixtralExperts(config)
        if tuple(module.gate_up_proj.shape) != tuple(w.w13.shape):
            raise RuntimeError(f"transformers keeps gate_up_proj as {tuple(module.gate_up_proj.shape)}")
        module.gate_up_proj = torch.nn.Parameter(w.w13, requires_grad=False)
        module.down_proj = torch.nn.Parameter(w.w2, requires_grad=False)
        modules.append(module)
    weights = [r.weights.to(torch.bfloat16) for r in case.routed]

    def run(call):
        s = call % SETS
        case.x += modules[s](case.h, case.routed[s].ids, weights[s])

    return run


def triton_fused(case, block_m, config):
    block_n, block_k, num_warps, num_stages = config
    launch = {"BM": block_m, "BN": block_n, "BK": block_k, "num_warps": num_warps, "num_stages": num_stages}

    def run(call):
        w, r = case.weights[call % SETS], case.routed[call % SETS]
        expert, first, count = r.tiles_of(block_m)
        tiles = expert.numel()
        blocks = case.intermediate // block_n
        gate_up_kernel[(tiles * blocks,)](case.h, w.w13, case.product, r.row_to_token, expert, first, count, tiles,
                                          blocks, case.hidden, case.intermediate, **launch)
        blocks = case.hidden // block_n
        down_kernel[(tiles * blocks,)](case.product, w.w2, case.rows, expert, first, count, tiles, blocks,
                                       case.hidden, case.intermediate, **launch)
        combine_kernel[(case.tokens, case.hidden // 1024)](case.rows, r.weights, r.choice_to_row, case.x, case.hidden,
                                                           K=case.top_k, BD=1024)

    return run


def triton_configs(case):
    """A few shapes of a block for the rows that an expert has; the fastest counts."""
    average = case.tokens * case.top_k / case.touched
    block_m = 16 if average <= 16 else 32 if average <= 32 else 64 if average <= 64 else 128
    if block_m <= 32:
        return block_m, ((64, 128, 4, 4), (128, 64, 4, 4), (64, 64, 4, 5))
    return block_m, ((64, 64, 4, 4), (128, 64, 8, 3))


def check(case, run):
    case.x.zero_()
    case.rows.fill_(float("nan"))
    case.product.fill_(float("nan"))
    run(0)
    tokens = sorted({0, case.tokens // 2, case.tokens - 1})
    expected = reference(case, tokens)
    return float((case.x[tokens] - expected).norm() / expected.norm())


def elapsed_ms(body):
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    body()
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end)


def capture(run, calls):
    """A replay of `calls` calls and whether it is a graph."""
    try:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            for call in range(calls):
                run(call)
        return graph.replay, True
    except Exception:  # noqa: BLE001: providers that wait for the device cannot be captured
        torch.cuda.synchronize()
        return lambda: [run(call) for call in range(calls)], False


def measure(run, budget_ms):
    """us per call: median, p10, p90; and whether a graph was replayed."""
    for call in range(SETS):
        run(call)
    torch.cuda.synchronize()
    one = elapsed_ms(lambda: [run(call) for call in range(SETS)]) / SETS
    calls = SETS * max(1, min(5, int(20 / (one * SETS))))
    replay, graph = capture(run, calls)
    replay()
    first = max(elapsed_ms(replay), 1e-3)
    samples = sorted(1e3 * elapsed_ms(replay) / calls for _ in range(max(4, min(50, int(budget_ms / first)))))
    return samples[len(samples) // 2], samples[len(samples) // 10], samples[len(samples) * 9 // 10], graph


def providers(case):
    """(name, function that makes run)."""
    yield "torch grouped_mm", lambda: torch_grouped(case)
    yield "tf grouped_mm", lambda: transformers_experts(case, "grouped_mm")
    if case.tokens * case.top_k * 6 * case.hidden * case.intermediate <= MAX_BATCHED_BYTES:
        yield "tf batched_mm", lambda: transformers_experts(case, "batched_mm")
    if triton is not None:
        block_m, configs = triton_configs(case)
        for config in configs:
            yield "triton fused", lambda config=config: triton_fused(case, block_m, config)


class Report:
    def __init__(self, bench):
        self.rows, self.skipped = [], set()
        self.floors, self.ours = {}, {}
        for row in bench.get("results", []):
            if row["section"] != "moe" or row["provider"].startswith(" "):
                continue
            self.floors[row["name"]] = row["floor_us"]
            best = self.ours.get(row["name"])
            if best is None or row["us"] < best[0]:
                self.ours[row["name"]] = (row["us"], row["provider"])

    def skip(self, provider, error):
        line = f"skipped: {provider}: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        if line not in self.skipped:
            print(line[:160])
        self.skipped.add(line)

    def add(self, name, provider, timing, error, case):
        median, p10, p90, graph = timing
        matrix = case.hidden * case.intermediate
        flops = 6.0 * case.tokens * case.top_k * matrix
        self.rows.append({"section": "moe", "name": name, "provider": provider, "us": median, "us_p10": p10,
                          "us_p90": p90, "bytes": 6.0 * case.touched * matrix, "flops": flops, "graph": graph,
                          "rel_l2": error})

    def print_case(self, name):
        for row in (r for r in self.rows if r["name"] == name):
            us, floor = row["us"], self.floors.get(name)
            share = f"{100 * floor / us:4.0f}%" if floor else "    -"
            wrong = "" if row["rel_l2"] < 1e-2 else f"  WRONG, rel-L2 {row['rel_l2']:.1e}"
            print(f"{name:34} {row['provider']:18} {us:10.2f} us {row['bytes'] / us / 1e6:6.2f} TB/s "
                  f"{row['flops'] / us / 1e6:6.0f} TFLOP/s {share} of the floor{'' if row['graph'] else '  no graph'}"
                  f"{wrong}")
        if name in self.ours:
            us, provider = self.ours[name]
            print(f"{name:34} {'ours: ' + provider:18} {us:10.2f} us {'':29}{100 * self.floors[name] / us:4.0f}%")
        sys.stdout.flush()


def load_ids(folder, model, tokens, shape):
    ids = torch.frombuffer(bytearray(open(f"{folder}/{model}_{tokens}_uniform.i32", "rb").read()), dtype=torch.int32)
    return ids.view(SETS, tokens, shape[3]).long().cuda()


def run_case(report, name, case, budget_ms):
    fastest = {}
    for provider, make in providers(case):
        try:
            run = make()
            error = check(case, run)
            timing = measure(run, budget_ms)
        except Exception as problem:  # noqa: BLE001: a peer that is missing or fails is no failure of ours
            torch.cuda.synchronize()
            report.skip(provider, problem)
            continue
        if provider not in fastest or timing[0] < fastest[provider][0][0]:
            fastest[provider] = (timing, error)
    for provider, (timing, error) in fastest.items():
        report.add(name, provider, timing, error, case)
    report.print_case(name)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--routing", required=True)
    parser.add_argument("--bench", default="")
    parser.add_argument("--json", default="")
    parser.add_argument("--model", default="")
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()
    try:
        bench = json.load(open(arguments.bench)) if arguments.bench else {}
    except OSError:
        bench = {}
    report = Report(bench)
    start = time.time()
    with torch.no_grad():
        for model, shape in MODELS.items():
            if arguments.model not in model:
                continue
            weights = [Weights(shape, seed) for seed in range(SETS)]
            for tokens in QUICK_TOKENS if arguments.quick else TOKENS:
                ids = load_ids(arguments.routing, model, tokens, shape)
                case = Case(shape, weights, [Routed(ids[s], shape[2]) for s in range(SETS)])
                run_case(report, f"{model} T={tokens} uniform", case, 10 if arguments.quick else 25)
                if arguments.json:
                    with open(arguments.json, "w") as file:
                        json.dump({"device": torch.cuda.get_device_name(), "torch": torch.__version__,
                                   "results": report.rows}, file, indent=1)
            del weights
            torch.cuda.empty_cache()
    print(f"{time.time() - start:.0f} s")


if __name__ == "__main__":
    main()
