// The baseline: kernels_inl.h over simd_scalar.h.

#include <cstdint>

#include "engine/backend/cpu/kernels.h"

namespace switchyard::cpu {
namespace {

#include "engine/backend/cpu/simd_scalar.h"      // NOLINT: inside the namespace on purpose
#include "engine/backend/cpu/kernels_inl.h"  // NOLINT

}  // namespace

constinit const Kernels kScalarKernels = BaseKernels(Isa::kScalar);

}  // namespace switchyard::cpu
