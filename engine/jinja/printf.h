// Python's "%s of %d" % (values).
#ifndef SWITCHYARD_ENGINE_JINJA_PRINTF_H_
#define SWITCHYARD_ENGINE_JINJA_PRINTF_H_

#include "engine/jinja/value.h"

namespace switchyard::jinja {

// `values`: a tuple, a mapping for %(name)s, or one value. Conversions: s r d i u x X o c e E f F g G %.
// INVALID_ARGUMENT: too few or too many values, or of the wrong type.
absl::StatusOr<Value> FormatPercent(const Value& format, const Value& values, Budget* budget);

}  // namespace switchyard::jinja

#endif  // SWITCHYARD_ENGINE_JINJA_PRINTF_H_
