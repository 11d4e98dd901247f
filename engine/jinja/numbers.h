// Python's int() and float() of text.
#ifndef SWITCHYARD_ENGINE_JINJA_NUMBERS_H_
#define SWITCHYARD_ENGINE_JINJA_NUMBERS_H_

#include <optional>

#include "engine/jinja/value.h"

namespace switchyard::jinja {

// nullopt: no number. INVALID_ARGUMENT: a number beyond 64 bits, or a base other than 0 and 2 to 36.
absl::StatusOr<std::optional<int64_t>> ParseInteger(TextView text, int64_t base);
std::optional<double> ParseFloat(TextView text);

}  // namespace switchyard::jinja

#endif  // SWITCHYARD_ENGINE_JINJA_NUMBERS_H_
