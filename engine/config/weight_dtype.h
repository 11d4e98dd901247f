// The element type of a checkpoint's weights, and the one that a model computes in.
#ifndef SWITCHYARD_ENGINE_CONFIG_WEIGHT_DTYPE_H_
#define SWITCHYARD_ENGINE_CONFIG_WEIGHT_DTYPE_H_

#include <string>

#include "absl/status/statusor.h"
#include "engine/base/dtype.h"
#include "engine/config/config_reader.h"

namespace switchyard {

// `torch_dtype` or `dtype`; float32 where neither is there. Another type is noted as not served.
DType ReadWeightDType(const ConfigReader& config);

// What weights stored as `stored` are computed in when `asked` (auto, float32 or bfloat16) is asked for.
// INVALID_ARGUMENT: `asked` is none of them.
absl::StatusOr<DType> ChooseDType(const std::string& asked, DType stored);

}  // namespace switchyard

#endif  // SWITCHYARD_ENGINE_CONFIG_WEIGHT_DTYPE_H_
