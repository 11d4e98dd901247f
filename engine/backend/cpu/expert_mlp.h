// The experts of one MoE layer: one batch of rows per expert.
#ifndef SWITCHYARD_ENGINE_BACKEND_CPU_EXPERT_MLP_H_
#define SWITCHYARD_ENGINE_BACKEND_CPU_EXPERT_MLP_H_

#include "engine/backend/backend.h"
#include "engine/backend/cpu/context.h"
#include "engine/backend/cpu/weights.h"

namespace switchyard::cpu {

// Floor: max(bytes of the experts with rows / read bandwidth, 6 * rows * hidden * intermediate / peak).
// See Backend::ExpertMlp.
void RunExpertMlp(Context& context, const float* in, const CpuExperts& experts, const ExpertBatches& batches,
                  float* rows_out);

int64_t ExpertTeamScratchBytes(const ScratchSizes& sizes);

}  // namespace switchyard::cpu

#endif  // SWITCHYARD_ENGINE_BACKEND_CPU_EXPERT_MLP_H_
