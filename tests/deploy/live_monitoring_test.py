"""A real Prometheus scrapes a real server under skewed load: every query of the dashboards and rules has an answer.

The model's router is broken on purpose in one layer: all its weights there are 0, so that every token goes to the same
two experts. That must be visible: in the load ratio, and as pending alerts for these experts and no others.
"""

import json
import math
import pathlib
import re
import socket
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request

import deployed
import grpc
import yaml
from broken_router import BROKEN_LAYER, DEAD, HOT, break_router

sys.path.insert(0, str(deployed.ROOT / "tests" / "end_to_end"))
from serving import Server, arguments, check, code_of, pb  # noqa: E402

TOKENS = 12000  # more than the traffic that the alerts want to see
PATIENCE = 240.0  # seconds


class Prometheus:
    """Prometheus with the configuration of deploy/, but the server of this test and an interval of a second."""

    def __init__(self, folder, target):
        config = yaml.safe_load((deployed.DEPLOY / "prometheus" / "prometheus.yml").read_text())
        config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
        config["rule_files"] = [str(deployed.DEPLOY / "prometheus" / file) for file in config["rule_files"]]
        config["scrape_configs"][0]["static_configs"] = [{"targets": [target]}]
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{free.getsockname()[1]}"
        self.log = folder / "prometheus.log"
        with open(self.log, "w") as log:
            self.process = subprocess.Popen(
                [
                    deployed.tool("prometheus", "prometheus"),
                    f"--config.file={folder}/prometheus.yml",
                    f"--storage.tsdb.path={folder}/data",
                    f"--web.listen-address={self.address}",
                ],
                stdout=log,
                stderr=log,
            )

    def api(self, path, **parameters):
        query = urllib.parse.urlencode(parameters)
        with urllib.request.urlopen(f"http://{self.address}/api/v1/{path}?{query}", timeout=30) as answer:
            return json.load(answer)["data"]

    def query(self, expression):
        """[(labels, value)] of now; [] also while it starts."""
        try:
            return [(one["metric"], float(one["value"][1])) for one in self.api("query", query=expression)["result"]]
        except urllib.error.HTTPError as error:
            check(False, f"Prometheus takes {expression}: {error.read().decode()}")
        except OSError:
            check(self.process.poll() is None, f"Prometheus runs\n{self.log.read_text()}")
            return []

    def stop(self):
        self.process.kill()
        self.process.wait()


def wait_for(what, condition):
    end = time.monotonic() + PATIENCE
    while not (result := condition()) and time.monotonic() < end:
        time.sleep(0.5)
    check(result, what)
    return result


def live(expression):
    """The expression for a Prometheus that has run for seconds: without the variables of Grafana, windows cut short,
    nothing of the past, and comparisons that give 0 or 1 instead of leaving out what does not fire."""
    for variable, value in (
        ("$model", ".+"),
        ("$instance", ".+"),
        ("$layer", ".+"),
        ("$__rate_interval", "10s"),
        ("$__range", "10s"),
    ):
        expression = expression.replace(variable, value)
    expression = re.sub(r"\[\d+[mh]\]", "[10s]", expression)
    expression = re.sub(r" offset \d+[mh]", "", expression)
    return re.sub(r" (>|<|==|!=|>=|<=) ", r" \1 bool ", expression)


def check_answers(prometheus):
    """Each expression has a finite value, and each metric with its labels is there: `or` hides none."""
    expressions = deployed.expressions()
    empty = []
    for where, expression in expressions:
        expression = live(expression)
        if not any(math.isfinite(value) for _, value in prometheus.query(expression)):
            empty.append(f"{where}: {expression}")
        for name, matchers in deployed.selectors(expression):
            if not prometheus.query(name + matchers):
                empty.append(f"{where}: {name}{matchers}")
    check(not empty, f"{len(expressions)} queries have an answer, and each of their metrics " + "\n".join(empty))


def check_rules_healthy(prometheus):
    rules = [rule for group in prometheus.api("rules")["groups"] for rule in group["rules"]]
    ill = [(rule["name"], rule.get("lastError")) for rule in rules if rule["health"] != "ok"]
    check(
        len(rules) == len(deployed.rules("alert")) + len(deployed.rules("record")) and not ill,
        f"all {len(rules)} rules are evaluated without error {ill}",
    )


def check_planted_imbalance(prometheus):
    def pending(name):
        return {(alert["layer"], alert["expert"]) for alert, _ in prometheus.query(f'ALERTS{{alertname="{name}"}}')}

    # Other layers may be uneven for random prompts; in this one nothing is left to chance.
    for name, experts in (("SwitchyardHotExpert", HOT), ("SwitchyardDeadExpert", DEAD)):
        found = wait_for(f"{name} is pending", lambda: {one for one in pending(name) if one[0] == BROKEN_LAYER})
        check(found == {(BROKEN_LAYER, expert) for expert in experts}, f"{name} names {sorted(found)}")
    ratios = prometheus.query(f'switchyard:moe_expert_load:ratio5m{{layer="{BROKEN_LAYER}",expert="0"}}')
    check(abs(ratios[0][1] - 4) < 0.01, f"the hot expert has {ratios[0][1]:.2f} times the mean load of its 8 experts")


def check_client_shows_it(client, address):
    """`switchyard experts`, for those without Prometheus."""
    shown = subprocess.run(
        [client, "--address", address, "experts", "--once", "--json"], capture_output=True, text=True
    )
    layer = next(one for one in json.loads(shown.stdout)["layers"] if str(one["layer"]) == BROKEN_LAYER)
    busy = {str(expert) for expert, tokens in enumerate(layer["tokens_per_expert"]) if int(tokens)}
    check(
        busy == HOT and layer["balance"]["imbalance_ratio"] == 4,
        f"switchyard experts shows rows at {sorted(busy)} only",
    )


def main():
    args = arguments(__doc__, client_binary="")
    deployed.tool("prometheus", "prometheus")
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        break_router(args.model, folder / "model")
        args.model = str(folder / "model")
        # Few at a time, so that some wait.
        with Server(args, "--max-num-seqs=4") as server:
            prometheus = Prometheus(folder, f"127.0.0.1:{server.facts['admin_port']}")
            load = subprocess.Popen(
                [
                    args.client_binary,
                    "--address",
                    server.address,
                    "bench",
                    "--num-prompts",
                    "1000000",
                    "--max-concurrency",
                    "8",
                    "--input-len",
                    "200",
                    "--random-prefix-len",
                    "40",
                    "--output-len",
                    "8",
                    "--ignore-eos",
                ],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            try:
                code, _ = code_of(lambda: server.inference.Generate(pb.GenerateRequest(text="x", temperature=-1)))
                check(code == grpc.StatusCode.INVALID_ARGUMENT, "one call is refused")
                seen = "sum(increase(switchyard_engine_tokens_total[15m]))"
                wait_for(
                    f"Prometheus has seen {TOKENS} tokens", lambda: any(v > TOKENS for _, v in prometheus.query(seen))
                )
                for rule in deployed.rules("record"):
                    wait_for(f"{rule['record']} is recorded", lambda: prometheus.query(rule["record"]))
                check_answers(prometheus)
                check_planted_imbalance(prometheus)
                check_client_shows_it(args.client_binary, server.address)
                check_rules_healthy(prometheus)
                check(load.poll() is None, "the load lasted")
            finally:
                load.kill()
                load.wait()
                prometheus.stop()


if __name__ == "__main__":
    main()
