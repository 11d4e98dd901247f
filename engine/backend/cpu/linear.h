// out (+)= in x weight^T + bias on all workers.
#ifndef SWITCHYARD_ENGINE_BACKEND_CPU_LINEAR_H_
#define SWITCHYARD_ENGINE_BACKEND_CPU_LINEAR_H_

#include "engine/backend/backend.h"
#include "engine/backend/cpu/context.h"
#include "engine/backend/cpu/weights.h"

namespace switchyard::cpu {

// Floor: max(weight bytes / read bandwidth, 2 * rows * weight elements / peak). Each thread streams its share of the
// panels, a contiguous one (all of them, where rows are split instead), once per kChunkRows rows.
void Linear(Context& context, const float* in, int64_t num_rows, const CpuWeight& weight, bool add, float* out);

}  // namespace switchyard::cpu

#endif  // SWITCHYARD_ENGINE_BACKEND_CPU_LINEAR_H_
