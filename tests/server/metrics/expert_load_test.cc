#include "server/metrics/expert_load.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

namespace switchyard {
namespace {

// One layer's step: rows per expert, and probabilities that match them exactly.
MoeLayerStats Layer(std::vector<int32_t> rows, int32_t num_tokens, int32_t top_k) {
  MoeLayerStats stats;
  stats.num_tokens = num_tokens;
  stats.tokens_per_expert = std::move(rows);
  for (int32_t count : stats.tokens_per_expert) {
    stats.seconds_per_expert.push_back(0.5f * static_cast<float>(count));
    stats.probability_sums.push_back(static_cast<float>(count) / static_cast<float>(top_k));
  }
  stats.squared_logsumexp_sum = 9.0 * num_tokens;
  stats.seconds = 0.25f;
  return stats;
}

StepStats Step(int32_t num_tokens, std::vector<std::vector<int32_t>> layers) {
  StepStats stats;
  stats.num_tokens = num_tokens;
  for (auto& rows : layers) stats.moe_layers.push_back(Layer(std::move(rows), num_tokens, 2));
  return stats;
}

TEST(ExpertLoadTest, TotalsAddUp) {
  ExpertLoad load(2, 4);
  load.Add(Step(2, {{1, 1, 1, 1}, {4, 0, 0, 0}}));
  StepStats second = Step(1, {{2, 0, 0, 0}, {0, 0, 1, 0}});
  second.moe_layers[1].num_dropped = 1;
  load.Add(second);
  EXPECT_EQ(load.totals().dropped, (std::vector<uint64_t>{0, 1}));
  EXPECT_EQ(load.totals().num_tokens, 3u);
  EXPECT_EQ(load.totals().num_steps, 2u);
  EXPECT_EQ(load.totals().tokens, (std::vector<uint64_t>{3, 1, 1, 1, 4, 0, 1, 0}));
  EXPECT_EQ(load.totals().seconds[0], 1.5);
  EXPECT_EQ(load.totals().layer_seconds, (std::vector<double>{0.5, 0.5}));
}

TEST(ExpertLoadTest, NothingYetIsAllZero) {
  const LayerBalance balance = ExpertLoad(1, 4).Balance(0);
  EXPECT_EQ(balance.imbalance_ratio, 0.0);
  EXPECT_EQ(balance.active_experts, 0);
}

TEST(ExpertLoadTest, EvenLoadIsOne) {
  ExpertLoad load(1, 4);
  load.Add(Step(4, {{2, 2, 2, 2}}));
  const LayerBalance balance = load.Balance(0);
  EXPECT_EQ(balance.window_tokens, 4u);
  EXPECT_DOUBLE_EQ(balance.imbalance_ratio, 1.0);
  EXPECT_EQ(balance.active_experts, 4);
  EXPECT_DOUBLE_EQ(balance.max_share, 0.25);
  EXPECT_DOUBLE_EQ(balance.entropy, 1.0);
  EXPECT_DOUBLE_EQ(balance.load_balance_loss, 1.0);
  EXPECT_DOUBLE_EQ(balance.router_z_loss, 9.0);
}

TEST(ExpertLoadTest, LopsidedLoadIsSeenPerLayer) {
  // Opposite layers: added up they would look even.
  ExpertLoad load(2, 2);
  load.Add(Step(2, {{4, 0}, {0, 4}}));
  for (int32_t layer : {0, 1}) {
    const LayerBalance balance = load.Balance(layer);
    EXPECT_DOUBLE_EQ(balance.imbalance_ratio, 2.0);
    EXPECT_EQ(balance.active_experts, 1);
    EXPECT_DOUBLE_EQ(balance.entropy, 0.0);
    EXPECT_DOUBLE_EQ(balance.max_share, 1.0);
  }
}

TEST(ExpertLoadTest, EntropyFollowsItsDefinition) {
  ExpertLoad load(1, 4);
  load.Add(Step(4, {{4, 2, 2, 0}}));
  const double expected = -(0.5 * std::log(0.5) + 2 * 0.25 * std::log(0.25)) / std::log(4.0);
  EXPECT_NEAR(load.Balance(0).entropy, expected, 1e-12);
  EXPECT_DOUBLE_EQ(load.Balance(0).imbalance_ratio, 2.0);
}

TEST(ExpertLoadTest, WindowForgetsOldTokens) {
  ExpertLoad load(1, 2);
  for (int i = 0; i < 100; ++i) load.Add(Step(64, {{128, 0}}));
  EXPECT_DOUBLE_EQ(load.Balance(0).max_share, 1.0);
  for (int i = 0; i < 16; ++i) load.Add(Step(64, {{64, 64}}));
  const LayerBalance balance = load.Balance(0);
  EXPECT_DOUBLE_EQ(balance.max_share, 0.5) << "1024 even tokens push everything else out";
  EXPECT_GE(balance.window_tokens, 512u);
  EXPECT_LE(balance.window_tokens, 1024u + 64u);
}

TEST(ExpertLoadTest, OneExpertHasNoEntropy) {
  ExpertLoad load(1, 1);
  load.Add(Step(2, {{4}}));
  EXPECT_EQ(load.Balance(0).entropy, 0.0);
  EXPECT_DOUBLE_EQ(load.Balance(0).imbalance_ratio, 1.0);
}

TEST(ExpertLoadTest, ModelWithoutMoeLayersCountsTokens) {
  ExpertLoad load(0, 0);
  StepStats stats;
  stats.num_tokens = 5;
  load.Add(stats);
  EXPECT_EQ(load.Snapshot().num_tokens, 5u);
  EXPECT_TRUE(load.Snapshot().balance.empty());
}

}  // namespace
}  // namespace switchyard
