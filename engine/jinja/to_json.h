// Values as JSON: Python's json.dumps.
#ifndef SWITCHYARD_ENGINE_JINJA_TO_JSON_H_
#define SWITCHYARD_ENGINE_JINJA_TO_JSON_H_

#include <optional>

#include "engine/jinja/value.h"

namespace switchyard::jinja {

struct JsonStyle {
  bool ensure_ascii = false;
  bool sort_keys = false;
  std::optional<Text> indent = std::nullopt;  // of one level; nullopt: all on one line
  Text item_separator = U", ";
  Text key_separator = U": ";
};

// INVALID_ARGUMENT: a value or key that JSON cannot say, such as an undefined one.
absl::StatusOr<Text> ToJson(const Value& value, const JsonStyle& style, Budget* budget);

}  // namespace switchyard::jinja

#endif  // SWITCHYARD_ENGINE_JINJA_TO_JSON_H_
