#include "engine/model/transformer.h"

#include <algorithm>
#include <utility>

#include "engine/base/status_macros.h"
#include "engine/model/weight_loader.h"

namespace switchyard {
namespace {

// Columns of the activation buffers, each as wide as the widest layer needs.
struct Widths {
  int64_t qkv = 0;
  int64_t attended = 0;
  int64_t mlp = 0;     // dense layers and shared experts
  int64_t top_k = 0;   // rows per token of the experts' output
  int64_t beside = 0;
  int64_t compressed_q = 0;
  int64_t latent_q = 0;
  int64_t latent = 0;
  int64_t values = 0;
  int64_t kv = 0;         // of attention experts
  int64_t head_rows = 0;  // likewise, for all ranks of a token
  bool gated_shared = false;

  int64_t sum() const {
    return qkv + attended + 3 * mlp + beside + compressed_q + latent_q + latent + values + kv + head_rows;
  }
};

Widths WidthsOf(const ModelConfig& config) {
  Widths widths;
  const auto widen = [](int64_t& width, int64_t needed) { width = std::max(width, needed); };
  for (const LayerConfig& layer : config.layers) {
    const AttentionShape& shape = layer.attention.shape;
    widen(widths.qkv, shape.qkv_size());
    widen(widths.attended, shape.out_size());
    widen(widths.mlp, layer.is_moe ? layer.moe.shared_intermediate_size : layer.dense_intermediate_size);
    widen(widths.mlp, layer.parallel_mlp_size);
    if (layer.parallel_mlp_size > 0) widths.beside = config.hidden_size;
    if (shape.latent_dim > 0) {
      const MlaConfig& mla = layer.attention.mla;
      widen(widths.compressed_q, mla.q_lora_rank);
      widen(widths.latent_q, int64_t{shape.num_heads} * (mla.qk_nope_head_dim + mla.qk_rope_head_dim));
      widen(widths.latent, shape.head_dim);
      widen(widths.values, layer.attention.output_in());
    }
    if (layer.attention.experts.num_experts > 0) {
      widen(widths.kv, 2 * shape.kv_size());
      widen(widths.head_rows, shape.q_size());
      widen(widths.top_k, layer.attention.experts.top_k);
    }
    if (!layer.is_moe) continue;
    widen(widths.top_k, layer.moe.router.top_k);
    widths.gated_shared |= layer.moe.shared_expert_gate;
  }
  return widths;
}

// Rows [first, first + rows) of a matrix, or their transpose. For small matrices: a transpose reads them as often as
// it is asked for rows.
class PartReader final : public TensorReader {
 public:
  PartReader(const TensorReader& whole, int64_t first, int64_t count, bool transposed)
      : whole_(whole), first_(first), count_(count), transposed_(transposed) {}

  int64_t rows() const override { return transposed_ ? whole_.cols() : count_; }
  int64_t cols() const override { return transposed_ ? count_ : whole_.cols(); }

  absl::Status ReadRows(int64_t first, int64_t count, DType as, void* out) const override {
    if (!transposed_) return whole_.ReadRows(first_ + first, count, as, out);
    std::vector<char> part(static_cast<size_t>(count_ * whole_.cols() * DTypeBytes(as)));
    RETURN_IF_ERROR(whole_.ReadRows(first_, count_, as, part.data()));
    if (as == DType::kF32) {
      Transpose(reinterpret_cast<const float*>(part.data()), first, count, static_cast<float*>(out));
    } else {
      Transpose(reinterpret_cast<const uint16_t*>(part.data()), first, count, static_cast<uint16_t*>(out));
    }
    return absl::OkStatus();
  }

 private:
  template <typename T>
  void Transpose(const T* part, int64_t first, int64_t count, T* out) const {
    for (int64_t r = 0; r < count; ++r) {
      for (int64_t c = 0; c < count_; ++c) out[r * count_ + c] = part[c * whole_.cols() + first + r];
    }
  }

  const TensorReader& whole_;
  const int64_t first_;
  const int64_t count_;
  const bool transposed_;
};

}  // namespace

absl::Status Transformer::CheckServed(const ModelConfig& config, const Backend& backend) {
  for (const LayerConfig& layer : config.layers) {
    RETURN_IF_ERROR(backend.CheckServed(BlocksOf(config, layer)));
  }
  return absl::OkStatus();
}

// Adds to the shared loader what only a decoder alone has: its kinds of attention.
class Transformer::Loader : public WeightLoader {
 public:
  using WeightLoader::WeightLoader;

