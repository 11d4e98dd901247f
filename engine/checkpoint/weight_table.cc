#include "engine/checkpoint/weight_table.h"

namespace switchyard {
namespace {

constexpr int64_t kFirstLayerName = static_cast<int64_t>(WeightName::kInputNorm);
constexpr int64_t kFirstExpertName = static_cast<int64_t>(WeightName::kExpertGate);
constexpr int64_t kNamesPerLayer = kFirstExpertName - kFirstLayerName;
constexpr int64_t kNamesPerExpert = static_cast<int64_t>(WeightName::kExpertDown) - kFirstExpertName + 1;

// Visits with the layer filled in.
class LayerVisitor {
 public:
  LayerVisitor(int layer, const std::function<void(const WeightSpec&)>& visit) : layer_(layer), visit_(visit) {}

  void Matrix(WeightName name, int64_t rows, int64_t cols, int expert = -1) const {
    visit_({name, layer_, expert, rows, cols, false});
  }
  void Vector(WeightName name, int64_t size) const { visit_({name, layer_, -1, 1, size, true}); }
  void Mlp(WeightName gate, WeightName up, WeightName down, int64_t width, int64_t hidden, int expert = -1) const {
    Matrix(gate, width, hidden, expert);
    Matrix(up, width, hidden, expert);
    Matrix(down, hidden, width, expert);
  }

 private:
  const int layer_;
  const std::function<void(const WeightSpec&)>& visit_;
};

void VisitAttention(const AttentionConfig& attention, int64_t hidden, const LayerVisitor& visit) {
  const AttentionShape& shape = attention.shape;
  visit.Matrix(WeightName::kQ, shape.q_size(), hidden);
  visit.Matrix(WeightName::kK, shape.kv_size(), hidden);
  visit.Matrix(WeightName::kV, shape.kv_size(), hidden);
  visit.Matrix(WeightName::kO, hidden, shape.q_size());
  if (attention.qkv_bias) {
    visit.Vector(WeightName::kQBias, shape.q_size());
    visit.Vector(WeightName::kKBias, shape.kv_size());
    visit.Vector(WeightName::kVBias, shape.kv_size());
  }
  if (attention.output_bias) visit.Vector(WeightName::kOBias, hidden);
  if (shape.qk_norm == QkNorm::kNone) return;
  const bool full = shape.qk_norm == QkNorm::kFull;
  visit.Vector(WeightName::kQNorm, full ? shape.q_size() : shape.head_dim);
  visit.Vector(WeightName::kKNorm, full ? shape.kv_size() : shape.head_dim);
}

void VisitMoe(const MoeConfig& moe, int64_t hidden, const LayerVisitor& visit) {
  visit.Matrix(WeightName::kRouter, moe.router.num_experts, hidden);
  if (moe.shared_intermediate_size > 0) {
    visit.Mlp(WeightName::kSharedGate, WeightName::kSharedUp, WeightName::kSharedDown, moe.shared_intermediate_size,
              hidden);
    if (moe.shared_expert_gate) visit.Matrix(WeightName::kSharedExpertGate, 1, hidden);
  }
  for (int expert = 0; expert < moe.router.num_experts; ++expert) {
    visit.Mlp(WeightName::kExpertGate, WeightName::kExpertUp, WeightName::kExpertDown, moe.intermediate_size, hidden,
              expert);
  }
}

}  // namespace

void ForEachWeight(const ModelConfig& config, const std::function<void(const WeightSpec&)>& visit) {
  const int64_t hidden = config.hidden_size;
  const LayerVisitor top(-1, visit);
  top.Matrix(WeightName::kEmbedding, config.vocab_size, hidden);
  top.Vector(WeightName::kFinalNorm, hidden);
  if (!config.tie_word_embeddings) top.Matrix(WeightName::kLmHead, config.vocab_size, hidden);
  for (int l = 0; l < config.num_layers(); ++l) {
    const LayerConfig& layer = config.layers[static_cast<size_t>(l)];
    const LayerVisitor in_layer(l, visit);
    in_layer.Vector(WeightName::kInputNorm, hidden);
    in_layer.Vector(WeightName::kPostAttentionNorm, hidden);
    VisitAttention(layer.attention, hidden, in_layer);
    if (layer.is_moe) {
      VisitMoe(layer.moe, hidden, in_layer);
    } else {
      in_layer.Mlp(WeightName::kMlpGate, WeightName::kMlpUp, WeightName::kMlpDown, layer.dense_intermediate_size,
                   hidden);
    }
  }
}

// The model's own names come first, then those of all layers, then the experts layer by layer.
WeightSlots::WeightSlots(const ModelConfig& config) {
  int64_t base = kFirstLayerName + kNamesPerLayer * config.num_layers();
  for (const LayerConfig& layer : config.layers) {
    expert_base_.push_back(base);
    base += layer.is_moe ? kNamesPerExpert * layer.moe.router.num_experts : 0;
  }
  expert_base_.push_back(base);
}

int64_t WeightSlots::SlotOf(WeightName name, int layer, int expert) const {
  const int64_t number = static_cast<int64_t>(name);
  if (number < kFirstLayerName) return layer < 0 && expert < 0 ? number : -1;
  if (layer < 0 || layer + 1 >= static_cast<int>(expert_base_.size())) return -1;
  if (number < kFirstExpertName) {
    return expert < 0 ? kFirstLayerName + kNamesPerLayer * layer + (number - kFirstLayerName) : -1;
  }
  const size_t l = static_cast<size_t>(layer);
  const int64_t slot = expert_base_[l] + kNamesPerExpert * expert + (number - kFirstExpertName);
  return expert >= 0 && slot < expert_base_[l + 1] ? slot : -1;
}

}  // namespace switchyard
