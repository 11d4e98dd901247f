#include "engine/checkpoint/weight_table.h"

namespace switchyard {
namespace {

constexpr int64_t kFirstLayerName = static_cast<int64_t>(WeightName::kInputNorm);
constexpr int64_t kFirstExpertName = static_cast<int64_t>(WeightName::kExpertGate);
constexpr int64_t kNamesPerLayer = kFirstExpertName - kFirstLayerName;
constexpr int64_t kFirstExpertBias = static_cast<int64_t>(WeightName::kExpertGateBias);
constexpr int64_t kFirstAttentionExpert = static_cast<int64_t>(WeightName::kAttentionIn);
constexpr int64_t kEndOfNames = static_cast<int64_t>(WeightName::kAttentionOut) + 1;

// Visits with the layer filled in.
class LayerVisitor {
 public:
  LayerVisitor(int layer, const std::function<void(const WeightSpec&)>& visit) : layer_(layer), visit_(visit) {}

  void Matrix(WeightName name, int64_t rows, int64_t cols, int expert = -1) const {
    visit_({name, layer_, expert, rows, cols, false});
  }
  void Vector(WeightName name, int64_t size, int expert = -1) const {
    visit_({name, layer_, expert, 1, size, true});
  }
  void Mlp(WeightName gate, WeightName up, WeightName down, int64_t width, int64_t hidden, bool gated = true,
           int expert = -1) const {
    if (gated) Matrix(gate, width, hidden, expert);
    Matrix(up, width, hidden, expert);
    Matrix(down, hidden, width, expert);
  }

