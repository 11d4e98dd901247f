// Stands for libswitchyard_cuda.so: the version it was compiled with, and answers that the test chooses.
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "absl/status/status.h"
#include "engine/backend/cuda/plugin.h"

#define SWITCHYARD_EXPORT extern "C" __attribute__((visibility("default")))

namespace {

bool Is(const char* mood) {
  const char* const setting = std::getenv("SWITCHYARD_FAKE_PLUGIN");
  return setting != nullptr && std::strcmp(setting, mood) == 0;
}

}  // namespace

SWITCHYARD_EXPORT const char* SwitchyardCudaVersion() {
  return Is("old") ? "0.0.1-000000000000" : switchyard::cuda::kPluginVersion;
}

SWITCHYARD_EXPORT int SwitchyardCudaScore(char* text, size_t text_bytes) {
  std::snprintf(text, text_bytes, "the device is too old");
  return Is("unsuited") ? 0 : 1;
}

SWITCHYARD_EXPORT switchyard::Backend* SwitchyardCudaCreate(const switchyard::BackendOptions*, int* code, char* text,
                                                            size_t text_bytes) {
  *code = static_cast<int>(absl::StatusCode::kResourceExhausted);
  std::snprintf(text, text_bytes, "no memory left on the GPU");
  return nullptr;
}