  // Everything between the two norms of a layer.
  absl::Status LoadAttention(int l, int32_t max_tokens, Layer* layer) {
    const AttentionConfig& attention = layer->config->attention;
    const QkNorm norm = attention.shape.qk_norm;
    layer->shape = attention.shape;
    if (attention.experts.num_experts > 0) return LoadAttentionExperts(attention, l, max_tokens, &layer->experts);
    if (attention.shape.latent_dim > 0) {
      ASSIGN_OR_RETURN(layer->latent, LoadLatent(attention, l));
    } else {
      ASSIGN_OR_RETURN(layer->qkv, LoadQkv(l));
    }
    if (norm == QkNorm::kFull || norm == QkNorm::kHead) {
      ASSIGN_OR_RETURN(layer->q_norm, Load(WeightName::kQNorm, WeightUse::kVector, l));
      ASSIGN_OR_RETURN(layer->k_norm, Load(WeightName::kKNorm, WeightUse::kVector, l));
    }
    if (attention.shape.has_sinks) {
      ASSIGN_OR_RETURN(layer->sinks, Load(WeightName::kSinks, WeightUse::kVector, l));
      layer->shape.sinks = layer->sinks.get();
    }
    ASSIGN_OR_RETURN(layer->output, LoadOutput(l));
    return absl::OkStatus();
  }

  absl::Status LoadFeedForward(int l, int32_t max_tokens, Layer* layer) {
    const LayerConfig& config = *layer->config;
    if (config.parallel_mlp_size > 0) {
      ASSIGN_OR_RETURN(layer->parallel_norm.weight, Load(WeightName::kParallelNorm, WeightUse::kVector, l));
      ASSIGN_OR_RETURN(layer->parallel, LoadMlp(WeightName::kParallelGate, WeightName::kParallelUp,
                                                WeightName::kParallelDown, config.parallel_mlp_size, l));
    }
    if (config.is_moe) {
      ASSIGN_OR_RETURN(layer->moe, LoadMoeLayer(l, max_tokens));
      return absl::OkStatus();
    }
    ASSIGN_OR_RETURN(layer->dense, LoadMlp(WeightName::kMlpGate, WeightName::kMlpUp, WeightName::kMlpDown,
                                           config.dense_intermediate_size, l));
    return absl::OkStatus();
  }

 private:
  absl::Status LoadAttentionExperts(const AttentionConfig& attention, int layer, int32_t max_tokens,
                                    AttentionExperts* experts) {
    ASSIGN_OR_RETURN(experts->router, Load(WeightName::kAttentionRouter, WeightUse::kRouter, layer));
    ASSIGN_OR_RETURN(experts->kv, LoadStacked(WeightName::kK, WeightName::kV, layer));
    ASSIGN_OR_RETURN(experts->bias, Load(WeightName::kAttentionBias, WeightUse::kVector, layer));
    for (int e = 0; e < attention.experts.num_experts; ++e) {
      const TensorReader* const in = weights().Find(WeightName::kAttentionIn, layer, e);
      const TensorReader* const out = weights().Find(WeightName::kAttentionOut, layer, e);
      ASSIGN_OR_RETURN(experts->in.emplace_back(), Stack({in}, {}, WeightUse::kLinear));
      ASSIGN_OR_RETURN(experts->out.emplace_back(), Stack({out}, {}, WeightUse::kLinear));
    }
    ASSIGN_OR_RETURN(experts->routing, backend()->AllocateRouting(max_tokens, attention.experts));
    ASSIGN_OR_RETURN(experts->batches, backend()->AllocateExpertBatches(max_tokens, attention.experts));
    return absl::OkStatus();
  }

