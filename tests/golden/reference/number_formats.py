"""Number formats that NumPy lacks: bfloat16, F8_E4M3 in blocks (DeepSeek-V3), MXFP4 (gpt-oss)."""
import numpy as np

E4M3_MAX = 448.0
FP4 = np.array([0, .5, 1, 1.5, 2, 3, 4, 6])  # codes 0..7; 8..15 are the same with a minus


def _e4m3_table():
    code = np.arange(256)
    exponent, fraction = (code >> 3) & 15, code & 7
    value = np.where(exponent == 0, fraction / 8 * 2.0 ** -6, (1 + fraction / 8) * 2.0 ** (exponent - 7.0))
    value[(code & 127) == 127] = np.nan
    return np.where(code >= 128, -value, value)


E4M3 = _e4m3_table()


def bf16_values(bits):
    return (bits.astype(np.uint32) << 16).view(np.float32)


def bf16_bits(values):
    """Rounds to the nearest, ties to even."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    return ((bits + 0x7fff + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def round_to_bf16(values):
    return bf16_values(bf16_bits(values))


def e4m3_values(codes):
    return E4M3[codes]


def to_e4m3_blocks(weight, block):
    """[out, in] -> codes, scales [ceil(out / rows), ceil(in / cols)]; weight is about code value * scale."""
    rows, cols = -(-weight.shape[0] // block[0]), -(-weight.shape[1] // block[1])
    scales = np.empty((rows, cols), np.float32)
    for r in range(rows):
        for c in range(cols):
            part = weight[r * block[0]:(r + 1) * block[0], c * block[1]:(c + 1) * block[1]]
            scales[r, c] = np.abs(part).max() / E4M3_MAX
    magnitudes = np.abs(weight) / spread(scales, block, weight.shape)
    table = E4M3[:127]
    above = np.clip(np.searchsorted(table, magnitudes), 1, 126)
    codes = np.where(magnitudes - table[above - 1] < table[above] - magnitudes, above - 1, above)
    return (codes + 128 * (weight < 0)).astype(np.uint8), scales


def spread(scales, block, shape):
    return np.repeat(np.repeat(scales.astype(np.float64), block[0], 0)[:shape[0]], block[1], 1)[:, :shape[1]]


def from_e4m3_blocks(values, scales, block):
    return values * spread(scales, block, values.shape)


def to_mxfp4(weight):
    """[..., out, in] -> blocks uint8 [..., out, in / 32, 16], scales uint8 [..., out, in / 32]."""
    groups = weight.reshape(weight.shape[:-1] + (-1, 32))
    exponents = np.floor(np.log2(np.abs(groups).max(-1))) - 2  # so that the largest code, 6, is near the maximum
    magnitudes = np.abs(groups) / 2.0 ** exponents[..., None]
    codes = np.abs(magnitudes[..., None] - FP4).argmin(-1) + 8 * (groups < 0)
    return (codes[..., 0::2] | codes[..., 1::2] << 4).astype(np.uint8), (exponents + 127).astype(np.uint8)


def from_mxfp4(blocks, scales):
    """The low half of a byte comes first. -> [..., out, in]"""
    codes = np.stack([blocks & 15, blocks >> 4], -1).reshape(scales.shape + (32,))
    values = np.where(codes >= 8, -1, 1) * FP4[codes & 7] * 2.0 ** (scales.astype(float)[..., None] - 127)
    return values.reshape(scales.shape[:-1] + (-1,))
