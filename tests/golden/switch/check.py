"""Switch Transformers (T5 encoder-decoder, top-1 MoE with a capacity) in NumPy, float64, against its fixtures.

    python tests/golden/switch/check.py     # what ctest runs: logits, and the experts of every token, -1 where dropped

Layers are numbered through both stacks, the encoder's first.
"""
import json
import pathlib
import sys

import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from reference import safetensors  # noqa: E402

FIXTURES = pathlib.Path(__file__).resolve().parents[1] / "fixtures"
TOLERANCE = 1e-9  # of the largest logit; both are float64, in another order of additions


def softmax(scores):
    powers = np.exp(scores - scores.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def rms_norm(x, weight, eps):
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + eps) * weight


def buckets(num_tokens, bidirectional, num_buckets, max_distance):
    """[query, key] -> the row of the table of relative positions."""
    distance = np.arange(num_tokens)[None, :] - np.arange(num_tokens)[:, None]
    behind = (distance > 0) * (num_buckets // 2) if bidirectional else 0
    if bidirectional:
        num_buckets //= 2
    steps = np.abs(distance) if bidirectional else np.maximum(-distance, 0)
    exact = num_buckets // 2
    growth = np.log(np.maximum(steps, 1) / exact) / np.log(max_distance / exact)
    far = np.minimum(exact + np.floor(growth * (num_buckets - exact)).astype(int), num_buckets - 1)
    return behind + np.where(steps < exact, steps, far)


class Switch:
    def __init__(self, config, weights):
        self.config, self.weights, self.routing = config, weights, {}

    def linear(self, x, name):
        return x @ self.weights[name + ".weight"].T

    def attend(self, prefix, x, source, bias):
        heads, width = self.config["num_heads"], self.config["d_kv"]

        def project(rows, name):
            return self.linear(rows, f"{prefix}.{name}").reshape(len(rows), heads, width)

        scores = np.einsum("qhd,khd->hqk", project(x, "q"), project(source, "k")) + bias
        mixed = np.einsum("hqk,khd->qhd", softmax(scores), project(source, "v"))
        return self.linear(mixed.reshape(len(x), -1), prefix + ".o")

    def mlp(self, prefix, x):
        return self.linear(np.maximum(self.linear(x, prefix + ".wi"), 0), prefix + ".wo")

    def experts(self, prefix, x, layer):
        probabilities = softmax(self.linear(x, prefix + ".router.classifier"))
        chosen, out = probabilities.argmax(-1), np.zeros_like(x)
        ids = np.full((len(x), 1), -1)
        for token, expert in enumerate(chosen):
            if np.count_nonzero(chosen[:token] == expert) >= self.config["expert_capacity"]:
                continue
            ids[token] = expert
            out[token] = probabilities[token, expert] * self.mlp(f"{prefix}.experts.expert_{expert}", x[token])
        self.routing[layer] = ids, probabilities.max(-1, keepdims=True)
        return out

    def stack(self, name, ids, encoded=None):
        config, is_decoder = self.config, encoded is not None
        num_layers = config["num_decoder_layers" if is_decoder else "num_layers"]
        step = num_layers // config[f"num_sparse_{name}_layers"]
        first = f"{name}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
        rows = buckets(len(ids), not is_decoder, config["relative_attention_num_buckets"],
                       config["relative_attention_max_distance"])
        bias = self.weights[first][rows].transpose(2, 0, 1)
        if is_decoder:
            bias = np.where(np.tri(len(ids), dtype=bool), bias, -np.inf)
        x = self.weights["shared.weight"][ids]
        for i in range(num_layers):
            block = f"{name}.block.{i}.layer"

            def norm(j):
                return rms_norm(x, self.weights[f"{block}.{j}.layer_norm.weight"], config["layer_norm_epsilon"])

            h = norm(0)
            x = x + self.attend(f"{block}.0.SelfAttention", h, h, bias)
            if is_decoder:
                x = x + self.attend(f"{block}.1.EncDecAttention", norm(1), encoded, 0.0)
            last = 2 if is_decoder else 1
            prefix, layer = f"{block}.{last}.mlp", i + (config["num_layers"] if is_decoder else 0)
            sparse = step == 1 or i % step == 1
            x = x + (self.experts(prefix, norm(last), layer) if sparse else self.mlp(prefix, norm(last)))
        return rms_norm(x, self.weights[f"{name}.final_layer_norm.weight"], config["layer_norm_epsilon"])

    def logits(self, encoder_ids, decoder_ids):
        out = self.stack("decoder", decoder_ids, self.stack("encoder", encoder_ids))
        if self.config["tie_word_embeddings"]:
            return out @ self.weights["shared.weight"].T / np.sqrt(self.config["d_model"])
        return self.linear(out, "lm_head")


def check(folder):
    config = json.loads((folder / "config.json").read_text())
    weights = {name: array.astype(np.float64) for name, array in safetensors.load(folder / "model.safetensors").items()}
    golden = safetensors.load(folder / "golden.safetensors")
    model = Switch(config, weights)
    logits = model.logits(golden["input_ids"], golden["decoder_input_ids"])
    error = np.abs(logits - golden["logits"]).max() / np.abs(golden["logits"]).max()
    names = {name for name in golden if name.endswith(".ids") and name.startswith("layers.")}
    same = names == {f"layers.{layer}.router.ids" for layer in model.routing} and all(
        np.array_equal(ids, golden[f"layers.{layer}.router.ids"]) and
        np.allclose(chances, golden[f"layers.{layer}.router.weights"], atol=1e-9)
        for layer, (ids, chances) in model.routing.items())
    dropped = sum(np.count_nonzero(ids < 0) for ids, _ in model.routing.values())
    print(f"{folder.name:16} relative error {error:.1e}, {dropped} tokens dropped, "
          f"routing {'the same' if same else 'DIFFERS'}")
    return error <= TOLERANCE and same


if __name__ == "__main__":
    sys.exit(0 if all([check(folder) for folder in sorted(FIXTURES.glob("switch_*"))]) else 1)