  absl::StatusOr<LatentWeights> LoadLatent(const AttentionConfig& attention, int layer) {
    LatentWeights latent;
    if (attention.mla.q_lora_rank > 0) {
      ASSIGN_OR_RETURN(latent.q_a, LoadBiased(WeightName::kQA, WeightName::kQABias, attention.qkv_bias, layer));
      ASSIGN_OR_RETURN(latent.q_a_norm, Load(WeightName::kQANorm, WeightUse::kVector, layer));
      ASSIGN_OR_RETURN(latent.q, Load(WeightName::kQB, WeightUse::kLinear, layer));
    } else {
      ASSIGN_OR_RETURN(latent.q, Load(WeightName::kQ, WeightUse::kLinear, layer));
    }
    ASSIGN_OR_RETURN(latent.kv_a, LoadBiased(WeightName::kKvA, WeightName::kKvABias, attention.qkv_bias, layer));
    ASSIGN_OR_RETURN(latent.kv_a_norm, Load(WeightName::kKvANorm, WeightUse::kVector, layer));
    // Per head: rows that make keys, then rows that make values.
    const TensorReader* const kv_b = Find(WeightName::kKvB, layer);
    const int64_t keys = attention.mla.qk_nope_head_dim, values = attention.mla.v_head_dim;
    for (int32_t n = 0; n < attention.shape.num_heads; ++n) {
      const PartReader to_latent(*kv_b, n * (keys + values), keys, /*transposed=*/true);
      const PartReader to_values(*kv_b, n * (keys + values) + keys, values, /*transposed=*/false);
      ASSIGN_OR_RETURN(latent.absorb_q.emplace_back(), Stack({&to_latent}, {}, WeightUse::kLinear));
      ASSIGN_OR_RETURN(latent.expand_v.emplace_back(), Stack({&to_values}, {}, WeightUse::kLinear));
    }
    return latent;
  }
};

absl::StatusOr<std::unique_ptr<Transformer>> Transformer::Load(const ModelConfig& config, const Weights& weights,
                                                               DType dtype, const ModelLimits& limits,
                                                               Backend* backend) {
  std::unique_ptr<Transformer> model(new Transformer(config, backend));
  Loader loader(config, weights, dtype, backend);

  ASSIGN_OR_RETURN(model->embedding_, loader.Load(WeightName::kEmbedding, WeightUse::kEmbedding));
  model->layers_.resize(config.layers.size());
  for (int l = 0; l < config.num_layers(); ++l) {
    Layer& layer = model->layers_[l];
    layer.config = &model->config_.layers[l];
    ASSIGN_OR_RETURN(layer.input_norm, loader.LoadNorm(WeightName::kInputNorm, WeightName::kInputNormBias, l));
    RETURN_IF_ERROR(loader.LoadAttention(l, limits.max_tokens, &layer));
    ASSIGN_OR_RETURN(layer.post_attention_norm,
                     loader.LoadNorm(WeightName::kPostAttentionNorm, WeightName::kPostAttentionNormBias, l));
    RETURN_IF_ERROR(loader.LoadFeedForward(l, limits.max_tokens, &layer));
    if (layer.moe != nullptr) model->moe_layers_.push_back(layer.moe.get());
  }
  ASSIGN_OR_RETURN(model->final_norm_, loader.LoadNorm(WeightName::kFinalNorm, WeightName::kFinalNormBias));
  ASSIGN_OR_RETURN(model->lm_head_, loader.LoadHead());

  model->weight_bytes_ = loader.bytes();
  model->num_nonfinite_weights_ = loader.num_nonfinite();
  if (config.tie_word_embeddings) model->num_nonfinite_weights_ -= model->lm_head_->num_nonfinite();  // read twice
  RETURN_IF_ERROR(model->AllocateBuffers(limits));
  return model;
}

int64_t Transformer::ActivationBytes(const ModelConfig& config, const ModelLimits& limits) {
  const Widths widths = WidthsOf(config);
  const int64_t hidden = config.hidden_size;
  const int64_t per_token = (2 + widths.top_k + (widths.gated_shared ? 1 : 0)) * hidden + widths.sum();
  return 4 * (limits.max_tokens * per_token + limits.max_logit_rows * (hidden + config.vocab_size));
}

absl::Status Transformer::AllocateBuffers(const ModelLimits& limits) {
  const Widths widths = WidthsOf(config_);
  const int64_t tokens = limits.max_tokens, hidden = config_.hidden_size;
  ASSIGN_OR_RETURN(x_, backend_->AllocateMatrix(tokens, hidden));
  ASSIGN_OR_RETURN(h_, backend_->AllocateMatrix(tokens, hidden));
  ASSIGN_OR_RETURN(qkv_, backend_->AllocateMatrix(tokens, widths.qkv));
  ASSIGN_OR_RETURN(attended_, backend_->AllocateMatrix(tokens, widths.attended));
  for (const auto& [matrix, width] : {std::pair{&beside_, widths.beside}, {&compressed_q_, widths.compressed_q},
                                      {&q_, widths.latent_q}, {&latent_, widths.latent}, {&values_, widths.values},
                                      {&kv_, widths.kv}}) {
    if (width == 0) continue;
    ASSIGN_OR_RETURN(*matrix, backend_->AllocateMatrix(tokens, width));
  }
  ASSIGN_OR_RETURN(last_, backend_->AllocateMatrix(limits.max_logit_rows, hidden));
  ASSIGN_OR_RETURN(logits_, backend_->AllocateMatrix(limits.max_logit_rows, config_.vocab_size));
  ASSIGN_OR_RETURN(sampled_tokens_, backend_->AllocateSampledTokens(limits.max_logit_rows));
  num_valid_ids_ = config_.vocab_size;
  if (limits.num_valid_ids > 0) num_valid_ids_ = std::min<int64_t>(num_valid_ids_, limits.num_valid_ids);
  if (widths.head_rows > 0) {
    ASSIGN_OR_RETURN(head_rows_, backend_->AllocateMatrix(tokens, widths.head_rows));
  }
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

Matrix Transformer::Forward(const StepInputs& step, KvCache* cache) {
  const int64_t num_tokens = static_cast<int64_t>(step.ids.size());
  const int64_t num_logits = static_cast<int64_t>(step.logit_rows.size());
  const Matrix logits = logits_.Front(num_logits, config_.vocab_size);
  if (backend_->BeginStep(step, *cache)) return logits;
  const Matrix x = x_.Front(num_tokens, config_.hidden_size);
  backend_->Embed(step.ids, *embedding_, x);
  if (config_.embedding_multiplier != 1.0f) backend_->Scale(config_.embedding_multiplier, x);
  for (size_t l = 0; l < layers_.size(); ++l) {
    Layer& layer = layers_[l];
    if (layer.config->parallel_mlp_size > 0) Normalize(x, layer.post_attention_norm, beside_.Front(x.rows, x.cols));
    Attend(layer, static_cast<int32_t>(l), step.slices, cache, x);
    FeedForward(layer, x);
  }
  if (num_logits > 0) {
    const Matrix last = last_.Front(num_logits, config_.hidden_size);
    backend_->SelectRows(x, step.logit_rows, last);
    Normalize(last, final_norm_, last);
    if (config_.logits_multiplier != 1.0f) backend_->Scale(config_.logits_multiplier, last);
    backend_->Linear(last, *lm_head_, OutputMode::kAssign, logits);
    if (sampled_tokens_ != nullptr) backend_->SampleTokens(logits, num_valid_ids_, step.sampling);
  }
  backend_->EndStep();
  return logits;
}

void Transformer::Normalize(Matrix in, const NormWeights& norm, Matrix out) {
  if (config_.norm == NormKind::kLayer) {
    backend_->LayerNorm(in, *norm.weight, norm.bias.get(), config_.rms_norm_eps, out);
  } else {
    backend_->RmsNorm(in, *norm.weight, config_.rms_norm_eps, out);
  }
}

void Transformer::Attend(Layer& layer, int32_t index, std::span<const AttentionSlice> slices, KvCache* cache,
                         Matrix x) {
  const AttentionShape& shape = layer.shape;
  const Matrix h = h_.Front(x.rows, x.cols);
  Normalize(x, layer.input_norm, h);
  if (shape.latent_dim > 0) return AttendLatent(layer, index, slices, cache, h, x);
  if (layer.experts.router != nullptr) return AttendMixture(layer, index, slices, cache, h, x);
  const Matrix qkv = qkv_.Front(x.rows, shape.qkv_size());
  const Matrix attended = attended_.Front(x.rows, shape.out_size());
  backend_->Linear(h, *layer.qkv, OutputMode::kAssign, qkv);
  backend_->PrepareQkv(shape, slices, layer.q_norm.get(), layer.k_norm.get(), index, *cache, qkv);
  backend_->Attention(shape, slices, index, *cache, qkv, attended);
  backend_->Linear(attended, *layer.output, OutputMode::kAdd, x);
}

// The absorbed form for prefill and decode alike, so that a row's bits are the same in both.
void Transformer::AttendLatent(Layer& layer, int32_t index, std::span<const AttentionSlice> slices, KvCache* cache,
                               Matrix h, Matrix x) {
  const AttentionShape& shape = layer.shape;
  const MlaConfig& mla = layer.config->attention.mla;
  const LatentWeights& weights = layer.latent;
  const Matrix q = q_.Front(x.rows, int64_t{shape.num_heads} * (mla.qk_nope_head_dim + mla.qk_rope_head_dim));
  const Matrix latent = latent_.Front(x.rows, shape.head_dim);
  const Matrix queries = qkv_.Front(x.rows, shape.q_size());
  const Matrix attended = attended_.Front(x.rows, shape.out_size());
  const Matrix values = values_.Front(x.rows, layer.config->attention.output_in());
  if (weights.q_a != nullptr) {
    const Matrix compressed = compressed_q_.Front(x.rows, mla.q_lora_rank);
    backend_->Linear(h, *weights.q_a, OutputMode::kAssign, compressed);
    backend_->RmsNorm(compressed, *weights.q_a_norm, shape.qk_norm_eps, compressed);
    backend_->Linear(compressed, *weights.q, OutputMode::kAssign, q);
  } else {
    backend_->Linear(h, *weights.q, OutputMode::kAssign, q);
  }
  backend_->Linear(h, *weights.kv_a, OutputMode::kAssign, latent);
  backend_->LinearPerHead(q, weights.absorb_q, queries);
  backend_->PrepareLatent(shape, slices, *weights.kv_a_norm, index, *cache, q, latent, queries);
  backend_->Attention(shape, slices, index, *cache, queries, attended);
  backend_->LinearPerHead(attended, weights.expand_v, values);
  backend_->Linear(values, *layer.output, OutputMode::kAdd, x);
}

void Transformer::AttendMixture(Layer& layer, int32_t index, std::span<const AttentionSlice> slices, KvCache* cache,
                                Matrix h, Matrix x) {
  const AttentionShape& shape = layer.shape;
  AttentionExperts& experts = layer.experts;
  const RouterConfig& router = layer.config->attention.experts;
  const Matrix kv = kv_.Front(x.rows, 2 * shape.kv_size());
  const Matrix head_rows = head_rows_.Front(x.rows * router.top_k, shape.kv_size());
  const Matrix qkv = qkv_.Front(x.rows, shape.qkv_size());
  const Matrix attended = attended_.Front(x.rows, shape.out_size());
  const Matrix rows = scratch_.expert_rows.Front(x.rows * router.top_k, x.cols);
  backend_->Route(h, *experts.router, router, &experts.routing);
  backend_->GroupByExpert(experts.routing, &experts.batches);
  backend_->LinearPerExpert(h, /*in_is_grouped=*/false, experts.in, experts.batches, head_rows);
  backend_->Linear(h, *experts.kv, OutputMode::kAssign, kv);
  backend_->SpreadHeads(shape, head_rows, experts.batches, kv, qkv);
  backend_->PrepareQkv(shape, slices, nullptr, nullptr, index, *cache, qkv);
  backend_->Attention(shape, slices, index, *cache, qkv, attended);
  backend_->CollectHeads(shape, attended, experts.batches, head_rows);
  backend_->LinearPerExpert(head_rows, /*in_is_grouped=*/true, experts.out, experts.batches, rows);
  backend_->Combine(rows, experts.routing, experts.batches, x);
  backend_->AddBias(*experts.bias, x);
}

void Transformer::FeedForward(Layer& layer, Matrix x) {
  const Matrix h = h_.Front(x.rows, x.cols);
  if (layer.config->parallel_mlp_size > 0) {
    Normalize(x, layer.parallel_norm, h);
    layer.parallel.Forward(backend_, h, scratch_, OutputMode::kAdd, x);
    layer.moe->Forward(beside_.Front(x.rows, x.cols), scratch_, x);
    return;
  }
  Normalize(x, layer.post_attention_norm, h);
  if (layer.moe != nullptr) {
    layer.moe->Forward(h, scratch_, x);
  } else {
    layer.dense.Forward(backend_, h, scratch_, OutputMode::kAdd, x);
  }
}

}  // namespace switchyard
