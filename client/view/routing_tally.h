// Adds up which experts the tokens of an answer went to.
//
//   RoutingTally tally;
//   for (const auto& detail : delta.details()) tally.Add(detail);
//   out << RenderExpertTable(tally, style);
#ifndef SWITCHYARD_CLIENT_VIEW_ROUTING_TALLY_H_
#define SWITCHYARD_CLIENT_VIEW_ROUTING_TALLY_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "switchyard/v1/inference_service.pb.h"

namespace switchyard {

// One expert of one layer.
struct ExpertTally {
  int expert = 0;
  int64_t num_tokens = 0;  // that went to it
  double weight_sum = 0;   // of their gate weights
};

// One MoE layer.
struct LayerTally {
  int64_t num_tokens = 0;
  std::map<int, ExpertTally> experts;  // by expert; those with tokens only
};

class RoutingTally {
 public:
  // Adds one generated token.
  void Add(const v1::TokenDetail& detail);

  // By layer index.
  const std::map<int, LayerTally>& layers() const { return layers_; }

 private:
  std::map<int, LayerTally> layers_;
};

// How to draw the table.
struct ExpertTableStyle {
  bool color = false;      // paint the rows of `colored_layer` in their experts' colours
  int colored_layer = -1;  // layer index
  int max_experts = 8;     // rows per layer; the rest share one row
  int num_experts = 0;     // of the model, for the headline
  int top_k = 0;           // experts per token, for the headline
  int bar_width = 24;      // columns of a share of 100 %
};

// Per layer the experts, most used first: tokens, share of all tokens, mean gate weight, bar. Each token goes to top_k
// experts, so that the shares of a layer add up to top_k * 100 %. Empty when the tally is.
std::string RenderExpertTable(const RoutingTally& tally, const ExpertTableStyle& style);

}  // namespace switchyard

#endif  // SWITCHYARD_CLIENT_VIEW_ROUTING_TALLY_H_
