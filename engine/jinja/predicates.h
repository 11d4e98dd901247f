// The tests of a template: value is name(arguments). All of jinja2's.
#ifndef SWITCHYARD_ENGINE_JINJA_PREDICATES_H_
#define SWITCHYARD_ENGINE_JINJA_PREDICATES_H_

#include <string>

#include "engine/jinja/runtime.h"

namespace switchyard::jinja {

bool IsPredicate(const std::string& name);
// INVALID_ARGUMENT: no such test, or what it says.
absl::StatusOr<bool> CallPredicate(Runtime& runtime, const std::string& name, const Value& subject,
                                   Arguments arguments);

}  // namespace switchyard::jinja

#endif  // SWITCHYARD_ENGINE_JINJA_PREDICATES_H_
