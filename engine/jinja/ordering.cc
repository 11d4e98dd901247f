#include "engine/jinja/ordering.h"

#include <algorithm>

#include "engine/base/status_macros.h"
#include "engine/jinja/operators.h"

namespace switchyard::jinja {

absl::StatusOr<std::vector<size_t>> SortedOrder(const std::vector<Value>& keys, bool reverse, Budget* budget) {
  std::vector<size_t> order(keys.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = reverse ? order.size() - 1 - i : i;
  absl::Status failure;
  // After a failure everything is equal, which ends the sort soon.
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    if (!failure.ok()) return false;
    const absl::StatusOr<bool> less = Less(keys[a], keys[b], budget);
    if (!less.ok()) failure = less.status();
    return less.ok() && *less;
  });
  RETURN_IF_ERROR(failure);
  if (reverse) std::reverse(order.begin(), order.end());
  return order;
}

}  // namespace switchyard::jinja
