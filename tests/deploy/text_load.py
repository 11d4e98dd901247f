"""Load of ordinary text on a server, by `switchyard bench`: what the layers of the bundled model were balanced for.

Random token ids are not like that: several experts then get more than three times the mean, and the alerts say so.
"""

import subprocess

import deployed

FOLDERS = ("client", "deploy", "engine", "server", "tests/deploy", "tests/end_to_end")
PIECE = 600  # characters: some 200 tokens
BEGINNING = "Out of the documentation and the sources of Switchyard, a server of Mixture-of-Experts models: "


def prompts():
    """Pieces of the documentation and sources of this repository, more than a KV cache of 128 MiB holds; all begin with
    the same words, which come from the prefix cache."""
    kinds = ("*.md", "*.py", "*.h")
    files = sorted(file for name in FOLDERS for kind in kinds for file in (deployed.ROOT / name).rglob(kind))
    texts = (" ".join(file.read_text().split()) for file in files)
    return [BEGINNING + text[at : at + PIECE] for text in texts for at in range(0, len(text), PIECE)]


class TextLoad:
    """Runs until it is stopped; `folder` is for the prompts."""

    def __init__(self, client, server, folder, output_len, concurrency):
        dataset = folder / "prompts.txt"
        dataset.write_text("\n".join(prompts()))
        command = [client, "--address", server.address, "bench", f"--dataset={dataset}", "--num-prompts=50000"]
        command += ["--ignore-eos", "--warmup=0", f"--output-len={output_len}", f"--max-concurrency={concurrency}"]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    @property
    def runs(self):
        return self.process.poll() is None

    def stop(self):
        self.process.kill()
        self.process.wait()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()
