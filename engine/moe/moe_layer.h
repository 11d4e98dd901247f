// One Mixture-of-Experts layer: route, group rows by expert, run each expert on its batch, combine, shared expert.
//
//   h [num_tokens, hidden] -> Routing (which experts, with which weights)
//                          -> ExpertBatches (one contiguous block of rows per expert)
//                          -> rows [num_tokens * top_k, hidden] (each expert's MLP on its rows)
//                          -> x += weighted sum per token (+ shared expert)
#ifndef SWITCHYARD_ENGINE_MOE_MOE_LAYER_H_
#define SWITCHYARD_ENGINE_MOE_MOE_LAYER_H_

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/backend/backend.h"
#include "engine/moe/moe_config.h"
#include "engine/step.h"

namespace switchyard {

// Activation buffers that all MoE and dense layers of a model share, sized for the largest step.
struct FeedForwardScratch {
  Matrix expert_rows;   // [max_tokens * top_k, hidden]
  Matrix gate_up;       // [max_tokens, 2 * widest dense or shared intermediate]
  Matrix intermediate;  // [max_tokens, widest dense or shared intermediate]
  Matrix shared_out;    // [max_tokens, hidden]; only for a gated shared expert
};

// A gated MLP on all rows: a dense layer, or a shared expert.
struct GatedMlp {
  int32_t intermediate_size = 0;
  std::unique_ptr<Weight> gate_up;  // [2 * intermediate, hidden], gate first
  std::unique_ptr<Weight> down;     // [hidden, intermediate]

  // out = or += down(silu(gate(h)) * up(h)).
  void Forward(Backend* backend, Matrix h, const FeedForwardScratch& scratch, OutputMode mode, Matrix out) const;
};

// The same without a gate.
struct PlainMlp {
  Activation activation = Activation::kRelu;
  int32_t intermediate_size = 0;
  std::unique_ptr<Weight> up;    // [intermediate, hidden]
  std::unique_ptr<Weight> down;  // [hidden, intermediate]

  // out = or += down(activation(up(h))).
  void Forward(Backend* backend, Matrix h, const FeedForwardScratch& scratch, OutputMode mode, Matrix out) const;
};

struct MoeLayerWeights {
  std::unique_ptr<Weight> router;
  std::unique_ptr<Weight> choice_bias;          // null unless the router's config has one
  std::unique_ptr<ExpertWeights> experts;
  std::unique_ptr<Weight> output_bias;          // null: none
  GatedMlp shared;                              // intermediate_size 0: none
  std::unique_ptr<Weight> shared_expert_gate;   // null: the shared expert is not gated
};

class MoeLayer {
 public:
  // RESOURCE_EXHAUSTED: no memory for the routing of max_tokens tokens.
  static absl::StatusOr<std::unique_ptr<MoeLayer>> Create(const MoeConfig& config, MoeLayerWeights weights,
                                                          int32_t max_tokens, Backend* backend);

  // x += MoE(h). Both [num_tokens, hidden]. Where the router's config has a capacity it holds within each of `groups`;
  // rows outside of them are not limited.
  void Forward(Matrix h, const FeedForwardScratch& scratch, Matrix x, std::span<const RowGroup> groups = {});

  // Instead of Forward, in a step that has no rows for this layer.
  void Skip();

  // Of the last Forward or Skip, after the backend's Wait().
  const Routing& routing() const { return routing_; }
  void FillStats(MoeLayerStats* stats) const;

 private:
  MoeLayer(const MoeConfig& config, MoeLayerWeights weights, Backend* backend)
      : weights_(std::move(weights)), config_(WithWeights(config, weights_)), backend_(backend) {}

  static MoeConfig WithWeights(MoeConfig config, const MoeLayerWeights& weights) {
    config.router.choice_bias = weights.choice_bias.get();
    return config;
  }

  const MoeLayerWeights weights_;
  const MoeConfig config_;
  Backend* const backend_;
  Routing routing_;
  ExpertBatches batches_;
  float seconds_ = 0.0f;
};

// The providers of Backend::expert_gemms, and how many layers each has computed, in the same order.
std::vector<std::string> ExpertGemmNames(const Backend& backend);
void FillExpertGemmLayers(const Backend& backend, StepStats* stats);

}  // namespace switchyard

#endif  // SWITCHYARD_ENGINE_MOE_MOE_LAYER_H_
