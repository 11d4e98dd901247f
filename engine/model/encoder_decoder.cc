#include "engine/model/encoder_decoder.h"

#include <algorithm>
#include <utility>

#include "engine/base/status_macros.h"
#include "engine/model/relative_bias.h"

namespace switchyard {
namespace {

// Widest dense layer; there may be none.
int64_t MlpWidth(const ModelConfig& config) {
  int64_t width = 0;
  for (const LayerConfig& layer : config.layers) width = std::max<int64_t>(width, layer.dense_intermediate_size);
  return width;
}

}  // namespace

absl::Status EncoderDecoder::CheckServed(const ModelConfig& config, const Backend& backend) {
  for (const LayerConfig& layer : config.layers) RETURN_IF_ERROR(backend.CheckServed(BlocksOf(config, layer)));
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<EncoderDecoder>> EncoderDecoder::Load(const ModelConfig& config, const Weights& weights,
                                                                     DType dtype, const ModelLimits& limits,
                                                                     Backend* backend) {
  std::unique_ptr<EncoderDecoder> model(new EncoderDecoder(config, backend));
  WeightLoader loader(config, weights, dtype, backend);
  ASSIGN_OR_RETURN(model->embedding_, loader.Load(WeightName::kEmbedding, WeightUse::kEmbedding));
  RETURN_IF_ERROR(model->LoadRelativeBias(0, weights, &loader, &model->encoder_bias_));
  RETURN_IF_ERROR(model->LoadRelativeBias(config.num_encoder_layers, weights, &loader, &model->decoder_bias_));
  model->layers_.resize(config.layers.size());
  for (int l = 0; l < config.num_layers(); ++l) RETURN_IF_ERROR(model->LoadLayer(l, limits.max_tokens, &loader));
  ASSIGN_OR_RETURN(model->encoder_norm_.weight, loader.Load(WeightName::kEncoderFinalNorm, WeightUse::kVector));
  ASSIGN_OR_RETURN(model->final_norm_.weight, loader.Load(WeightName::kFinalNorm, WeightUse::kVector));
  ASSIGN_OR_RETURN(model->lm_head_, loader.LoadHead());
  model->weight_bytes_ = loader.bytes();
  model->num_nonfinite_weights_ = loader.num_nonfinite();
  if (config.tie_word_embeddings) model->num_nonfinite_weights_ -= model->lm_head_->num_nonfinite();  // read twice
  RETURN_IF_ERROR(model->AllocateBuffers(limits, dtype));
  return model;
}

absl::Status EncoderDecoder::LoadRelativeBias(int l, const Weights& weights, WeightLoader* loader,
                                              std::unique_ptr<Weight>* bias) {
  const AttentionConfig& attention = config_.layers[static_cast<size_t>(l)].attention;
  const RelativeBiasReader by_distance(*weights.Find(WeightName::kRelativeBias, l), attention.bidirectional,
                                       attention.shape.relative_max_distance);
  ASSIGN_OR_RETURN(*bias, loader->Stack({&by_distance}, {}, WeightUse::kVector));
  return absl::OkStatus();
}

absl::Status EncoderDecoder::LoadLayer(int l, int32_t max_tokens, WeightLoader* loader) {
  const LayerConfig& config = config_.layers[static_cast<size_t>(l)];
  Layer& layer = layers_[static_cast<size_t>(l)];
  layer.shape = config.attention.shape;
  layer.shape.relative_bias = config.attention.bidirectional ? encoder_bias_.get() : decoder_bias_.get();
  ASSIGN_OR_RETURN(layer.input_norm.weight, loader->Load(WeightName::kInputNorm, WeightUse::kVector, l));
  ASSIGN_OR_RETURN(layer.qkv, loader->LoadQkv(l));
  ASSIGN_OR_RETURN(layer.output, loader->LoadOutput(l));
  if (config.attention.cross_attention) {
    CrossAttention& cross = layer.cross;
    ASSIGN_OR_RETURN(cross.norm.weight, loader->Load(WeightName::kCrossNorm, WeightUse::kVector, l));
    ASSIGN_OR_RETURN(cross.q, loader->Load(WeightName::kCrossQ, WeightUse::kLinear, l));
    ASSIGN_OR_RETURN(cross.kv, loader->LoadStacked(WeightName::kCrossK, WeightName::kCrossV, l));
    ASSIGN_OR_RETURN(cross.output, loader->Load(WeightName::kCrossO, WeightUse::kLinear, l));
  }
  ASSIGN_OR_RETURN(layer.feed_forward_norm.weight, loader->Load(WeightName::kPostAttentionNorm, WeightUse::kVector, l));
  if (!config.is_moe) {
    ASSIGN_OR_RETURN(layer.dense, loader->LoadPlainMlp(l));
    return absl::OkStatus();
  }
  ASSIGN_OR_RETURN(layer.moe, loader->LoadMoeLayer(l, max_tokens));
  moe_layers_.push_back(layer.moe.get());
  if (config.attention.bidirectional) ++num_encoder_moe_layers_;
  return absl::OkStatus();
}

int64_t EncoderDecoder::ActivationBytes(const ModelConfig& config, const ModelLimits& limits) {
  const AttentionShape& shape = config.layers.front().attention.shape;
  const int64_t hidden = config.hidden_size;
  const int64_t per_token = 4 * hidden + shape.qkv_size() + shape.q_size() + MlpWidth(config);
  // Keys and values of one layer of the encoder; each slice fills a group of 16 only in part.
  const int64_t encoder_kv = (int64_t{limits.max_tokens} + int64_t{16} * limits.max_logit_rows) * 2 * shape.kv_size();
  return 4 * (limits.max_tokens * per_token + encoder_kv + limits.max_logit_rows * (hidden + config.vocab_size));
}

absl::Status EncoderDecoder::AllocateBuffers(const ModelLimits& limits, DType dtype) {
  const AttentionShape& shape = config_.layers.front().attention.shape;
  const int64_t tokens = limits.max_tokens, hidden = config_.hidden_size;
  for (const auto& [matrix, width] : {std::pair{&encoded_, hidden}, {&x_, hidden}, {&h_, hidden},
                                      {&qkv_, shape.qkv_size()}, {&attended_, shape.q_size()},
                                      {&scratch_.expert_rows, hidden}, {&scratch_.intermediate, MlpWidth(config_)}}) {
    if (width == 0) continue;
    ASSIGN_OR_RETURN(*matrix, backend_->AllocateMatrix(tokens, width));
  }
  ASSIGN_OR_RETURN(last_, backend_->AllocateMatrix(limits.max_logit_rows, hidden));
  ASSIGN_OR_RETURN(logits_, backend_->AllocateMatrix(limits.max_logit_rows, config_.vocab_size));
  ASSIGN_OR_RETURN(sampled_tokens_, backend_->AllocateSampledTokens(limits.max_logit_rows));
  num_valid_ids_ = config_.vocab_size;
  if (limits.num_valid_ids > 0) num_valid_ids_ = std::min<int64_t>(num_valid_ids_, limits.num_valid_ids);
  rows_.Reserve(limits.max_tokens, limits.max_logit_rows);
  RETURN_IF_ERROR(backend_->PrepareBidirectional(shape, limits.max_tokens, limits.max_logit_rows, dtype));
  return backend_->PrepareScratch(limits.max_tokens);
}

Matrix EncoderDecoder::Forward(const StepInputs& step, KvCache* cache) {
  rows_.Split(step.ids, step.slices, step.logit_rows);
  for (Layer& layer : layers_) {
    if (layer.moe != nullptr) layer.moe->Skip();  // unless its stack has rows
  }
  if (rows_.encoder().num_rows() > 0) {
    const Matrix encoded = encoded_.Front(rows_.encoder().num_rows(), config_.hidden_size);
    Encode(encoded);
    StoreEncoded(encoded, cache);
  }
  const Matrix x = x_.Front(rows_.decoder().num_rows(), config_.hidden_size);
  if (x.rows > 0) Decode(x, cache);
  return Logits(x, step.sampling);
}

void EncoderDecoder::Encode(Matrix x) {
  const RowsOfStack& rows = rows_.encoder();
  const Matrix h = h_.Front(x.rows, x.cols);
  backend_->Embed(rows.ids, *embedding_, x);
  for (Layer& layer : encoder()) {
    const Matrix qkv = qkv_.Front(x.rows, layer.shape.qkv_size());
    const Matrix attended = attended_.Front(x.rows, layer.shape.q_size());
    backend_->RmsNorm(x, *layer.input_norm.weight, config_.rms_norm_eps, h);
    backend_->Linear(h, *layer.qkv, OutputMode::kAssign, qkv);
    backend_->BidirectionalAttention(layer.shape, rows.slices, qkv, attended);
    backend_->Linear(attended, *layer.output, OutputMode::kAdd, x);
    FeedForward(layer, rows.groups, x);
  }
  backend_->RmsNorm(x, *encoder_norm_.weight, config_.rms_norm_eps, x);
}

void EncoderDecoder::StoreEncoded(Matrix encoded, KvCache* cache) {
  int32_t cache_layer = 0;
  for (Layer& layer : decoder()) {
    const Matrix kv = qkv_.Front(encoded.rows, 2 * layer.shape.kv_size());
    backend_->Linear(encoded, *layer.cross.kv, OutputMode::kAssign, kv);
    backend_->StoreEncoderKv(layer.shape, rows_.encoder().slices, cache_layer++, *cache, kv);
  }
}

void EncoderDecoder::Decode(Matrix x, KvCache* cache) {
  backend_->Embed(rows_.decoder().ids, *embedding_, x);
  int32_t cache_layer = 0;
  for (Layer& layer : decoder()) {
    Attend(layer, cache_layer, cache, x);
    AttendToEncoder(layer, cache_layer++, cache, x);
    FeedForward(layer, rows_.decoder().groups, x);
  }
}

void EncoderDecoder::Attend(Layer& layer, int32_t cache_layer, KvCache* cache, Matrix x) {
  const std::span<const AttentionSlice> slices = rows_.decoder().slices;
  const Matrix h = h_.Front(x.rows, x.cols);
  const Matrix qkv = qkv_.Front(x.rows, layer.shape.qkv_size());
  const Matrix attended = attended_.Front(x.rows, layer.shape.q_size());
  backend_->RmsNorm(x, *layer.input_norm.weight, config_.rms_norm_eps, h);
  backend_->Linear(h, *layer.qkv, OutputMode::kAssign, qkv);
  backend_->PrepareQkv(layer.shape, slices, nullptr, nullptr, cache_layer, *cache, qkv);
  backend_->Attention(layer.shape, slices, cache_layer, *cache, qkv, attended);
  backend_->Linear(attended, *layer.output, OutputMode::kAdd, x);
}

void EncoderDecoder::AttendToEncoder(Layer& layer, int32_t cache_layer, KvCache* cache, Matrix x) {
  AttentionShape shape = layer.shape;
  shape.relative_bias = nullptr;  // what was read has no place relative to what is written
  const Matrix h = h_.Front(x.rows, x.cols);
  const Matrix q = qkv_.Front(x.rows, shape.q_size());
  const Matrix attended = attended_.Front(x.rows, shape.q_size());
  backend_->RmsNorm(x, *layer.cross.norm.weight, config_.rms_norm_eps, h);
  backend_->Linear(h, *layer.cross.q, OutputMode::kAssign, q);
  backend_->CrossAttention(shape, rows_.decoder().slices, cache_layer, *cache, q, attended);
  backend_->Linear(attended, *layer.cross.output, OutputMode::kAdd, x);
}

void EncoderDecoder::FeedForward(Layer& layer, std::span<const RowGroup> groups, Matrix x) {
  const Matrix h = h_.Front(x.rows, x.cols);
  backend_->RmsNorm(x, *layer.feed_forward_norm.weight, config_.rms_norm_eps, h);
  if (layer.moe != nullptr) {
    layer.moe->Forward(h, scratch_, x, groups);
  } else {
    layer.dense.Forward(backend_, h, scratch_, OutputMode::kAdd, x);
  }
}

Matrix EncoderDecoder::Logits(Matrix x, std::span<const RowSampling> sampling) {
  const int64_t num_logits = static_cast<int64_t>(rows_.logit_rows().size());
  const Matrix logits = logits_.Front(num_logits, config_.vocab_size);
  if (num_logits == 0) return logits;
  const Matrix last = last_.Front(num_logits, config_.hidden_size);
  backend_->SelectRows(x, rows_.logit_rows(), last);
  backend_->RmsNorm(last, *final_norm_.weight, config_.rms_norm_eps, last);
  if (config_.logits_multiplier != 1.0f) backend_->Scale(config_.logits_multiplier, last);
  backend_->Linear(last, *lm_head_, OutputMode::kAssign, logits);
  if (sampled_tokens_ != nullptr) backend_->SampleTokens(logits, num_valid_ids_, sampling);
  return logits;
}

}  // namespace switchyard
