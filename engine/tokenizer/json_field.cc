#include "engine/tokenizer/json_field.h"

#include <nlohmann/json.hpp>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "engine/base/status_macros.h"
#include "engine/tokenizer/utf8.h"

namespace switchyard {

bool JsonField::IsNull() const { return value_ == nullptr || value_->is_null(); }
bool JsonField::IsObject() const { return value_ != nullptr && value_->is_object(); }
bool JsonField::IsArray() const { return value_ != nullptr && value_->is_array(); }
bool JsonField::IsString() const { return value_ != nullptr && value_->is_string(); }

bool JsonField::IsZero() const { return value_ != nullptr && value_->is_number() && value_->get<double>() == 0; }

JsonField JsonField::Member(const std::string& key) const {
  const std::string path = path_.empty() ? key : absl::StrCat(path_, ".", key);
  if (!IsObject()) return JsonField(nullptr, path);
  const auto member = value_->find(key);
  return JsonField(member == value_->end() ? nullptr : &*member, path);
}

JsonField JsonField::Element(size_t index) const {
  return JsonField(&(*value_)[index], absl::StrCat(path_, "[", index, "]"));
}

size_t JsonField::Size() const { return IsArray() ? value_->size() : 0; }

std::vector<std::string> JsonField::Keys() const {
  std::vector<std::string> keys;
  if (!IsObject()) return keys;
  for (const auto& item : value_->items()) keys.push_back(item.key());
  return keys;
}

absl::StatusOr<std::string> JsonField::String() const {
  if (!IsString()) return Error("must be a string");
  return value_->get<std::string>();
}

absl::StatusOr<bool> JsonField::Bool() const {
  if (value_ == nullptr || !value_->is_boolean()) return Error("must be true or false");
  return value_->get<bool>();
}

absl::StatusOr<int32_t> JsonField::Int(int32_t min, int32_t max) const {
  const std::string range = absl::StrCat("must be an integer from ", min, " to ", max);
  if (value_ == nullptr || !value_->is_number_integer()) return Error(range);
  const bool fits = value_->is_number_unsigned() ? value_->get<uint64_t>() <= static_cast<uint64_t>(max)
                                                 : value_->get<int64_t>() <= max;
  const int64_t number = fits ? value_->get<int64_t>() : 0;
  if (!fits || number < min) return Error(absl::StrCat("is ", value_->dump(), "; it ", range));
  return static_cast<int32_t>(number);
}

absl::StatusOr<double> JsonField::Real(double min, double max) const {
  const double value = value_ != nullptr && value_->is_number() ? value_->get<double>() : max + 1.0;
  if (value >= min && value <= max) return value;
  return Error(absl::StrCat("must be a number from ", min, " to ", max));
}

absl::StatusOr<char32_t> JsonField::Character() const {
  ASSIGN_OR_RETURN(auto text, String());
  size_t pos = 0;
  const char32_t character = text.empty() ? 0 : NextCodePoint(text, &pos);
  if (pos == 0 || pos != text.size()) return Error("must be one character");
  return character;
}

absl::StatusOr<std::string> JsonField::StringOr(const std::string& otherwise) const {
  if (IsNull()) return otherwise;
  return String();
}

absl::StatusOr<bool> JsonField::BoolOr(bool otherwise) const {
  if (IsNull()) return otherwise;
  return Bool();
}

absl::Status JsonField::Error(const std::string& what) const {
  return absl::InvalidArgumentError(
      absl::StrCat("tokenizer.json: ", path_.empty() ? "the document" : path_, " ", what));
}

absl::StatusOr<std::vector<JsonField>> ListParts(const JsonField& component, const std::string& list_key) {
  constexpr size_t kMaxParts = 64;
  std::vector<JsonField> parts;
  std::vector<JsonField> open = {component};  // to be read, last first
  while (!open.empty()) {
    const JsonField field = open.back();
    open.pop_back();
    if (field.IsNull()) continue;
    if (!field.IsObject()) return field.Error("must be an object");
    ASSIGN_OR_RETURN(auto type, field.Member("type").String());
    if (type != "Sequence") {
      parts.push_back(field);
      if (parts.size() > kMaxParts) return component.Error(absl::StrCat("has more than ", kMaxParts, " parts"));
      continue;
    }
    const JsonField members = field.Member(list_key);
    if (!members.IsArray()) return members.Error("must be a list");
    for (size_t i = members.Size(); i-- > 0;) open.push_back(members.Element(i));
  }
  return parts;
}

std::string Quote(const std::string& text) {
  constexpr size_t kMaxBytes = 64;
  std::string shown;
  for (size_t pos = 0; pos < text.size();) {
    const size_t length = Utf8Length(text[pos]);
    if (pos + length > kMaxBytes) return absl::StrCat("\"", shown, "...\"");
    const bool control = static_cast<unsigned char>(text[pos]) < 0x20 || text[pos] == 0x7F;
    shown += control ? std::string("?") : text.substr(pos, length);
    pos += length;
  }
  return absl::StrCat("\"", shown, "\"");
}

}  // namespace switchyard
