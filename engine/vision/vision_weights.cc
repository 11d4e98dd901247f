#include "engine/vision/vision_weights.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"

namespace switchyard {
namespace {

constexpr double kBiasDeviation = 0.02;
constexpr double kTableDeviation = 0.5;  // of positions: enough that tokens of a plain image differ

class SpecList {
 public:
  // `<name>.weight` [out, in] and `<name>.bias` [out].
  void Dense(const std::string& name, int64_t out, int64_t in) {
    Matrix(name + ".weight", out, in, 1.0 / std::sqrt(static_cast<double>(in)));
    Vector(name + ".bias", out, kBiasDeviation);
  }
  void Norm(const std::string& name, int64_t size) {
    Vector(name + ".weight", size, 0.0);
    Vector(name + ".bias", size, kBiasDeviation);
  }
  void Mlp(const std::string& prefix, int64_t width, int64_t hidden) {
    Dense(prefix + "up_proj", width, hidden);
    Dense(prefix + "down_proj", hidden, width);
  }
  void Matrix(const std::string& name, int64_t rows, int64_t cols, double deviation) {
    specs_.push_back({name, {rows, cols}, deviation});
  }
  void Vector(const std::string& name, int64_t size, double deviation) { specs_.push_back({name, {size}, deviation}); }

  std::vector<TensorSpec> Take() { return std::move(specs_); }

 private:
  std::vector<TensorSpec> specs_;
};

void AddLayer(const VisionConfig& config, int layer, SpecList* specs) {
  const int64_t hidden = config.hidden_size;
  const std::string prefix = VisionLayerPrefix(layer);
  specs->Norm(prefix + "attention_norm", hidden);
  for (const char* projection : {"q_proj", "k_proj", "v_proj", "o_proj"}) {
    specs->Dense(absl::StrCat(prefix, "attention.", projection), hidden, hidden);
  }
  specs->Norm(prefix + "mlp_norm", hidden);
  if (!std::binary_search(config.moe_layers.begin(), config.moe_layers.end(), layer)) {
    return specs->Mlp(prefix + "mlp.", config.intermediate_size, hidden);
  }
  specs->Matrix(prefix + "moe.router.weight", config.router.num_experts, hidden,
                1.0 / std::sqrt(static_cast<double>(hidden)));
  for (int e = 0; e < config.router.num_experts; ++e) {
    specs->Mlp(VisionExpertPrefix(layer, e), config.intermediate_size, hidden);
  }
}

}  // namespace

std::string VisionLayerPrefix(int layer) { return absl::StrCat("layers.", layer, "."); }

std::string VisionExpertPrefix(int layer, int expert) {
  return absl::StrCat(VisionLayerPrefix(layer), "moe.experts.", expert, ".");
}

std::vector<TensorSpec> VisionTensors(const VisionConfig& config) {
  const int64_t hidden = config.hidden_size;
  SpecList specs;
  specs.Dense("patch_embedding", hidden, config.patch_pixels());
  specs.Vector("class_token", hidden, kTableDeviation);
  specs.Matrix("position_embedding", config.tokens_per_image(), hidden, kTableDeviation);
  for (int l = 0; l < config.num_hidden_layers; ++l) AddLayer(config, l, &specs);
  specs.Norm("final_norm", hidden);
  const int64_t representation = config.representation_size > 0 ? config.representation_size : hidden;
  if (config.representation_size > 0) specs.Dense("pre_logits", representation, hidden);
  specs.Dense("head", config.num_classes, representation);
  return specs.Take();
}

VisionParameterCounts CountParameters(const VisionConfig& config) {
  VisionParameterCounts counts;
  for (const TensorSpec& spec : VisionTensors(config)) counts.total += spec.rows() * spec.cols();
  const int64_t num_layers = static_cast<int64_t>(config.moe_layers.size());
  const int64_t expert = (2 * int64_t{config.hidden_size} + 1) * config.intermediate_size + config.hidden_size;
  counts.in_experts = num_layers * config.router.num_experts * expert;
  counts.active = counts.total - num_layers * (config.router.num_experts - config.router.top_k) * expert;
  return counts;
}

}  // namespace switchyard
