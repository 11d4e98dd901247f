#include "engine/model/transformer.h"

#include <algorithm>
#include <utility>

#include "engine/base/status_macros.h"

namespace switchyard {
// Pulls the weights of one model through the backend, layer by layer.
class Transformer::Loader {
 public:
  Loader(const ModelConfig& config, const Weights& weights, DType dtype, Backend* backend, int64_t* bytes)
      : config_(config), weights_(weights), dtype_(dtype), backend_(backend), bytes_(bytes) {}

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
    *bytes_ += result.experts->bytes();
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
    *bytes_ += weight->bytes();
    return weight;
  }

  const ModelConfig& config_;
  const Weights& weights_;
  const DType dtype_;
  Backend* const backend_;
  int64_t* const bytes_;
};

absl::StatusOr<std::unique_ptr<Transformer>> Transformer::Load(const ModelConfig& config, const Weights& weights,
                                                               DType dtype, const TransformerLimits& limits,
                                                               Backend* backend) {
  std::unique_ptr<Transformer> model(new Transformer(config, backend));
  Loader loader(config, weights, dtype, backend, &model->weight_bytes_);

  ASSIGN_OR_RETURN(model->embedding_, loader.Load(WeightName::kEmbedding, WeightUse::kEmbedding));
  int64_t widest_qkv = 0, widest_q = 0, widest_mlp = 0, widest_top_k = 0;
  bool gated_shared = false;
  model->layers_.resize(config.layers.size());
  for (int l = 0; l < config.num_layers(); ++l) {
    Layer& layer = model->layers_[l];
    layer.config = &model->config_.layers[l];
    const AttentionShape& shape = layer.config->attention.shape;
    widest_qkv = std::max(widest_qkv, shape.qkv_size());
    widest_q = std::max(widest_q, shape.q_size());
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
      widest_top_k = std::max<int64_t>(widest_top_k, moe.router.top_k);
      widest_mlp = std::max<int64_t>(widest_mlp, moe.shared_intermediate_size);
      gated_shared |= moe.shared_expert_gate;
    } else {
      ASSIGN_OR_RETURN(layer.dense, loader.LoadMlp(WeightName::kMlpGate, WeightName::kMlpUp, WeightName::kMlpDown,
                                                   layer.config->dense_intermediate_size, l));
      widest_mlp = std::max<int64_t>(widest_mlp, layer.config->dense_intermediate_size);
    }
  }
  ASSIGN_OR_RETURN(model->final_norm_, loader.Load(WeightName::kFinalNorm, WeightUse::kVector));
  ASSIGN_OR_RETURN(model->lm_head_, loader.Load(WeightName::kLmHead, WeightUse::kLinear));

  const int64_t tokens = limits.max_tokens, hidden = config.hidden_size;
  ASSIGN_OR_RETURN(model->x_, backend->AllocateMatrix(tokens, hidden));
  ASSIGN_OR_RETURN(model->h_, backend->AllocateMatrix(tokens, hidden));
  ASSIGN_OR_RETURN(model->qkv_, backend->AllocateMatrix(tokens, widest_qkv));
  ASSIGN_OR_RETURN(model->attended_, backend->AllocateMatrix(tokens, widest_q));
  ASSIGN_OR_RETURN(model->last_, backend->AllocateMatrix(limits.max_logit_rows, hidden));
  ASSIGN_OR_RETURN(model->logits_, backend->AllocateMatrix(limits.max_logit_rows, config.vocab_size));
  FeedForwardScratch& scratch = model->scratch_;
  if (widest_top_k > 0) {
    ASSIGN_OR_RETURN(scratch.expert_rows, backend->AllocateMatrix(tokens * widest_top_k, hidden));
  }
  if (widest_mlp > 0) {
    ASSIGN_OR_RETURN(scratch.gate_up, backend->AllocateMatrix(tokens, 2 * widest_mlp));
    ASSIGN_OR_RETURN(scratch.intermediate, backend->AllocateMatrix(tokens, widest_mlp));
  }
  if (gated_shared) {
    ASSIGN_OR_RETURN(scratch.shared_out, backend->AllocateMatrix(tokens, hidden));
  }
  RETURN_IF_ERROR(backend->PrepareScratch(limits.max_tokens));
  return model;
}

Matrix Transformer::Forward(std::span<const int32_t> ids, std::span<const AttentionSlice> slices,
                            std::span<const int32_t> logit_rows, KvCache* cache) {
  const int64_t num_tokens = static_cast<int64_t>(ids.size());
  const Matrix x = x_.Front(num_tokens, config_.hidden_size);
  backend_->Embed(ids, *embedding_, x);
  for (size_t l = 0; l < layers_.size(); ++l) {
    Attend(layers_[l], static_cast<int32_t>(l), slices, cache, x);
    FeedForward(layers_[l], x);
  }
  const int64_t num_logits = static_cast<int64_t>(logit_rows.size());
  const Matrix logits = logits_.Front(num_logits, config_.vocab_size);
  if (num_logits == 0) return logits;
  const Matrix last = last_.Front(num_logits, config_.hidden_size);
  backend_->SelectRows(x, logit_rows, last);
  backend_->RmsNorm(last, *final_norm_, config_.rms_norm_eps, last);
  backend_->Linear(last, *lm_head_, OutputMode::kAssign, logits);
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
