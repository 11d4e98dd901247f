#include "engine/backend/cuda/cublas.h"

#include "absl/strings/str_cat.h"
#include "engine/base/status_macros.h"

namespace switchyard::cuda {
namespace {

constexpr int64_t kWorkspaceBytes = 32 << 20;  // what NVIDIA recommends for Hopper

}  // namespace

absl::Status ToStatus(cublasStatus_t status, const std::string& what) {
  if (status == CUBLAS_STATUS_SUCCESS) return absl::OkStatus();
  return absl::InternalError(absl::StrCat(what, ": cuBLAS error ", static_cast<int>(status)));
}

absl::StatusOr<std::unique_ptr<Cublas>> Cublas::Create(const CublasFunctions& functions, cudaStream_t stream) {
  std::unique_ptr<Cublas> cublas(new Cublas(functions));
  ASSIGN_OR_RETURN(cublas->workspace_, DeviceBuffer::Allocate(kWorkspaceBytes, "the workspace of cuBLAS"));
  RETURN_IF_ERROR(ToStatus(functions.create(&cublas->handle_), "cublasCreate"));
  RETURN_IF_ERROR(ToStatus(functions.set_stream(cublas->handle_, stream), "cublasSetStream"));
  RETURN_IF_ERROR(ToStatus(functions.set_workspace(cublas->handle_, cublas->workspace_.as<void>(), kWorkspaceBytes),
                           "cublasSetWorkspace"));
  return cublas;
}

Cublas::~Cublas() {
  if (handle_ != nullptr) functions_.destroy(handle_);
}

}  // namespace switchyard::cuda
