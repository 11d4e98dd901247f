"""Every metric that a dashboard, a rule or a manifest names is exported by the server, with the labels asked for.

Needs no Prometheus: the names are compared with the /metrics page of a server that has just started.
"""

import re
import sys

import deployed

sys.path.insert(0, str(deployed.ROOT / "tests" / "end_to_end"))
from serving import Server, arguments, check  # noqa: E402

# Labels that Prometheus adds, not the server.
ADDED = {"instance", "job", "namespace"}


def manifest_names():
    """Metrics that the Kubernetes manifests name, wherever they do."""
    folder = deployed.DEPLOY / "kubernetes"
    return {
        (file.name, name)
        for file in sorted(folder.rglob("*.yaml"))
        for name, _ in deployed.selectors(file.read_text())
        if name.startswith("switchyard_")
    }


def main():
    args = arguments(__doc__)
    with Server(args) as server:
        page = server.admin("/metrics")
        series = server.metrics()
    exported = deployed.exported_names(page) | {rule["record"] for rule in deployed.rules("record")}
    check(len(exported) > 60, f"the server exports {len(exported)} names")

    named = [
        (where, name, matchers)
        for where, expression in deployed.expressions()
        for name, matchers in deployed.selectors(expression)
    ]
    unknown = {(where, name) for where, name, _ in named if name not in exported}
    unknown |= {(where, name) for where, name in manifest_names() if name not in exported}
    check(not unknown, f"no unknown metric is named {sorted(unknown)}")

    absent = set()
    for where, name, matchers in named:
        labels = {label for have, _ in series.get(name, ()) for label in have} | ADDED
        wanted = set(re.findall(r"([a-z_]+)\s*=~?", matchers))
        absent |= {(where, name, label) for label in wanted - labels if name in series}
    check(not absent, f"no absent label is asked for {sorted(absent)}")

    unused = {name for name in exported if name.startswith("switchyard_")} - {name for _, name, _ in named}
    print(f"on no dashboard and in no rule: {sorted(unused)}")


if __name__ == "__main__":
    main()
