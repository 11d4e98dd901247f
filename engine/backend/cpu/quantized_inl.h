// Floor: reading a quantized panel once from memory, while expanding writes four (mxfp4) or two (fp8) times as many
// bytes to L1. Plain loops over 16-bit and 32-bit lanes, which compilers turn into vectors.
//
// Included by kernels_inl.h.

// The chunks of a panel, one after the other: expanded, then multiplied, the sums resting in c in between.
template <void (*kGemmSteps)(const uint16_t* a, int64_t a_steps, int num_rows, const uint16_t* panel, int64_t steps,
                             bool resume, float* c)>
void GemmQuantized(const uint16_t* a, int num_rows, const QuantizedPanel& panel, int64_t k_steps, float* c) {
  const uint8_t* chunk = panel.chunks;
  for (int64_t step = 0; step < k_steps; step += kChunkSteps, chunk += panel.chunk_bytes) {
    const int64_t steps = k_steps - step < kChunkSteps ? k_steps - step : kChunkSteps;
    panel.expand(chunk, steps, panel.scratch);
    kGemmSteps(a + step * kTileElements, k_steps, num_rows, panel.scratch, steps, step > 0, c);
  }
}

// Scales of mxfp4 with which every number is a normal bfloat16: .5 * 2^(2 - 127) up to 6 * 2^(252 - 127).
constexpr int kMinPlainScale = 2;
constexpr int kMaxPlainScale = 252;

inline bool IsPlainScale(const uint8_t* scales) {
  bool plain = true;
  for (int c = 0; c < kTileCols; ++c) plain &= scales[c] >= kMinPlainScale && scales[c] <= kMaxPlainScale;
  return plain;
}

// With any scales. Products are exact in bfloat16, or infinite, or NaN.
void ExpandMxfp4TileExactly(const uint8_t* scales, const uint8_t* codes, uint16_t* tile) {
  for (int i = 0; i < kTileElements; ++i) {
    const int row = i / 32, lane = i % 32;
    uint16_t word;
    __builtin_memcpy(&word, codes + (row / 4 * 32 + lane) * 2, 2);
    const int code = word >> (4 * (row % 4)) & 15;
    const float value = kE2m1Floats[code] * kE8m0Floats.values[scales[lane / 2]];
    tile[i] = value == 0.0f ? uint16_t{0} : static_cast<uint16_t>(__builtin_bit_cast(uint32_t, value) >> 16);
  }
}

// A code's magnitude m as bfloat16 is 0x3f00 + 64 m times the scale, but that 0 is 0 and 1 is half, without a mantissa.
void ExpandMxfp4Tile(const uint8_t* scales, const uint8_t* codes, uint16_t* tile) {
  uint16_t exponents[32];
  for (int lane = 0; lane < 32; ++lane) {
    exponents[lane] = static_cast<uint16_t>(0x3f00 + ((scales[lane / 2] - 127) << 7));
  }
  for (int row = 0; row < 16; ++row) {
    const uint8_t* const words = codes + row / 4 * 64;
    for (int lane = 0; lane < 32; ++lane) {
      uint16_t word;
      __builtin_memcpy(&word, words + 2 * lane, 2);
      const uint16_t code = static_cast<uint16_t>(word >> (4 * (row % 4)));
      const uint16_t m = code & 7u;
      const uint16_t magnitude = static_cast<uint16_t>(exponents[lane] + ((m == 1 ? 0 : m) << 6));
      tile[row * 32 + lane] = m == 0 ? uint16_t{0} : static_cast<uint16_t>(magnitude | ((code & 8u) << 12));
    }
  }
}

void ExpandMxfp4(const uint8_t* chunk, int64_t steps, uint16_t* panel) {
  constexpr int64_t kTileBytesOfCodes = TileCodeBytes(QuantizedFormat::kMxfp4);
  for (int64_t step = 0; step < steps; ++step) {
    for (int tile = 0; tile < 2; ++tile) {
      const uint8_t* const scales = chunk + (step * 2 + tile) * kTileCols;
      const uint8_t* const codes = chunk + kChunkScaleBytes + (step * 2 + tile) * kTileBytesOfCodes;
      uint16_t* const to = panel + (tile * steps + step) * kTileElements;
      (IsPlainScale(scales) ? ExpandMxfp4Tile : ExpandMxfp4TileExactly)(scales, codes, to);
    }
  }
}

// Any codes with any scales: one product in fp32, rounded to nearest even; NaN stays NaN.
void ExpandFp8Tile(const float* scales, const uint8_t* codes, uint16_t* tile) {
  float lane_scales[32];
  for (int lane = 0; lane < 32; ++lane) lane_scales[lane] = scales[lane / 2];
  for (int row = 0; row < 16; ++row) {
    const uint8_t* const pairs = codes + row / 2 * 64 + row % 2;
    for (int lane = 0; lane < 32; ++lane) {
      const uint32_t code = pairs[2 * lane], magnitude = code & 0x7fu;
      const float denormal = static_cast<float>(static_cast<int32_t>(magnitude)) * 0x1p-9f;
      uint32_t bits = (magnitude << 20) + (120u << 23);
      bits = magnitude < 8 ? __builtin_bit_cast(uint32_t, denormal) : bits;
      bits = magnitude == 0x7f ? 0x7fc00000u : bits | (code & 0x80u) << 24;
      const uint32_t product = __builtin_bit_cast(uint32_t, __builtin_bit_cast(float, bits) * lane_scales[lane]);
      const uint32_t rounded = (product + 0x7fffu + ((product >> 16) & 1u)) >> 16;
      const bool is_nan = (product & 0x7fffffffu) > 0x7f800000u;
      tile[row * 32 + lane] = static_cast<uint16_t>(is_nan ? product >> 16 | 0x40u : rounded);
    }
  }
}

void ExpandFp8(const uint8_t* chunk, int64_t steps, uint16_t* panel) {
  constexpr int64_t kTileBytesOfCodes = TileCodeBytes(QuantizedFormat::kFp8);
  const float* const scales = reinterpret_cast<const float*>(chunk);
  for (int64_t step = 0; step < steps; ++step) {
    for (int tile = 0; tile < 2; ++tile) {
      ExpandFp8Tile(scales + tile * kTileCols, chunk + kChunkScaleBytes + (step * 2 + tile) * kTileBytesOfCodes,
                    panel + (tile * steps + step) * kTileElements);
    }
  }
}
