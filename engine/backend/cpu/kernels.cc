#include "engine/backend/cpu/kernels.h"

#include <algorithm>

namespace switchyard::cpu {

const Kernels& KernelsFor(Isa isa) {
  switch (isa) {
#if defined(__x86_64__)
    case Isa::kAmx: return kAmxKernels;
    case Isa::kAvx512Bf16: return kAvx512Bf16Kernels;
    case Isa::kAvx512: return kAvx512Kernels;
    case Isa::kAvx2: return kAvx2Kernels;
#endif
    default: return kScalarKernels;
  }
}

// Enough for every kernel: 32 rows of scores, weights, queries and sums; or 16 of them and 64 transposed latents.
int64_t AttentionScratchBytes(int32_t dim_pad) { return 32 * (int64_t{dim_pad} * (4 + 4 + 2) + 64 * (4 + 2)) + 4096; }

}  // namespace switchyard::cpu
