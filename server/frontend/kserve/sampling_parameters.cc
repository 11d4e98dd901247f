#include "server/frontend/kserve/sampling_parameters.h"

#include <nlohmann/json.hpp>
#include <utility>

#include "engine/base/json.h"
#include "engine/base/status_macros.h"
#include "server/frontend/errors.h"
#include "server/frontend/request_validation.h"
#include "server/frontend/sampling_fields.h"

namespace switchyard::kserve {
namespace {

using Json = nlohmann::json;

absl::StatusOr<Json> ToJson(const SamplingTensor& kind, const Tensor& tensor) {
  switch (kind.type) {
    case DataType::kBool:
      return ReadBool(tensor);
    case DataType::kUint64:
      return ReadUnsigned(tensor);
    case DataType::kInt32:
      return ReadInteger(tensor);
    case DataType::kFp32:
      return ReadReal(tensor);
    default:
      break;
  }
  // Millions of empty elements fit into one message: they are counted before they become values.
  if (tensor.num_elements > kMaxStopStrings) {
    const std::string name(kind.parameter);
    return InvalidRequest(name, name + " has " + WithCommas(tensor.num_elements) + " strings; use at most " +
                                    std::to_string(kMaxStopStrings));
  }
  ASSIGN_OR_RETURN(const auto texts, ReadTexts(tensor));
  return Json(texts);
}

}  // namespace

absl::Status SamplingParameters::Set(const std::string& where, const std::string& name, const Json& value) {
  const std::string field = where + Sanitized(name);
  if (!IsSamplingField(name)) return InvalidRequest(field, field + " is no sampling parameter that this server knows");
  if (value.is_null()) return absl::OkStatus();
  if (!seen_.insert(name).second) {
    return InvalidRequest(field, field + " is there twice, as a tensor and as a parameter");
  }
  return SetSamplingField(field, name, value, request_);
}

absl::Status SamplingParameters::AddTensor(const SamplingTensor& kind, const Tensor& tensor) {
  ASSIGN_OR_RETURN(const Json value, ToJson(kind, tensor));
  return Set("", std::string(kind.parameter), value);
}

absl::Status SamplingParameters::AddJson(std::string_view text) {
  const std::string field = "sampling_parameters";
  const auto json = ParseJson(text, {.max_bytes = kMaxSamplingJsonBytes, .max_depth = 4, .max_values = 8192}, field);
  if (!json.ok()) return InvalidRequest(field, std::string(json.status().message()));
  if (!json->is_object()) return InvalidRequest(field, field + " is no JSON object");
  for (const auto& [name, value] : json->items()) RETURN_IF_ERROR(Set(field + ".", name, value));
  return absl::OkStatus();
}

absl::Status SamplingParameters::AddParameter(const std::string& name, const inference::InferParameter& parameter) {
  Json value;
  switch (parameter.parameter_choice_case()) {
    case inference::InferParameter::kBoolParam:
      value = parameter.bool_param();
      break;
    case inference::InferParameter::kInt64Param:
      value = parameter.int64_param();
      break;
    case inference::InferParameter::kStringParam:
      value = parameter.string_param();
      break;
    case inference::InferParameter::kDoubleParam:
      value = parameter.double_param();
      break;
    case inference::InferParameter::kUint64Param:
      value = parameter.uint64_param();
      break;
    case inference::InferParameter::PARAMETER_CHOICE_NOT_SET:
      break;
  }
  return Set("parameters.", name, value);
}

}  // namespace switchyard::kserve
