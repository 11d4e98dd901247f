#include <algorithm>

#include "absl/strings/str_cat.h"
#include "engine/jinja/repr.h"
#include "engine/jinja/runtime.h"

namespace switchyard::jinja {

absl::StatusOr<BoundArguments> Bind(const char* function, std::initializer_list<const char*> names, size_t num_required,
                                    Arguments arguments) {
  BoundArguments bound(names.size());
  if (arguments.positional.size() > names.size()) {
    return PythonError(absl::StrCat(function, "() takes at most ", names.size(), " arguments, ",
                                    arguments.positional.size(), " were given"));
  }
  std::move(arguments.positional.begin(), arguments.positional.end(), bound.begin());
  for (auto& [name, value] : arguments.named) {
    const auto found = std::find_if(names.begin(), names.end(), [&](const char* known) { return name == known; });
    if (found == names.end() || name.empty()) {
      return PythonError(absl::StrCat(function, "() got an unexpected keyword argument ", Quoted(name)));
    }
    std::optional<Value>& place = bound[static_cast<size_t>(found - names.begin())];
    if (place.has_value()) {
      return PythonError(absl::StrCat(function, "() got multiple values for argument ", Quoted(name)));
    }
    place = std::move(value);
  }
  for (size_t i = 0; i < num_required; ++i) {
    if (!bound[i].has_value()) return PythonError(absl::StrCat(function, "() misses a required argument"));
  }
  return bound;
}

absl::StatusOr<int64_t> IntArgument(const Value& value) {
  if (value.is_integral()) return value.integer();
  return PythonError(absl::StrCat("'", value.TypeName(), "' object cannot be interpreted as an integer"));
}

absl::StatusOr<int64_t> IntArgument(const std::optional<Value>& value, int64_t otherwise) {
  return value.has_value() ? IntArgument(*value) : otherwise;
}

absl::StatusOr<TextView> TextArgument(const Value& value) {
  if (value.is_string()) return TextView(value.text());
  return PythonError(absl::StrCat("expected a string, got '", value.TypeName(), "'"));
}

bool TruthArgument(const std::optional<Value>& value, bool otherwise) {
  return value.has_value() ? IsTrue(*value) : otherwise;
}

}  // namespace switchyard::jinja
