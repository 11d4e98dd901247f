// What becomes of the experts of a checkpoint, before they are loaded: which stay quantized, and the memory that saves.
#ifndef SWITCHYARD_ENGINE_MODEL_EXPERT_PLAN_H_
#define SWITCHYARD_ENGINE_MODEL_EXPERT_PLAN_H_

#include <cstdint>

#include "engine/backend/backend.h"
#include "engine/checkpoint/weights.h"
#include "engine/config/model_config.h"

namespace switchyard {

struct ExpertPlan {
  QuantizedFormat kept = QuantizedFormat::kNone;  // of the layers that stay quantized; kNone: no layer does
  int32_t kept_layers = 0;
  int32_t other_layers = 0;  // MoE layers whose experts are of the type of all weights
  int64_t saved_bytes = 0;   // against all experts in that type
};

// REQUIRES: `weights` are those of `config`.
ExpertPlan PlanExperts(const ModelConfig& config, const Weights& weights, DType dtype, const Backend& backend);

}  // namespace switchyard

#endif  // SWITCHYARD_ENGINE_MODEL_EXPERT_PLAN_H_
