"""promtool accepts rules and unit tests; each alert is tested and has a runbook; dashboards are as generated."""

import re
import subprocess
import sys

import deployed
import yaml

sys.path.insert(0, str(deployed.ROOT / "tests" / "end_to_end"))
from serving import check  # noqa: E402

UNIT_TESTS = sorted((deployed.ROOT / "tests" / "deploy" / "prometheus").glob("*_test.yml"))


def run(*command):
    result = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    check(
        result.returncode == 0,
        f"{command[0].split('/')[-1]} {' '.join(map(str, command[1:3]))}"
        + (f"\n{result.stdout}{result.stderr}" if result.returncode else ""),
    )


def check_unit_tests():
    """Each alert fires in one test, and in another one its metrics are there and it does not."""
    tests = [test for file in UNIT_TESTS for test in yaml.safe_load(file.read_text())["tests"]]
    expected = [str(query["exp_samples"]) for test in tests for query in test["promql_expr_test"]]
    for rule in deployed.rules("alert"):
        fires = [text for text in expected if f'alertname="{rule["alert"]}"' in text]
        silent = [text for text in expected if f'alertname="{rule["alert"]}"' not in text]
        check(fires and silent, f"{rule['alert']} fires in a unit test, and is silent in others")


def anchors(text):
    """The anchors of the headings of a Markdown text."""
    return {
        re.sub(r"[^a-z0-9 -]", "", title.lower()).replace(" ", "-") for title in re.findall(r"^#+ (.*)$", text, re.M)
    }


def check_runbooks():
    sections = anchors((deployed.DEPLOY / "README.md").read_text())
    for rule in deployed.rules("alert"):
        told = rule["annotations"]
        file, _, anchor = told["runbook_url"].partition("#")
        check(file == "deploy/README.md" and anchor in sections, f"{rule['alert']} has a runbook section, {anchor}")
        check(
            told["summary"] and told["description"] and rule["labels"]["severity"] in ("info", "warning", "critical"),
            f"{rule['alert']} says what, why and how bad",
        )


def check_layout():
    """Panels stand beside each other, not on each other, and ask one data source."""
    occupied = {}
    for where, panel in deployed.panels():
        place = panel["gridPos"]
        check(panel["targets"] and place["x"] + place["w"] <= 24, f"{where}: fits and asks something")
        cells = {
            (where.split(":")[0], x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        overlaps = {occupied[cell] for cell in cells & occupied.keys()}
        check(not overlaps, f"{where}: stands on no other panel {sorted(overlaps)}")
        occupied.update(dict.fromkeys(cells, where))


def main():
    promtool = deployed.tool("promtool", "prometheus")
    run(promtool, "check", "config", deployed.DEPLOY / "prometheus" / "prometheus.yml")
    run(promtool, "test", "rules", *UNIT_TESTS)
    for folder in ("grafana", "kubernetes"):
        run(sys.executable, deployed.DEPLOY / folder / "generate.py", "--check")
    check_unit_tests()
    check_layout()
    check_runbooks()


if __name__ == "__main__":
    main()
