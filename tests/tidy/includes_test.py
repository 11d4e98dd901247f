"""Includes point one way only: each folder may include what is listed for it, and nothing else of this project.

Run from anywhere; prints every offence and exits 1 if there is one.
"""

import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]

PLAIN_DATA = ["engine/step.h", "engine/sampling_params.h"]
ENGINE_FACE = ["engine/engine.h", "engine/base/", *PLAIN_DATA]
PROTO = ["switchyard/v1/", "inference/"]
SERVER_FACE = ["server/log.h", "server/options.h"]

# The longest matching prefix of a file's path decides.
ALLOWED = {
    "engine/": ["engine/"],
    "engine/step.h": PLAIN_DATA,
    "engine/engine.h": ENGINE_FACE,
    "engine/inspect.h": ENGINE_FACE,
    "engine/base/": ["engine/base/"],
    "engine/tokenizer/": ["engine/tokenizer/", "engine/base/"],
    "engine/chat/": ["engine/chat/", "engine/jinja/", "engine/base/"],
    "engine/jinja/": ["engine/jinja/", "engine/tokenizer/utf8.h", "engine/base/"],
    "engine/sampling/": ["engine/sampling/", "engine/base/", *PLAIN_DATA],
    "engine/backend/": ["engine/backend/", "engine/base/"],
    "engine/backend/backend.h": ["engine/backend/activation.h", "engine/backend/row_sampling.h", "engine/base/"],
    "engine/backend/cpu/": ["engine/backend/cpu/", "engine/backend/activation.h", "engine/backend/backend.h", "engine/base/"],
    "engine/backend/cuda/": ["engine/backend/cuda/", "engine/backend/backend.h", "engine/backend/row_sampling.h",
                             "engine/sampling/token_weight.h", "engine/base/"],
    "engine/moe/": ["engine/moe/", "engine/backend/backend.h", "engine/base/", *PLAIN_DATA],
    "engine/config/": ["engine/config/", "engine/moe/moe_config.h", "engine/sampling_params.h", "engine/backend/backend.h",
                       "engine/base/"],
    "engine/checkpoint/": ["engine/checkpoint/", "engine/config/", "engine/base/"],
    "engine/model/": ["engine/model/", "engine/moe/", "engine/config/", "engine/checkpoint/weights.h",
                      "engine/backend/backend.h", "engine/base/", *PLAIN_DATA],
    "engine/vision/": ["engine/vision/", "engine/moe/", "engine/config/", "engine/checkpoint/named_tensors.h",
                       "engine/backend/backend.h", "engine/base/", *PLAIN_DATA],
    "engine/vision/classifier_engine.h": ["engine/vision/", *ENGINE_FACE],
    "server/scheduler/": ["server/scheduler/", *ENGINE_FACE],
    "server/access/": ["server/access/", "engine/base/", *SERVER_FACE],
    "server/metrics/": ["server/metrics/", "server/scheduler/", "server/access/credential_kind.h", *ENGINE_FACE, *SERVER_FACE],
    "server/frontend/": ["server/frontend/", "server/access/", "server/metrics/", "server/scheduler/", "engine/tokenizer/",
                         "engine/chat/", "engine/jinja/from_json.h", "engine/vision/pixels.h", *ENGINE_FACE,
                         *SERVER_FACE, *PROTO],
    "server/http/": ["server/http/", "server/frontend/", "server/access/", "server/metrics/", "server/scheduler/",
                     "engine/tokenizer/", *ENGINE_FACE, *SERVER_FACE, *PROTO],
    "server/": ["server/", "engine/", *PROTO],
    "client/": ["client/", *PROTO],
    # Says of a folder exactly what the server would, so it asks the same code.
    "client/commands/inspect.cc": ["client/", "engine/inspect.h"],
    "tests/": ["tests/", "engine/", "server/", "client/", *PROTO],
}
# Public headers of others that a folder must never see, whoever re-exports them.
FORBIDDEN = {
    "engine/": re.compile(r"<grpc|<prometheus/|\.pb\.h"),
    "server/scheduler/": re.compile(r"<grpc|<prometheus/|\.pb\.h"),
    "server/access/": re.compile(r"<grpc|<prometheus/|\.pb\.h"),
    "server/http/": re.compile(r"<grpc|<prometheus/"),
}
OURS = {"engine", "server", "client", "tests", "switchyard", "inference"}
INCLUDE = re.compile(r'^\s*#\s*include\s+(["<][^">]+[">])')


def rule_for(path):
    return ALLOWED[max((p for p in ALLOWED if path.startswith(p)), key=len)]


def offences():
    for folder in ("engine", "server", "client", "tests"):
        for file in sorted((ROOT / folder).rglob("*")):
            if file.suffix not in (".h", ".cc", ".cu", ".cuh"):
                continue
            path = file.relative_to(ROOT).as_posix()
            allowed = rule_for(path)
            for number, line in enumerate(file.read_text().splitlines(), 1):
                match = INCLUDE.match(line)
                if not match:
                    continue
                target = match.group(1)
                for prefix, pattern in FORBIDDEN.items():
                    if path.startswith(prefix) and pattern.search(target):
                        yield f"{path}:{number}: {prefix} must not include {target}"
                name = target[1:-1]
                if name.split("/")[0] in OURS and not any(name == a or (a.endswith("/") and name.startswith(a)) for a in allowed):
                    yield f"{path}:{number}: may not include {target}"


if __name__ == "__main__":
    found = list(offences())
    print("\n".join(found) or "every include points the way it should")
    sys.exit(1 if found else 0)
