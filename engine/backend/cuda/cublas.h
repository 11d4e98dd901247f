// The calls of cuBLAS that the backend makes, found at run time: the library is opened only when a provider needs it,
// because that costs 150 MB of memory and up to a third of a second.
#ifndef SWITCHYARD_ENGINE_BACKEND_CUDA_CUBLAS_H_
#define SWITCHYARD_ENGINE_BACKEND_CUDA_CUBLAS_H_

#include <cublas_v2.h>

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/backend/cuda/device_memory.h"

namespace switchyard::cuda {

struct CublasFunctions {
  decltype(&cublasCreate_v2) create = nullptr;
  decltype(&cublasDestroy_v2) destroy = nullptr;
  decltype(&cublasSetStream_v2) set_stream = nullptr;
  decltype(&cublasSetWorkspace_v2) set_workspace = nullptr;
  decltype(&cublasGemmGroupedBatchedEx) gemm_grouped_batched = nullptr;
  // The type in full: the header has a second function of this name for C++.
  cublasStatus_t (*gemm_strided_batched)(cublasHandle_t, cublasOperation_t, cublasOperation_t, int, int, int,
                                         const void*, const void*, cudaDataType, int, long long, const void*,
                                         cudaDataType, int, long long, const void*, void*, cudaDataType, int,
                                         long long, int, cublasComputeType_t, cublasGemmAlgo_t) = nullptr;
};

// Looks in $SWITCHYARD_CUBLAS, then where the system keeps libraries, then in the usual folders of the toolkit.
// NOT_FOUND: not there, or too old for a function. Not FAILED_PRECONDITION, which would pass for a missing GPU.
absl::StatusOr<CublasFunctions> OpenCublas();

// A handle on one stream, with a workspace of its own so that no call allocates.
class Cublas {
 public:
  static absl::StatusOr<std::unique_ptr<Cublas>> Create(const CublasFunctions& functions, cudaStream_t stream);
  ~Cublas();

  cublasHandle_t handle() const { return handle_; }
  const CublasFunctions& functions() const { return functions_; }

 private:
  explicit Cublas(const CublasFunctions& functions) : functions_(functions) {}

  const CublasFunctions functions_;
  cublasHandle_t handle_ = nullptr;
  DeviceBuffer workspace_;
};

absl::Status ToStatus(cublasStatus_t status, const std::string& what);

}  // namespace switchyard::cuda

#endif  // SWITCHYARD_ENGINE_BACKEND_CUDA_CUBLAS_H_
