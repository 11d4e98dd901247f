// The two products of a layer's experts as calls of the kernels: gate and up with the activation between, then down.
#ifndef SWITCHYARD_ENGINE_BACKEND_CUDA_EXPERT_PRODUCTS_H_
#define SWITCHYARD_ENGINE_BACKEND_CUDA_EXPERT_PRODUCTS_H_

#include <cstdint>

#include "engine/backend/cuda/expert_gemm.h"

namespace switchyard::cuda {

struct ExpertProducts {
  GroupedGemm gate_up;  // writes silu(gate) * up, or what the experts have instead, to the scratch
  GroupedGemm down;     // reads it
};

// scratch: ProductBytes.
ExpertProducts MakeExpertProducts(const CudaExperts& experts, const ExpertBatch& batch, void* scratch);

// kNone for gated activations.
Ungated UngatedOf(Activation activation);

// What gate and up make of `max_rows` rows.
int64_t ProductBytes(const ExpertSizes& experts, int64_t max_rows);

}  // namespace switchyard::cuda

#endif  // SWITCHYARD_ENGINE_BACKEND_CUDA_EXPERT_PRODUCTS_H_
