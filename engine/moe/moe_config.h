// One Mixture-of-Experts feed-forward block, as the checkpoint's config describes it.
#ifndef SWITCHYARD_ENGINE_MOE_MOE_CONFIG_H_
#define SWITCHYARD_ENGINE_MOE_MOE_CONFIG_H_

#include <cstdint>

#include "engine/backend/backend.h"

namespace switchyard {

struct MoeConfig {
  RouterConfig router;
  bool router_bias = false;              // on the logits
  ExpertForm experts;
  int32_t intermediate_size = 0;         // of one expert
  int32_t shared_intermediate_size = 0;  // of the always-on shared expert; 0 = none
  bool output_bias = false;              // on the sum of the experts
  bool shared_expert_gate = false;       // multiply the shared expert by sigmoid(x . w)
};

}  // namespace switchyard

#endif  // SWITCHYARD_ENGINE_MOE_MOE_CONFIG_H_
