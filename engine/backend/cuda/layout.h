// How weights, activations and the KV cache lie in device memory, and the index mathematics of the kernels: plain
// functions for host and device, so that tests run them without a GPU.
//
//   weight [out, in]        row-major, rows padded to kWideTileOut, columns ("k") to kTileK, both with zeros
//   gate and up of an expert  one matrix of 2 * intermediate rows in blocks of 16: 8 of gate, then the same 8 of up,
//                             so that one lane of an mma holds both operands of silu(gate) * up
//   activations             two planes of a matrix: fp32 without padding; bfloat16 with columns padded to kTileK with
//                           zeros, which is what the matrix units read
//   KV cache                [layer][block][kv head][position in block][dim_pad], K and V apart; of latents K alone
#ifndef SWITCHYARD_ENGINE_BACKEND_CUDA_LAYOUT_H_
#define SWITCHYARD_ENGINE_BACKEND_CUDA_LAYOUT_H_

#include <cstdint>

#include "engine/base/host_device.h"

namespace switchyard::cuda {

inline constexpr int kTileOut = 64;      // weight rows of the smaller tile
inline constexpr int kWideTileOut = 128;  // of the larger one; rows of a weight are padded to it
inline constexpr int kTileK = 64;        // k of one step of a tile: 128 bytes of bfloat16
inline constexpr int kGateUpBlock = 8;   // rows of gate, then as many of up
inline constexpr int kKeyBlock = 64;     // keys of one step of attention
inline constexpr int kKeyRun = 16;       // keys that always lie in one block of the cache
inline constexpr int kKeyChunk = 256;    // keys whose softmax is merged as one: the unit of split-KV
inline constexpr int kMaxHeadDim = 256;
inline constexpr int kMaxGroup = 64;      // query heads on one KV head
inline constexpr int kMaxLatentDim = 512;      // of MLA: the value in a key,
inline constexpr int kMaxLatentHeadDim = 576;  // and the key
inline constexpr int kMaxLatentHeads = 128;
inline constexpr int kMaxParts = 256;     // weight matrices of one LinearPerHead or LinearPerExpert
inline constexpr int kMaxExperts = 512;
inline constexpr int kMaxTopK = 32;
inline constexpr int kMaxRecordedRows = 256;  // of a step that is recorded as a CUDA graph
inline constexpr int kRouterSplits = 16;  // parts of k that a router logit is summed from

SWITCHYARD_HOST_DEVICE constexpr int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }
SWITCHYARD_HOST_DEVICE constexpr int64_t RoundUp(int64_t a, int64_t b) { return CeilDiv(a, b) * b; }

// Row of the interleaved matrix that holds gate row (up = 0) or up row (up = 1) `feature`.
SWITCHYARD_HOST_DEVICE constexpr int64_t GateUpRow(int64_t feature, int up) {
  return feature / kGateUpBlock * (2 * kGateUpBlock) + up * kGateUpBlock + feature % kGateUpBlock;
}
SWITCHYARD_HOST_DEVICE constexpr int64_t GateUpRows(int64_t intermediate) {
  return RoundUp(intermediate, kGateUpBlock) * 2;
}

// Byte offset of 16-byte unit `unit` (0-7) of row `row` in a shared-memory tile of 128-byte rows. The units of a row
// are permuted by its number, so that the eight rows of an ldmatrix tile lie in eight different bank groups.
SWITCHYARD_HOST_DEVICE constexpr int SwizzledOffset(int row, int unit) { return row * 128 + ((unit ^ (row & 7)) * 16); }

// One tile of rows of a grouped GEMM: up to `tile_tokens` rows of one expert. Tiles are numbered expert by expert.
struct ExpertTile {
  int32_t expert;
  int32_t first_row;
  int32_t num_rows;
  int32_t first_tile;  // of the expert
  int32_t num_tiles;   // of the expert
};

// The work of a grouped GEMM is (tile of rows, block of output features) pairs. Within an expert they are walked with
// the tiles fastest: blocks of threads that run at the same time then share the weights of a few feature blocks, which
// come from memory once, while the expert's activations stay in the L2 cache.
struct GemmWork {
  int64_t tile;
  int64_t out_block;
};
template <typename TileAt>
SWITCHYARD_HOST_DEVICE GemmWork FindGemmWork(int64_t index, int64_t num_out_blocks, const TileAt& tile_at) {
  const ExpertTile any = tile_at(index / num_out_blocks);  // a tile of the right expert
  const int64_t within = index - any.first_tile * num_out_blocks;
  return {any.first_tile + within % any.num_tiles, within / any.num_tiles};
}

// The most tiles that `num_rows` rows spread over `num_experts` experts can make.
SWITCHYARD_HOST_DEVICE constexpr int64_t MaxExpertTiles(int64_t num_rows, int64_t num_experts, int tile_tokens) {
  const int64_t nonempty = num_rows < num_experts ? num_rows : num_experts;
  return nonempty + (num_rows - nonempty) / tile_tokens;
}

// Rows of a tile for a batch: the smallest that holds the rows an active expert has on average. Every choice gives the
// same bits.
constexpr int ChooseTileTokens(int64_t num_rows, int64_t num_experts) {
  const int64_t active = num_rows < num_experts ? num_rows : num_experts;
  const int64_t average = active == 0 ? 0 : CeilDiv(num_rows, active);
  return average <= 8 ? 8 : average <= 16 ? 16 : average <= 32 ? 32 : average <= 64 ? 64 : 128;
}

}  // namespace switchyard::cuda

#endif  // SWITCHYARD_ENGINE_BACKEND_CUDA_LAYOUT_H_
