// Opens the shared library. Apart from cublas.cc, so that the tests can put their own calls in its place.
#include <dlfcn.h>

#include <cstdlib>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "engine/backend/cuda/cublas.h"

namespace switchyard::cuda {
namespace {

template <typename Function>
bool Find(void* library, const char* name, Function* function) {
  *function = reinterpret_cast<Function>(dlsym(library, name));
  return *function != nullptr;
}

}  // namespace

absl::StatusOr<CublasFunctions> OpenCublas() {
  std::vector<std::string> files;
  if (const char* const file = std::getenv("SWITCHYARD_CUBLAS")) files.emplace_back(file);
  for (const char* folder : {"", "/usr/local/cuda/lib64/"}) {
    files.push_back(absl::StrCat(folder, "libcublas.so.", CUBLAS_VER_MAJOR));
  }
  void* library = nullptr;
  std::vector<std::string> failures;
  for (const std::string& file : files) {
    library = dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (library != nullptr) break;
    failures.emplace_back(dlerror());
  }
  if (library == nullptr) {
    return absl::NotFoundError(absl::StrCat("cuBLAS cannot be opened: ", absl::StrJoin(failures, "; ")));
  }
  CublasFunctions functions;
  if (!Find(library, "cublasCreate_v2", &functions.create) || !Find(library, "cublasDestroy_v2", &functions.destroy) ||
      !Find(library, "cublasSetStream_v2", &functions.set_stream) ||
      !Find(library, "cublasSetWorkspace_v2", &functions.set_workspace) ||
      !Find(library, "cublasGemmGroupedBatchedEx", &functions.gemm_grouped_batched) ||
      !Find(library, "cublasGemmStridedBatchedEx", &functions.gemm_strided_batched)) {
    return absl::NotFoundError("cuBLAS is too old: it lacks a function that this program calls");
  }
  return functions;
}

}  // namespace switchyard::cuda
