#include "client/view/routing_tally.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/view/terminal.h"

namespace switchyard {
namespace {

std::vector<ExpertTally> MostUsedFirst(const LayerTally& layer) {
  std::vector<ExpertTally> experts;
  for (const auto& [id, expert] : layer.experts) experts.push_back(expert);
  std::stable_sort(experts.begin(), experts.end(),
                   [](const ExpertTally& a, const ExpertTally& b) { return a.num_tokens > b.num_tokens; });
  return experts;
}

std::string RenderRow(const std::string& layer_cell, const std::string& expert_cell, const ExpertTally& expert,
                      int64_t num_layer_tokens, int bar_width) {
  const double share = static_cast<double>(expert.num_tokens) / static_cast<double>(num_layer_tokens);
  const double weight = expert.weight_sum / static_cast<double>(expert.num_tokens);
  std::string row = absl::StrFormat("%5s  %8s  %6d  %5.1f%%  %6.3f  %s", layer_cell, expert_cell, expert.num_tokens,
                                    100 * share, weight, Bar(share, bar_width));
  row.erase(row.find_last_not_of(' ') + 1);
  return row;
}

std::string RenderLayer(int index, const LayerTally& layer, const ExpertTableStyle& style) {
  const std::vector<ExpertTally> experts = MostUsedFirst(layer);
  // One row more costs as much as the row that would say how many are left out.
  const size_t num_rows = static_cast<int>(experts.size()) <= style.max_experts + 1
                              ? experts.size()
                              : static_cast<size_t>(std::max(style.max_experts, 1));
  std::string table;
  for (size_t i = 0; i < num_rows; ++i) {
    const std::string row = RenderRow(i == 0 ? absl::StrCat(index) : "", absl::StrCat(experts[i].expert), experts[i],
                                      layer.num_tokens, style.bar_width);
    const bool painted = style.color && index == style.colored_layer;
    absl::StrAppend(&table, painted ? Paint(row, ExpertColor(experts[i].expert)) : row, "\n");
  }
  if (num_rows == experts.size()) return table;
  ExpertTally rest;
  for (size_t i = num_rows; i < experts.size(); ++i) {
    rest.num_tokens += experts[i].num_tokens;
    rest.weight_sum += experts[i].weight_sum;
  }
  absl::StrAppendFormat(&table, "%5s  %8s  %6d  %5.1f%%  %6.3f\n", "", absl::StrCat(experts.size() - num_rows, " more"),
                        rest.num_tokens,
                        100 * static_cast<double>(rest.num_tokens) / static_cast<double>(layer.num_tokens),
                        rest.weight_sum / static_cast<double>(rest.num_tokens));
  return table;
}

}  // namespace

void RoutingTally::Add(const v1::TokenDetail& detail) {
  for (const v1::LayerRouting& routing : detail.routing()) {
    LayerTally& layer = layers_[routing.layer()];
    ++layer.num_tokens;
    for (int rank = 0; rank < routing.expert_ids_size(); ++rank) {
      ExpertTally& expert = layer.experts[routing.expert_ids(rank)];
      expert.expert = routing.expert_ids(rank);
      ++expert.num_tokens;
      if (rank < routing.expert_weights_size()) expert.weight_sum += routing.expert_weights(rank);
    }
  }
}

std::string RenderExpertTable(const RoutingTally& tally, const ExpertTableStyle& style) {
  if (tally.layers().empty()) return "";
  std::string table = absl::StrFormat("%d tokens, each through %d of %d experts per layer\n",
                                      tally.layers().begin()->second.num_tokens, style.top_k, style.num_experts);
  absl::StrAppendFormat(&table, "%5s  %8s  %6s  %6s  %6s\n", "layer", "expert", "tokens", "share", "weight");
  for (const auto& [index, layer] : tally.layers()) table += RenderLayer(index, layer, style);
  return table;
}

}  // namespace switchyard
