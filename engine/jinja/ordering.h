// Python's sorted().
#ifndef SWITCHYARD_ENGINE_JINJA_ORDERING_H_
#define SWITCHYARD_ENGINE_JINJA_ORDERING_H_

#include <vector>

#include "engine/jinja/value.h"

namespace switchyard::jinja {

// The places of `keys` in ascending (or descending) order; equal ones stay in the order in which they are.
// INVALID_ARGUMENT: some have no order.
absl::StatusOr<std::vector<size_t>> SortedOrder(const std::vector<Value>& keys, bool reverse, Budget* budget);

}  // namespace switchyard::jinja

#endif  // SWITCHYARD_ENGINE_JINJA_ORDERING_H_
