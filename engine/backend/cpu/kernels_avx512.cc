// AVX-512: kernels_inl.h over simd_avx512.h.
#include <immintrin.h>

#include <cstdint>

#include "engine/backend/cpu/kernels.h"

namespace switchyard::cpu {
namespace {

#include "engine/backend/cpu/simd_avx512.h"      // NOLINT: inside the namespace on purpose
#include "engine/backend/cpu/kernels_inl.h"  // NOLINT
#include "engine/backend/cpu/pack_tile_avx512_inl.h"  // NOLINT
#include "engine/backend/cpu/quantized_avx512_inl.h"  // NOLINT

constexpr Kernels MakeKernels() {
  Kernels kernels = BaseKernels(Isa::kAvx512);
  kernels.pack_tile_bf16 = PackTileAvx512;
  kernels.expand_mxfp4 = ExpandMxfp4Avx512;
  kernels.expand_fp8 = ExpandFp8Avx512;
  return kernels;
}

}  // namespace

constinit const Kernels kAvx512Kernels = MakeKernels();

}  // namespace switchyard::cpu
