// Shared memory of the Hopper products: a ring of stages, each a tile of weights and a tile of tokens in rows of 128
// bytes, permuted as the copy engine writes and wgmma reads them (SwizzledOffset of layout.h is that permutation).
// Plain functions for host and device, so that tests run them without a GPU.
//
//   | stage 0: 128 weight rows, kTokens token rows | stage 1 | ... | results per warpgroup | sources | barriers |
#ifndef SWITCHYARD_ENGINE_BACKEND_CUDA_WGMMA_LAYOUT_H_
#define SWITCHYARD_ENGINE_BACKEND_CUDA_WGMMA_LAYOUT_H_

#include <cstdint>

#include "engine/backend/cuda/layout.h"

namespace switchyard::cuda {

inline constexpr int kWarpgroup = 128;      // threads
inline constexpr int kWgmmaOut = 64;        // weight rows of one wgmma
inline constexpr int kWgmmaK = 16;          // k of one wgmma
inline constexpr int kGatherUnit = 8;       // elements that cp.async moves at a time: 16 bytes
inline constexpr int kSwizzleBytes = 1024;  // after which the permutation repeats: 8 rows of 128 bytes

// What tells wgmma where an operand lies: rows of 128 bytes of which each group of 8 follows the last, k contiguous,
// 128-byte swizzle. `address`: of the first row in shared memory, a multiple of kSwizzleBytes, plus 32 bytes for each
// k16 of the tile. Fields in units of 16 bytes: start at bit 0, a leading dimension that this layout has no use for at
// 16, the distance of groups at 32; the kind of swizzle at 62. PTX ISA, "Asynchronous warpgroup level matrix
// instructions".
SWITCHYARD_HOST_DEVICE constexpr uint64_t WgmmaDescriptor(uint32_t address) {
  return (address & 0x3ffff) >> 4 | uint64_t{1} << 16 | uint64_t{kSwizzleBytes >> 4} << 32 | uint64_t{1} << 62;
}

template <int kTokensValue>
struct WgmmaShape {
  static constexpr int kOut = kWideTileOut;  // weight rows of a block: two warpgroups multiply 64 each
  static constexpr int kTokens = kTokensValue;
  static constexpr int kConsumers = kOut / kWgmmaOut;
  static constexpr int kThreads = (1 + kConsumers) * kWarpgroup;  // the first warpgroup loads
  static constexpr int kRowBytes = kTileK * 2;
  static constexpr int kWeightBytes = kOut * kRowBytes;
  static constexpr int kStageBytes = kWeightBytes + kTokens * kRowBytes;
  static constexpr int kStages = (208 << 10) / kStageBytes;  // 12 of 17 KiB ... 4 of 48 KiB
  // Results pass through shared memory a few tokens at a time, so that whole lines are written. Rows are 16 bytes
  // longer than their 64 elements: neighbours lie in different banks.
  static constexpr int kStoreTokens = kTokens < 32 ? kTokens : 32;
  static constexpr int kStoreRowBytes = kWgmmaOut * 2 + 16;
  static constexpr int kStoreBytes = kStoreTokens * kStoreRowBytes;

  static constexpr int kStoreOffset = kStages * kStageBytes;
  static constexpr int kSourcesOffset = kStoreOffset + kConsumers * kStoreBytes;
  static constexpr int kBarriersOffset = kSourcesOffset + kTokens * 4;
  static constexpr int kSharedBytes = kBarriersOffset + 2 * kStages * 8 + kSwizzleBytes;  // the start is rounded up

  static_assert(kTokens % 8 == 0 && kTokens <= 256);
  static_assert(kStageBytes % kSwizzleBytes == 0 && kBarriersOffset % 8 == 0);
  static_assert(kSharedBytes <= 227 << 10);
};

// As ChooseTileTokens, up to 256 rows where experts have so many that the last, partly filled tile does not matter.
constexpr int ChooseWgmmaTileTokens(int64_t num_rows, int64_t num_experts) {
  constexpr int kWidest = 256;
  const int64_t active = num_rows < num_experts ? num_rows : num_experts;
  return active > 0 && num_rows / active >= 4 * kWidest ? kWidest : ChooseTileTokens(num_rows, num_experts);
}

}  // namespace switchyard::cuda

#endif  // SWITCHYARD_ENGINE_BACKEND_CUDA_WGMMA_LAYOUT_H_
