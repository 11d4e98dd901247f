// Capacity: who is dropped equals a plain statement of the rule, groups do not see each other, and what was dropped
// makes no row and adds nothing.
#include <algorithm>
#include <limits>
#include <numeric>
#include <set>

#include "tests/engine/backend/conformance.h"

namespace switchyard {
namespace {

constexpr int64_t kHidden = 24;

RouterConfig MakeRouter(int32_t num_experts, int32_t top_k, int32_t capacity, CapacityOrder order) {
  RouterConfig config;
  config.num_experts = num_experts;
  config.top_k = top_k;
  config.capacity = capacity;
  config.capacity_order = order;
  return config;
}

// Choices (token, expert) of one group that stay, from its probabilities [num_tokens][num_experts].
std::set<std::pair<int32_t, int32_t>> Kept(const std::vector<Values>& gates, const RouterConfig& config) {
  const int32_t num_tokens = static_cast<int32_t>(gates.size());
  std::set<std::pair<int32_t, int32_t>> kept;
  const auto by_value = [](const Values& values) {
    std::vector<int32_t> order(values.size());
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) { return values[a] > values[b]; });
    return order;
  };
  if (config.capacity_order == CapacityOrder::kExpertChoice) {
    for (int32_t e = 0; e < config.num_experts; ++e) {
      Values wanted;
      for (const Values& token : gates) wanted.push_back(token[e]);
      const std::vector<int32_t> order = by_value(wanted);
      for (int32_t i = 0; i < std::min(config.capacity, num_tokens); ++i) kept.emplace(order[i], e);
    }
    return kept;
  }
  Values best;
  for (const Values& token : gates) best.push_back(*std::max_element(token.begin(), token.end()));
  std::vector<int32_t> order = by_value(best);
  if (config.capacity_order == CapacityOrder::kFirstCome) std::sort(order.begin(), order.end());
  std::vector<int32_t> used(config.num_experts);
  for (int32_t rank = 0; rank < config.top_k; ++rank) {
    for (const int32_t t : order) {
      const int32_t expert = by_value(gates[t])[rank];
      if (used[expert]++ < config.capacity) kept.emplace(t, expert);
    }
  }
  return kept;
}

class CapacityTest : public ConformanceTest {
 protected:
  // Routes tokens whose logits are given; the identity is the router's weight.
  void Route(const RouterConfig& config, const Values& logits, std::span<const RowGroup> groups) {
    const int32_t n = config.num_experts;
    num_tokens_ = static_cast<int32_t>(logits.size()) / n;
    backend_ = MakeBackend();
    Values identity(n * n);
    for (int32_t i = 0; i < n; ++i) identity[i * n + i] = 1.0;
    router_ = Load(*backend_, MemoryReader(n, n, identity), dtype(), WeightUse::kRouter);
    auto routing = backend_->AllocateRouting(num_tokens_, config);
    auto batches = backend_->AllocateExpertBatches(num_tokens_, config);
    ASSERT_TRUE(routing.ok() && batches.ok());
    routing_ = *routing;
    batches_ = *batches;
    ASSERT_TRUE(backend_->PrepareScratch(num_tokens_).ok());
    backend_->Route(Upload(*backend_, num_tokens_, n, logits), *router_, config, &routing_);
    unlimited_.assign(routing_.expert_ids, routing_.expert_ids + num_tokens_ * config.top_k);
    backend_->LimitChoices(config, groups, &routing_);
    backend_->GroupByExpert(routing_, &batches_);
    ASSERT_TRUE(backend_->Wait().ok());
  }

  int32_t num_tokens_ = 0;
  std::unique_ptr<Backend> backend_;
  std::unique_ptr<Weight> router_;
  Routing routing_;
  ExpertBatches batches_;
  std::vector<int32_t> unlimited_;
};

