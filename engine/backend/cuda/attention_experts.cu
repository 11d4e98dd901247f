// Between the rows of the experts of a mixture of attention heads (JetMoE) and the heads of attention. Roofline: bytes
// = queries, and on the way there keys and values, once in and once out.
#include <ptx.cuh>

#include "engine/backend/cuda/attention_kernels.h"

namespace switchyard::cuda {
namespace {

constexpr int kThreads = 128;

// Query head n * top_k + j is head n of the row of the token's choice j. body(element of q, element of the rows).
template <typename Body>
__device__ void ForQueries(const SpreadSizes& sizes, const int32_t* choice_to_row, int64_t token, const Body& body) {
  const int64_t row_size = static_cast<int64_t>(sizes.num_kv_heads) * sizes.head_dim;
  for (int64_t i = threadIdx.x; i < sizes.top_k * row_size; i += blockDim.x) {
    const int64_t head = i / sizes.head_dim;
    const int64_t row = choice_to_row[token * sizes.top_k + head % sizes.top_k];
    body(i, row * row_size + head / sizes.top_k * sizes.head_dim + i % sizes.head_dim);
  }
}

__global__ void SpreadHeadsKernel(const StepCounts* counts, SpreadSizes sizes, const float* expert_rows,
                                  const int32_t* choice_to_row, const float* kv, float* qkv) {
  BeginKernel();
  const int64_t token = blockIdx.x;
  if (counts != nullptr && token >= counts->num_tokens) return;
  const int64_t kv_size = static_cast<int64_t>(sizes.num_kv_heads) * sizes.head_dim;
  float* const q = qkv + token * (sizes.top_k + 2) * kv_size;
  ForQueries(sizes, choice_to_row, token, [&](int64_t i, int64_t from) { q[i] = expert_rows[from]; });
  for (int64_t i = threadIdx.x; i < 2 * kv_size; i += blockDim.x) {
    q[sizes.top_k * kv_size + i] = kv[token * 2 * kv_size + i];
  }
}

__global__ void CollectHeadsKernel(const StepCounts* counts, SpreadSizes sizes, const float* attended,
                                   const int32_t* choice_to_row, float* expert_rows) {
  BeginKernel();
  const int64_t token = blockIdx.x;
  if (counts != nullptr && token >= counts->num_tokens) return;
  const float* const from = attended + token * sizes.top_k * sizes.num_kv_heads * sizes.head_dim;
  ForQueries(sizes, choice_to_row, token, [&](int64_t i, int64_t to) { expert_rows[to] = from[i]; });
}

}  // namespace

void LaunchSpreadHeads(const StepCounts* counts, const SpreadSizes& sizes, const float* expert_rows,
                       const int32_t* choice_to_row, const float* kv, int64_t tokens, float* qkv, cudaStream_t stream) {
  Launch(SpreadHeadsKernel, dim3(tokens), dim3(kThreads), 0, stream, counts, sizes, expert_rows, choice_to_row, kv,
         qkv);
}

void LaunchCollectHeads(const StepCounts* counts, const SpreadSizes& sizes, const float* attended,
                        const int32_t* choice_to_row, int64_t tokens, float* expert_rows, cudaStream_t stream) {
  Launch(CollectHeadsKernel, dim3(tokens), dim3(kThreads), 0, stream, counts, sizes, attended, choice_to_row,
         expert_rows);
}

}  // namespace switchyard::cuda
