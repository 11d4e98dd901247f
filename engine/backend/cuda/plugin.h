// The three C functions through which the server binary uses libswitchyard_cuda.so. The server itself contains nothing
// of CUDA: it asks for a driver first and opens the plugin only where there is one.
//
//   version   must equal what the caller was built with: a plugin of another build is refused before anything that
//             depends on the layout of C++ classes crosses
//   score     how well this machine suits: 0 if not at all, below 0 if its device is broken, both with the reason
//   create    a switchyard::Backend*, which the caller deletes; the plugin stays open until the process ends
#ifndef SWITCHYARD_ENGINE_BACKEND_CUDA_PLUGIN_H_
#define SWITCHYARD_ENGINE_BACKEND_CUDA_PLUGIN_H_

#include <cstddef>

namespace switchyard {
class Backend;
struct BackendOptions;
}  // namespace switchyard

namespace switchyard::cuda {

inline constexpr char kPluginFile[] = "libswitchyard_cuda.so";
inline constexpr char kVersionSymbol[] = "SwitchyardCudaVersion";
inline constexpr char kScoreSymbol[] = "SwitchyardCudaScore";
inline constexpr char kCreateSymbol[] = "SwitchyardCudaCreate";

// The build that both sides have to come from: see CMakeLists.txt.
inline constexpr char kPluginVersion[] = SWITCHYARD_PLUGIN_VERSION;

// Texts of at most `text_bytes` with their end go to `text`. `code` is an absl::StatusCode.
using VersionFunction = const char* (*)();
using ScoreFunction = int (*)(char* text, size_t text_bytes);
using CreateFunction = Backend* (*)(const BackendOptions* options, int* code, char* text, size_t text_bytes);

}  // namespace switchyard::cuda

#endif  // SWITCHYARD_ENGINE_BACKEND_CUDA_PLUGIN_H_
