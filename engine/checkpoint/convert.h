// Converts runs of stored elements to the two types that backends take.
#ifndef SWITCHYARD_ENGINE_CHECKPOINT_CONVERT_H_
#define SWITCHYARD_ENGINE_CHECKPOINT_CONVERT_H_

#include <cstdint>

#include "engine/base/dtype.h"

namespace switchyard {

// REQUIRES: `to` is kF32 or kBF16 (rounded to nearest even); `in` and `out` do not overlap. Any alignment.
void ConvertElements(DType from, const void* in, DType to, void* out, int64_t count);

}  // namespace switchyard

#endif  // SWITCHYARD_ENGINE_CHECKPOINT_CONVERT_H_
