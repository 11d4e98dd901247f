#include "engine/config/config_reader.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "engine/base/json.h"

namespace switchyard {
namespace {

using nlohmann::json;

constexpr size_t kMaxLines = 50;
constexpr size_t kMaxShownBytes = 40;

std::string Shown(const json& value) {
  if (value.is_array()) return "an array";
  if (value.is_object()) return "an object";
  if (value.is_string())
    return absl::StrCat("\"", Printable(value.get_ref<const std::string&>(), kMaxShownBytes), "\"");
  return value.dump();
}

std::string Range(int64_t min, int64_t max) { return absl::StrCat("an integer from ", min, " to ", max); }

}  // namespace

void ConfigProblems::AddInvalid(const std::string& problem) {
  any_invalid_ = true;
  Add(problem);
}

void ConfigProblems::AddUnimplemented(const std::string& problem) { Add(problem); }

void ConfigProblems::Add(const std::string& problem) {
  ++num_problems_;
  if (lines_.size() < kMaxLines) lines_.push_back(absl::StrCat(file_, ": ", problem));
}

absl::Status ConfigProblems::ToStatus() const {
  if (num_problems_ == 0) return absl::OkStatus();
  std::string text = absl::StrJoin(lines_, "\n");
  const int64_t num_more = num_problems_ - static_cast<int64_t>(lines_.size());
  if (num_more > 0) absl::StrAppend(&text, "\nand ", num_more, " more");
  return any_invalid_ ? absl::InvalidArgumentError(text) : absl::UnimplementedError(text);
}

const json* ConfigReader::Find(const std::string& key) const {
  const json* object = object_;
  size_t begin = 0;
  for (size_t dot = key.find('.'); dot != std::string::npos; dot = key.find('.', begin)) {
    const auto inner = object->find(key.substr(begin, dot - begin));
    if (inner == object->end() || !inner->is_object()) return nullptr;
    object = &*inner;
    begin = dot + 1;
  }
  const auto found = object->find(key.substr(begin));
  return found == object->end() ? nullptr : &*found;
}

bool ConfigReader::IsPresent(const std::string& key) const { return Find(key) != nullptr; }

bool ConfigReader::IsNull(const std::string& key) const { return IsPresent(key) && Find(key)->is_null(); }

bool ConfigReader::IsInteger(const std::string& key) const {
  return IsPresent(key) && Find(key)->is_number_integer();
}

const json* ConfigReader::Value(const std::string& key) const {
  const json* const found = Find(key);
  return found == nullptr || found->is_null() ? nullptr : found;
}

std::string ConfigReader::Describe(const std::string& key) const {
  const json* value = Value(key);
  return absl::StrCat(prefix_, key, " is ", value == nullptr ? "missing" : Shown(*value));
}

void ConfigReader::Invalid(const std::string& key, const std::string& expected) const {
  problems_->AddInvalid(absl::StrCat(Describe(key), "; it must be ", expected));
}

int32_t ConfigReader::CheckedInt(const std::string& key, const json& value, int32_t min, int32_t max) const {
  // Compared as 64-bit values: the file may hold any integer.
  const bool fits =
      value.is_number_unsigned() ? value.get<uint64_t>() <= uint64_t{INT32_MAX} : value.is_number_integer();
  if (fits && value.get<int64_t>() >= min && value.get<int64_t>() <= max) return value.get<int32_t>();
  problems_->AddInvalid(absl::StrCat(prefix_, key, " is ", Shown(value), "; it must be ", Range(min, max)));
  return 0;
}

int32_t ConfigReader::Int(const std::string& key, int32_t missing, int32_t min, int32_t max) const {
  const json* value = Value(key);
  return value == nullptr ? missing : CheckedInt(key, *value, min, max);
}

int32_t ConfigReader::RequiredInt(const std::string& key, int32_t min, int32_t max) const {
  const json* value = Value(key);
  if (value != nullptr) return CheckedInt(key, *value, min, max);
  Invalid(key, Range(min, max));
  return 0;
}

double ConfigReader::Real(const std::string& key, double missing, double min, double max) const {
  const json* value = Value(key);
  if (value == nullptr) return missing;
  if (value->is_number()) {
    const double number = value->get<double>();
    if (number >= min && number <= max) return number;  // false for NaN
  }
  Invalid(key, absl::StrCat("a number from ", min, " to ", max));
  return 0.0;
}

bool ConfigReader::Bool(const std::string& key, bool missing) const {
  const json* value = Value(key);
  if (value == nullptr) return missing;
  if (value->is_boolean()) return value->get<bool>();
  Invalid(key, "true or false");
  return false;
}

std::string ConfigReader::Text(const std::string& key, const std::string& missing) const {
  const json* value = Value(key);
  if (value == nullptr) return missing;
  if (value->is_string()) return value->get<std::string>();
  Invalid(key, "a string");
  return "";
}

std::string ConfigReader::OneOf(const std::string& key, const std::string& missing,
                                std::initializer_list<const char*> allowed) const {
  const json* value = Value(key);
  if (value == nullptr) return missing;
  if (value->is_string()) {
    const auto found = std::find(allowed.begin(), allowed.end(), value->get_ref<const std::string&>());
    if (found != allowed.end()) return *found;
  }
  Invalid(key, absl::StrCat("one of \"", absl::StrJoin(allowed, "\", \""), "\""));
  return "";
}

std::vector<int32_t> ConfigReader::Ints(const std::string& key, int32_t min, int32_t max, size_t max_count) const {
  const json* value = Value(key);
  if (value == nullptr) return {};
  if (!value->is_array()) return {CheckedInt(key, *value, min, max)};
  if (value->size() > max_count) {
    problems_->AddInvalid(
        absl::StrCat(prefix_, key, " has ", value->size(), " elements; at most ", max_count, " are possible"));
    return {};
  }
  std::vector<int32_t> numbers;
  for (const json& element : *value) numbers.push_back(CheckedInt(key, element, min, max));
  return numbers;
}

std::vector<double> ConfigReader::Reals(const std::string& key, double min, double max, size_t max_count) const {
  const json* value = Value(key);
  if (value == nullptr) return {};
  std::vector<double> numbers;
  bool valid = value->is_array() && value->size() <= max_count;
  for (size_t i = 0; valid && i < value->size(); ++i) {
    valid = (*value)[i].is_number();
    if (!valid) break;
    numbers.push_back((*value)[i].get<double>());
    valid = numbers.back() >= min && numbers.back() <= max;
  }
  if (valid) return numbers;
  Invalid(key, absl::StrCat("a list of at most ", max_count, " numbers from ", min, " to ", max));
  return {};
}

std::vector<std::string> ConfigReader::Texts(const std::string& key, size_t max_count) const {
  const json* value = Value(key);
  if (value == nullptr) return {};
  std::vector<std::string> texts;
  bool valid = value->is_array() && value->size() <= max_count;
  for (size_t i = 0; valid && i < value->size(); ++i) {
    valid = (*value)[i].is_string();
    if (valid) texts.push_back((*value)[i].get<std::string>());
  }
  if (valid) return texts;
  Invalid(key, absl::StrCat("a list of at most ", max_count, " strings"));
  return {};
}

std::optional<ConfigReader> ConfigReader::Object(const std::string& key) const {
  const json* value = Value(key);
  if (value == nullptr) return std::nullopt;
  if (value->is_object()) return ConfigReader(*value, absl::StrCat(prefix_, key, "."), problems_);
  Invalid(key, "an object");
  return std::nullopt;
}

std::string ConfigReader::NameInUse(std::initializer_list<const char*> names) const {
  std::string in_use;
  for (const char* name : names) {
    if (Value(name) == nullptr) continue;
    if (in_use.empty()) {
      in_use = name;
    } else if (*Value(name) != *Value(in_use)) {
      problems_->AddInvalid(absl::StrCat(Describe(in_use), ", but ", Describe(name), "; they mean the same"));
    }
  }
  return in_use.empty() ? *names.begin() : in_use;
}

}  // namespace switchyard
