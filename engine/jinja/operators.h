// Python's operators, comparisons and subscripts over Values.
//
// INVALID_ARGUMENT: what raises an exception in Python, and integers that leave 64 bits.
#ifndef SWITCHYARD_ENGINE_JINJA_OPERATORS_H_
#define SWITCHYARD_ENGINE_JINJA_OPERATORS_H_

#include <memory>
#include <optional>
#include <vector>

#include "engine/jinja/value.h"

namespace switchyard::jinja {

bool IsTrue(const Value& value);
// len(value). INVALID_ARGUMENT: it has none.
absl::StatusOr<int64_t> Length(const Value& value);
bool HasLength(const Value& value);

size_t HashText(TextView text);
absl::StatusOr<size_t> Hash(const Value& value, Budget* budget);
absl::StatusOr<bool> Equals(const Value& a, const Value& b, Budget* budget);
// a < b. INVALID_ARGUMENT: they have no order.
absl::StatusOr<bool> Less(const Value& a, const Value& b, Budget* budget);
absl::StatusOr<bool> LessOrEqual(const Value& a, const Value& b, Budget* budget);
// `part` in `whole`.
absl::StatusOr<bool> Contains(const Value& whole, const Value& part, Budget* budget);

absl::StatusOr<std::shared_ptr<Iterator>> Iterate(const Value& value, Budget* budget);
bool IsIterable(const Value& value);
// list(value)
absl::StatusOr<std::vector<Value>> Collect(const Value& value, Budget* budget);

// value[index] for what has places; nullopt: Python raises TypeError or LookupError.
absl::StatusOr<std::optional<Value>> Subscript(const Value& value, const Value& index, Budget* budget);
// value[start:stop:step]. Each is none or an integer. INVALID_ARGUMENT as Python.
absl::StatusOr<Value> Slice(const Value& value, const Value& start, const Value& stop, const Value& step,
                            Budget* budget);

enum class Operator { kAdd, kSubtract, kMultiply, kDivide, kFloorDivide, kModulo, kPower };
absl::StatusOr<Value> Apply(Operator op, const Value& a, const Value& b, Budget* budget);
absl::StatusOr<Value> Negate(const Value& value);
absl::StatusOr<Value> Plus(const Value& value);

// int(value) of a float. INVALID_ARGUMENT: infinite, nan, or beyond 64 bits.
absl::StatusOr<int64_t> ToInteger(double value);

}  // namespace switchyard::jinja

#endif  // SWITCHYARD_ENGINE_JINJA_OPERATORS_H_
