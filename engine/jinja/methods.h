// Methods of strings, dicts, lists, tuples and loops.
#ifndef SWITCHYARD_ENGINE_JINJA_METHODS_H_
#define SWITCHYARD_ENGINE_JINJA_METHODS_H_

#include <span>
#include <string>

#include "engine/jinja/runtime.h"

namespace switchyard::jinja {

enum class MethodKind {
  kNone,  // the type has no such method
  kSafe,
  kChangesObject,  // list.append and its like: the sandbox of the reference makes them undefined
};

MethodKind MethodKindOf(const Value& object, const std::string& name);
// REQUIRES: MethodKindOf is kSafe. Methods that Python has and this library has not are errors when called.
Value BindMethod(const Value& object, const std::string& name);

struct Method {
  const char* name;
  absl::StatusOr<Value> (*call)(Runtime& runtime, const Value& self, Arguments arguments);
};

std::span<const Method> StringMethods();

}  // namespace switchyard::jinja

#endif  // SWITCHYARD_ENGINE_JINJA_METHODS_H_
