#include "server/metrics/expert_load.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "engine/base/status_macros.h"

namespace switchyard {

ExpertLoad::ExpertLoad(int32_t num_moe_layers, int32_t num_experts)
    : num_moe_layers_(num_moe_layers), num_experts_(num_experts), current_(EmptyWindow()), previous_(EmptyWindow()) {
  totals_.tokens.resize(current_.rows.size());
  totals_.seconds.resize(current_.rows.size());
  totals_.layer_seconds.resize(current_.squared_logsumexps.size());
  totals_.dropped.resize(current_.squared_logsumexps.size());
}

ExpertLoad::HalfWindow ExpertLoad::EmptyWindow() const {
  const size_t layers = static_cast<size_t>(num_moe_layers_);
  const size_t cells = layers * static_cast<size_t>(num_experts_);
  return {0, std::vector<uint64_t>(layers), std::vector<uint64_t>(cells), std::vector<double>(cells),
          std::vector<double>(layers)};
}

void ExpertLoad::Add(const StepStats& stats) {
  CHECK(stats.moe_layers.size() == static_cast<size_t>(num_moe_layers_));
  const size_t experts = static_cast<size_t>(num_experts_);
  size_t cell = 0;
  for (size_t layer = 0; layer < stats.moe_layers.size(); ++layer) {
    const MoeLayerStats& s = stats.moe_layers[layer];
    CHECK(s.tokens_per_expert.size() == experts);
    for (size_t e = 0; e < experts; ++e, ++cell) {
      const uint64_t rows = static_cast<uint64_t>(s.tokens_per_expert[e]);
      totals_.tokens[cell] += rows;
      current_.rows[cell] += rows;
      if (e < s.seconds_per_expert.size()) totals_.seconds[cell] += static_cast<double>(s.seconds_per_expert[e]);
      if (e < s.probability_sums.size()) current_.probabilities[cell] += static_cast<double>(s.probability_sums[e]);
    }
    current_.layer_tokens[layer] += static_cast<uint64_t>(s.num_tokens);
    totals_.layer_seconds[layer] += static_cast<double>(s.seconds);
    totals_.dropped[layer] += static_cast<uint64_t>(s.num_dropped);
    current_.squared_logsumexps[layer] += s.squared_logsumexp_sum;
  }
  ++totals_.num_steps;
  totals_.num_tokens += static_cast<uint64_t>(stats.num_tokens);
  current_.num_tokens += static_cast<uint64_t>(stats.num_tokens);
  if (current_.num_tokens >= kHalfWindowTokens) {
    std::swap(previous_, current_);
    current_.num_tokens = 0;
    std::fill(current_.layer_tokens.begin(), current_.layer_tokens.end(), 0);
    std::fill(current_.rows.begin(), current_.rows.end(), 0);
    std::fill(current_.probabilities.begin(), current_.probabilities.end(), 0.0);
    std::fill(current_.squared_logsumexps.begin(), current_.squared_logsumexps.end(), 0.0);
  }
}

std::vector<uint64_t> ExpertLoad::WindowRows(int32_t layer) const {
  const size_t first = static_cast<size_t>(layer) * static_cast<size_t>(num_experts_);
  std::vector<uint64_t> rows(static_cast<size_t>(num_experts_));
  for (size_t e = 0; e < rows.size(); ++e) rows[e] = current_.rows[first + e] + previous_.rows[first + e];
  return rows;
}

LayerBalance ExpertLoad::Balance(int32_t layer) const {
  LayerBalance balance;
  const std::vector<uint64_t> rows = WindowRows(layer);
  uint64_t total = 0;
  for (uint64_t count : rows) total += count;
  const size_t l = static_cast<size_t>(layer);
  balance.window_tokens = current_.layer_tokens[l] + previous_.layer_tokens[l];
  if (total == 0 || balance.window_tokens == 0) return balance;

  const size_t first = static_cast<size_t>(layer) * rows.size();
  const double experts = static_cast<double>(rows.size());
  const double tokens = static_cast<double>(balance.window_tokens);
  for (size_t e = 0; e < rows.size(); ++e) {
    const double share = static_cast<double>(rows[e]) / static_cast<double>(total);
    const double probability = (current_.probabilities[first + e] + previous_.probabilities[first + e]) / tokens;
    balance.active_experts += rows[e] > 0 ? 1 : 0;
    balance.max_share = std::max(balance.max_share, share);
    if (rows[e] > 0 && rows.size() > 1) balance.entropy -= share * std::log(share) / std::log(experts);
    balance.load_balance_loss += experts * share * probability;
  }
  balance.imbalance_ratio = balance.max_share * experts;
  balance.router_z_loss = (current_.squared_logsumexps[l] + previous_.squared_logsumexps[l]) / tokens;
  return balance;
}

ExpertLoadTotals ExpertLoad::Snapshot() const {
  ExpertLoadTotals snapshot = totals_;
  for (int32_t layer = 0; layer < num_moe_layers_; ++layer) snapshot.balance.push_back(Balance(layer));
  return snapshot;
}

}  // namespace switchyard
