#include "server/frontend/kserve/sampling_parameters.h"

#include <charconv>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "engine/base/json.h"
#include "engine/base/status_macros.h"
#include "engine/tokenizer/utf8.h"
#include "server/frontend/errors.h"
#include "server/frontend/request_validation.h"

namespace switchyard::kserve {
namespace {

using Json = nlohmann::json;

// A parameter and where it came from, for messages.
struct Named {
  std::string field;
  const Json& value;

  absl::Status Error(const std::string& problem) const { return InvalidRequest(field, field + " " + problem); }
};

template <typename Number>
std::optional<Number> Parse(const std::string& text) {
  Number number{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return number;
}

// A number, or text that is one and nothing else.
template <typename Number>
std::optional<Number> ToWhole(const Json& value) {
  if (value.is_string()) return Parse<Number>(value.get_ref<const std::string&>());
  if (value.is_number_unsigned()) {
    const uint64_t number = value.get<uint64_t>();
    if (number > static_cast<uint64_t>(std::numeric_limits<Number>::max())) return std::nullopt;
    return static_cast<Number>(number);
  }
  if (!value.is_number_integer()) return std::nullopt;
  const int64_t number = value.get<int64_t>();
  if (number < static_cast<int64_t>(std::numeric_limits<Number>::min())) return std::nullopt;
  // What is positive as a signed number is so as an unsigned one of 64 bits, too.
  if (number > 0 && static_cast<uint64_t>(number) > static_cast<uint64_t>(std::numeric_limits<Number>::max())) {
    return std::nullopt;
  }
  return static_cast<Number>(number);
}

absl::StatusOr<int32_t> ReadInt32(const Named& named) {
  if (const auto number = ToWhole<int32_t>(named.value)) return *number;
  return named.Error("is no whole number of 32 bits");
}

absl::StatusOr<float> ReadFloat(const Named& named) {
  if (named.value.is_number()) {
    // What is beyond float becomes infinite, and is refused as such.
    const double number = named.value.get<double>();
    if (std::abs(number) <= std::numeric_limits<float>::max()) return static_cast<float>(number);
    return std::isnan(number) ? std::numeric_limits<float>::quiet_NaN() : std::numeric_limits<float>::infinity();
  }
  if (named.value.is_string()) {
    if (const auto number = Parse<float>(named.value.get_ref<const std::string&>())) return *number;
  }
  return named.Error("is no number");
}

absl::StatusOr<bool> ReadFlag(const Named& named) {
  if (named.value.is_boolean()) return named.value.get<bool>();
  for (const auto& [text, value] : {std::pair("true", true), {"True", true}, {"false", false}, {"False", false}}) {
    if (named.value == text) return value;
  }
  return named.Error("is neither true nor false");
}

// One value, or a list of them.
std::vector<Named> Items(const Named& named) {
  if (!named.value.is_array()) return {named};
  std::vector<Named> items;
  for (const Json& item : named.value) items.push_back({named.field + "[" + std::to_string(items.size()) + "]", item});
  return items;
}

absl::Status SetStop(const Named& named, v1::GenerateRequest* request) {
  for (const Named& item : Items(named)) {
    if (!item.value.is_string()) return item.Error("is no text");
    const auto& text = item.value.get_ref<const std::string&>();
    const size_t invalid = FindInvalidUtf8(text);
    if (invalid != std::string::npos) return item.Error("is not valid UTF-8 (byte " + std::to_string(invalid) + ")");
    request->add_stop(text);
  }
  return absl::OkStatus();
}

absl::Status SetStopTokenIds(const Named& named, v1::GenerateRequest* request) {
  if (!named.value.is_array()) return named.Error("is no list");
  for (const Named& item : Items(named)) {
    ASSIGN_OR_RETURN(const int32_t id, ReadInt32(item));
    request->add_stop_token_ids(id);
  }
  return absl::OkStatus();
}

absl::Status SetLogitBias(const Named& named, v1::GenerateRequest* request) {
  if (!named.value.is_object()) return named.Error("is no object of token ids and numbers");
  for (const auto& [key, bias] : named.value.items()) {
    const Named item{named.field + "[" + Printable(key, 16) + "]", bias};
    const auto id = Parse<int32_t>(key);
    if (!id) return item.Error("has a key that is no token id");
    ASSIGN_OR_RETURN((*request->mutable_logit_bias())[*id], ReadFloat(item));
  }
  return absl::OkStatus();
}

absl::Status SetSeed(const Named& named, v1::GenerateRequest* request) {
  const auto seed = ToWhole<uint64_t>(named.value);
  if (!seed) return named.Error("is no whole number from 0 to 2^64 - 1");
  request->set_seed(*seed);
  return absl::OkStatus();
}

// -1 is all, as 0 is.
absl::Status SetTopK(const Named& named, v1::GenerateRequest* request) {
  ASSIGN_OR_RETURN(const int32_t top_k, ReadInt32(named));
  request->set_top_k(top_k == -1 ? 0 : top_k);
  return absl::OkStatus();
}

using Setter = absl::Status (*)(const Named&, v1::GenerateRequest*);

template <void (v1::GenerateRequest::*set)(int32_t)>
absl::Status SetInt32(const Named& named, v1::GenerateRequest* request) {
  ASSIGN_OR_RETURN(const int32_t value, ReadInt32(named));
  (request->*set)(value);
  return absl::OkStatus();
}

template <void (v1::GenerateRequest::*set)(float)>
absl::Status SetFloat(const Named& named, v1::GenerateRequest* request) {
  ASSIGN_OR_RETURN(const float value, ReadFloat(named));
  (request->*set)(value);
  return absl::OkStatus();
}

template <void (v1::GenerateRequest::*set)(bool)>
absl::Status SetFlag(const Named& named, v1::GenerateRequest* request) {
  ASSIGN_OR_RETURN(const bool value, ReadFlag(named));
  (request->*set)(value);
  return absl::OkStatus();
}

constexpr std::pair<std::string_view, Setter> kSetters[] = {
    {"max_tokens", SetInt32<&v1::GenerateRequest::set_max_tokens>},
    {"min_tokens", SetInt32<&v1::GenerateRequest::set_min_tokens>},
    {"temperature", SetFloat<&v1::GenerateRequest::set_temperature>},
    {"top_p", SetFloat<&v1::GenerateRequest::set_top_p>},
    {"top_k", SetTopK},
    {"min_p", SetFloat<&v1::GenerateRequest::set_min_p>},
    {"repetition_penalty", SetFloat<&v1::GenerateRequest::set_repetition_penalty>},
    {"presence_penalty", SetFloat<&v1::GenerateRequest::set_presence_penalty>},
    {"frequency_penalty", SetFloat<&v1::GenerateRequest::set_frequency_penalty>},
    {"seed", SetSeed},
    {"stop", SetStop},
    {"stop_token_ids", SetStopTokenIds},
    {"ignore_eos", SetFlag<&v1::GenerateRequest::set_ignore_eos>},
    {"include_stop_str_in_output", SetFlag<&v1::GenerateRequest::set_include_stop>},
    {"skip_special_tokens", SetFlag<&v1::GenerateRequest::set_skip_special_tokens>},
    {"n", SetInt32<&v1::GenerateRequest::set_n>},
    {"logit_bias", SetLogitBias},
};

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
  const Named named{where + Sanitized(name), value};
  for (const auto& [known, set] : kSetters) {
    if (known != name) continue;
    if (value.is_null()) return absl::OkStatus();
    if (!seen_.insert(name).second) return named.Error("is there twice, as a tensor and as a parameter");
    return set(named, request_);
  }
  return named.Error("is no sampling parameter that this server knows");
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
