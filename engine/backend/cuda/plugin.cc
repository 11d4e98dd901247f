#include "engine/backend/cuda/plugin.h"

#include <cuda_runtime_api.h>

#include <cstdio>
#include <string>

#include "engine/backend/cuda/cuda_backend.h"

#define SWITCHYARD_EXPORT extern "C" __attribute__((visibility("default")))

namespace switchyard::cuda {
namespace {

void Answer(const std::string& answer, char* text, size_t text_bytes) {
  std::snprintf(text, text_bytes, "%s", answer.c_str());
}

}  // namespace

SWITCHYARD_EXPORT const char* SwitchyardCudaVersion() { return kPluginVersion; }

SWITCHYARD_EXPORT int SwitchyardCudaScore(char* text, size_t text_bytes) {
  const absl::StatusOr<std::string> device = DescribeDevice();
  Answer(device.ok() ? *device : std::string(device.status().message()), text, text_bytes);
  if (device.ok()) return 1;
  return absl::IsFailedPrecondition(device.status()) ? 0 : -1;
}

SWITCHYARD_EXPORT Backend* SwitchyardCudaCreate(const BackendOptions* options, int* code, char* text,
                                                size_t text_bytes) {
  absl::StatusOr<std::unique_ptr<Backend>> backend = CreateCudaBackend(*options);
  *code = static_cast<int>(backend.status().code());
  Answer(std::string(backend.status().message()), text, text_bytes);
  return backend.ok() ? backend->release() : nullptr;
}

}  // namespace switchyard::cuda
