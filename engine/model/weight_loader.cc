#include "engine/model/weight_loader.h"

#include <utility>

#include "engine/base/status_macros.h"

namespace switchyard {

absl::StatusOr<std::unique_ptr<Weight>> WeightLoader::Load(WeightName name, WeightUse use, int layer) {
  return Stack({weights_.Find(name, layer)}, {}, use);
}

absl::StatusOr<std::unique_ptr<Weight>> WeightLoader::LoadBiased(WeightName name, WeightName bias, bool has_bias,
                                                                 int layer) {
  std::vector<const TensorReader*> biases;
  if (has_bias) biases = {Find(bias, layer)};
  return Stack({Find(name, layer)}, biases, WeightUse::kLinear);
}

absl::StatusOr<NormWeights> WeightLoader::LoadNorm(WeightName weight, WeightName bias, int layer) {
  NormWeights norm;
  ASSIGN_OR_RETURN(norm.weight, Load(weight, WeightUse::kVector, layer));
  if (config_.norm_bias) {
    ASSIGN_OR_RETURN(norm.bias, Load(bias, WeightUse::kVector, layer));
  }
  return norm;
}

absl::StatusOr<std::unique_ptr<Weight>> WeightLoader::LoadHead() {
  std::vector<const TensorReader*> biases;
  if (config_.lm_head_bias) biases = {Find(WeightName::kLmHeadBias, -1)};
  return Stack({Find(WeightName::kLmHead, -1)}, biases, WeightUse::kLinear);
}

absl::StatusOr<std::unique_ptr<Weight>> WeightLoader::LoadStacked(WeightName first, WeightName second, int layer) {
  return Stack({Find(first, layer), Find(second, layer)}, {}, WeightUse::kLinear);
}

absl::StatusOr<std::unique_ptr<Weight>> WeightLoader::LoadQkv(int layer) {
  std::vector<const TensorReader*> biases;
  if (config_.layers[layer].attention.qkv_bias) {
    biases = {Find(WeightName::kQBias, layer), Find(WeightName::kKBias, layer), Find(WeightName::kVBias, layer)};
  }
  return Stack({Find(WeightName::kQ, layer), Find(WeightName::kK, layer), Find(WeightName::kV, layer)}, biases,
               WeightUse::kLinear);
}

absl::StatusOr<std::unique_ptr<Weight>> WeightLoader::LoadOutput(int layer) {
  return LoadBiased(WeightName::kO, WeightName::kOBias, config_.layers[layer].attention.output_bias, layer);
}

absl::StatusOr<GatedMlp> WeightLoader::LoadMlp(WeightName gate, WeightName up, WeightName down, int32_t width,
                                               int layer) {
  GatedMlp mlp;
  mlp.intermediate_size = width;
  ASSIGN_OR_RETURN(mlp.gate_up, LoadStacked(gate, up, layer));
  ASSIGN_OR_RETURN(mlp.down, Load(down, WeightUse::kLinear, layer));
  return mlp;
}

absl::StatusOr<PlainMlp> WeightLoader::LoadPlainMlp(int layer) {
  const LayerConfig& config = config_.layers[static_cast<size_t>(layer)];
  PlainMlp mlp;
  mlp.activation = config.dense_activation;
  mlp.intermediate_size = config.dense_intermediate_size;
  ASSIGN_OR_RETURN(mlp.up, Load(WeightName::kMlpUp, WeightUse::kLinear, layer));
  ASSIGN_OR_RETURN(mlp.down, Load(WeightName::kMlpDown, WeightUse::kLinear, layer));
  return mlp;
}

absl::StatusOr<std::unique_ptr<MoeLayer>> WeightLoader::LoadMoeLayer(int layer, int32_t max_tokens) {
  const MoeConfig& moe = config_.layers[static_cast<size_t>(layer)].moe;
  ASSIGN_OR_RETURN(MoeLayerWeights weights, LoadMoe(moe, layer));
  return MoeLayer::Create(moe, std::move(weights), max_tokens, backend_);
}

absl::StatusOr<MoeLayerWeights> WeightLoader::LoadMoe(const MoeConfig& moe, int layer) {
  MoeLayerWeights result;
  std::vector<const TensorReader*> router_biases;
  if (moe.router_bias) router_biases = {Find(WeightName::kRouterBias, layer)};
  ASSIGN_OR_RETURN(result.router, Stack({Find(WeightName::kRouter, layer)}, router_biases, WeightUse::kRouter));
  if (moe.router.has_choice_bias) {
    ASSIGN_OR_RETURN(result.choice_bias, Load(WeightName::kChoiceBias, WeightUse::kVector, layer));
  }
  ASSIGN_OR_RETURN(result.experts, backend_->LoadExperts(FindExperts(moe, weights_, layer), dtype_));
  bytes_ += result.experts->bytes();
  num_nonfinite_ += result.experts->num_nonfinite();
  if (moe.output_bias) {
    ASSIGN_OR_RETURN(result.output_bias, Load(WeightName::kMoeBias, WeightUse::kVector, layer));
  }
  if (moe.shared_intermediate_size > 0) {
    ASSIGN_OR_RETURN(result.shared, LoadMlp(WeightName::kSharedGate, WeightName::kSharedUp, WeightName::kSharedDown,
                                            moe.shared_intermediate_size, layer));
  }
  if (moe.shared_expert_gate) {
    ASSIGN_OR_RETURN(result.shared_expert_gate, Load(WeightName::kSharedExpertGate, WeightUse::kVector, layer));
  }
  return result;
}

std::vector<ExpertReaders> FindExperts(const MoeConfig& moe, const Weights& weights, int layer) {
  std::vector<ExpertReaders> experts(static_cast<size_t>(moe.router.num_experts));
  for (int e = 0; e < moe.router.num_experts; ++e) {
    ExpertReaders& readers = experts[static_cast<size_t>(e)];
    readers.gate = weights.Find(WeightName::kExpertGate, layer, e);
    readers.up = weights.Find(WeightName::kExpertUp, layer, e);
    readers.down = weights.Find(WeightName::kExpertDown, layer, e);
    readers.form = moe.experts;
    if (!moe.experts.biases) continue;
    readers.gate_bias = weights.Find(WeightName::kExpertGateBias, layer, e);
    readers.up_bias = weights.Find(WeightName::kExpertUpBias, layer, e);
    readers.down_bias = weights.Find(WeightName::kExpertDownBias, layer, e);
  }
  return experts;
}

absl::StatusOr<std::unique_ptr<Weight>> WeightLoader::Stack(const std::vector<const TensorReader*>& parts,
                                                            const std::vector<const TensorReader*>& biases,
                                                            WeightUse use) {
  for (const TensorReader* part : parts) CHECK(part != nullptr);
  ASSIGN_OR_RETURN(std::unique_ptr<Weight> weight, backend_->LoadWeight(parts, biases, dtype_, use));
  bytes_ += weight->bytes();
  num_nonfinite_ += weight->num_nonfinite();
  return weight;
}

}  // namespace switchyard
