"""What a scrape costs the engine: decode steps with and without scrapes of a server with 32 layers of 128 experts.

    python tests/bench/scrape_bench.py --server build/server/switchyard-server [--pairs 24] [--seconds 5] [--rate 10]

Needs the Python packages of tests/requirements.txt. The model is of random weights and narrow, so that its steps are
short and a scrape weighs more than beside a real one; what is scraped is as much as of a large one. Sequences decode
all the time, and windows without and with scrapes follow each other, at a rate far above Prometheus', so that the cost
can be told from the machine's noise:

    window  A  without      step = (step_seconds_sum after - before) / (step_seconds_count after - before)
    window  B  `rate` per second
    a pair  1 - step A / step B = share of the engine's time that the scrapes took; / rate = seconds per scrape

Medians over the pairs are printed, with the quartiles. "Turn" is the whole turn of the serving loop, wall time by
steps: with what lies between two steps, and the waits for the counters. The scrape before and after a window, which
reads the counters, is the same for A and B. The scraper runs on the same cores as the server: its own reading counts
against the server, too.
"""

import argparse
import json
import pathlib
import random
import socket
import statistics
import sys
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path += [str(ROOT / "tests" / "deploy"), str(ROOT / "tests" / "end_to_end")]
from scrape_test import EXPERTS, LAYERS, wide_config  # noqa: E402
from serving import Server, pb  # noqa: E402

INTERVALS = (15, 1)  # seconds: of deploy/prometheus/prometheus.yml, and of somebody in a hurry
CONTEXT = wide_config()["max_position_embeddings"]
ADMIN_THREADS = "civetweb"  # their names begin so


def scrape(port):
    """The body of /metrics, read as cheaply as Python can."""
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        parts = []
        while part := connection.recv(1 << 20):
            parts.append(part)
    return b"".join(parts)


class Load:
    """As many sequences as asked for decode until the end: each call that ends is followed by another one."""

    def __init__(self, server, num_sequences):
        self.ended = threading.Event()
        self.threads = [threading.Thread(target=self.run, args=(server, i), daemon=True) for i in range(num_sequences)]
        for thread in self.threads:
            thread.start()

    def run(self, server, seed):
        draw = random.Random(seed)
        # At different places of their contexts, so that the mean step is always the same.
        length = draw.randrange(100, CONTEXT - 50)
        while not self.ended.is_set():
            prompt = pb.TokenIds(ids=[draw.randrange(1, 500) for _ in range(20)])
            server.inference.Generate(pb.GenerateRequest(token_ids=prompt, max_tokens=length, ignore_eos=True))
            length = CONTEXT - 50

    def stop(self):
        self.ended.set()
        for thread in self.threads:
            thread.join()


def admin_cpu_seconds(process):
    """CPU time of the threads that answer scrapes."""
    nanoseconds = 0
    for task in pathlib.Path(f"/proc/{process.pid}/task").iterdir():
        if (task / "comm").read_text().startswith(ADMIN_THREADS):
            nanoseconds += int((task / "schedstat").read_text().split()[0])
    return 1e-9 * nanoseconds


def counters(server):
    page = dict(
        line.rsplit(b" ", 1) for line in scrape(server.facts["admin_port"]).splitlines() if b"step_seconds_" in line
    )
    value = {name.split(b"{")[0]: float(text) for name, text in page.items()}
    return value[b"switchyard_step_seconds_sum"], value[b"switchyard_step_seconds_count"], time.monotonic()


class Window:
    def __init__(self, server, seconds, rate):
        """Without scrapes where `rate` is 0."""
        self.answers = []
        port = server.facts["admin_port"]
        sums, steps, start = counters(server)
        cpu = admin_cpu_seconds(server.process)
        end = start + seconds
        for i in range(1, round(rate * seconds)):
            time.sleep(max(start + i / rate - time.monotonic(), 0))
            sent = time.monotonic()
            scrape(port)
            self.answers.append(time.monotonic() - sent)
        time.sleep(max(end - time.monotonic(), 0))
        self.cpu = admin_cpu_seconds(server.process) - cpu
        sums_after, steps_after, end = counters(server)
        self.step = (sums_after - sums) / (steps_after - steps)
        self.turn = (end - start) / (steps_after - steps)
        self.rate = len(self.answers) / (end - start)


def quartiles(values):
    low, middle, high = statistics.quantiles(values, n=4)
    return {"median": middle, "quartiles": [low, high]}


def evaluate(pairs):
    result = {}
    for name in ("step", "turn"):
        without, beside = ([getattr(window, name) for window in windows] for windows in zip(*pairs))
        shares = [1 - a / b for a, b in zip(without, beside)]
        per_scrape = statistics.median(share / b.rate for share, (_, b) in zip(shares, pairs))
        result[name] = {
            "seconds_without": quartiles(without),
            "seconds_with": quartiles(beside),
            "share": quartiles(shares),
            "seconds_per_scrape": per_scrape,
            "share_at_interval": {interval: per_scrape / interval for interval in INTERVALS},
        }
    result["scrapes_per_second"] = statistics.median(b.rate for _, b in pairs)
    answers = [seconds for _, b in pairs for seconds in b.answers]
    result["answer_seconds"] = quartiles(answers) | {"p99": statistics.quantiles(answers, n=100)[98]}
    result["cpu_seconds_per_scrape"] = statistics.median(b.cpu / len(b.answers) for _, b in pairs)
    return result


def show(result):
    print(f"{result['scrapes_per_second']:.1f} scrapes per second in the windows with scrapes")
    answer = result["answer_seconds"]
    print(
        f"a scrape answers within {1e3 * answer['median']:.1f} ms in the median, {1e3 * answer['p99']:.1f} ms in the "
        f"99th percentile, and takes {1e3 * result['cpu_seconds_per_scrape']:.2f} ms of CPU in the server"
    )
    for name in ("step", "turn"):
        of = result[name]
        low, high = of["share"]["quartiles"]
        print(
            f"{name}: {1e3 * of['seconds_without']['median']:.3f} ms without, "
            f"{1e3 * of['seconds_with']['median']:.3f} ms with scrapes, {100 * of['share']['median']:.2f} % "
            f"(quartiles {100 * low:.2f} to {100 * high:.2f} %): {1e3 * of['seconds_per_scrape']:.2f} ms per scrape, "
            + ", ".join(f"{100 * share:.3f} % at {s} s" for s, share in of["share_at_interval"].items())
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", dest="server_binary", required=True)
    parser.add_argument("--pairs", type=int, default=24)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--rate", type=float, default=10.0)
    parser.add_argument("--sequences", type=int, default=16)
    parser.add_argument("--json", type=pathlib.Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        (pathlib.Path(folder) / "config.json").write_text(json.dumps(wide_config()))
        options.model = folder
        flags = ("--load-format=dummy", "--kv-cache-memory=512M", f"--max-num-seqs={options.sequences}")
        with Server(options, *flags) as server:
            print(f"{LAYERS} layers of {EXPERTS} experts, {options.sequences} sequences, "
                  f"{len(scrape(server.facts['admin_port'])) / 1e6:.2f} MB per scrape")
            load = Load(server, options.sequences)
            time.sleep(options.seconds)
            pairs = []
            for i in range(options.pairs):
                pairs.append([Window(server, options.seconds, rate) for rate in (0, options.rate)])
                a, b = pairs[-1]
                print(f"pair {i + 1}: step {1e3 * a.step:.3f} and {1e3 * b.step:.3f} ms", flush=True)
            load.stop()
    result = evaluate(pairs)
    show(result)
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
