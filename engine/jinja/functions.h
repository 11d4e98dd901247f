// The functions that every template has: range, dict, namespace, joiner, raise_exception, strftime_now.
#ifndef SWITCHYARD_ENGINE_JINJA_FUNCTIONS_H_
#define SWITCHYARD_ENGINE_JINJA_FUNCTIONS_H_

#include <string>
#include <utility>
#include <vector>

#include "engine/jinja/runtime.h"

namespace switchyard::jinja {

// By name. raise_exception ends the rendering with ABORTED and its message.
const std::vector<std::pair<std::string, Value>>& GlobalFunctions();

}  // namespace switchyard::jinja

#endif  // SWITCHYARD_ENGINE_JINJA_FUNCTIONS_H_
