// Which instruction sets this machine and its operating system offer, found at run time.
#ifndef SWITCHYARD_ENGINE_BACKEND_CPU_ISA_H_
#define SWITCHYARD_ENGINE_BACKEND_CPU_ISA_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/backend/cpu/isa_kind.h"

namespace switchyard::cpu {

const char* IsaName(Isa isa);

// From slowest to fastest; never empty. Asks Linux for the use of AMX tiles on the first call, for the whole process.
const std::vector<Isa>& AvailableIsas();

// `name` as in BackendOptions::cpu_isa; "auto" is the fastest.
// INVALID_ARGUMENT: no such name. FAILED_PRECONDITION: this machine lacks it; names what it has.
absl::StatusOr<Isa> ChooseIsa(const std::string& name);

}  // namespace switchyard::cpu

#endif  // SWITCHYARD_ENGINE_BACKEND_CPU_ISA_H_
