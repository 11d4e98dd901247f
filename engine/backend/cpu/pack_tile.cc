#include "engine/backend/cpu/pack_tile.h"

#include <algorithm>
#include <cstring>

namespace switchyard::cpu {
namespace {

void PackTileF32(const float* rows, int num_rows, int64_t in, float* panel, int first_col) {
  for (int64_t k = 0; k < in; ++k) {
    float* to = panel + k * kPanelCols + first_col;
    for (int c = 0; c < num_rows; ++c) to[c] = rows[c * in + k];
    for (int c = num_rows; c < kTileCols; ++c) to[c] = 0.0f;
  }
}

constexpr uint16_t kBf16Exponent = 0x7f80;

int64_t PackTileBf16(const Kernels& kernels, const uint16_t* rows, int num_rows, int64_t in, uint16_t* panel,
                     int tile) {
  const int64_t steps = KSteps(in);
  uint16_t* const to = panel + tile * steps * kTileElements;
  // Full steps of full tiles, and what is left at the edges.
  const int64_t full = num_rows == kTileCols ? in / kStepK : 0;
  int64_t nonfinite = kernels.pack_tile_bf16(rows, in, full, to);
  for (int64_t k = full * kStepK; k < steps * kStepK; ++k) {
    uint16_t* const pairs = to + k / kStepK * kTileElements + k % kStepK / 2 * 2 * kTileCols + k % 2;
    for (int c = 0; c < kTileCols; ++c) {
      const uint16_t bits = c < num_rows && k < in ? rows[c * in + k] : uint16_t{0};
      nonfinite += (bits & kBf16Exponent) == kBf16Exponent ? 1 : 0;
      pairs[2 * c] = bits;
    }
  }
  return nonfinite;
}

// How many elements have all bits of `exponent` set. Counted in blocks so small that the count fits an element, which
// lets the compiler count as many at once as there are in a register.
template <typename Bits>
int64_t CountAllSet(const Bits* bits, int64_t count, Bits exponent) {
  constexpr int64_t kBlock = 1 << 14;
  int64_t found = 0;
  for (int64_t first = 0; first < count; first += kBlock) {
    Bits in_block = 0;
    const int64_t end = std::min(count, first + kBlock);
    for (int64_t i = first; i < end; ++i) in_block += (bits[i] & exponent) == exponent ? 1 : 0;
    found += in_block;
  }
  return found;
}

// Eight codes of a row, k = 8q to 8q + 7, each even one before its odd neighbour, to the two lanes of its column: the
// even ones to the lower 16 bits.
uint32_t SplitNibbles(uint32_t codes) {
  const auto gather = [](uint32_t x) {
    x &= 0x0f0f0f0fu;
    x = (x | x >> 4) & 0x00ff00ffu;
    return (x | x >> 8) & 0xffffu;
  };
  return gather(codes) | gather(codes >> 4) << 16;
}

// Four codes of a row, likewise.
uint32_t SplitBytes(uint32_t codes) {
  return (codes & 0xff0000ffu) | (codes & 0x0000ff00u) << 8 | (codes & 0x00ff0000u) >> 8;
}

// The codes of one column in one tile: every 16th word of 32 bits.
template <uint32_t (*kSplit)(uint32_t)>
void PackColumn(const uint8_t* codes, int64_t bytes, uint8_t* to) {
  for (; bytes > 0; bytes -= 4, codes += 4, to += kTileCols * 4) {
    uint32_t word = 0;
    std::memcpy(&word, codes, static_cast<size_t>(std::min<int64_t>(bytes, 4)));
    word = kSplit(word);
    std::memcpy(to, &word, 4);
  }
}

// Element i of the scales; without a row, 1.
template <typename T>
T ScaleAt(const void* scales, int64_t i, bool exists, T one) {
  if (!exists) return one;
  T scale;
  std::memcpy(&scale, static_cast<const char*>(scales) + i * static_cast<int64_t>(sizeof(T)), sizeof(T));
  return scale;
}

}  // namespace

int64_t PackTile(const Kernels& kernels, const char* rows, int num_rows, int64_t in, DType dtype, char* panel,
                 int tile) {
  if (dtype == DType::kF32) {
    PackTileF32(reinterpret_cast<const float*>(rows), num_rows, in, reinterpret_cast<float*>(panel), tile * kTileCols);
    return CountNonfinite(rows, num_rows * in, dtype);
  }
  return PackTileBf16(kernels, reinterpret_cast<const uint16_t*>(rows), num_rows, in,
                      reinterpret_cast<uint16_t*>(panel), tile);
}

void PackQuantizedTile(const uint8_t* codes, const void* scales, int num_rows, int64_t in, const QuantizedForm& form,
                       uint8_t* panel, int tile) {
  const bool is_mxfp4 = form.format == QuantizedFormat::kMxfp4;
  const int64_t row_bytes = form.CodeBytes(in), step_bytes = form.CodeBytes(kStepK), row_scales = form.ScalesPerRow(in);
  const int64_t tile_bytes = TileCodeBytes(form.format);
  for (int64_t k = 0; k < in; k += kStepK) {
    uint8_t* const chunk = panel + k / kChunkK * ChunkBytes(form.format);
    const int64_t place = k % kChunkK / kStepK * 2 + tile;  // of the tile in the chunk
    uint8_t* const to = chunk + kChunkScaleBytes + place * tile_bytes;
    const int64_t bytes = std::min(row_bytes - form.CodeBytes(k), step_bytes);
    for (int c = 0; c < kTileCols; ++c) {
      const bool exists = c < num_rows;
      const int64_t scale = c * row_scales + k / form.block_cols;
      if (is_mxfp4) {
        chunk[place * kTileCols + c] = ScaleAt<uint8_t>(scales, scale, exists, 127);
        if (exists) PackColumn<SplitNibbles>(codes + c * row_bytes + form.CodeBytes(k), bytes, to + 4 * c);
      } else {
        if (k % kChunkK == 0) {
          const float value = ScaleAt<float>(scales, scale, exists, 1.0f);
          std::memcpy(chunk + (tile * kTileCols + c) * 4, &value, 4);
        }
        if (exists) PackColumn<SplitBytes>(codes + c * row_bytes + form.CodeBytes(k), bytes, to + 4 * c);
      }
    }
  }
}

// All bits of the exponent are set. The elements were just read, so this costs no memory traffic.
int64_t CountNonfinite(const void* elements, int64_t count, DType dtype) {
  if (dtype == DType::kF32) return CountAllSet<uint32_t>(static_cast<const uint32_t*>(elements), count, 0x7f800000u);
  return CountAllSet<uint16_t>(static_cast<const uint16_t*>(elements), count, kBf16Exponent);
}

}  // namespace switchyard::cpu
