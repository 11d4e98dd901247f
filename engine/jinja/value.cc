#include "engine/jinja/value.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "engine/base/status_macros.h"
#include "engine/jinja/operators.h"
#include "engine/tokenizer/utf8.h"

namespace switchyard::jinja {

absl::Status PythonError(std::string message) { return absl::InvalidArgumentError(message); }

absl::Status CheckDepth(int depth) {
  if (depth < kMaxValueDepth) return absl::OkStatus();
  return absl::ResourceExhaustedError(absl::StrCat("nests values deeper than ", kMaxValueDepth, " levels"));
}

std::string ToUtf8(TextView text) {
  std::string out;
  out.reserve(text.size());
  for (const char32_t c : text) AppendUtf8(c >= 0xD800 && c < 0xE000 ? 0xFFFD : c, &out);
  return out;
}

Text FromUtf8(std::string_view text) {
  Text out;
  out.reserve(text.size());
  for (size_t at = 0; at < text.size();) out += NextCodePoint(text, &at);
  return out;
}

Value Value::Str(Text text, bool markup) {
  return Value(Rep(std::make_shared<const String>(String{std::move(text), markup})));
}

Value Value::Utf8(std::string_view text) { return Str(FromUtf8(text)); }

Value Value::Undefined(std::string message) {
  return Value(Rep(std::make_shared<const std::string>(std::move(message))));
}

absl::StatusOr<Value> Value::MakeSequence(std::vector<Value> items, bool is_tuple, Budget* budget) {
  int depth = 0;
  for (const Value& item : items) depth = std::max(depth, item.depth());
  RETURN_IF_ERROR(CheckDepth(depth));
  RETURN_IF_ERROR(budget->Grow(static_cast<int64_t>(4 + 4 * items.size())));
  return Value(Rep(std::make_shared<const Sequence>(Sequence{std::move(items), is_tuple, depth + 1})));
}

absl::StatusOr<Value> Value::List(std::vector<Value> items, Budget* budget) {
  return MakeSequence(std::move(items), false, budget);
}

absl::StatusOr<Value> Value::Tuple(std::vector<Value> items, Budget* budget) {
  return MakeSequence(std::move(items), true, budget);
}

absl::Status Value::UndefinedError() const {
  const UndefinedPtr& message = std::get<UndefinedPtr>(rep_);
  return PythonError(message == nullptr ? "value is undefined" : *message);
}

bool Value::IsSame(const Value& other) const {
  if (rep_.index() != other.rep_.index()) return false;
  if (is_none() || is_undefined()) return true;
  if (is_bool()) return boolean() == other.boolean();
  if (is_int()) return integer() == other.integer();
  if (is_float()) return false;
  if (is_string()) return std::get<StringPtr>(rep_) == std::get<StringPtr>(other.rep_);
  if (is_sequence()) return &sequence() == &other.sequence();
  if (is_dict()) return &dict() == &other.dict();
  return &object() == &other.object();
}

std::string Value::TypeName() const {
  if (is_none()) return "NoneType";
  if (is_bool()) return "bool";
  if (is_int()) return "int";
  if (is_float()) return "float";
  if (is_string()) return is_markup() ? "Markup" : "str";
  if (is_sequence()) return sequence().is_tuple ? "tuple" : "list";
  if (is_dict()) return "dict";
  return is_object() ? object().TypeName() : "Undefined";
}

int Value::depth() const {
  if (is_sequence()) return sequence().depth;
  if (is_dict()) return dict().depth();
  return is_object() ? object().depth() : 0;
}

absl::StatusOr<size_t> Dict::Locate(const Value& key, size_t hash, Budget* budget) const {
  const auto [begin, end] = places_.equal_range(hash);
  for (auto place = begin; place != end; ++place) {
    ASSIGN_OR_RETURN(const bool same, Equals(entries_[place->second].first, key, budget));
    if (same) return place->second;
  }
  return entries_.size();
}

void Dict::Append(size_t hash, Value key, Value value) {
  depth_ = std::max({depth_, key.depth() + 1, value.depth() + 1});
  places_.emplace(hash, entries_.size());
  entries_.emplace_back(std::move(key), std::move(value));
}

absl::Status Dict::Set(Value key, Value value, Budget* budget) {
  ASSIGN_OR_RETURN(const size_t hash, Hash(key, budget));
  RETURN_IF_ERROR(CheckDepth(std::max(key.depth(), value.depth())));
  ASSIGN_OR_RETURN(const size_t place, Locate(key, hash, budget));
  if (place == entries_.size()) {
    RETURN_IF_ERROR(budget->Grow(16));
    Append(hash, std::move(key), std::move(value));
  } else {
    depth_ = std::max(depth_, value.depth() + 1);
    entries_[place].second = std::move(value);
  }
  return absl::OkStatus();
}

absl::StatusOr<const Value*> Dict::Find(const Value& key, Budget* budget) const {
  ASSIGN_OR_RETURN(const size_t hash, Hash(key, budget));
  ASSIGN_OR_RETURN(const size_t place, Locate(key, hash, budget));
  return place == entries_.size() ? nullptr : &entries_[place].second;
}

const Value* Dict::FindText(TextView key) const {
  const auto [begin, end] = places_.equal_range(HashText(key));
  for (auto place = begin; place != end; ++place) {
    const Entry& entry = entries_[place->second];
    if (entry.first.is_string() && entry.first.text() == key) return &entry.second;
  }
  return nullptr;
}

void Dict::SetText(std::string_view key, Value value) {
  Text text = FromUtf8(key);
  if (Value* found = const_cast<Value*>(FindText(text)); found != nullptr) {
    *found = std::move(value);
    return;
  }
  const size_t hash = HashText(text);
  Append(hash, Value::Str(std::move(text)), std::move(value));
}

absl::StatusOr<std::string> Object::Describe(Budget*) { return absl::StrCat("<", TypeName(), " object>"); }

int64_t Range::size() const {
  if (step > 0) return start < stop ? (stop - start - 1) / step + 1 : 0;
  return start > stop ? (start - stop - 1) / -step + 1 : 0;
}

std::string DictView::TypeName() const {
  return part == Part::kKeys ? "dict_keys" : part == Part::kValues ? "dict_values" : "dict_items";
}

absl::StatusOr<Value> DictView::at(size_t index, Budget* budget) const {
  const Dict::Entry& entry = dict->entries()[index];
  if (part == Part::kKeys) return entry.first;
  if (part == Part::kValues) return entry.second;
  return Value::Tuple({entry.first, entry.second}, budget);
}

Value* Namespace::Find(std::string_view name) {
  for (auto& [key, value] : attributes) {
    if (key == name) return &value;
  }
  return nullptr;
}

void Namespace::Set(const std::string& name, Value value) {
  if (Value* found = Find(name); found != nullptr) {
    *found = std::move(value);
  } else {
    attributes.emplace_back(name, std::move(value));
  }
}

}  // namespace switchyard::jinja
