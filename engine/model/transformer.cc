#include "engine/model/transformer.h"

#include <algorithm>
#include <utility>

#include "engine/base/status_macros.h"

namespace switchyard {
namespace {

// Columns of the activation buffers, each as wide as the widest layer needs.
struct Widths {
  int64_t qkv = 0;
  int64_t q = 0;
  int64_t mlp = 0;    // dense layers and shared experts
  int64_t top_k = 0;  // rows per token of the experts' output
  bool gated_shared = false;
};

Widths WidthsOf(const ModelConfig& config) {
  Widths widths;
  for (const LayerConfig& layer : config.layers) {
    widths.qkv = std::max(widths.qkv, layer.attention.shape.qkv_size());
    widths.q = std::max(widths.q, layer.attention.shape.q_size());
    const int32_t mlp = layer.is_moe ? layer.moe.shared_intermediate_size : layer.dense_intermediate_size;
    widths.mlp = std::max<int64_t>(widths.mlp, mlp);
    if (!layer.is_moe) continue;
    widths.top_k = std::max<int64_t>(widths.top_k, layer.moe.router.top_k);
    widths.gated_shared |= layer.moe.shared_expert_gate;
  }
  return widths;
}

}  // namespace

// Pulls the weights of one model through the backend, layer by layer.
class Transformer::Loader {
 public:
  Loader(const ModelConfig& config, const Weights& weights, DType dtype, Backend* backend)
      : config_(config), weights_(weights), dtype_(dtype), backend_(backend) {}

  int64_t bytes() const { return bytes_; }
  int64_t num_nonfinite() const { return num_nonfinite_; }

  absl::StatusOr<std::unique_ptr<Weight>> Load(WeightName name, WeightUse use, int layer = -1) {
    return Stack({weights_.Find(name, layer)}, {}, use);
  }

  absl::StatusOr<std::unique_ptr<Weight>> LoadQkv(int layer) {
    std::vector<const TensorReader*> biases;
    if (config_.layers[layer].attention.qkv_bias) {
      biases = {Find(WeightName::kQBias, layer), Find(WeightName::kKBias, layer), Find(WeightName::kVBias, layer)};
    }
    return Stack({Find(WeightName::kQ, layer), Find(WeightName::kK, layer), Find(WeightName::kV, layer)}, biases,
                 WeightUse::kLinear);
  }

  absl::StatusOr<std::unique_ptr<Weight>> LoadOutput(int layer) {
    std::vector<const TensorReader*> biases;
    if (config_.layers[layer].attention.output_bias) biases = {Find(WeightName::kOBias, layer)};
    return Stack({Find(WeightName::kO, layer)}, biases, WeightUse::kLinear);
  }

  absl::StatusOr<GatedMlp> LoadMlp(WeightName gate, WeightName up, WeightName down, int32_t width, int layer) {
    GatedMlp mlp;
    mlp.intermediate_size = width;
    ASSIGN_OR_RETURN(mlp.gate_up, Stack({Find(gate, layer), Find(up, layer)}, {}, WeightUse::kLinear));
    ASSIGN_OR_RETURN(mlp.down, Load(down, WeightUse::kLinear, layer));
    return mlp;
  }

  absl::StatusOr<MoeLayerWeights> LoadMoe(const MoeConfig& moe, int layer) {
    MoeLayerWeights result;
    ASSIGN_OR_RETURN(result.router, Load(WeightName::kRouter, WeightUse::kRouter, layer));
    std::vector<ExpertReaders> experts(moe.router.num_experts);
    for (int e = 0; e < moe.router.num_experts; ++e) {
      experts[e] = {weights_.Find(WeightName::kExpertGate, layer, e), weights_.Find(WeightName::kExpertUp, layer, e),
                    weights_.Find(WeightName::kExpertDown, layer, e)};
    }
    ASSIGN_OR_RETURN(result.experts, backend_->LoadExperts(experts, dtype_));
    bytes_ += result.experts->bytes();
    num_nonfinite_ += result.experts->num_nonfinite();
    if (moe.shared_intermediate_size > 0) {
      ASSIGN_OR_RETURN(result.shared, LoadMlp(WeightName::kSharedGate, WeightName::kSharedUp, WeightName::kSharedDown,
                                              moe.shared_intermediate_size, layer));
    }
    if (moe.shared_expert_gate) {
      ASSIGN_OR_RETURN(result.shared_expert_gate, Load(WeightName::kSharedExpertGate, WeightUse::kVector, layer));
    }
    return result;
  }

