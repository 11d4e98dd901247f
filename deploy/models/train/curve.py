#!/usr/bin/env python3
"""Draws the loss curve of a run as SVG and prints it as a table.

    python curve.py --cache CACHE --svg ../switchyard-demo/loss.svg
"""

import argparse
import json
import math
import pathlib

WIDTH, HEIGHT, MARGIN = 640, 280, 44


def draw(training, held_out):
    last, low, high = training[-1][0], 2.0, 8.0

    def point(step, loss):
        x = MARGIN + (WIDTH - 2 * MARGIN) * step / last
        y = MARGIN / 2 + (HEIGHT - 1.5 * MARGIN) * (high - min(loss, high)) / (high - low)
        return f"{x:.1f},{y:.1f}"

    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
             f'font-size="11" fill="#444">', f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>']
    for loss in range(int(low), int(high) + 1):
        x, y = point(0, loss).split(",")
        parts.append(f'<path d="M{x} {y}H{WIDTH - MARGIN}" stroke="#ddd"/><text x="{float(x) - 14}" y="{y}">{loss}</text>')
    for step in range(0, last + 1, 500):
        x, _ = point(step, low).split(",")
        parts.append(f'<text x="{x}" y="{HEIGHT - 24}" text-anchor="middle">{step}</text>')
    for curve, color, width in ((training, "#7aa6d8", 1), (held_out, "#c0392b", 2)):
        line = " ".join(point(*pair) for pair in curve)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{color}" stroke-width="{width}"/>')
    parts.append(f'<text x="{WIDTH / 2}" y="{HEIGHT - 8}" text-anchor="middle">step</text>')
    parts.append(f'<text x="{WIDTH - 250}" y="40" fill="#7aa6d8">training loss (mean of 20 steps)</text>')
    parts.append(f'<text x="{WIDTH - 250}" y="56" fill="#c0392b">held-out loss (mean of the six domains)</text></svg>')
    return "\n".join(parts) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=pathlib.Path, required=True)
    parser.add_argument("--name", default="checkpoint")
    parser.add_argument("--svg", type=pathlib.Path, required=True)
    options = parser.parse_args()

    lines = [json.loads(line) for line in (options.cache / f"{options.name}.jsonl").read_text().splitlines()]
    training = [(line["step"], line["loss"]) for line in lines]
    measured = [(line["step"], line["held_out"], line["loss"]) for line in lines if "held_out" in line]
    held_out = [(step, sum(losses.values()) / len(losses)) for step, losses, _ in measured]
    options.svg.write_text(draw(training, held_out))

    domains = list(measured[0][1])
    print("| Step | training | held-out mean | " + " | ".join(domains) + " |\n|---:|" + "---:|" * (2 + len(domains)))
    rows = {step for step, _, _ in measured if math.log2(step / 100) % 1 == 0 or step % 500 == 0} | {measured[-1][0]}
    for (step, losses, train), (_, mean) in zip(measured, held_out):
        if step in rows:
            print(f"| {step} | {train:.2f} | {mean:.2f} | " + " | ".join(f"{losses[d]:.2f}" for d in domains) + " |")


if __name__ == "__main__":
    main()
