// From the experts that tokens chose to one batch of rows for each expert, and back to tokens; clocks. All small; see
// each kernel.
#include <ptx.cuh>

#include "engine/backend/cuda/kernels.h"
#include "engine/backend/cuda/warp.cuh"

namespace switchyard::cuda {
namespace {

constexpr int kMaxPlanWarps = 32;
constexpr int kCombineThreads = 256;

// One warp: sums[i + 1] becomes the sum of sums[1] ... sums[i + 1], and sums[0] = 0.
__device__ void SumInOrder(int32_t* sums, int32_t count) {
  const int lane = threadIdx.x % kWarp;
  int32_t before = 0;
  if (lane == 0) sums[0] = 0;
  for (int32_t base = 0; base < count; base += kWarp) {
    int32_t sum = base + lane < count ? sums[base + lane + 1] : 0;
    for (int distance = 1; distance < kWarp; distance *= 2) {
      const int32_t left = __shfl_sync(kAllLanes, sum, lane - distance);
      if (lane >= distance) sum += left;
    }
    if (base + lane < count) sums[base + lane + 1] = before + sum;
    before += __shfl_sync(kAllLanes, sum, kWarp - 1);
  }
  __syncwarp();
}

// One block sorts the choices by expert, keeping token order: each warp counts its contiguous part of the choices,
// offsets follow by expert and then by warp, and a second pass places them. Roofline: latency; bytes = choices * 4
// twice in and 16 out. Also lists the tiles of the grouped GEMMs and resets the experts' clocks. A few choices get a
// few warps, which then have less to add up over.
// Shared memory: counts[warp][expert], then starts[expert + 1], then tile_starts[expert + 1].
__global__ void GroupByExpertKernel(const StepCounts* counts, const int32_t* expert_ids, const float* expert_weights,
                                    int64_t rows, int32_t top_k, int32_t num_experts, int tile_tokens, ExpertPlan plan,
                                    BatchArrays out) {
  BeginKernel();
  int32_t* const warp_counts = DynamicShared<int32_t>();
  const int num_warps = blockDim.x / kWarp;
  int32_t* const starts = warp_counts + num_warps * num_experts;
  int32_t* const tile_starts = starts + num_experts + 1;
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  const int32_t num_choices = static_cast<int32_t>(NumTokens(counts, rows)) * top_k;
  const int32_t per_warp = static_cast<int32_t>(RoundUp(CeilDiv(num_choices, num_warps), kWarp));
  const int32_t begin = warp * per_warp;
  const int32_t end = begin + per_warp < num_choices ? begin + per_warp : num_choices;
  int32_t* const mine = warp_counts + warp * num_experts;

  for (int32_t i = threadIdx.x; i < num_warps * num_experts; i += blockDim.x) warp_counts[i] = 0;
  __syncthreads();
  for (int32_t base = begin; base < end; base += kWarp) {
    const int32_t expert = base + lane < end ? expert_ids[base + lane] : -1;
    const unsigned same = __match_any_sync(kAllLanes, expert);
    // The last lane of an expert adds for all of them.
    if (expert >= 0 && (same >> lane) == 1u) mine[expert] += __popc(same);
    __syncwarp();
  }
  __syncthreads();
  for (int32_t e = threadIdx.x; e < num_experts; e += blockDim.x) {
    int32_t total = 0;
    for (int w = 0; w < num_warps; ++w) {
      const int32_t count = warp_counts[w * num_experts + e];
      warp_counts[w * num_experts + e] = total;
      total += count;
    }
    starts[e + 1] = total;
    tile_starts[e + 1] = static_cast<int32_t>(CeilDiv(total, tile_tokens));
    plan.first_start[e] = ~0ull;
    plan.last_end[e] = 0;
  }
  __syncthreads();
  if (warp == 0) {
    SumInOrder(starts, num_experts);
    SumInOrder(tile_starts, num_experts);
    if (lane == 0) *plan.num_tiles = tile_starts[num_experts];
  }
  __syncthreads();
  for (int32_t e = threadIdx.x; e <= num_experts; e += blockDim.x) {
    out.expert_offsets[e] = starts[e];
    if (e == num_experts) continue;
    for (int32_t tile = tile_starts[e], row = starts[e]; tile < tile_starts[e + 1]; ++tile, row += tile_tokens) {
      const int32_t left = starts[e + 1] - row;
      plan.tiles[tile] = {e, row, left < tile_tokens ? left : tile_tokens, tile_starts[e],
                          tile_starts[e + 1] - tile_starts[e]};
    }
  }
  for (int32_t base = begin; base < end; base += kWarp) {
    const int32_t choice = base + lane;
    const int32_t expert = choice < end ? expert_ids[choice] : -1;
    const unsigned same = __match_any_sync(kAllLanes, expert);
    if (expert >= 0) {
      const int32_t row = starts[expert] + mine[expert] + __popc(same & ((1u << lane) - 1));
      out.choice_to_row[choice] = row;
      out.row_to_token[row] = choice / top_k;
      if (out.row_weights != nullptr) out.row_weights[row] = expert_weights[choice];
    }
    __syncwarp();
    if (expert >= 0 && (same >> lane) == 1u) mine[expert] += __popc(same);
    __syncwarp();
  }
}

// Roofline: latency.
__global__ void StampExpertsKernel(const int32_t* expert_offsets, int32_t num_experts, bool end, ExpertPlan plan) {
  BeginKernel();
  const unsigned long long now = GlobalTimer();
  for (int32_t e = threadIdx.x; e < num_experts; e += blockDim.x) {
    if (expert_offsets[e] < expert_offsets[e + 1]) (end ? plan.last_end : plan.first_start)[e] = now;
  }
}

// Roofline: latency.
__global__ void StampKernel(unsigned long long* at) {
  BeginKernel();
  *at = GlobalTimer();
}

// One block per row and layer. Roofline: latency; bytes = rows * layers * (2 top_k + 1) * 8.
__global__ void CollectRoutingKernel(const DeviceStep step, const RoutedLayer* layers, int64_t record, float* out) {
  BeginKernel();
  const RoutedLayer layer = layers[blockIdx.y];
  const int64_t row = blockIdx.x;
  if (row >= step.counts->num_logit_rows) return;
  const int64_t token = step.logit_rows[row];
  float* const to = out + row * record + layer.offset;
  for (int32_t j = threadIdx.x; j < layer.top_k; j += blockDim.x) {
    reinterpret_cast<int32_t*>(to)[j] = layer.expert_ids[token * layer.top_k + j];
    to[layer.top_k + j] = layer.expert_weights[token * layer.top_k + j];
  }
  if (threadIdx.x == 0) to[2 * layer.top_k] = layer.margins[token];
}

// Several blocks share a token's columns. Roofline: bytes = tokens * cols * (top_k * row element + 8).
__global__ void CombineKernel(const StepCounts* counts, const float* rows_f32, const uint16_t* rows_bf16,
                              int64_t rows_stride, const float* expert_weights, const int32_t* choice_to_row,
                              int64_t tokens, int32_t top_k, int64_t cols, float* out) {
  BeginKernel();
  __shared__ float weights[kMaxTopK];
  __shared__ int32_t sources[kMaxTopK];
  const int64_t token = blockIdx.x;
  if (token >= NumTokens(counts, tokens)) return;
  if (static_cast<int32_t>(threadIdx.x) < top_k) {
    weights[threadIdx.x] = expert_weights == nullptr ? 1.0f : expert_weights[token * top_k + threadIdx.x];
    sources[threadIdx.x] = choice_to_row[token * top_k + threadIdx.x];
  }
  __syncthreads();
  for (int64_t c = FirstCol(); c < cols; c += ColStep()) {
    float sum = out[token * cols + c];
    for (int32_t j = 0; j < top_k; ++j) {
      const int64_t at = sources[j] * rows_stride + c;
      sum = fmaf(weights[j], rows_f32 != nullptr ? rows_f32[at] : Bf16Bits(rows_bf16[at]), sum);
    }
    out[token * cols + c] = sum;
  }
}

}  // namespace

void LaunchGroupByExpert(const StepCounts* counts, const int32_t* expert_ids, const float* expert_weights, int64_t rows,
                         int32_t top_k, int32_t num_experts, int tile_tokens, ExpertPlan plan, BatchArrays out,
                         cudaStream_t stream) {
  const int64_t most = CeilDiv(rows * top_k > num_experts ? rows * top_k : num_experts, kWarp);
  const int num_warps = static_cast<int>(most < kMaxPlanWarps ? most : kMaxPlanWarps);
  const size_t shared_bytes = sizeof(int32_t) * (num_warps * num_experts + 2 * (num_experts + 1));
  Launch(GroupByExpertKernel, dim3(1), dim3(num_warps * kWarp), shared_bytes, stream, counts, expert_ids,
         expert_weights, rows, top_k, num_experts, tile_tokens, plan, out);
}

void LaunchStampExperts(const int32_t* expert_offsets, int32_t num_experts, bool end, ExpertPlan plan,
                        cudaStream_t stream) {
  Launch(StampExpertsKernel, dim3(1), dim3(kMaxExperts), 0, stream, expert_offsets, num_experts, end, plan);
}

void LaunchStamp(unsigned long long* at, cudaStream_t stream) {
  Launch(StampKernel, dim3(1), dim3(1), 0, stream, at);
}

void LaunchCollectRouting(const DeviceStep& step, const RoutedLayer* layers, int64_t num_layers, int64_t record,
                          int64_t rows, float* out, cudaStream_t stream) {
  Launch(CollectRoutingKernel, dim3(rows, num_layers), dim3(kWarp), 0, stream, step, layers, record, out);
}

void LaunchCombine(const StepCounts* counts, const float* rows_f32, const uint16_t* rows_bf16, int64_t rows_stride,
                   const float* expert_weights, const int32_t* choice_to_row, int64_t tokens, int32_t top_k,
                   int64_t cols, float* out, cudaStream_t stream) {
  Launch(CombineKernel, GridOfRows(tokens, cols, kCombineThreads), dim3(kCombineThreads), 0, stream, counts, rows_f32,
         rows_bf16, rows_stride, expert_weights, choice_to_row, tokens, top_k, cols, out);
}

}  // namespace switchyard::cuda