 private:
  const int layer_;
  const std::function<void(const WeightSpec&)>& visit_;
};

void VisitLatentAttention(const AttentionConfig& attention, int64_t hidden, const LayerVisitor& visit) {
  const MlaConfig& mla = attention.mla;
  const int64_t heads = attention.shape.num_heads;
  const int64_t q_size = heads * (mla.qk_nope_head_dim + mla.qk_rope_head_dim);
  if (mla.q_lora_rank > 0) {
    visit.Matrix(WeightName::kQA, mla.q_lora_rank, hidden);
    if (attention.qkv_bias) visit.Vector(WeightName::kQABias, mla.q_lora_rank);
    visit.Vector(WeightName::kQANorm, mla.q_lora_rank);
    visit.Matrix(WeightName::kQB, q_size, mla.q_lora_rank);
  } else {
    visit.Matrix(WeightName::kQ, q_size, hidden);
  }
  visit.Matrix(WeightName::kKvA, attention.shape.head_dim, hidden);
  if (attention.qkv_bias) visit.Vector(WeightName::kKvABias, attention.shape.head_dim);
  visit.Vector(WeightName::kKvANorm, mla.kv_lora_rank);
  visit.Matrix(WeightName::kKvB, heads * (mla.qk_nope_head_dim + mla.v_head_dim), mla.kv_lora_rank);
  visit.Matrix(WeightName::kO, hidden, attention.output_in());
  if (attention.output_bias) visit.Vector(WeightName::kOBias, hidden);
}

void VisitAttentionExperts(const AttentionConfig& attention, int64_t hidden, const LayerVisitor& visit) {
  const int64_t size = attention.shape.kv_size();
  visit.Matrix(WeightName::kAttentionRouter, attention.experts.num_experts, hidden);
  visit.Vector(WeightName::kAttentionBias, hidden);
  visit.Matrix(WeightName::kK, size, hidden);
  visit.Matrix(WeightName::kV, size, hidden);
  for (int expert = 0; expert < attention.experts.num_experts; ++expert) {
    visit.Matrix(WeightName::kAttentionIn, size, hidden, expert);
    visit.Matrix(WeightName::kAttentionOut, hidden, size, expert);
  }
}

void VisitAttention(const AttentionConfig& attention, int64_t hidden, const LayerVisitor& visit) {
  const AttentionShape& shape = attention.shape;
  if (shape.has_sinks) visit.Vector(WeightName::kSinks, shape.num_heads);
  if (shape.latent_dim > 0) return VisitLatentAttention(attention, hidden, visit);
  if (attention.experts.num_experts > 0) return VisitAttentionExperts(attention, hidden, visit);
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
  if (attention.owns_relative_bias) {
    visit.Matrix(WeightName::kRelativeBias, attention.relative_num_buckets, shape.num_heads);
  }
  if (attention.cross_attention) {
    visit.Vector(WeightName::kCrossNorm, hidden);
    visit.Matrix(WeightName::kCrossQ, shape.q_size(), hidden);
    visit.Matrix(WeightName::kCrossK, shape.kv_size(), hidden);
    visit.Matrix(WeightName::kCrossV, shape.kv_size(), hidden);
    visit.Matrix(WeightName::kCrossO, hidden, shape.q_size());
  }
  if (shape.qk_norm != QkNorm::kFull && shape.qk_norm != QkNorm::kHead) return;
  const bool full = shape.qk_norm == QkNorm::kFull;
  visit.Vector(WeightName::kQNorm, full ? shape.q_size() : shape.head_dim);
  visit.Vector(WeightName::kKNorm, full ? shape.kv_size() : shape.head_dim);
}

void VisitMoe(const MoeConfig& moe, int64_t hidden, const LayerVisitor& visit) {
  visit.Matrix(WeightName::kRouter, moe.router.num_experts, hidden);
  if (moe.router_bias) visit.Vector(WeightName::kRouterBias, moe.router.num_experts);
  if (moe.router.has_choice_bias) visit.Vector(WeightName::kChoiceBias, moe.router.num_experts);
  if (moe.output_bias) visit.Vector(WeightName::kMoeBias, hidden);
  if (moe.shared_intermediate_size > 0) {
    visit.Mlp(WeightName::kSharedGate, WeightName::kSharedUp, WeightName::kSharedDown, moe.shared_intermediate_size,
              hidden);
    if (moe.shared_expert_gate) visit.Matrix(WeightName::kSharedExpertGate, 1, hidden);
  }
  for (int expert = 0; expert < moe.router.num_experts; ++expert) {
    visit.Mlp(WeightName::kExpertGate, WeightName::kExpertUp, WeightName::kExpertDown, moe.intermediate_size, hidden,
              IsGated(moe.experts.activation), expert);
    if (!moe.experts.biases) continue;
    if (IsGated(moe.experts.activation)) visit.Vector(WeightName::kExpertGateBias, moe.intermediate_size, expert);
    visit.Vector(WeightName::kExpertUpBias, moe.intermediate_size, expert);
    visit.Vector(WeightName::kExpertDownBias, hidden, expert);
  }
}

}  // namespace

void ForEachWeight(const ModelConfig& config, const std::function<void(const WeightSpec&)>& visit) {
  const int64_t hidden = config.hidden_size;
  const LayerVisitor top(-1, visit);
  top.Matrix(WeightName::kEmbedding, config.vocab_size, hidden);
  top.Vector(WeightName::kFinalNorm, hidden);
  if (config.num_encoder_layers > 0) top.Vector(WeightName::kEncoderFinalNorm, hidden);
  if (config.norm_bias) top.Vector(WeightName::kFinalNormBias, hidden);
  if (!config.tie_word_embeddings) top.Matrix(WeightName::kLmHead, config.vocab_size, hidden);
  if (config.lm_head_bias) top.Vector(WeightName::kLmHeadBias, config.vocab_size);
  for (int l = 0; l < config.num_layers(); ++l) {
    const LayerConfig& layer = config.layers[static_cast<size_t>(l)];
    const LayerVisitor in_layer(l, visit);
    in_layer.Vector(WeightName::kInputNorm, hidden);
    in_layer.Vector(WeightName::kPostAttentionNorm, hidden);
    if (config.norm_bias) {
      in_layer.Vector(WeightName::kInputNormBias, hidden);
      in_layer.Vector(WeightName::kPostAttentionNormBias, hidden);
    }
    VisitAttention(layer.attention, hidden, in_layer);
    if (layer.parallel_mlp_size > 0) {
      in_layer.Vector(WeightName::kParallelNorm, hidden);
      in_layer.Mlp(WeightName::kParallelGate, WeightName::kParallelUp, WeightName::kParallelDown,
                   layer.parallel_mlp_size, hidden);
    }
    if (layer.is_moe) {
      VisitMoe(layer.moe, hidden, in_layer);
    } else {
      in_layer.Mlp(WeightName::kMlpGate, WeightName::kMlpUp, WeightName::kMlpDown, layer.dense_intermediate_size,
                   hidden, IsGated(layer.dense_activation));
    }
  }
}

ParameterCounts CountParameters(const ModelConfig& config) {
  ParameterCounts counts;
  ForEachWeight(config, [&](const WeightSpec& spec) {
    const int64_t size = spec.rows * spec.cols;
    counts.total += size;
    if (spec.expert < 0) {
      counts.active += size;
      return;
    }
    counts.in_experts += size;
    const LayerConfig& layer = config.layers[static_cast<size_t>(spec.layer)];
    const bool of_attention = static_cast<int64_t>(spec.name) >= kFirstAttentionExpert;
    const RouterConfig& router = of_attention ? layer.attention.experts : layer.moe.router;
    if (spec.expert < router.top_k) counts.active += size;  // experts of a layer are all of one size
  });
  counts.in_memory = counts.total;
  if (config.tie_word_embeddings) counts.in_memory += int64_t{config.vocab_size} * config.hidden_size;
  return counts;
}

// The model's own names come first, then those of all layers, then the experts layer by layer.
WeightSlots::WeightSlots(const ModelConfig& config) {
  bool biases = false, attention = false;
  for (const LayerConfig& layer : config.layers) {
    biases |= layer.moe.experts.biases;
    attention |= layer.attention.experts.num_experts > 0;
  }
  names_per_expert_ = (attention ? kEndOfNames : biases ? kFirstAttentionExpert : kFirstExpertBias) - kFirstExpertName;
  int64_t base = kFirstLayerName + kNamesPerLayer * config.num_layers();
  for (const LayerConfig& layer : config.layers) {
    expert_base_.push_back(base);
    base += layer.is_moe ? names_per_expert_ * layer.moe.router.num_experts : 0;
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
  if (number - kFirstExpertName >= names_per_expert_) return -1;
  const size_t l = static_cast<size_t>(layer);
  const int64_t slot = expert_base_[l] + names_per_expert_ * expert + (number - kFirstExpertName);
  return expert >= 0 && slot < expert_base_[l + 1] ? slot : -1;
}

}  // namespace switchyard
