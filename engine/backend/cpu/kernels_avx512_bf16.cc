// AVX-512 with vdpbf16ps: kernels_inl.h over simd_avx512.h, with its own bfloat16 GEMM.
#include <immintrin.h>

#include <cstdint>

#include "engine/backend/cpu/kernels.h"

namespace switchyard::cpu {
namespace {

#include "engine/backend/cpu/simd_avx512.h"  // NOLINT: inside the namespace on purpose
#include "engine/backend/cpu/kernels_inl.h"  // NOLINT

#include "engine/backend/cpu/gemm_vdpbf16_inl.h"  // NOLINT
#include "engine/backend/cpu/pack_tile_avx512_inl.h"  // NOLINT
#include "engine/backend/cpu/quantized_avx512_inl.h"  // NOLINT
#include "engine/backend/cpu/pack_bf16_inl.h"     // NOLINT

constexpr Kernels MakeKernels() {
  Kernels kernels = BaseKernels(Isa::kAvx512Bf16);
  kernels.gemm_bf16 = GemmVdpBf16;
  kernels.pack_row = PackRowBf16;
  kernels.pack_tile_bf16 = PackTileAvx512;
  kernels.expand_mxfp4 = ExpandMxfp4Avx512;
  kernels.expand_fp8 = ExpandFp8Avx512;
  kernels.gemm_quantized = GemmQuantized<GemmVdpBf16Steps>;
  return kernels;
}

}  // namespace

constinit const Kernels kAvx512Bf16Kernels = MakeKernels();

}  // namespace switchyard::cpu
