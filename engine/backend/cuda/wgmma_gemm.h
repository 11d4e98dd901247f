// The products of grouped_gemm.cu with the instructions of compute capability 9.0. No other device can run them: the
// caller has asked.
#ifndef SWITCHYARD_ENGINE_BACKEND_CUDA_WGMMA_GEMM_H_
#define SWITCHYARD_ENGINE_BACKEND_CUDA_WGMMA_GEMM_H_

#include <cuda.h>
#include <cuda_runtime_api.h>

#include "engine/backend/cuda/kernels.h"

namespace switchyard::cuda {

inline constexpr int kWgmmaTileTokens[] = {8, 16, 32, 64, 128, 256};

// As LaunchGemmBf16, of a call whose tiles come from a plan, whose output is kAssign or kSiluMul and whose only plane
// is bf16. `weights`: of MakeWeightMap for gemm.weight. tile_tokens: one of kWgmmaTileTokens.
void LaunchWgmmaGemm(const GroupedGemm& gemm, const CUtensorMap& weights, int tile_tokens, int num_multiprocessors,
                     cudaStream_t stream);

}  // namespace switchyard::cuda

#endif  // SWITCHYARD_ENGINE_BACKEND_CUDA_WGMMA_GEMM_H_
