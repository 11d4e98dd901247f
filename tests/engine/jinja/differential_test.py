#!/usr/bin/env python3
"""Compares engine/jinja with Python's jinja2, set up as transformers sets it up for chat templates.

    python3 tests/engine/jinja/differential_test.py build/tests/engine/jinja/jinja_differential

Needs `pip install jinja2`. Renders seeded conversations (tools, system messages, many turns, all scripts) with each
template of templates/, written in the style of the model families, then small random templates. The text must be the
same byte for byte, and what the reference refuses must be refused.

Left out of the comparison: texts with the address of a Python object in them, and the known differences, which the
last line counts: integers beyond 64 bits, and slices of literals that cannot be sliced, which the reference's optimizer
turns into nothing.

Prints "N conversations and M random templates compared, 0 differences", or the first differences and exits with 1.
"""
import argparse
import pathlib
import re
import sys
import time
import warnings

import conversations
import program as programs
import random_templates
import reference

# Parts of our messages.
KNOWN = ["64 bits", "cannot be sliced", "slice indices"]
ADDRESS = re.compile(r" at 0x[0-9a-f]+>")


class Comparison:
    def __init__(self, program):
        self.program = program
        self.env = reference.environment()
        self.same, self.refused, self.skipped, self.differences = 0, 0, 0, []

    def check(self, name, template, variables):
        expected, error = reference.render(self.env, template, variables)
        outcome, ours = self.program.render(template, variables)
        refused = outcome != programs.OK
        if expected is not None and not refused and expected == ours:
            self.same += 1
        elif expected is None and refused:
            self.refused += 1
        elif (expected is not None and ADDRESS.search(expected)) or (refused and any(part in ours for part in KNOWN)):
            self.skipped += 1
        else:
            self.differences.append(f"{name}\n  variables {variables if template is not name else '(fixed)'!r}\n"
                                    f"  reference {expected if error is None else error!r}\n  ours      {ours!r}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program", help="path of jinja_differential")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--conversations", type=int, default=100, help="per template")
    parser.add_argument("--random", type=int, default=6_000, help="random templates")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")  # Python's, about subscripts of numbers
    started = time.time()
    program = programs.Program(arguments.program)

    chats = Comparison(program)
    templates = sorted((pathlib.Path(__file__).parent / "templates").glob("*.jinja"))
    for path in templates:
        generator = conversations.Conversations(f"{arguments.seed} {path.name}")
        source = path.read_text()
        for _ in range(arguments.conversations):
            chats.check(path.name, source, generator.next())

    stress = Comparison(program)
    generator = random_templates.Generator(arguments.seed)
    for _ in range(arguments.random):
        source = generator.next()
        stress.check(source, source, random_templates.VARIABLES)

    code = program.close()
    differences = chats.differences + stress.differences
    for difference in differences[:20]:
        print(difference)
    print(f"{chats.same + chats.refused} conversations ({chats.refused} refused by both, {len(templates)} templates) and "
          f"{stress.same + stress.refused} random templates ({stress.refused} refused by both) compared, {len(differences)} differences, "
          f"{chats.skipped + stress.skipped} left out (seed {arguments.seed}, {time.time() - started:.0f} s)")
    return 1 if differences or code != 0 else 0


if __name__ == "__main__":
    sys.exit(main())
