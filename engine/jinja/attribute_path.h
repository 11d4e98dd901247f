// What filters like map(attribute="a.b.0") look up in each item.
#ifndef SWITCHYARD_ENGINE_JINJA_ATTRIBUTE_PATH_H_
#define SWITCHYARD_ENGINE_JINJA_ATTRIBUTE_PATH_H_

#include <vector>

#include "engine/jinja/runtime.h"

namespace switchyard::jinja {

class AttributePath {
 public:
  // Text is split at its dots; none means the item itself; anything else is one subscript.
  explicit AttributePath(const Value& attribute);

  // `otherwise` takes the place of what is undefined, unless it is none.
  absl::StatusOr<Value> Get(Runtime& runtime, Value item, const Value& otherwise = Value::None()) const;

 private:
  std::vector<Value> parts_;
};

// Text in lower case, anything else as it is: how filters compare unless they are told to be case sensitive.
Value IgnoreCase(const Value& value);

}  // namespace switchyard::jinja

#endif  // SWITCHYARD_ENGINE_JINJA_ATTRIBUTE_PATH_H_
