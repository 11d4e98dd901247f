// What filters, tests, methods and functions see of the interpreter that calls them.
#ifndef SWITCHYARD_ENGINE_JINJA_RUNTIME_H_
#define SWITCHYARD_ENGINE_JINJA_RUNTIME_H_

#include <ctime>
#include <initializer_list>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "engine/jinja/operators.h"
#include "engine/jinja/value.h"

namespace switchyard::jinja {

struct Arguments {
  std::vector<Value> positional = {};
  std::vector<std::pair<std::string, Value>> named = {};
};

class Runtime {
 public:
  virtual ~Runtime() = default;
  virtual Budget* budget() = 0;
  virtual const std::tm& now() const = 0;
  // Function values: functions, methods, macros. INVALID_ARGUMENT: it cannot be called.
  virtual absl::StatusOr<Value> Call(const Value& function, Arguments arguments) = 0;
  // Remembers what may hold itself, to empty it at the end.
  virtual void Track(std::shared_ptr<Namespace> names) = 0;
};

// Something that a template can call.
class Function : public Object {
 public:
  std::string TypeName() const override { return "function"; }
  virtual absl::StatusOr<Value> Call(Runtime& runtime, Arguments arguments) = 0;
};

// object.name: an attribute or method, else an item, else undefined. INVALID_ARGUMENT: of an undefined object.
absl::StatusOr<Value> GetAttribute(Runtime& runtime, const Value& object, const std::string& name);
// object[index]: an item, else an attribute or method, else undefined.
absl::StatusOr<Value> GetItem(Runtime& runtime, const Value& object, const Value& index);
// The attribute or method without the items; nullopt: it has none of that name.
absl::StatusOr<std::optional<Value>> FindAttribute(Runtime& runtime, const Value& object, const std::string& name);

// The arguments in the order of `names`; nullopt where not given. INVALID_ARGUMENT: too many, unknown or twice, or one
// of the first `num_required` is missing. A name "" can be given by position only.
using BoundArguments = std::vector<std::optional<Value>>;
absl::StatusOr<BoundArguments> Bind(const char* function, std::initializer_list<const char*> names, size_t num_required,
                                    Arguments arguments);

// Arguments as C++ values. INVALID_ARGUMENT: of another type.
absl::StatusOr<int64_t> IntArgument(const Value& value);
absl::StatusOr<int64_t> IntArgument(const std::optional<Value>& value, int64_t otherwise);
absl::StatusOr<TextView> TextArgument(const Value& value);
absl::StatusOr<TextView> TextArgument(const Value&& value) = delete;  // the view would not live
bool TruthArgument(const std::optional<Value>& value, bool otherwise);

}  // namespace switchyard::jinja

#endif  // SWITCHYARD_ENGINE_JINJA_RUNTIME_H_
