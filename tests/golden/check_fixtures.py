"""The reference against the fixtures, whose logits were confirmed with the families' reference classes.

    check_fixtures.py [FOLDER ...]       without folders, all fixtures but those of vmoe
"""
import json
import pathlib
import sys

import numpy as np

from reference import safetensors
from reference.checkpoint import StoredTensors
from reference.families import FAMILIES, build

FIXTURES = pathlib.Path(__file__).parent / "fixtures"
TOLERANCE = 1e-9  # of the largest logit; both are float64, in another order of additions


def check(folder):
    config = json.loads((folder / "config.json").read_text())
    golden, tensors = safetensors.load(folder / "golden.safetensors"), StoredTensors(folder)
    prompts = [golden[name] for name in ("input_ids", "decoder_input_ids") if name in golden]
    model = build(config, tensors, len(prompts[0]))
    logits, routings = model(*prompts)
    answers = {"logits": logits}
    if "one_by_one.logits" in golden:
        answers["one_by_one.logits"], _ = model(*prompts, one_by_one=True)
    error = max(np.abs(answers[name] - golden[name]).max() / np.abs(golden[name]).max() for name in answers)
    ids = {name[:-4] for name in golden if name.endswith(".ids")}
    same = ids == set(routings) and all(
        np.array_equal(routings[name].ids, golden[name + ".ids"]) and
        np.allclose(routings[name].weights, golden[name + ".weights"], atol=1e-9) for name in ids)
    passed = error <= TOLERANCE and same and not tensors.unused()
    print(f"{folder.name:24} relative error {error:.1e}, routing {'the same' if same else 'DIFFERS'}, "
          f"unused tensors {tensors.unused()}{'' if passed else '   FAILED'}")
    return passed


def main():
    folders = [pathlib.Path(name) for name in sys.argv[1:]] or sorted(FIXTURES.iterdir())
    known = [folder for folder in folders
             if json.loads((folder / "config.json").read_text()).get("model_type") in FAMILIES]
    results = [check(folder) for folder in known]
    return 0 if results and all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
