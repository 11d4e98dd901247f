#include "server/frontend/sampling_fields.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>
#include <vector>

#include "engine/base/json.h"
#include "engine/base/status_macros.h"
#include "engine/tokenizer/utf8.h"
#include "server/frontend/errors.h"

namespace switchyard {
namespace {

using Json = nlohmann::json;

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

absl::StatusOr<float> ReadFloat(const NamedJson& named) {
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

// One value, or a list of them.
std::vector<NamedJson> Items(const NamedJson& named) {
  if (!named.value.is_array()) return {named};
  std::vector<NamedJson> items;
  for (const Json& item : named.value) items.push_back({named.field + "[" + std::to_string(items.size()) + "]", item});
  return items;
}

absl::Status SetStop(const NamedJson& named, v1::GenerateRequest* request) {
  for (const NamedJson& item : Items(named)) {
    if (!item.value.is_string()) return item.Error("is no text");
    const auto& text = item.value.get_ref<const std::string&>();
    const size_t invalid = FindInvalidUtf8(text);
    if (invalid != std::string::npos) return item.Error("is not valid UTF-8 (byte " + std::to_string(invalid) + ")");
    request->add_stop(text);
  }
  return absl::OkStatus();
}

absl::Status SetStopTokenIds(const NamedJson& named, v1::GenerateRequest* request) {
  if (!named.value.is_array()) return named.Error("is no list");
  for (const NamedJson& item : Items(named)) {
    ASSIGN_OR_RETURN(const int32_t id, ReadInt32(item));
    request->add_stop_token_ids(id);
  }
  return absl::OkStatus();
}

absl::Status SetLogitBias(const NamedJson& named, v1::GenerateRequest* request) {
  if (!named.value.is_object()) return named.Error("is no object of token ids and numbers");
  for (const auto& [key, bias] : named.value.items()) {
    const NamedJson item{named.field + "[" + Printable(key, 16) + "]", bias};
    const auto id = Parse<int32_t>(key);
    if (!id) return item.Error("has a key that is no token id");
    ASSIGN_OR_RETURN((*request->mutable_logit_bias())[*id], ReadFloat(item));
  }
  return absl::OkStatus();
}

absl::Status SetSeed(const NamedJson& named, v1::GenerateRequest* request) {
  const auto seed = ToWhole<uint64_t>(named.value);
  if (!seed) return named.Error("is no whole number from 0 to 2^64 - 1");
  request->set_seed(*seed);
  return absl::OkStatus();
}

// -1 is all, as 0 is.
absl::Status SetTopK(const NamedJson& named, v1::GenerateRequest* request) {
  ASSIGN_OR_RETURN(const int32_t top_k, ReadInt32(named));
  request->set_top_k(top_k == -1 ? 0 : top_k);
  return absl::OkStatus();
}

using Setter = absl::Status (*)(const NamedJson&, v1::GenerateRequest*);

template <void (v1::GenerateRequest::*set)(int32_t)>
absl::Status SetInt32(const NamedJson& named, v1::GenerateRequest* request) {
  ASSIGN_OR_RETURN(const int32_t value, ReadInt32(named));
  (request->*set)(value);
  return absl::OkStatus();
}

template <void (v1::GenerateRequest::*set)(float)>
absl::Status SetFloat(const NamedJson& named, v1::GenerateRequest* request) {
  ASSIGN_OR_RETURN(const float value, ReadFloat(named));
  (request->*set)(value);
  return absl::OkStatus();
}

template <void (v1::GenerateRequest::*set)(bool)>
absl::Status SetFlag(const NamedJson& named, v1::GenerateRequest* request) {
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

// Null: no such name.
Setter FindSetter(std::string_view name) {
  const auto found =
      std::find_if(std::begin(kSetters), std::end(kSetters), [name](const auto& entry) { return entry.first == name; });
  return found == std::end(kSetters) ? nullptr : found->second;
}

}  // namespace

absl::Status NamedJson::Error(const std::string& problem) const { return InvalidRequest(field, field + " " + problem); }

absl::StatusOr<int32_t> ReadInt32(const NamedJson& named) {
  if (const auto number = ToWhole<int32_t>(named.value)) return *number;
  return named.Error("is no whole number of 32 bits");
}

absl::StatusOr<bool> ReadFlag(const NamedJson& named) {
  if (named.value.is_boolean()) return named.value.get<bool>();
  for (const auto& [text, value] : {std::pair("true", true), {"True", true}, {"false", false}, {"False", false}}) {
    if (named.value == text) return value;
  }
  return named.Error("is neither true nor false");
}

bool IsSamplingField(std::string_view name) { return FindSetter(name) != nullptr; }

absl::Status SetSamplingField(const std::string& field, std::string_view name, const Json& value,
                              v1::GenerateRequest* request) {
  return FindSetter(name)({field, value}, request);
}

}  // namespace switchyard
