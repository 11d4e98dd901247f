// What the kernels of grouped products share: which tile a block works on, where its rows come from, and what becomes
// of a sum.
#ifndef SWITCHYARD_ENGINE_BACKEND_CUDA_GEMM_TILES_CUH_
#define SWITCHYARD_ENGINE_BACKEND_CUDA_GEMM_TILES_CUH_

#include <ptx.cuh>

#include "engine/backend/cuda/kernels.h"
#include "engine/backend/cuda/ungated.cuh"
#include "engine/backend/cuda/warp.cuh"

namespace switchyard::cuda {

// Tile t of the call, whether it comes from a plan or from dense rows.
__device__ __forceinline__ ExpertTile TileAt(const GroupedGemm& gemm, int tile_tokens, int64_t t) {
  if (gemm.plan.tiles != nullptr) return gemm.plan.tiles[t];
  const int32_t first = static_cast<int32_t>(t) * tile_tokens;
  const int32_t left = static_cast<int32_t>(gemm.dense_rows) - first;
  return {0, first, left < tile_tokens ? left : tile_tokens, 0,
          static_cast<int32_t>(CeilDiv(gemm.dense_rows, tile_tokens))};
}

__device__ __forceinline__ int64_t NumTiles(const GroupedGemm& gemm, int tile_tokens) {
  return gemm.plan.tiles != nullptr ? *gemm.plan.num_tiles : CeilDiv(gemm.dense_rows, tile_tokens);
}

__device__ __forceinline__ int64_t SourceOf(const GroupedGemm& gemm, int64_t row) {
  return gemm.row_to_source != nullptr ? gemm.row_to_source[row] : row;
}

// One thread of those that work on a tile widens the time span of its expert.
__device__ __forceinline__ void StampStart(const GroupedGemm& gemm, int32_t expert) {
  if (gemm.plan.tiles != nullptr) atomicMin(&gemm.plan.first_start[expert], GlobalTimer());
}
__device__ __forceinline__ void StampEnd(const GroupedGemm& gemm, int32_t expert) {
  if (gemm.plan.tiles != nullptr) atomicMax(&gemm.plan.last_end[expert], GlobalTimer());
}

// What weight row `weight_row` of expert `expert` adds to its products.
__device__ __forceinline__ float BiasOf(const GroupedGemm& gemm, int32_t expert, int64_t weight_row) {
  return gemm.bias == nullptr ? 0.0f : gemm.bias[expert * gemm.weight_rows + weight_row];
}

__device__ __forceinline__ float Activate(const GroupedGemm& gemm, float gate, float up) {
  if (gemm.swiglu_limit == 0.0f) return SiluTimes(gate, up);
  // Written so that NaN stays NaN.
  const float limit = gemm.swiglu_limit;
  const float g = gate > limit ? limit : gate;
  const float u = up > limit ? limit : up < -limit ? -limit : up;
  return (u + 1.0f) * (g / (1.0f + expf(-1.702f * g)));
}

// Calls `body` with each (tile, block of kOut weight rows) that is this block's share of the call. Threads that call it
// walk alike.
template <int kOut, int kTokens, typename Body>
__device__ __forceinline__ void ForEachTile(const GroupedGemm& gemm, Body body) {
  const int64_t num_out_blocks = gemm.weight_rows / kOut;
  const int64_t num_works = NumTiles(gemm, kTokens) * num_out_blocks;
  for (int64_t index = blockIdx.x; index < num_works; index += gridDim.x) {
    const GemmWork work =
        FindGemmWork(index, num_out_blocks, [&](int64_t t) { return TileAt(gemm, kTokens, t); });
    body(TileAt(gemm, kTokens, work.tile), work.out_block);
  }
}

}  // namespace switchyard::cuda

#endif  // SWITCHYARD_ENGINE_BACKEND_CUDA_GEMM_TILES_CUH_
