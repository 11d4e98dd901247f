// AVX2 + FMA: kernels_inl.h over simd_avx2.h.
#include <immintrin.h>

#include <cstdint>

#include "engine/backend/cpu/kernels.h"

namespace switchyard::cpu {
namespace {

#include "engine/backend/cpu/simd_avx2.h"      // NOLINT: inside the namespace on purpose
#include "engine/backend/cpu/kernels_inl.h"  // NOLINT

}  // namespace

constinit const Kernels kAvx2Kernels = BaseKernels(Isa::kAvx2);

}  // namespace switchyard::cpu
