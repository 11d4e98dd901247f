"""A real Prometheus scrapes a real server under load of ordinary text: every query of the dashboards and rules has an
answer, and a planted imbalance is seen wherever somebody may look.

The router of one layer sends every token to one expert (broken_router.py). That must fire the alerts for this layer and
expert and for no other, be first on the dashboard's panels, in `switchyard experts`, and on the built-in page, as far
as there is a browser. Grafana does not run here: what is asked are the queries that stand in its dashboards.
"""

import math
import pathlib
import re
import subprocess
import sys
import tempfile
import time

import deployed
import grpc
from broken_router import BROKEN_LAYER, DEAD, HOT, HOT_RATIO, NUM_EXPERTS, break_router
from browser import Browser
from page_test import check_page_shows_planted_imbalance
from prometheus_process import Prometheus
from text_load import TextLoad

sys.path.insert(0, str(deployed.ROOT / "tests" / "end_to_end"))
from serving import Server, arguments, check, code_of, pb, until  # noqa: E402

TOKENS = 12000  # more than the traffic that the alerts want to see
PATIENCE = 120.0  # seconds
PLANTED = {"layer": BROKEN_LAYER, "expert": HOT}


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


def unanswered(prometheus):
    """Expressions without a finite value, and metrics in them that are not there with their labels: `or` hides none."""
    empty = []
    for where, expression in deployed.expressions():
        expression = live(expression)
        if not any(math.isfinite(value) for _, value in prometheus.query(expression)):
            empty.append(f"{where}: {expression}")
        for name, matchers in deployed.selectors(expression):
            if not prometheus.query(name + matchers):
                empty.append(f"{where}: {name}{matchers}")
    return empty


def check_answers(prometheus):
    """Asked again after a scrape that came late, which makes all series stale for a moment."""
    empty = []

    def all_answer():
        empty[:] = unanswered(prometheus)
        return not empty

    until(all_answer)
    count = len(deployed.expressions())
    check(not empty, f"{count} queries have an answer, and each of their metrics " + "\n".join(empty))


def check_rules_healthy(prometheus):
    rules = [rule for group in prometheus.api("rules")["groups"] for rule in group["rules"]]
    ill = [(rule["name"], rule.get("lastError")) for rule in rules if rule["health"] != "ok"]
    check(
        len(rules) == len(deployed.rules("alert")) + len(deployed.rules("record")) and not ill,
        f"all {len(rules)} rules are evaluated without error {ill}",
    )


def alerts(prometheus, name):
    """The labels and annotations of those that fire."""
    found = [one for one in prometheus.api("alerts")["alerts"] if one["labels"]["alertname"] == name]
    return [(one["labels"], one["annotations"]) for one in found if one["state"] == "firing"]


def check_alerts(prometheus):
    def ever(name, *labels):
        """Of all that have fired until now."""
        fired = f'max_over_time(ALERTS{{alertname="{name}", alertstate="firing"}}[1h])'
        return {tuple(alert[label] for label in labels) for alert, _ in prometheus.query(fired)}

    fired = wait_for("SwitchyardHotExpert fires", lambda: alerts(prometheus, "SwitchyardHotExpert"))
    check(
        [{name: labels[name] for name in PLANTED} for labels, _ in fired] == [PLANTED]
        and ever("SwitchyardHotExpert", "layer", "expert") == {(BROKEN_LAYER, HOT)},
        f"and never for another expert than {HOT} of layer {BROKEN_LAYER}: {fired}",
    )
    said = f"Expert {HOT} of layer {BROKEN_LAYER} of switchyard-demo gets {HOT_RATIO:.1f} times the mean load"
    check(fired[0][1]["summary"] == said, f"it says: {fired[0][1]['summary']}")

    wait_for("SwitchyardImbalancePersists fires", lambda: alerts(prometheus, "SwitchyardImbalancePersists"))
    layers = ever("SwitchyardImbalancePersists", "layer")
    check(layers == {(BROKEN_LAYER,)}, f"and never for another layer than {BROKEN_LAYER}: {layers}")

    # A trained expert may really be dead for this text; in the broken layer nothing is left to chance.
    def dead():
        fire = alerts(prometheus, "SwitchyardDeadExpert")
        return {labels["expert"] for labels, _ in fire if labels["layer"] == BROKEN_LAYER}

    found = wait_for("SwitchyardDeadExpert fires", dead)
    check(found == set(DEAD), f"for the experts {sorted(found)} of layer {BROKEN_LAYER}")


