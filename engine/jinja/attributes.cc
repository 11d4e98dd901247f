#include <algorithm>
#include <iterator>

#include "absl/strings/str_cat.h"
#include "engine/base/status_macros.h"
#include "engine/jinja/loop.h"
#include "engine/jinja/methods.h"
#include "engine/jinja/repr.h"
#include "engine/jinja/runtime.h"

namespace switchyard::jinja {
namespace {

Value Missing(const Value& object, const std::string& name) {
  const std::string owner = object.is_none() ? "None" : object.TypeName() + " object";
  return Value::Undefined(absl::StrCat("'", owner, "' has no attribute ", Quoted(name)));
}

Value Unsafe(const Value& object, const std::string& name) {
  return Value::Undefined(
      absl::StrCat("access to attribute ", Quoted(name), " of '", object.TypeName(), "' object is unsafe."));
}

// What every Python object has, and nobody may see.
bool IsInternal(const std::string& name) {
  static constexpr const char* kNames[] = {
      "__class__",   "__delattr__", "__dir__",  "__doc__",           "__eq__",          "__format__",
      "__ge__",      "__gt__",      "__hash__", "__init__",          "__le__",          "__getattribute__",
      "__lt__",      "__ne__",      "__new__",  "__reduce__",        "__repr__",        "__reduce_ex__",
      "__setattr__", "__sizeof__",  "__str__",  "__init_subclass__", "__subclasshook__"};
  return std::find(std::begin(kNames), std::end(kNames), name) != std::end(kNames);
}

}  // namespace

absl::StatusOr<std::optional<Value>> FindAttribute(Runtime& runtime, const Value& object, const std::string& name) {
  if (IsInternal(name) && object.As<Namespace>() == nullptr) return Unsafe(object, name);
  if (object.is_undefined()) return object.UndefinedError();
  if (auto* names = object.As<Namespace>(); names != nullptr) {
    const Value* found = names->Find(name);
    if (found == nullptr) return std::nullopt;
    return name[0] == '_' ? Unsafe(object, name) : *found;
  }
  if (auto* loop = object.As<Loop>(); loop != nullptr) {
    ASSIGN_OR_RETURN(std::optional<Value> found, loop->Attribute(name, runtime.budget()));
    if (found.has_value()) return found;
  }
  switch (MethodKindOf(object, name)) {
    case MethodKind::kNone:
      return std::nullopt;
    case MethodKind::kChangesObject:
      return Unsafe(object, name);
    case MethodKind::kSafe:
      return BindMethod(object, name);
  }
  return std::nullopt;
}

absl::StatusOr<Value> GetAttribute(Runtime& runtime, const Value& object, const std::string& name) {
  ASSIGN_OR_RETURN(std::optional<Value> attribute, FindAttribute(runtime, object, name));
  if (attribute.has_value()) return *std::move(attribute);
  if (object.is_dict()) {
    const Value* found = object.dict().FindText(FromUtf8(name));
    if (found != nullptr) return *found;
  }
  return Missing(object, name);
}

absl::StatusOr<Value> GetItem(Runtime& runtime, const Value& object, const Value& index) {
  ASSIGN_OR_RETURN(std::optional<Value> item, Subscript(object, index, runtime.budget()));
  if (item.has_value()) return *std::move(item);
  if (index.is_string()) {
    const std::string name = ToUtf8(index.text());
    ASSIGN_OR_RETURN(std::optional<Value> attribute, FindAttribute(runtime, object, name));
    return attribute.has_value() ? *std::move(attribute) : Missing(object, name);
  }
  const std::string owner = object.is_none() ? "None" : object.TypeName() + " object";
  const std::string place = index.is_int() ? absl::StrCat(index.integer()) : "of that kind";
  return Value::Undefined(absl::StrCat(owner, " has no element ", place));
}

}  // namespace switchyard::jinja
