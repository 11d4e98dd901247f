// The experts of one layer by cuBLAS, each way as the backend's provider of that name runs it
// (engine/backend/cuda/expert_gemm_cublas.cc), marks of the experts' times included.
#ifndef SWITCHYARD_TESTS_BENCH_GPU_MOE_CUBLAS_H_
#define SWITCHYARD_TESTS_BENCH_GPU_MOE_CUBLAS_H_

#include <cstdint>
#include <vector>

#include "tests/bench/gpu/device.h"
#include "tests/bench/gpu/moe_layer.h"

namespace switchyard::bench {

// cublasGemmGroupedBatchedEx, one group per expert that has rows. The sizes live on the host: like the backend's
// provider it waits for the router and makes its lists in every call, so it cannot be recorded.
class CublasGrouped {
 public:
  explicit CublasGrouped(int32_t num_experts);
  static int64_t ScratchElements(const ExpertMatrices& experts, int64_t rows);
  void Run(const ExpertMatrices& experts, RoutedBatch* batch, int tile_tokens, MoeBuffers* buffers, uint16_t* scratch);

 private:
  // out[rows of e] = in[rows of e] x weight[e]^T; `pointers`: room for three lists.
  void Multiply(int32_t num_experts, const uint16_t* weight, int64_t m, int64_t k, const uint16_t* in, uint16_t* out,
                const void** pointers);

  std::vector<int> m_, n_, k_, single_;
  std::vector<float> one_, zero_;
  std::vector<cublasOperation_t> transposed_, plain_;
  PinnedArray<int32_t> offsets_;       // of the experts' rows
  PinnedArray<const void*> pointers_;  // of both products: a, b and c
};

// cublasGemmStridedBatchedEx of all tokens with all experts; at most cuda::kMaxPaddedTokens.
int64_t PaddedScratchElements(const ExpertMatrices& experts, int64_t tokens);
void RunCublasPadded(const ExpertMatrices& experts, RoutedBatch* batch, int tile_tokens, MoeBuffers* buffers,
                     uint16_t* scratch);

}  // namespace switchyard::bench

#endif  // SWITCHYARD_TESTS_BENCH_GPU_MOE_CUBLAS_H_
