// Activations of one projection, as engine/backend/activation.h defines them.
#ifndef SWITCHYARD_ENGINE_BACKEND_CUDA_UNGATED_CUH_
#define SWITCHYARD_ENGINE_BACKEND_CUDA_UNGATED_CUH_

#include <ptx.cuh>

#include "engine/backend/cuda/kernels.h"

namespace switchyard::cuda {

// NaN stays NaN.
__device__ __forceinline__ float ApplyUngated(Ungated activation, float x) {
  switch (activation) {
    case Ungated::kNone: return x;
    case Ungated::kRelu: return x < 0.0f ? 0.0f : x;
    case Ungated::kTanh: return tanhf(x);
    case Ungated::kGeluTanh: break;
  }
  // 0.5 x (1 + tanh(u)) = x / (1 + exp(-2u)), u = sqrt(2 / pi) (x + 0.044715 x^3).
  constexpr float kTwiceRoot = 1.5957691216057308f;  // 2 sqrt(2 / pi)
  return x / (1.0f + expf(-kTwiceRoot * fmaf(0.044715f * (x * x), x, x)));
}

}  // namespace switchyard::cuda

#endif  // SWITCHYARD_ENGINE_BACKEND_CUDA_UNGATED_CUH_
