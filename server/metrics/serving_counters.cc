#include "server/metrics/serving_counters.h"

namespace switchyard {
namespace {

constexpr int64_t kMaxExpertSeries = 4096;

}  // namespace

ExpertDetail ParseExpertDetail(const std::string& name, int64_t num_layers_times_experts) {
  if (name == "off") return ExpertDetail::kOff;
  if (name == "layer") return ExpertDetail::kLayer;
  if (name == "topk") return ExpertDetail::kTopk;
  if (name == "full") return ExpertDetail::kFull;
  return num_layers_times_experts <= kMaxExpertSeries ? ExpertDetail::kFull : ExpertDetail::kTopk;
}

void ServingCounters::AddExpertSteps(const StepStats& stats) {
  expert_load->Add(stats);
  expert_gemm_layers = stats.expert_gemm_layers;
  for (size_t layer = 0; layer < stats.moe_layers.size(); ++layer) {
    const MoeLayerStats& s = stats.moe_layers[layer];
    if (s.num_tokens == 0) continue;  // an encoder's layer in a step without prompts
    if (!layer_seconds.empty()) layer_seconds[layer].Observe(static_cast<double>(s.seconds));
    for (size_t e = 0; e < s.tokens_per_expert.size(); ++e) {
      if (s.tokens_per_expert[e] == 0) continue;
      expert_rows.Observe(s.tokens_per_expert[e]);
      if (e >= s.seconds_per_expert.size()) continue;
      expert_seconds[detail == ExpertDetail::kFull ? e : 0].Observe(static_cast<double>(s.seconds_per_expert[e]));
    }
  }
}

}  // namespace switchyard
