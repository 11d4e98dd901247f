// Which backends this build has. The only file that names more than one of them.
#include "absl/strings/str_cat.h"
#include "engine/backend/backend.h"
#include "engine/backend/cpu/cpu_backend.h"

namespace switchyard {

absl::StatusOr<std::unique_ptr<Backend>> CreateBackend(const BackendOptions& options) {
  if (options.device == "auto" || options.device == "cpu") return cpu::CreateCpuBackend(options);
  if (options.device == "cuda") {
    return absl::FailedPreconditionError("device is cuda, but this build has no CUDA backend");
  }
  return absl::InvalidArgumentError(
      absl::StrCat("device is \"", options.device, "\", expected auto, cpu or cuda"));
}

}  // namespace switchyard
