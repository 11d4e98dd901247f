// JSON to values, with the order of keys that the text has.
#ifndef SWITCHYARD_ENGINE_JINJA_FROM_JSON_H_
#define SWITCHYARD_ENGINE_JINJA_FROM_JSON_H_

#include <string>
#include <string_view>

#include "engine/base/json.h"
#include "engine/jinja/value.h"

namespace switchyard::jinja {

// INVALID_ARGUMENT: `what: ` and what is wrong; also a key twice, or an integer beyond 64 bits.
absl::StatusOr<Value> FromJson(std::string_view text, const JsonLimits& limits, const std::string& what);

}  // namespace switchyard::jinja

#endif  // SWITCHYARD_ENGINE_JINJA_FROM_JSON_H_
