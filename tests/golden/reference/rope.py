"""Rotary position embedding: which angle each pair of dimensions turns by, and the turning."""
import math

import numpy as np


class Rope:
    """Turns the first 2 * len(frequencies) dimensions of the last axis; the rest stays.

    Pairs are (m, m + width / 2), or (2m, 2m + 1) if `interleaved`. cos and sin are multiplied by `factor`.
    """

    def __init__(self, frequencies, factor=1.0, interleaved=False):
        self.frequencies, self.factor, self.interleaved = frequencies, factor, interleaved

    def __call__(self, x):
        """x: [..., tokens, dimensions], tokens at positions 0, 1, ..."""
        width = 2 * len(self.frequencies)
        angles = np.arange(x.shape[-2])[:, None] * self.frequencies
        cos, sin = ((self.factor * function(angles)).astype(x.dtype) for function in (np.cos, np.sin))
        turned = np.array(x)
        if self.interleaved:
            first, second = slice(0, width, 2), slice(1, width, 2)
        else:
            first, second = slice(0, width // 2), slice(width // 2, width)
        turned[..., first] = x[..., first] * cos - x[..., second] * sin
        turned[..., second] = x[..., second] * cos + x[..., first] * sin
        return turned


def rope_of(config, width, default_theta, interleaved=False, theta=None, num_tokens=0):
    """The rope that `config` asks for; `num_tokens` is the length that longrope chooses its factors by."""
    scaling = config.get("rope_parameters") or config.get("rope_scaling") or {}
    theta = float(theta or config.get("rope_theta") or scaling.get("rope_theta") or default_theta)
    plain = theta ** (-np.arange(0, width, 2) / width)
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    if kind == "default":
        return Rope(plain, 1.0, interleaved)
    longest = config["max_position_embeddings"]
    original = scaling.get("original_max_position_embeddings",
                           config.get("original_max_position_embeddings", longest))
    frequencies, factor = KINDS[kind](plain, theta, scaling, original, longest, num_tokens)
    return Rope(frequencies, factor, interleaved)


def linear(plain, theta, scaling, original, longest, num_tokens):
    return plain / scaling["factor"], 1.0


def llama3(plain, theta, scaling, original, longest, num_tokens):
    """Short wavelengths stay, long ones are divided by the factor, those between are blended."""
    low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
    scaled = []
    for frequency in plain:
        turns = original * frequency / (2 * math.pi)  # over the original length
        if turns > high:
            keep = 1.0
        elif turns < low:
            keep = 0.0
        else:
            keep = (turns - low) / (high - low) if high > low else 0.0
        scaled.append(keep * frequency + (1 - keep) * frequency / scaling["factor"])
    return np.array(scaled), 1.0


def yarn_mscale(factor, mscale):
    return 0.1 * mscale * math.log(factor) + 1.0 if factor > 1 else 1.0


def yarn(plain, theta, scaling, original, longest, num_tokens):
    """A ramp over the pairs from frequencies as they are to divided ones (Peng et al., 2309.00071)."""
    width, stretch = 2 * len(plain), scaling["factor"]

    def pair_with(turns):
        return width * math.log(original / (2 * math.pi * turns)) / (2 * math.log(theta))

    low, high = pair_with(scaling.get("beta_fast") or 32), pair_with(scaling.get("beta_slow") or 1)
    if scaling.get("truncate", True):
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, width - 1)
    if low == high:
        high += 0.001
    ramp = np.clip((np.arange(len(plain)) - low) / (high - low), 0, 1)
    factor = scaling.get("attention_factor")
    if factor is None:
        mscale, all_dim = scaling.get("mscale"), scaling.get("mscale_all_dim")
        factor = yarn_mscale(stretch, mscale) / yarn_mscale(stretch, all_dim) if mscale and all_dim else \
            yarn_mscale(stretch, 1.0)
    return plain * (1 - ramp) + plain / stretch * ramp, factor


def longrope(plain, theta, scaling, original, longest, num_tokens):
    """A divisor per pair, from one list for sequences up to the original length and another for longer ones."""
    name = "long" if num_tokens > original else "short"
    frequencies = plain / np.array(scaling[name + "_factor"])
    if name + "_mscale" in scaling:
        return frequencies, scaling[name + "_mscale"]
    if scaling.get("attention_factor"):
        return frequencies, scaling["attention_factor"]
    stretch = scaling.get("factor") or longest / original
    return frequencies, math.sqrt(1 + math.log(stretch) / math.log(original)) if stretch > 1 else 1.0


KINDS = {"linear": linear, "llama3": llama3, "yarn": yarn, "longrope": longrope}