 private:
  const TensorReader* Find(WeightName name, int layer) const { return weights_.Find(name, layer); }

  absl::StatusOr<std::unique_ptr<Weight>> Stack(const std::vector<const TensorReader*>& parts,
                                                const std::vector<const TensorReader*>& biases, WeightUse use) {
    for (const TensorReader* part : parts) CHECK(part != nullptr);
    ASSIGN_OR_RETURN(std::unique_ptr<Weight> weight, backend_->LoadWeight(parts, biases, dtype_, use));
    bytes_ += weight->bytes();
    num_nonfinite_ += weight->num_nonfinite();
    return weight;
  }

  const ModelConfig& config_;
  const Weights& weights_;
  const DType dtype_;
  Backend* const backend_;
  int64_t bytes_ = 0;
  int64_t num_nonfinite_ = 0;
};

absl::StatusOr<std::unique_ptr<Transformer>> Transformer::Load(const ModelConfig& config, const Weights& weights,
                                                               DType dtype, const TransformerLimits& limits,
                                                               Backend* backend) {
  std::unique_ptr<Transformer> model(new Transformer(config, backend));
  Loader loader(config, weights, dtype, backend);

  ASSIGN_OR_RETURN(model->embedding_, loader.Load(WeightName::kEmbedding, WeightUse::kEmbedding));
  model->layers_.resize(config.layers.size());
  for (int l = 0; l < config.num_layers(); ++l) {
    Layer& layer = model->layers_[l];
    layer.config = &model->config_.layers[l];
    const AttentionShape& shape = layer.config->attention.shape;
    ASSIGN_OR_RETURN(layer.input_norm, loader.Load(WeightName::kInputNorm, WeightUse::kVector, l));
    ASSIGN_OR_RETURN(layer.qkv, loader.LoadQkv(l));
    if (shape.qk_norm != QkNorm::kNone) {
      ASSIGN_OR_RETURN(layer.q_norm, loader.Load(WeightName::kQNorm, WeightUse::kVector, l));
      ASSIGN_OR_RETURN(layer.k_norm, loader.Load(WeightName::kKNorm, WeightUse::kVector, l));
    }
    ASSIGN_OR_RETURN(layer.output, loader.LoadOutput(l));
    ASSIGN_OR_RETURN(layer.post_attention_norm, loader.Load(WeightName::kPostAttentionNorm, WeightUse::kVector, l));
    if (layer.config->is_moe) {
      const MoeConfig& moe = layer.config->moe;
      ASSIGN_OR_RETURN(MoeLayerWeights moe_weights, loader.LoadMoe(moe, l));
      ASSIGN_OR_RETURN(layer.moe, MoeLayer::Create(moe, std::move(moe_weights), limits.max_tokens, backend));
      model->moe_layers_.push_back(layer.moe.get());
    } else {
      ASSIGN_OR_RETURN(layer.dense, loader.LoadMlp(WeightName::kMlpGate, WeightName::kMlpUp, WeightName::kMlpDown,
                                                   layer.config->dense_intermediate_size, l));
    }
  }
  ASSIGN_OR_RETURN(model->final_norm_, loader.Load(WeightName::kFinalNorm, WeightUse::kVector));
  ASSIGN_OR_RETURN(model->lm_head_, loader.Load(WeightName::kLmHead, WeightUse::kLinear));

  model->weight_bytes_ = loader.bytes();
  model->num_nonfinite_weights_ = loader.num_nonfinite();
  if (config.tie_word_embeddings) model->num_nonfinite_weights_ -= model->lm_head_->num_nonfinite();  // read twice
  RETURN_IF_ERROR(model->AllocateBuffers(limits));
  return model;
}

int64_t Transformer::ActivationBytes(const ModelConfig& config, const TransformerLimits& limits) {
  const Widths widths = WidthsOf(config);
  const int64_t hidden = config.hidden_size;
  const int64_t per_token = (2 + widths.top_k + (widths.gated_shared ? 1 : 0)) * hidden + widths.qkv + widths.q +
                            3 * widths.mlp;
  return 4 * (limits.max_tokens * per_token + limits.max_logit_rows * (hidden + config.vocab_size));
}

absl::Status Transformer::AllocateBuffers(const TransformerLimits& limits) {
  const Widths widths = WidthsOf(config_);
  const int64_t tokens = limits.max_tokens, hidden = config_.hidden_size;
  ASSIGN_OR_RETURN(x_, backend_->AllocateMatrix(tokens, hidden));
  ASSIGN_OR_RETURN(h_, backend_->AllocateMatrix(tokens, hidden));
  ASSIGN_OR_RETURN(qkv_, backend_->AllocateMatrix(tokens, widths.qkv));
  ASSIGN_OR_RETURN(attended_, backend_->AllocateMatrix(tokens, widths.q));
  ASSIGN_OR_RETURN(last_, backend_->AllocateMatrix(limits.max_logit_rows, hidden));
  ASSIGN_OR_RETURN(logits_, backend_->AllocateMatrix(limits.max_logit_rows, config_.vocab_size));
  if (widths.top_k > 0) {
    ASSIGN_OR_RETURN(scratch_.expert_rows, backend_->AllocateMatrix(tokens * widths.top_k, hidden));
  }
  if (widths.mlp > 0) {
    ASSIGN_OR_RETURN(scratch_.gate_up, backend_->AllocateMatrix(tokens, 2 * widths.mlp));
    ASSIGN_OR_RETURN(scratch_.intermediate, backend_->AllocateMatrix(tokens, widths.mlp));
  }
  if (widths.gated_shared) {
    ASSIGN_OR_RETURN(scratch_.shared_out, backend_->AllocateMatrix(tokens, hidden));
  }
  return backend_->PrepareScratch(limits.max_tokens);
}

Matrix Transformer::Forward(std::span<const int32_t> ids, std::span<const AttentionSlice> slices,
                            std::span<const int32_t> logit_rows, KvCache* cache) {
  const int64_t num_tokens = static_cast<int64_t>(ids.size());
  const int64_t num_logits = static_cast<int64_t>(logit_rows.size());
  const Matrix logits = logits_.Front(num_logits, config_.vocab_size);
  if (backend_->BeginStep({ids, slices, logit_rows}, *cache)) return logits;
  const Matrix x = x_.Front(num_tokens, config_.hidden_size);
  backend_->Embed(ids, *embedding_, x);
  for (size_t l = 0; l < layers_.size(); ++l) {
    Attend(layers_[l], static_cast<int32_t>(l), slices, cache, x);
    FeedForward(layers_[l], x);
  }
  if (num_logits > 0) {
    const Matrix last = last_.Front(num_logits, config_.hidden_size);
    backend_->SelectRows(x, logit_rows, last);
    backend_->RmsNorm(last, *final_norm_, config_.rms_norm_eps, last);
    backend_->Linear(last, *lm_head_, OutputMode::kAssign, logits);
  }
  backend_->EndStep();
  return logits;
}

void Transformer::Attend(Layer& layer, int32_t index, std::span<const AttentionSlice> slices, KvCache* cache,
                         Matrix x) {
  const AttentionShape& shape = layer.config->attention.shape;
  const Matrix h = h_.Front(x.rows, x.cols);
  const Matrix qkv = qkv_.Front(x.rows, shape.qkv_size());
  const Matrix attended = attended_.Front(x.rows, shape.q_size());
  backend_->RmsNorm(x, *layer.input_norm, config_.rms_norm_eps, h);
  backend_->Linear(h, *layer.qkv, OutputMode::kAssign, qkv);
  backend_->PrepareQkv(shape, slices, layer.q_norm.get(), layer.k_norm.get(), index, *cache, qkv);
  backend_->Attention(shape, slices, index, *cache, qkv, attended);
  backend_->Linear(attended, *layer.output, OutputMode::kAdd, x);
}

void Transformer::FeedForward(Layer& layer, Matrix x) {
  const Matrix h = h_.Front(x.rows, x.cols);
  backend_->RmsNorm(x, *layer.post_attention_norm, config_.rms_norm_eps, h);
  if (layer.moe != nullptr) {
    layer.moe->Forward(h, scratch_, x);
  } else {
    layer.dense.Forward(backend_, h, scratch_, OutputMode::kAdd, x);
  }
}

}  // namespace switchyard