TEST_P(CapacityTest, KeepsWhatTheRuleKeepsInEveryGroup) {
  constexpr int32_t kTokens = 40;
  const std::vector<RowGroup> groups = {{0, 1}, {1, 22}, {25, 15}};  // rows 23 and 24 are in none
  for (const CapacityOrder order :
       {CapacityOrder::kFirstCome, CapacityOrder::kBestGateFirst, CapacityOrder::kExpertChoice}) {
    for (const auto& [num_experts, top_k] : {std::pair{8, 2}, {5, 1}, {6, 6}}) {
      for (const int32_t capacity : {1, 3, 100}) {
        if (order == CapacityOrder::kExpertChoice && top_k != num_experts) continue;
        const RouterConfig config = MakeRouter(num_experts, top_k, capacity, order);
        const Values logits = RandomValues(kTokens * num_experts, 2.0, 11 * num_experts + capacity);
        Route(config, logits, groups);
        for (const RowGroup& group : groups) {
          std::vector<Values> gates;
          for (int64_t t = group.first_row; t < group.first_row + group.num_rows; ++t) {
            const auto first = logits.begin() + t * num_experts;
            gates.push_back(reference::Route(Values(first, first + num_experts), config, {}).probabilities);
          }
          std::set<std::pair<int32_t, int32_t>> kept;
          for (int32_t t = 0; t < group.num_rows; ++t) {
            for (int32_t j = 0; j < top_k; ++j) {
              const int32_t id = routing_.expert_ids[(group.first_row + t) * top_k + j];
              if (id != kDropped) kept.emplace(t, id);
            }
          }
          EXPECT_EQ(kept, Kept(gates, config)) << "order " << static_cast<int>(order) << ", " << top_k << " of "
                                               << num_experts << ", capacity " << capacity;
        }
        for (int32_t choice = 23 * top_k; choice < 25 * top_k; ++choice) {
          EXPECT_EQ(routing_.expert_ids[choice], unlimited_[choice]);
        }
      }
    }
  }
}

TEST_P(CapacityTest, DroppedChoicesMakeNoRows) {
  constexpr int32_t kTokens = 33, kTopK = 2;
  const RouterConfig config = MakeRouter(4, kTopK, 5, CapacityOrder::kFirstCome);
  Route(config, RandomValues(kTokens * 4, 1.0, 3), std::vector<RowGroup>{{0, kTokens}});
  const int64_t dropped = std::count(routing_.expert_ids, routing_.expert_ids + kTokens * kTopK, kDropped);
  EXPECT_GE(dropped, kTokens * kTopK - 4 * 5);
  EXPECT_EQ(batches_.num_rows, kTokens * kTopK - dropped);
  EXPECT_EQ(batches_.expert_offsets[4], batches_.num_rows);
  std::set<int32_t> rows;
  for (int32_t choice = 0; choice < kTokens * kTopK; ++choice) {
    const int32_t expert = routing_.expert_ids[choice], row = batches_.choice_to_row[choice];
    if (expert == kDropped) {
      EXPECT_EQ(row, kDropped);
      continue;
    }
    EXPECT_GE(row, batches_.expert_offsets[expert]);
    EXPECT_LT(row, batches_.expert_offsets[expert + 1]);
    EXPECT_EQ(batches_.row_to_token[row], choice / kTopK);
    rows.insert(row);
  }
  EXPECT_EQ(static_cast<int32_t>(rows.size()), batches_.num_rows);
}

TEST_P(CapacityTest, CombineAddsOnlyWhatWasKept) {
  constexpr int32_t kTokens = 12, kTopK = 2;
  const RouterConfig config = MakeRouter(3, kTopK, 4, CapacityOrder::kBestGateFirst);
  Route(config, RandomValues(kTokens * 3, 1.0, 5), std::vector<RowGroup>{{0, kTokens}});
  const Values values = RandomValues(kTokens * kTopK * kHidden, 1.0, 6);
  const Matrix rows = Upload(*backend_, kTokens * kTopK, kHidden, values);
  const Matrix out = Upload(*backend_, kTokens, kHidden, Values(kTokens * kHidden));
  backend_->Combine(rows, routing_, batches_, out);
  Values expected(kTokens * kHidden);
  bool any_dropped = false;
  for (int32_t choice = 0; choice < kTokens * kTopK; ++choice) {
    const int32_t row = batches_.choice_to_row[choice];
    any_dropped |= row == kDropped;
    for (int64_t i = 0; row != kDropped && i < kHidden; ++i) {
      expected[choice / kTopK * kHidden + i] +=
          double{routing_.expert_weights[choice]} * static_cast<float>(values[row * kHidden + i]);
    }
  }
  EXPECT_TRUE(any_dropped);
  ExpectWithin(Download(*backend_, out), expected, [](size_t) { return 1e-6; }, "combined rows");
}

TEST_P(CapacityTest, TokensThatAreNotFiniteComeLast) {
  constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
  for (const CapacityOrder order : {CapacityOrder::kBestGateFirst, CapacityOrder::kExpertChoice}) {
    Route(MakeRouter(2, 2, 2, order), {kNaN, 0, 1, 0, 2, 0}, std::vector<RowGroup>{{0, 3}});
    EXPECT_EQ(std::count(routing_.expert_ids, routing_.expert_ids + 2, kDropped), 2);
    EXPECT_EQ(std::count(routing_.expert_ids, routing_.expert_ids + 6, kDropped), 2);
  }
}

INSTANTIATE_TEST_SUITE_P(Cpu, CapacityTest, ::testing::ValuesIn(AllParams()), ParamName);

}  // namespace
}  // namespace switchyard
