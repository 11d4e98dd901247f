// out (+)= in x weight^T + bias on all workers.
#ifndef SWITCHYARD_ENGINE_BACKEND_CPU_LINEAR_H_
#define SWITCHYARD_ENGINE_BACKEND_CPU_LINEAR_H_

#include <memory>
#include <span>

#include "engine/backend/backend.h"
#include "engine/backend/cpu/context.h"
#include "engine/backend/cpu/weights.h"

namespace switchyard::cpu {

// Floor: max(weight bytes / read bandwidth, 2 * rows * weight elements / peak). Each thread streams its share of the
// panels, a contiguous one (all of them, where rows are split instead), once per kChunkRows rows.
void Linear(Context& context, const float* in, int64_t num_rows, const CpuWeight& weight, bool add, float* out);

// See Backend::LinearPerHead. `in_width` and `out_width`: floats of a whole row. Each thread takes whole heads.
void LinearPerHead(Context& context, const float* in, int64_t in_width, int64_t num_rows,
                   std::span<const std::unique_ptr<Weight>> heads, float* out, int64_t out_width);

// See Backend::LinearPerExpert. Each thread takes its part of the outputs of every expert.
void LinearPerExpert(Context& context, const float* in, bool in_is_grouped,
                     std::span<const std::unique_ptr<Weight>> experts, const ExpertBatches& batches, float* rows_out);

}  // namespace switchyard::cpu

#endif  // SWITCHYARD_ENGINE_BACKEND_CPU_LINEAR_H_
