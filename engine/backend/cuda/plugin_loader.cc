#include "engine/backend/cuda/plugin_loader.h"

#include <dlfcn.h>

#include <cstdlib>
#include <filesystem>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/backend/cuda/plugin.h"
#include "engine/base/status_macros.h"

namespace switchyard::cuda {
namespace {

constexpr size_t kTextBytes = 1024;
constexpr int kNoDevice = 100;  // CUDA_ERROR_NO_DEVICE

absl::Status Missing(const std::string& what) { return absl::FailedPreconditionError(what); }

// Libraries are never closed: their threads and static objects would outlive their code.
absl::StatusOr<void*> Open(const std::string& file) {
  void* const library = dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) return Missing(absl::StrCat("cannot open ", file, ": ", dlerror()));
  return library;
}

template <typename Function>
absl::StatusOr<Function> Find(void* library, const std::string& file, const char* name) {
  const auto function = reinterpret_cast<Function>(dlsym(library, name));
  if (function == nullptr) return Missing(absl::StrCat(file, " has no function ", name));
  return function;
}

// Asks the driver alone: opening the CUDA libraries would cost 150 MB on a machine that has no use for them.
absl::Status CheckDriver(const std::string& file) {
  const absl::StatusOr<void*> opened = Open(file);
  if (!opened.ok()) return Missing(absl::StrCat("there is no NVIDIA driver: ", opened.status().message()));
  void* const driver = *opened;
  ASSIGN_OR_RETURN(const auto init, Find<int (*)(unsigned)>(driver, file, "cuInit"));
  ASSIGN_OR_RETURN(const auto count_devices, Find<int (*)(int*)>(driver, file, "cuDeviceGetCount"));
  const int failure = init(0);
  if (failure == kNoDevice) return Missing("the NVIDIA driver sees no device");
  if (failure != 0) return absl::InternalError(absl::StrCat("the NVIDIA driver does not start: error ", failure));
  int count = 0;
  if (count_devices(&count) != 0 || count == 0) return Missing("the NVIDIA driver sees no device");
  return absl::OkStatus();
}

std::string ChoosePlugin(const PluginFiles& files) {
  if (!files.plugin.empty()) return files.plugin;
  std::vector<std::filesystem::path> folders;
  if (const char* const folder = std::getenv("SWITCHYARD_PLUGIN_DIR")) folders.emplace_back(folder);
  std::error_code ignored;
  const std::filesystem::path program = std::filesystem::read_symlink("/proc/self/exe", ignored);
  if (!program.empty()) folders.push_back(program.parent_path());
  for (const std::filesystem::path& folder : folders) {
    if (std::filesystem::exists(folder / kPluginFile, ignored)) return folder / kPluginFile;
  }
  return kPluginFile;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Backend>> LoadCudaBackend(const BackendOptions& options, const PluginFiles& files) {
  RETURN_IF_ERROR(CheckDriver(files.driver));
  const std::string file = ChoosePlugin(files);
  ASSIGN_OR_RETURN(void* const plugin, Open(file));
  ASSIGN_OR_RETURN(const auto version, Find<VersionFunction>(plugin, file, kVersionSymbol));
  if (std::string(version()) != kPluginVersion) {
    return Missing(absl::StrCat(file, " is of version ", version(), ", this program of ", kPluginVersion,
                                "; install the plugin that was built with it"));
  }
  ASSIGN_OR_RETURN(const auto score, Find<ScoreFunction>(plugin, file, kScoreSymbol));
  ASSIGN_OR_RETURN(const auto create, Find<CreateFunction>(plugin, file, kCreateSymbol));
  char text[kTextBytes] = "";
  const int suits = score(text, sizeof(text));
  if (suits < 0) return absl::InternalError(text);
  if (suits == 0) return Missing(text);
  int code = 0;
  std::unique_ptr<Backend> backend(create(&options, &code, text, sizeof(text)));
  if (backend == nullptr) return absl::Status(static_cast<absl::StatusCode>(code), text);
  return backend;
}

}  // namespace switchyard::cuda
