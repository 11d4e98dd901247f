"""What watching costs: a scrape of 32 layers x 128 experts, and a storm of scrapers on top of half-open connections.

Costs are CPU time where that is what is meant: it does not depend on what else the machine does.
"""

import json
import pathlib
import socket
import statistics
import sys
import tempfile
import threading
import time

import deployed

sys.path.insert(0, str(deployed.ROOT / "tests" / "end_to_end"))
from serving import Server, arguments, check, code_of, health_pb2, pb  # noqa: E402

LAYERS, EXPERTS, TOP_K = 32, 128, 8
MAX_SERIES = 10000
MAX_SCRAPE_SECONDS = 0.050
SCRAPE_INTERVAL = 15.0  # of deploy/prometheus/prometheus.yml
MAX_SHARE_OF_CPU = 0.01
SCRAPERS, SCRAPES_EACH, HALF_OPEN = 50, 4, 40
MAX_HEALTH_SECONDS = 1.0  # in the storm, in the median; its clients share the cores with the server


def wide_config():
    """Many experts, each tiny: what is scraped is as much as of a large model."""
    return {
        "model_type": "mixtral",
        "architectures": ["MixtralForCausalLM"],
        "num_hidden_layers": LAYERS,
        "num_local_experts": EXPERTS,
        "num_experts_per_tok": TOP_K,
        "hidden_size": 64,
        "intermediate_size": 32,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 32,
        "vocab_size": 512,
        "max_position_embeddings": 1024,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "hidden_act": "silu",
        "tie_word_embeddings": True,
        "bos_token_id": 0,
        "eos_token_id": 0,
        "dtype": "float32",
    }


def series(server):
    """Every series of a scrape, without its value."""
    return {line.rsplit(" ", 1)[0] for line in server.admin("/metrics").splitlines() if not line.startswith("#")}


def check_number_of_series(server):
    before = series(server)
    for i in range(20):
        request = pb.GenerateRequest(
            token_ids=pb.TokenIds(ids=[5 + i] * 30),
            max_tokens=5,
            ignore_eos=True,
            request_id=f"unheard-of-{i}",
            model=("", "unknown")[i % 2],
        )
        code_of(lambda: server.inference.Generate(request))
    server.wait_until_idle()  # counted to the end
    counted = server.metric("switchyard_moe_expert_tokens_total")
    tokens = server.metric("switchyard_engine_tokens_total")
    check(counted == tokens * TOP_K * LAYERS > 0, f"the experts' rows are those of {tokens:.0f} tokens")
    check(
        series(server) == before and LAYERS * EXPERTS < len(before) < MAX_SERIES,
        f"{len(before)} series, the same before and after traffic",
    )


def check_cost(server):
    seconds = []
    before = server.metric("process_cpu_seconds_total")
    for _ in range(20):
        start = time.perf_counter()
        server.admin("/metrics")
        seconds.append(time.perf_counter() - start)
    cpu = (server.metric("process_cpu_seconds_total") - before) / 21
    check(
        min(seconds) <= MAX_SCRAPE_SECONDS and cpu <= MAX_SCRAPE_SECONDS,
        f"a scrape takes {1e3 * min(seconds):.1f} ms, {1e3 * statistics.median(seconds):.1f} ms in the median, "
        f"and {1e3 * cpu:.1f} ms of CPU",
    )
    check(cpu / SCRAPE_INTERVAL <= MAX_SHARE_OF_CPU, f"{100 * cpu / SCRAPE_INTERVAL:.3f} % of a core's time")


def check_storm(server):
    """While everybody scrapes: scrapes are answered, a stream goes on, and health answers."""
    half_open = [socket.create_connection(("127.0.0.1", server.facts["admin_port"])) for _ in range(HALF_OPEN)]
    for connection in half_open:
        connection.sendall(b"GET /metrics HT")
    pages, health, generated = [], [], []

    def scrape():
        pages.extend("switchyard_ready" in server.admin("/metrics") for _ in range(SCRAPES_EACH))

    def generate():
        request = pb.GenerateRequest(token_ids=pb.TokenIds(ids=[7] * 20), max_tokens=100, ignore_eos=True)
        generated.append(server.inference.Generate(request, timeout=60).usage.completion_tokens)

    threads = [threading.Thread(target=scrape) for _ in range(SCRAPERS)] + [threading.Thread(target=generate)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        start = time.perf_counter()
        server.health.Check(health_pb2.HealthCheckRequest(), timeout=60)
        health.append(time.perf_counter() - start)
        time.sleep(0.01)
    for connection in half_open:
        connection.close()
    check(pages == [True] * SCRAPERS * SCRAPES_EACH, f"{len(pages)} scrapes by {SCRAPERS} at once are answered")
    check(generated == [100], "a request runs to its end meanwhile")
    check(
        statistics.median(health) <= MAX_HEALTH_SECONDS,
        f"health answers within {1e3 * statistics.median(health):.0f} ms in the median, {1e3 * max(health):.0f} ms at most",
    )


def main():
    args = arguments(__doc__)
    with tempfile.TemporaryDirectory() as folder:
        (pathlib.Path(folder) / "config.json").write_text(json.dumps(wide_config()))
        args.model = folder
        with Server(args, "--load-format=dummy") as server:
            check_number_of_series(server)
            check_cost(server)
            check_storm(server)


if __name__ == "__main__":
    main()
