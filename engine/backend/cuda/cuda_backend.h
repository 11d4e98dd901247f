// The backend for one NVIDIA GPU.
#ifndef SWITCHYARD_ENGINE_BACKEND_CUDA_CUDA_BACKEND_H_
#define SWITCHYARD_ENGINE_BACKEND_CUDA_CUDA_BACKEND_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "engine/backend/backend.h"

namespace switchyard::cuda {

// The first device, for people: "NVIDIA H200, 141 GB".
// FAILED_PRECONDITION: there is none, or it is older than compute capability 8.0.
absl::StatusOr<std::string> DescribeDevice();

// FAILED_PRECONDITION: as above. NOT_FOUND: no cuBLAS where options.expert_gemm asks for it. INVALID_ARGUMENT: options.
// RESOURCE_EXHAUSTED: no memory.
absl::StatusOr<std::unique_ptr<Backend>> CreateCudaBackend(const BackendOptions& options);

}  // namespace switchyard::cuda

#endif  // SWITCHYARD_ENGINE_BACKEND_CUDA_CUDA_BACKEND_H_