def check_dashboard(prometheus):
    """By the queries of its own panels."""
    targets = {where: panel["targets"] for where, panel in deployed.panels()}

    def shown(title):
        """Asked again as above."""
        (target,) = targets[f"switchyard-experts: {title}"]
        return until(lambda: prometheus.query(live(target["expr"])))

    labels, value = shown("Hottest experts")[0]
    check(labels == PLANTED and abs(value - HOT_RATIO) < 0.01, f"first of Hottest experts: {labels}, {value:.2f}")
    for title in (
        "Load of each expert over the mean of its layer",
        "Load over time, layers $layer",
        "Rows per second, layers $layer",
    ):
        (labels, value), (_, next_value) = sorted(shown(title), key=lambda one: one[1], reverse=True)[:2]
        check(labels == PLANTED and value > 1.2 * next_value, f"highest in {title}: {labels}, {value:.2f}")
    deadest = [(labels["layer"], labels["expert"]) for labels, value in shown("Deadest experts") if value == 0]
    check({(BROKEN_LAYER, expert) for expert in DEAD} <= set(deadest), f"Deadest experts: {deadest}")

    for title, worst in (
        ("Busiest expert of each layer: its share", max),
        ("Imbalance: largest / mean rows per expert", max),
        ("Imbalance by layer", max),
        ("Largest share of an expert", max),
        ("Routing entropy", min),
    ):
        labels, value = worst(shown(title), key=lambda one: one[1])
        check(labels == {"layer": BROKEN_LAYER}, f"{worst.__name__} of {title}: {labels}, {value:.2f}")
    busiest = [value for labels, value in shown("Number of the busiest expert") if labels["layer"] == BROKEN_LAYER]
    check(busiest == [float(HOT)], f"Number of the busiest expert of layer {BROKEN_LAYER}: {busiest}")


def check_client_shows_it(client, address):
    """`switchyard experts`, for those without Prometheus."""
    command = [client, "--address", address, "experts", "--once"]
    shown = subprocess.run(command, capture_output=True, text=True).stdout
    hottest = re.search(r"^hottest experts .*\n(.*)$", shown, re.M)
    expected = rf"layer {BROKEN_LAYER} expert {HOT} +\d+ +50\.0% +{HOT_RATIO:.2f} .*"
    check(hottest and re.fullmatch(expected, hottest[1]), f"the hottest of switchyard experts:\n{shown}")
    layer = re.search(rf"^ +{BROKEN_LAYER}  (.*)$", shown, re.M)[1]
    active = f" {NUM_EXPERTS - len(DEAD)}/{NUM_EXPERTS} "
    check(layer.count("·") == len(DEAD) and active in layer, f"{len(DEAD)} idle ones in its map: {layer}")


def check_page_shows_it(server):
    """For those without anything but a browser; page_test.py looks at the rest of the page."""
    chromium = deployed.optional_tool("chromium", "chromium")
    if chromium:
        with Browser(chromium) as browser:
            check_page_shows_planted_imbalance(browser, server)


def main():
    args = arguments(__doc__, client_binary="")
    deployed.tool("prometheus", "prometheus")
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        break_router(args.model, folder / "model")
        args.model = str(folder / "model")
        # Few at a time, so that some wait.
        with (
            Server(args, "--max-num-seqs=4", "--served-model-name=switchyard-demo") as server,
            TextLoad(args.client_binary, server, folder, output_len=8, concurrency=8) as load,
            Prometheus(folder, f"127.0.0.1:{server.facts['admin_port']}") as prometheus,
        ):
            code, _ = code_of(lambda: server.inference.Generate(pb.GenerateRequest(text="x", temperature=-1)))
            check(code == grpc.StatusCode.INVALID_ARGUMENT, "one call is refused")
            seen = "sum(increase(switchyard_engine_tokens_total[15m]))"
            wait_for(f"Prometheus has seen {TOKENS} tokens", lambda: any(v > TOKENS for _, v in prometheus.query(seen)))
            for rule in deployed.rules("record"):
                wait_for(f"{rule['record']} is recorded", lambda: prometheus.query(rule["record"]))
            check_answers(prometheus)
            check_alerts(prometheus)
            check_dashboard(prometheus)
            check_client_shows_it(args.client_binary, server.address)
            check_page_shows_it(server)
            check_rules_healthy(prometheus)
            check(load.runs, "the load lasted")


if __name__ == "__main__":
    main()
