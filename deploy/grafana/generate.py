"""Writes dashboards/*.json, the two dashboards of this folder; with --check only tells whether they are up to date."""

import json
import pathlib
import sys

from experts import experts
from serving import serving

FOLDER = pathlib.Path(__file__).resolve().parent / "dashboards"


def main():
    stale = []
    for made in (serving(), experts()):
        path = FOLDER / f"{made['uid']}.json"
        text = json.dumps(made, indent=1) + "\n"
        if path.exists() and path.read_text() == text:
            continue
        stale.append(path.name)
        if "--check" not in sys.argv[1:]:
            path.write_text(text)
    if stale and "--check" in sys.argv[1:]:
        sys.exit(f"{', '.join(stale)}: out of date; run deploy/grafana/generate.py")


if __name__ == "__main__":
    main()
