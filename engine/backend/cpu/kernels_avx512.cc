// AVX-512: kernels_inl.h over simd_avx512.h.
#include <immintrin.h>

#include <cstdint>

#include "engine/backend/cpu/kernels.h"

namespace switchyard::cpu {
namespace {

#include "engine/backend/cpu/simd_avx512.h"      // NOLINT: inside the namespace on purpose
#include "engine/backend/cpu/kernels_inl.h"  // NOLINT

}  // namespace

constinit const Kernels kAvx512Kernels = BaseKernels(Isa::kAvx512);

}  // namespace switchyard::cpu
