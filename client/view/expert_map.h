// Draws the load of every expert as a map: a line per MoE layer, a cell per expert.
//
//   layer      0      1      2      3   imbalance  active   ms/step
//       0  ▄ 25%  ▂ 12%  █ 50%  ▂ 12%        2.00     4/4     0.412
//
// Half a block is an even load (1 / number of experts); a full block is twice that or more.
#ifndef SWITCHYARD_CLIENT_VIEW_EXPERT_MAP_H_
#define SWITCHYARD_CLIENT_VIEW_EXPERT_MAP_H_

#include <string>

#include "switchyard/v1/expert_service.pb.h"

namespace switchyard {

// What a cell shows.
enum class ExpertMetric {
  kTokens,   // the expert's share of its layer's rows, in percent; a block relative to the mean of the layer
  kLatency,  // microseconds per row; a block relative to the mean of the map
};

struct ExpertMapStyle {
  bool color = false;
  int width = 100;  // columns; cells shrink to one column, then lines wrap
  ExpertMetric metric = ExpertMetric::kTokens;
  int num_hottest = 5;  // lines in the list of the hottest experts
};

// The map and the list of the hottest experts: those furthest above the mean of their layer.
std::string RenderExpertMap(const v1::ExpertLoad& load, const ExpertMapStyle& style);

// What was added between two snapshots of the same server, or all of `now` when `before` is from another start (a
// counter went back) or shape.
v1::ExpertLoad AddedSince(const v1::ExpertLoad& before, const v1::ExpertLoad& now);

// Largest / mean rows per expert; 0 without rows.
double ImbalanceRatio(const v1::LayerExpertLoad& layer);

}  // namespace switchyard

#endif  // SWITCHYARD_CLIENT_VIEW_EXPERT_MAP_H_
