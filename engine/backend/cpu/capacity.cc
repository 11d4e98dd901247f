#include "engine/backend/cpu/capacity.h"

#include <algorithm>
#include <numeric>

#include "engine/base/status_macros.h"

namespace switchyard::cpu {
namespace {

// The tokens of one group and what they chose.
struct Group {
  int32_t* ids;          // [num_rows, top_k]
  const float* weights;  // likewise
  int32_t num_rows;
  int32_t top_k;
};

// Drops every choice whose expert already has `capacity`, in this order: rank by rank, and within a rank the tokens as
// `order` names them. A choice that is dropped takes no place, and every later one of its expert is dropped too.
void FillPlaces(const Group& group, int32_t capacity, std::span<const int32_t> order, std::span<int32_t> used) {
  std::fill(used.begin(), used.end(), 0);
  for (int32_t rank = 0; rank < group.top_k; ++rank) {
    for (const int32_t t : order) {
      int32_t& id = group.ids[t * group.top_k + rank];
      if (id != kDropped && ++used[static_cast<size_t>(id)] > capacity) id = kDropped;
    }
  }
}

// `order`: scratch of one integer per choice.
void KeepHeaviest(const Group& group, int32_t num_experts, int32_t capacity, std::span<int32_t> order) {
  const int32_t num_choices = group.num_rows * group.top_k;
  for (int32_t e = 0; e < num_experts; ++e) {
    int32_t count = 0;
    for (int32_t choice = 0; choice < num_choices; ++choice) {
      if (group.ids[choice] == e) order[static_cast<size_t>(count++)] = choice;
    }
    if (count <= capacity) continue;
    // Equal weights: the earlier token. NaN, which compares with nothing, goes last.
    const auto before = [&group](int32_t a, int32_t b) {
      const float x = group.weights[a], y = group.weights[b];
      const bool a_nan = x != x, b_nan = y != y;
      if (a_nan != b_nan) return b_nan;
      return !a_nan && x != y ? x > y : a < b;
    };
    std::sort(order.begin(), order.begin() + count, before);
    for (int32_t i = capacity; i < count; ++i) group.ids[order[static_cast<size_t>(i)]] = kDropped;
  }
}

}  // namespace

int64_t CapacityScratchElements(int64_t max_tokens, int64_t top_k, int64_t num_experts) {
  return max_tokens * top_k + num_experts;
}

void RunLimitChoices(Context& context, const RouterConfig& config, std::span<const RowGroup> groups,
                     Routing* routing) {
  const int32_t k = config.top_k, num_experts = config.num_experts;
  int32_t* const scratch = context.scratch.capacity.as<int32_t>();
  const std::span<int32_t> used(scratch, static_cast<size_t>(num_experts));
  int32_t* const places = scratch + num_experts;
  for (const RowGroup& rows : groups) {
    CHECK(rows.first_row >= 0 && rows.first_row + rows.num_rows <= routing->num_tokens);
    const Group group = {routing->expert_ids + rows.first_row * k, routing->expert_weights + rows.first_row * k,
                         static_cast<int32_t>(rows.num_rows), k};
    const size_t num_rows = static_cast<size_t>(rows.num_rows);
    if (config.capacity_order == CapacityOrder::kExpertChoice) {
      KeepHeaviest(group, num_experts, config.capacity, {places, num_rows * static_cast<size_t>(k)});
      continue;
    }
    const std::span<int32_t> order(places, num_rows);
    std::iota(order.begin(), order.end(), 0);
    if (config.capacity_order == CapacityOrder::kBestGateFirst) {
      const auto gate = [&group](int32_t t) {
        const float weight = group.weights[t * group.top_k];
        return weight == weight ? weight : -1.0f;  // NaN last
      };
      std::sort(order.begin(), order.end(), [&gate](int32_t a, int32_t b) {
        const float x = gate(a), y = gate(b);
        return x != y ? x > y : a < b;
      });
    }
    FillPlaces(group, config.capacity, order, used);
  }
}

}  // namespace switchyard::cpu
