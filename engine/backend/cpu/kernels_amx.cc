// AMX: the kernels of kernels_avx512_bf16.cc, with bfloat16 GEMM and attention on tiles.
#include <immintrin.h>

#include <cstdint>

#include "engine/backend/cpu/kernels.h"

namespace switchyard::cpu {
namespace {

#include "engine/backend/cpu/simd_avx512.h"  // NOLINT: inside the namespace on purpose
#include "engine/backend/cpu/kernels_inl.h"  // NOLINT

#include "engine/backend/cpu/gemm_amx_inl.h"  // NOLINT
#include "engine/backend/cpu/pack_tile_avx512_inl.h"  // NOLINT
#include "engine/backend/cpu/quantized_avx512_inl.h"  // NOLINT
#include "engine/backend/cpu/quantized_vbmi_inl.h"  // NOLINT
#include "engine/backend/cpu/pack_bf16_inl.h"  // NOLINT

#include "engine/backend/cpu/attention_amx_inl.h"  // NOLINT: uses all of the above

constexpr Kernels MakeKernels() {
  Kernels kernels = BaseKernels(Isa::kAmx);
  kernels.gemm_bf16 = GemmAmx;
  kernels.pack_row = PackRowBf16;
  kernels.pack_tile_bf16 = PackTileAvx512;
  kernels.expand_mxfp4 = ExpandMxfp4Avx512;
  kernels.expand_fp8 = ExpandFp8Vbmi;
  kernels.gemm_quantized = GemmQuantizedAmx;
  kernels.attend = AttendAmx;
  return kernels;
}

}  // namespace

constinit const Kernels kAmxKernels = MakeKernels();

}  // namespace switchyard::cpu
