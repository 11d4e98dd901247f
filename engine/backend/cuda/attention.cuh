// What all kernels of attention share: how rows, cache and partial results are indexed, which keys a row sees, and how
// the softmax states of chunks are merged.
//
// Every row's result has one order of operations, whoever shares the step. Keys are taken in blocks of 64 with a
// running maximum; 256 keys make a chunk with a softmax state of its own, and chunks are merged in order. Decode gives
// each chunk to another block of threads, the last of which merges them, whichever it is; prefill walks through them:
// the same functions on the same operands. Blocks of keys and chunks are aligned to absolute positions, and one that a
// row must not see leaves its state exactly as it was.
#ifndef SWITCHYARD_ENGINE_BACKEND_CUDA_ATTENTION_CUH_
#define SWITCHYARD_ENGINE_BACKEND_CUDA_ATTENTION_CUH_

#include <ptx.cuh>

#include "engine/backend/cuda/attention_kernels.h"
#include "engine/backend/cuda/warp.cuh"

namespace switchyard::cuda {

inline constexpr float kNoMaximum = -1e30f;  // finite: exp2(kNoMaximum - kNoMaximum) is 1, not NaN
inline constexpr float kLog2E = 1.44269504088896341f;

__device__ __forceinline__ int64_t QSize(const AttentionArgs& args) {
  return static_cast<int64_t>(args.num_heads) * args.head_dim;
}
__device__ __forceinline__ int64_t KvSize(const AttentionArgs& args) {
  return static_cast<int64_t>(args.num_kv_heads) * args.head_dim;
}
// Elements of a projected row: of a latent attention queries only.
__device__ __forceinline__ int64_t QkvSize(const AttentionArgs& args) {
  return QSize(args) + (args.latent_dim > 0 ? 0 : 2 * KvSize(args));
}
__device__ __forceinline__ int32_t ValueDim(const AttentionArgs& args) {
  return args.latent_dim > 0 ? args.latent_dim : args.head_dim;
}
__device__ __forceinline__ int64_t OutSize(const AttentionArgs& args) {
  return static_cast<int64_t>(args.num_heads) * ValueDim(args);
}

// Index of the first element of a position's keys (and values) of one KV head.
__device__ __forceinline__ int64_t CacheIndex(const DeviceStep& step, const AttentionArgs& args, int64_t row,
                                              int32_t position, int32_t kv_head) {
  const int64_t block = step.tables[step.table_starts[row] + position / args.block_size];
  return ((block * args.num_kv_heads + kv_head) * args.block_size + position % args.block_size) * args.dim_pad;
}

__device__ __forceinline__ int32_t FirstVisible(const AttentionArgs& args, int32_t position) {
  if (args.chunk_size > 0) return position < 0 ? 0 : position / args.chunk_size * args.chunk_size;
  const int32_t first = position - args.sliding_window + 1;
  return args.sliding_window > 0 && first > 0 ? first : 0;
}

__device__ __forceinline__ void StoreOut(const AttentionArgs& args, Planes out, int64_t row, int32_t head, int dim,
                                         float value) {
  const int64_t col = static_cast<int64_t>(head) * ValueDim(args) + dim;
  if (out.f32 != nullptr) out.f32[row * OutSize(args) + col] = value;
  if (out.bf16 != nullptr) out.bf16[row * out.stride + col] = ToBf16Bits(value);
}

// The padding of a row's bf16 plane, by the threads that own head 0.
__device__ __forceinline__ void ClearOutPadding(const AttentionArgs& args, Planes out, int64_t row, int thread,
                                                int num_threads) {
  if (out.bf16 == nullptr) return;
  for (int64_t c = OutSize(args) + thread; c < out.stride; c += num_threads) out.bf16[row * out.stride + c] = 0;
}

// Which (row, query head) a slot is.
struct Slot {
  int64_t row;
  int32_t head;
  bool used;
};

// Merges the softmax state of a chunk into that of the chunks before it.
__device__ __forceinline__ void MergeFactors(float chunk_max, float* total_max, float* keep, float* add) {
  const float largest = fmaxf(*total_max, chunk_max);
  *keep = exp2f(*total_max - largest);
  *add = exp2f(chunk_max - largest);
  *total_max = largest;
}
__device__ __forceinline__ float Merge(float total, float keep, float chunk, float add) {
  return fmaf(chunk, add, total * keep);
}

// A sink counts as a chunk before all others, with one key that has no value.
__device__ __forceinline__ void StartFromSink(const AttentionArgs& args, int32_t head, float* max, float* sum) {
  if (args.sinks == nullptr) return;
  *max = args.sinks[head] * kLog2E;
  *sum = 1.0f;
}

// Output elements of a partial result.
SWITCHYARD_HOST_DEVICE inline int32_t PartialDim(const AttentionArgs& args) {
  return args.latent_dim > 0 ? args.latent_dim : args.dim_pad;
}

// partials: [row of the launch][kv head][chunk][slot of the group][2 + PartialDim]: maximum, sum, output.
__device__ __forceinline__ float* PartialAt(const AttentionArgs& args, float* partials, int64_t max_chunks, int64_t i,
                                            int32_t kv_head, int64_t chunk, int32_t slot) {
  const int32_t group = args.num_heads / args.num_kv_heads;
  const int64_t index = ((i * args.num_kv_heads + kv_head) * max_chunks + chunk) * group + slot;
  return partials + index * (2 + PartialDim(args));
}

// The chunks that a row sees something of: [first, last].
struct ChunkRange {
  int32_t first, last;
};
__device__ __forceinline__ ChunkRange VisibleChunks(const AttentionArgs& args, int32_t position) {
  return {FirstVisible(args, position) / kKeyChunk, position / kKeyChunk};
}

// One warp merges the partial results of a (row, query head) in the order of the chunks. Roofline: bytes = they once,
// from the L2 cache; several chunks are asked for at a time, because one warp has little else to hide its latency.
template <int kDimsPerLane>
__device__ void MergeChunks(const AttentionArgs& args, float* partials, int64_t max_chunks, int64_t i, int64_t row,
                            int32_t head, ChunkRange chunks, Planes out) {
  const int lane = threadIdx.x % kWarp;
  const int32_t group = args.num_heads / args.num_kv_heads;
  float max = kNoMaximum, sum = 0.0f;
  StartFromSink(args, head, &max, &sum);
  float sums[kDimsPerLane] = {};
#pragma unroll(kDimsPerLane > 8 ? 2 : 4)  // what registers hold
  for (int32_t chunk = chunks.first; chunk <= chunks.last; ++chunk) {
    const float* const from = PartialAt(args, partials, max_chunks, i, head / group, chunk, head % group);
    float keep, add;
    MergeFactors(__ldcg(from), &max, &keep, &add);
    sum = Merge(sum, keep, __ldcg(from + 1), add);
#pragma unroll
    for (int d = 0; d < kDimsPerLane; ++d) {
      const int col = d * kWarp + lane;
      if (col < PartialDim(args)) sums[d] = Merge(sums[d], keep, __ldcg(from + 2 + col), add);
    }
  }
  for (int d = 0; d < kDimsPerLane; ++d) {
    if (d * kWarp + lane < ValueDim(args)) StoreOut(args, out, row, head, d * kWarp + lane, sums[d] / sum);
  }
}

}  // namespace switchyard::cuda

#endif  // SWITCHYARD_ENGINE_BACKEND_CUDA_ATTENTION_CUH_
