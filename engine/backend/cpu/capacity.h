// Experts that take only so many rows of one request: which choices are dropped.
#ifndef SWITCHYARD_ENGINE_BACKEND_CPU_CAPACITY_H_
#define SWITCHYARD_ENGINE_BACKEND_CPU_CAPACITY_H_

#include <span>

#include "engine/backend/backend.h"
#include "engine/backend/cpu/context.h"

namespace switchyard::cpu {

// Floor: one pass over the choices; sorting where the order asks for it. See Backend::LimitChoices.
void RunLimitChoices(Context& context, const RouterConfig& config, std::span<const RowGroup> groups,
                     Routing* routing);

// Integers of scratch for a step of max_tokens.
int64_t CapacityScratchElements(int64_t max_tokens, int64_t top_k, int64_t num_experts);

}  // namespace switchyard::cpu

#endif  // SWITCHYARD_ENGINE_BACKEND_CPU_CAPACITY_H_
