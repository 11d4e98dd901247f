// Finds out whether this machine has an NVIDIA GPU that can be used, without linking anything of CUDA.
//
// In this order, and the first that fails is the reason: the driver's library can be opened and sees a device; the
// plugin is found (in the folder $SWITCHYARD_PLUGIN_DIR, beside the executable, or where the system keeps libraries);
// its version is ours; it says that the device suits.
#ifndef SWITCHYARD_ENGINE_BACKEND_CUDA_PLUGIN_LOADER_H_
#define SWITCHYARD_ENGINE_BACKEND_CUDA_PLUGIN_LOADER_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "engine/backend/backend.h"

namespace switchyard::cuda {

// `driver` and `plugin` are the names of the two libraries, for tests.
struct PluginFiles {
  std::string driver = "libcuda.so.1";
  std::string plugin;  // empty: search
};

// FAILED_PRECONDITION: no device can be used; the message says what is missing. Other codes: the device is there, but
// the backend could not be made on it.
absl::StatusOr<std::unique_ptr<Backend>> LoadCudaBackend(const BackendOptions& options, const PluginFiles& files = {});

}  // namespace switchyard::cuda

#endif  // SWITCHYARD_ENGINE_BACKEND_CUDA_PLUGIN_LOADER_H_
