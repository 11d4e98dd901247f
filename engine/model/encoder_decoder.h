// An encoder that reads the prompt and a decoder that writes the answer: Switch Transformers (T5).
//
//   positions of a sequence:   0 ... P-1          P      P+1 ...
//                              the prompt         start  what was generated
//   run by:                    the encoder        the decoder
//   in the KV cache:           keys and values    the decoder's own keys and values
//                              of the encoder's
//                              output, per layer
//                              of the decoder
//
// The step that has a sequence's position 0 has all of its prompt: the encoder sees it as a whole and keeps nothing for
// itself. Every layer of the decoder turns its output into keys and values once, which later steps attend to.
#ifndef SWITCHYARD_ENGINE_MODEL_ENCODER_DECODER_H_
#define SWITCHYARD_ENGINE_MODEL_ENCODER_DECODER_H_

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/model/language_model.h"
#include "engine/model/stack_rows.h"
#include "engine/model/weight_loader.h"

namespace switchyard {

class EncoderDecoder final : public LanguageModel {
 public:
  // As the functions of language_model.h.
  static int64_t ActivationBytes(const ModelConfig& config, const ModelLimits& limits);
  static absl::Status CheckServed(const ModelConfig& config, const Backend& backend);
  static absl::StatusOr<std::unique_ptr<EncoderDecoder>> Load(const ModelConfig& config, const Weights& weights,
                                                              DType dtype, const ModelLimits& limits,
                                                              Backend* backend);

  // REQUIRES: a slice whose first_position is 0 has all of its num_encoder_tokens > 0; logit_rows are the decoder's.
  Matrix Forward(const StepInputs& step, KvCache* cache) override;
  const int32_t* sampled_tokens() const override { return sampled_tokens_; }
  std::span<const MoeLayer* const> moe_layers() const override { return moe_layers_; }
  std::span<const MoeLayer* const> decoder_moe_layers() const override {
    return std::span(moe_layers_).subspan(num_encoder_moe_layers_);
  }
  int32_t DecoderRow(int32_t row) const override { return rows_.decoder_row(row); }
  int64_t weight_bytes() const override { return weight_bytes_; }
  int64_t num_nonfinite_weights() const override { return num_nonfinite_weights_; }

 private:
  // Of a decoder layer: attention to the encoder's output.
  struct CrossAttention {
    NormWeights norm;
    std::unique_ptr<Weight> q;
    std::unique_ptr<Weight> kv;  // keys, then values
    std::unique_ptr<Weight> output;
  };
  struct Layer {
    AttentionShape shape;  // the config's, with its weights
    NormWeights input_norm;
    std::unique_ptr<Weight> qkv;
    std::unique_ptr<Weight> output;
    CrossAttention cross;  // empty in the encoder
    NormWeights feed_forward_norm;
    std::unique_ptr<MoeLayer> moe;  // or
    PlainMlp dense;
  };

  EncoderDecoder(const ModelConfig& config, Backend* backend) : config_(config), backend_(backend) {}

  absl::Status LoadLayer(int l, int32_t max_tokens, WeightLoader* loader);
  absl::Status LoadRelativeBias(int l, const Weights& weights, WeightLoader* loader, std::unique_ptr<Weight>* bias);
  absl::Status AllocateBuffers(const ModelLimits& limits, DType dtype);
  std::span<Layer> encoder() { return std::span(layers_).first(static_cast<size_t>(config_.num_encoder_layers)); }
  std::span<Layer> decoder() { return std::span(layers_).subspan(static_cast<size_t>(config_.num_encoder_layers)); }
  void Encode(Matrix x);
  void StoreEncoded(Matrix encoded, KvCache* cache);
  void Decode(Matrix x, KvCache* cache);
  void Attend(Layer& layer, int32_t cache_layer, KvCache* cache, Matrix x);
  void AttendToEncoder(Layer& layer, int32_t cache_layer, KvCache* cache, Matrix x);
  void FeedForward(Layer& layer, std::span<const RowGroup> groups, Matrix x);
  Matrix Logits(Matrix x, std::span<const RowSampling> sampling);

  const ModelConfig config_;
  Backend* const backend_;
  std::unique_ptr<Weight> embedding_;
  std::unique_ptr<Weight> encoder_bias_;  // relative positions
  std::unique_ptr<Weight> decoder_bias_;
  NormWeights encoder_norm_;
  NormWeights final_norm_;
  std::unique_ptr<Weight> lm_head_;
  std::vector<Layer> layers_;  // the encoder's, then the decoder's
  std::vector<const MoeLayer*> moe_layers_;
  size_t num_encoder_moe_layers_ = 0;
  int64_t weight_bytes_ = 0;
  int64_t num_nonfinite_weights_ = 0;
  int64_t num_valid_ids_ = 0;

  StackRows rows_;  // of the step in progress
  Matrix encoded_;   // [max_tokens, hidden] the encoder's residual stream and output
  Matrix x_;         // [max_tokens, hidden] the decoder's residual stream
  Matrix h_;         // [max_tokens, hidden] normalised input of a block
  Matrix qkv_;       // [max_tokens, qkv_size]
  Matrix attended_;  // [max_tokens, q_size]
  Matrix last_;      // [max_logit_rows, hidden]
  Matrix logits_;    // [max_logit_rows, vocab]
  FeedForwardScratch scratch_;
  const int32_t* sampled_tokens_ = nullptr;
};

}  // namespace switchyard

#endif  // SWITCHYARD_ENGINE_MODEL_ENCODER_DECODER_H_
