// How weights, activations and the KV cache lie in memory: one layout for all instruction sets.
//
// A weight matrix [out, in] is cut into panels of 32 output columns, and a panel is one contiguous stream:
//
//   float32   [in][32]                      one row of 32 columns per k
//   bfloat16  [2][in / 32][16][16][2]       columns 0-15, then 16-31; per step of 32 k one tile of 1 KiB: its row i
//                                           holds k = 2i and 2i+1 of each of the 16 columns, side by side
//
// One 64-byte tile row is one AVX-512 register for vdpbf16ps and one row of an AMX B tile. `out` is padded to 32 and
// `in` of bfloat16 to 32, both with zeros. In the gate/up panels of an expert the first 16 columns are gate, the others
// up, so that 16 columns of silu(gate) * up come out of one panel.
//
// Experts of a quantized checkpoint stay quantized: a panel is then a stream of chunks of 4 steps, 128 k, which one
// kernel expands to the bfloat16 panel of those steps, 8 KiB in L1, just before another one multiplies it. A chunk is
// 128 bytes of scales and the codes of its tiles, step by step, columns 0-15 before 16-31; column c's k = 2i + p stands
// in 16-bit lane 2c + p:
//
//   mxfp4   scales [4][2][16] E8M0     codes [4][2][4][32] words of 16 bits: four rows of the tile, the first lowest
//   fp8     scales [2][16] float32     codes [4][2][8][32] words of 16 bits: two rows of the tile, the first lowest
//
// The last chunk ends after its last step. What is padded has zero codes; padded columns have the scale 1, padded k
// (of fp8) that of their block, which is why only finite scales give the bits of the dequantised matrix.
//
// Activations in bfloat16 are packed by 16 rows: [rows / 16][in / 32][16][32], so that an AMX A tile is 1 KiB in a row
// and no two of its lines share an L1 set.
//
// Keys and values: 16 positions make a group (a KV block holds block_size / 16 of them), and per layer, block, KV head
// and group there is
//
//   K   float32 [dim_pad][16 keys]     bfloat16 [dim_pad / 2][16 keys][2]    scores of 16 keys without lane sums
//   V   float32 [16 keys][dim_pad]     bfloat16 [8 key pairs][dim_pad][2]
//
// which is again what vdpbf16ps and AMX want as their second operand. A cache of latents (MLA) has one such vector per
// position, in the form of V, and it serves as key and value.
#ifndef SWITCHYARD_ENGINE_BACKEND_CPU_LAYOUT_H_
#define SWITCHYARD_ENGINE_BACKEND_CPU_LAYOUT_H_

#include <cstdint>

#include "engine/base/dtype.h"
#include "engine/base/quantized.h"

namespace switchyard::cpu {

inline constexpr int kPanelCols = 32;  // output columns of a panel
inline constexpr int kTileCols = 16;   // output columns of a tile, half a panel
inline constexpr int kStepK = 32;      // k of a tile
inline constexpr int kTileElements = kTileCols * kStepK;
inline constexpr int kRowGroup = 16;   // rows of packed activations
inline constexpr int kKeyGroup = 16;   // positions of a KV group
inline constexpr int kMaxHeadDim = 1024;

constexpr int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }
constexpr int64_t KSteps(int64_t in) { return CeilDiv(in, kStepK); }

// Bytes of one panel over `in` inputs.
constexpr int64_t PanelBytes(int64_t in, DType dtype) {
  return dtype == DType::kF32 ? in * kPanelCols * 4 : KSteps(in) * 2 * kTileElements * 2;
}

inline constexpr int kChunkSteps = 4;  // steps of a chunk of a quantized panel
inline constexpr int kChunkK = kChunkSteps * kStepK;
inline constexpr int kChunkScaleBytes = 128;
inline constexpr int kChunkElements = 2 * kChunkSteps * kTileElements;

// Bytes of the codes of one tile, of a whole chunk, and of one panel over `in` inputs.
constexpr int64_t TileCodeBytes(QuantizedFormat format) {
  return format == QuantizedFormat::kMxfp4 ? kTileElements / 2 : kTileElements;
}
constexpr int64_t ChunkBytes(QuantizedFormat format) {
  return kChunkScaleBytes + 2 * kChunkSteps * TileCodeBytes(format);
}
constexpr int64_t QuantizedPanelBytes(int64_t in, QuantizedFormat format) {
  return CeilDiv(in, kChunkK) * kChunkScaleBytes + KSteps(in) * 2 * TileCodeBytes(format);
}

// Elements (uint16_t) of `rows` packed activation rows over `in` inputs.
constexpr int64_t PackedRowsElements(int64_t rows, int64_t in) {
  return CeilDiv(rows, kRowGroup) * KSteps(in) * kTileElements;
}

// Where keys and values lie; strides in bytes. `dim_pad` is head_dim rounded up to 32.
struct KvLayout {
  DType dtype = DType::kF32;
  int32_t groups_per_block = 0;
  int32_t head_dim = 0;
  int32_t dim_pad = 0;
  int32_t value_dim = 0;     // of the output: head_dim, or of a latent the front that is the value
  bool is_latent = false;
  int64_t keys_bytes = 0;    // K of one group; V follows it and is as large; 0 where there is only a latent
  int64_t group_stride = 0;  // K and V of one group
  int64_t head_stride = 0;
  int64_t block_stride = 0;
  int64_t layer_stride = 0;
};

}  // namespace switchyard::cpu

#endif  // SWITCHYARD_ENGINE_BACKEND_CPU_LAYOUT_H_
