// Which backend runs. The only file that names more than one of them.
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/backend/backend.h"
#include "engine/backend/cpu/cpu_backend.h"
#include "engine/backend/cuda/plugin_loader.h"
#include "engine/base/status_macros.h"

namespace switchyard {

absl::StatusOr<CreatedBackend> CreateBackend(const BackendOptions& options) {
  const std::string& device = options.device;
  if (device != "auto" && device != "cpu" && device != "cuda") {
    return absl::InvalidArgumentError(absl::StrCat("device is \"", device, "\", expected auto, cpu or cuda"));
  }
  CreatedBackend created;
  created.reason = "asked for";
  if (device != "cpu") {
    absl::StatusOr<std::unique_ptr<Backend>> gpu = cuda::LoadCudaBackend(options);
    if (gpu.ok()) {
      if (device == "auto") created.reason = "a GPU is there";
      created.backend = *std::move(gpu);
      return created;
    }
    // A GPU that is there but cannot be used is no reason to serve a hundred times slower without a word.
    const bool missing = gpu.status().code() == absl::StatusCode::kFailedPrecondition;
    if (device == "cuda" || !missing) {
      return absl::Status(gpu.status().code(), absl::StrCat("device is ", device, ": ", gpu.status().message()));
    }
    created.reason = absl::StrCat("no GPU can be used: ", gpu.status().message());
  }
  ASSIGN_OR_RETURN(created.backend, cpu::CreateCpuBackend(options));
  return created;
}

}  // namespace switchyard
