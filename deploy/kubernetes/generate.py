"""Writes components/monitoring/prometheus-rule.yaml out of deploy/prometheus/rules; --check only compares."""

import pathlib
import sys

FOLDER = pathlib.Path(__file__).resolve().parent
RULES = FOLDER.parent / "prometheus" / "rules"
TARGET = FOLDER / "components" / "monitoring" / "prometheus-rule.yaml"
HEAD = """\
# Written by deploy/kubernetes/generate.py out of deploy/prometheus/rules.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: switchyard
spec:
  groups:
"""


def manifest():
    """The groups of all rule files, in one object; text is moved, not parsed, so that comments stay."""
    text = HEAD
    for file in sorted(RULES.glob("*.yml")):
        groups = file.read_text().split("\ngroups:\n", 1)[1]
        text += "".join(f"  {line}".rstrip() + "\n" for line in groups.splitlines())
    return text


def main():
    if "--check" not in sys.argv[1:]:
        TARGET.write_text(manifest())
    elif TARGET.read_text() != manifest():
        sys.exit(f"{TARGET.name} is out of date; run deploy/kubernetes/generate.py")


if __name__ == "__main__":
    main()
