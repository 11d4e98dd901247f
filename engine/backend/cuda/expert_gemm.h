// Who multiplies the rows of the experts. Four ways to the same result, behind one call:
//
//   native           our kernel over tiles that the device lists: no host sync, one launch per product, reads only the
//                    experts that have rows, and a row's bits never depend on its batch
//   wgmma            the same for compute capability 9.0 with its copy engine and warpgroup products; bf16. Its bits
//                    are its own, so it never shares a model's rows with native
//   cublas_grouped   cublasGemmGroupedBatchedEx, one group per expert. The sizes live on the host, so each layer waits
//                    for the router once
//   cublas_padded    one strided batch over all experts, each times all tokens of the step; no sync, right where most
//                    experts have rows anyway; at most kMaxPaddedTokens tokens
//
// expert_gemm_kinds.h holds what is known of each by name, expert_gemm_choice.h picks one for each call.
// With cuBLAS the order of a row's additions is the library's choice and may change with the size of the batch.
#ifndef SWITCHYARD_ENGINE_BACKEND_CUDA_EXPERT_GEMM_H_
#define SWITCHYARD_ENGINE_BACKEND_CUDA_EXPERT_GEMM_H_

#include <cuda_runtime_api.h>

#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "engine/backend/cuda/expert_gemm_kinds.h"
#include "engine/backend/cuda/kernels.h"
#include "engine/backend/cuda/weights.h"

namespace switchyard::cuda {

// One layer's work. `max_rows` and `tokens` may be larger than what the device's counts say, never smaller.
struct ExpertBatch {
  const void* in = nullptr;           // rows of the experts' type: bf16 plane or fp32; of tokens, or if
  bool in_by_row = false;             // so, of the grouped rows themselves
  int64_t in_stride = 0;              // elements
  int64_t tokens = 0;
  int64_t max_rows = 0;               // tokens * top_k
  int tile_tokens = 0;                // what the plan was made with
  ExpertPlan plan;
  BatchArrays device;
  Planes out;                         // rows of all experts; fp32 for fp32 experts, else bf16
  int64_t out_stride = 0;             // elements of the fp32 plane
};

class ExpertGemm {
 public:
  virtual ~ExpertGemm() = default;
  // Whether it takes these experts and this batch, of which tokens, max_rows and in_by_row say enough; if not, the
  // native one does. A batch_invariant one decides by the experts alone.
  virtual bool Takes(const ExpertSizes& experts, const ExpertBatch& batch) const = 0;
  // Rows of a tile of the plan for a batch.
  virtual int TileTokens(int64_t num_rows, int64_t num_experts) const {
    return ChooseTileTokens(num_rows, num_experts);
  }
  // Bytes of scratch for such a batch.
  virtual int64_t ScratchBytes(const ExpertSizes& experts, int64_t tokens, int64_t max_rows) const = 0;
  // Stamps the plan's times, too.
  virtual absl::Status Run(const CudaExperts& experts, const ExpertBatch& batch, void* scratch) = 0;
};

std::unique_ptr<ExpertGemm> MakeNativeExpertGemm(int num_multiprocessors, cudaStream_t stream);

// FAILED_PRECONDITION: names what the device or its driver lacks.
absl::StatusOr<std::unique_ptr<ExpertGemm>> MakeWgmmaExpertGemm(const cudaDeviceProp& device, cudaStream_t stream);

// NOT_FOUND: no cuBLAS.
absl::StatusOr<std::unique_ptr<ExpertGemm>> MakeCublasGroupedExpertGemm(cudaStream_t stream);
absl::StatusOr<std::unique_ptr<ExpertGemm>> MakeCublasPaddedExpertGemm(cudaStream_t stream);

}  // namespace switchyard::cuda

#endif  // SWITCHYARD_ENGINE_BACKEND_CUDA_EXPERT_GEMM_H_
