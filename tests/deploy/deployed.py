"""What deploy/ asks of Prometheus: the queries of the dashboards, the rules, and the metrics that they name."""

import json
import pathlib
import re
import shutil
import sys

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
SKIPPED = 77
SELECTOR = re.compile(r"\b((?:switchyard|process)[_:][a-z0-9_:]+)(\{[^}]*\})?")


def optional_tool(name, package):
    """The path of a program; None where it is missing, and then what needs it is skipped and says so."""
    path = shutil.which(name)
    if path is None:
        print(f"skipped: there is no {name}, of the package {package}", flush=True)
    return path


def tool(name, package):
    """The path of a program; without it the whole test is skipped."""
    return optional_tool(name, package) or sys.exit(SKIPPED)


def rules(kind):
    """The rules that have the key `kind`: "alert" or "record"."""
    files = sorted((DEPLOY / "prometheus" / "rules").glob("*.yml"))
    groups = [group for file in files for group in yaml.safe_load(file.read_text())["groups"]]
    return [rule for group in groups for rule in group["rules"] if kind in rule]


def panels():
    """(dashboard and title, panel) of every panel with queries."""
    for file in sorted((DEPLOY / "grafana" / "dashboards").glob("*.json")):
        for panel in json.loads(file.read_text())["panels"]:
            if panel["type"] != "row":
                yield f"{file.stem}: {panel['title']}", panel


def expressions():
    """(where it stands, PromQL) of every query and rule."""
    found = [(where, target["expr"]) for where, panel in panels() for target in panel["targets"]]
    for file in sorted((DEPLOY / "grafana" / "dashboards").glob("*.json")):
        for variable in json.loads(file.read_text())["templating"]["list"]:
            asked = re.fullmatch(r"label_values\((.*), [a-z_]+\)", variable.get("definition", ""))
            if asked:
                found.append((f"{file.stem}: variable {variable['name']}", asked[1]))
    found += [(rule["record"], rule["expr"]) for rule in rules("record")]
    return found + [(rule["alert"], rule["expr"]) for rule in rules("alert")]


def selectors(expression):
    """Each metric with the label matchers that follow it, as they are written."""
    return [(match[1], match[2] or "") for match in SELECTOR.finditer(expression)]


def exported_names(page):
    """The names that a query may use, of a /metrics page: of a histogram those of its series."""
    names = set()
    for name, kind in re.findall(r"^# TYPE (\S+) (\S+)$", page, re.M):
        names |= {f"{name}_{part}" for part in ("bucket", "sum", "count")} if kind == "histogram" else {name}
    return names
