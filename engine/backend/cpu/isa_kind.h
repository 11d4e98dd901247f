// The instruction sets that kernels exist for. Apart from isa.h because the kernels' files, compiled for one
// instruction set each, must not pull in library headers with code of their own.
#ifndef SWITCHYARD_ENGINE_BACKEND_CPU_ISA_KIND_H_
#define SWITCHYARD_ENGINE_BACKEND_CPU_ISA_KIND_H_

#include <cstdint>

namespace switchyard::cpu {

// Each includes the ones before it.
enum class Isa : uint8_t { kScalar, kAvx2, kAvx512, kAvx512Bf16, kAmx };

}  // namespace switchyard::cpu

#endif  // SWITCHYARD_ENGINE_BACKEND_CPU_ISA_KIND_H_
