#include "engine/config/weight_dtype.h"

#include "absl/strings/str_cat.h"
#include "engine/base/json.h"

namespace switchyard {

DType ReadWeightDType(const ConfigReader& config) {
  std::string name = config.Text(config.NameInUse({"torch_dtype", "dtype"}), "float32");
  if (name.rfind("torch.", 0) == 0) name = name.substr(6);
  if (name == "float32" || name == "auto" || name.empty()) return DType::kF32;
  if (name == "float16") return DType::kF16;
  if (name == "bfloat16") return DType::kBF16;
  config.problems().AddUnimplemented(
      absl::StrCat("the type \"", Printable(name), "\" is not served; float32, float16 and bfloat16 are"));
  return DType::kF32;
}

absl::StatusOr<DType> ChooseDType(const std::string& asked, DType stored) {
  if (asked == "float32") return DType::kF32;
  if (asked == "bfloat16") return DType::kBF16;
  if (asked != "auto") {
    return absl::InvalidArgumentError(absl::StrCat("dtype is '", asked, "'; use auto, float32 or bfloat16"));
  }
  // float16 checkpoints are computed in bfloat16 when not asked otherwise: no CPU path multiplies float16.
  return stored == DType::kF32 ? DType::kF32 : DType::kBF16;
}

}  // namespace switchyard
