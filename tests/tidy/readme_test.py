"""The README's tables of settings and metrics name every one that exists, and no other.

Run from anywhere; prints every difference and exits 1 if there is one.
"""

import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]


def section(text, title):
    return text.split(f"\n## {title}\n")[1].split("\n## ")[0]


def first_cells(text):
    return " ".join(line.split("|")[1] for line in text.splitlines() if line.startswith("| "))


def differences(what, exist, told):
    return ([f"{what} {name} is not in the README" for name in sorted(exist - told)] +
            [f"the README names {what} {name}, which does not exist" for name in sorted(told - exist)])


def main():
    readme = (ROOT / "README.md").read_text()
    options = (ROOT / "server/options.cc").read_text()
    families = (ROOT / "server/metrics/families.cc").read_text()

    settings = set(re.findall(r'^    (?:Text|Choice|Integer|Multiple|Bytes|Switch|Seconds|Share)\("([a-z-]+)"', options, re.M))
    metrics = set(re.findall(r'"((?:switchyard|process)_[a-z0-9_]+)"', families))
    assert len(settings) > 30 and len(metrics) > 40, "the sources are not written as this test reads them"

    told_settings = set(re.findall(r"`--([a-z-]+)`", first_cells(section(readme, "Settings"))))
    watch = section(readme, "Watch")
    names = set(re.findall(r"`([a-z0-9_]+)(?:\{[a-z_,]*\})?`", first_cells(watch)))
    told_metrics = {name if name.startswith("process_") else "switchyard_" + name for name in names - {"Metric"}}
    told_metrics |= set(re.findall(r"`(process_[a-z_]+)`", watch))

    found = differences("setting", settings, told_settings) + differences("metric", metrics, told_metrics)
    print("\n".join(found) or f"{len(settings)} settings and {len(metrics)} metrics")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
