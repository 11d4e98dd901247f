// Load of every expert, added up step by step: plain arrays [MoE layer][expert], so that a step costs one addition
// each.
//
// Two things are kept: totals since the start, and a window of the latest 512 to 1024 tokens from which the balance of
// a layer is computed when somebody asks. Balance is per layer, before any aggregation: two layers that are lopsided in
// opposite ways must not look even together.
//
// Not thread-safe: its owner locks.
#ifndef SWITCHYARD_SERVER_METRICS_EXPERT_LOAD_H_
#define SWITCHYARD_SERVER_METRICS_EXPERT_LOAD_H_

#include <cstdint>
#include <span>
#include <vector>

#include "engine/step.h"

namespace switchyard {

struct LayerBalance {
  uint64_t window_tokens = 0;
  double imbalance_ratio = 0.0;  // max / mean rows per expert; 1 = even
  int32_t active_experts = 0;    // with at least one row
  double max_share = 0.0;        // of the rows
  double entropy = 0.0;          // of the shares / ln(num_experts); 1 = even
  double load_balance_loss =
      0.0;                     // num_experts * sum of share * mean probability; 1 = even (Switch Transformer, eq. 4)
  double router_z_loss = 0.0;  // mean logsumexp^2 (ST-MoE, eq. 5)
};

// All layers, by value. Rows are [num_moe_layers * num_experts], layer by layer.
struct ExpertLoadTotals {
  uint64_t num_tokens = 0;
  uint64_t num_steps = 0;
  std::vector<uint64_t> tokens;       // rows that the expert computed
  std::vector<double> seconds;        // wall time of the expert's batches
  std::vector<double> layer_seconds;  // [num_moe_layers]
  std::vector<uint64_t> dropped;      // [num_moe_layers] rows that no expert computed
  std::vector<LayerBalance> balance;  // [num_moe_layers]; filled in snapshots only
};

class ExpertLoad {
 public:
  static constexpr uint64_t kHalfWindowTokens = 512;

  ExpertLoad(int32_t num_moe_layers, int32_t num_experts);

  // REQUIRES: the layers and experts of `stats` are those of the constructor.
  void Add(const StepStats& stats);

  const ExpertLoadTotals& totals() const { return totals_; }
  LayerBalance Balance(int32_t layer) const;
  // [num_experts] rows in the window.
  std::vector<uint64_t> WindowRows(int32_t layer) const;
  ExpertLoadTotals Snapshot() const;

  int32_t num_moe_layers() const { return num_moe_layers_; }
  int32_t num_experts() const { return num_experts_; }

 private:
  struct HalfWindow {
    uint64_t num_tokens = 0;
    std::vector<uint64_t> layer_tokens;      // [layers] that the layer saw: less than all where there is an encoder
    std::vector<uint64_t> rows;              // [layers * experts]
    std::vector<double> probabilities;       // [layers * experts]
    std::vector<double> squared_logsumexps;  // [layers]
  };
  HalfWindow EmptyWindow() const;

  const int32_t num_moe_layers_;
  const int32_t num_experts_;
  ExpertLoadTotals totals_;
  HalfWindow current_;
  HalfWindow previous_;
};

}  // namespace switchyard

#endif  // SWITCHYARD_SERVER_METRICS_EXPERT_LOAD_H_
