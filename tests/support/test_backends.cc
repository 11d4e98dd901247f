#include "tests/support/test_backends.h"

#include <cstdlib>
#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/base/status_macros.h"
#ifdef SWITCHYARD_TEST_EMULATED
#include "engine/backend/cuda/cuda_backend.h"
#endif

namespace switchyard::testing {
namespace {

constexpr bool kIsCpu = std::string_view(SWITCHYARD_TEST_DEVICE) == "cpu";

}  // namespace

std::vector<Variant> Variants(bool expert_gemms) {
  if (kIsCpu) return {"scalar", "avx2", "avx512", "avx512_bf16", "amx"};
  if (!expert_gemms) return {"native"};
  return {"native", "wgmma", "cublas_grouped", "cublas_padded"};
}

absl::StatusOr<std::unique_ptr<Backend>> MakeBackend(const Variant& variant, int num_threads) {
  BackendOptions options;
  options.device = SWITCHYARD_TEST_DEVICE;
  options.num_threads = num_threads;
  (kIsCpu ? options.cpu_isa : options.expert_gemm) = variant;
#ifdef SWITCHYARD_TEST_EMULATED
  return cuda::CreateCudaBackend(options);
#else
  absl::StatusOr<CreatedBackend> created = CreateBackend(options);
  if (created.status().code() == absl::StatusCode::kFailedPrecondition && !kIsCpu) {
    // wgmma needs a device of its own kind; on others its tests skip.
    if (std::getenv("SWITCHYARD_REQUIRE_GPU") != nullptr && variant != "wgmma") {
      return absl::InternalError(created.status().message());
    }
    // What ctest recognises a skipped program by.
    return absl::FailedPreconditionError(absl::StrCat("no GPU to test on: ", created.status().message()));
  }
  RETURN_IF_ERROR(created.status());
  return std::move(created->backend);
#endif
}

}  // namespace switchyard::testing
