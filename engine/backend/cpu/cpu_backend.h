// The CPU as a Backend: synchronous, so Wait has nothing to wait for and nothing can fail after loading.
#ifndef SWITCHYARD_ENGINE_BACKEND_CPU_CPU_BACKEND_H_
#define SWITCHYARD_ENGINE_BACKEND_CPU_CPU_BACKEND_H_

#include <memory>

#include "absl/status/statusor.h"
#include "engine/backend/backend.h"

namespace switchyard::cpu {

// INVALID_ARGUMENT: num_threads out of range or an unknown cpu_isa. FAILED_PRECONDITION: the machine lacks cpu_isa.
// RESOURCE_EXHAUSTED: the threads cannot be started.
absl::StatusOr<std::unique_ptr<Backend>> CreateCpuBackend(const BackendOptions& options);

}  // namespace switchyard::cpu

#endif  // SWITCHYARD_ENGINE_BACKEND_CPU_CPU_BACKEND_H_
