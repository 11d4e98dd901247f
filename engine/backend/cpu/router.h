// Router: logits, the top_k experts of each token, and the grouping of choices by expert.
#ifndef SWITCHYARD_ENGINE_BACKEND_CPU_ROUTER_H_
#define SWITCHYARD_ENGINE_BACKEND_CPU_ROUTER_H_

#include "engine/backend/backend.h"
#include "engine/backend/cpu/context.h"
#include "engine/backend/cpu/weights.h"

namespace switchyard::cpu {

// Floor: 2 * tokens * experts * hidden / fp32 peak. A token whose logits are not all finite gets experts 0..top_k-1
// with NaN weights (the row stays visibly bad), margin and logsumexp 0, and does not count in probability_sums.
void RunRouter(Context& context, const float* in, int64_t num_tokens, const CpuWeight& weight,
               const RouterConfig& config, Routing* routing);

// Floats that one thread needs beside the scores.
int64_t RouterTempElements(const RouterConfig& config);

// A counting sort; one pass over the choices to count, one to place.
void GroupChoicesByExpert(const Routing& routing, ExpertBatches* batches);

}  // namespace switchyard::cpu

#endif  // SWITCHYARD_ENGINE_BACKEND_CPU_ROUTER_H_
