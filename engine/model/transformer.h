// The one decoder that serves every decoder-only family: embed, layers of attention and feed-forward, norm, logits.
//
// Forward only calls the coarse operations of backend.h in order; which blocks a layer has was decided by the config
// when the weights were loaded. Buffers are sized once for the largest step; the KV cache, which scratch is sized by,
// has to be allocated before Load.
#ifndef SWITCHYARD_ENGINE_MODEL_TRANSFORMER_H_
#define SWITCHYARD_ENGINE_MODEL_TRANSFORMER_H_

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/backend/backend.h"
#include "engine/checkpoint/weights.h"
#include "engine/config/model_config.h"
#include "engine/model/language_model.h"
#include "engine/model/weight_loader.h"
#include "engine/moe/moe_layer.h"

namespace switchyard {

class Transformer final : public LanguageModel {
 public:
  // As the functions of language_model.h.
  static int64_t ActivationBytes(const ModelConfig& config, const ModelLimits& limits);
  static absl::Status CheckServed(const ModelConfig& config, const Backend& backend);
  static absl::StatusOr<std::unique_ptr<Transformer>> Load(const ModelConfig& config, const Weights& weights,
                                                           DType dtype, const ModelLimits& limits,
                                                           Backend* backend);

  Matrix Forward(const StepInputs& step, KvCache* cache) override;
  const int32_t* sampled_tokens() const override { return sampled_tokens_; }
  std::span<const MoeLayer* const> moe_layers() const override { return moe_layers_; }
  // What the router of the layer's attention experts decided; null where it has none.
  const Routing* attention_routing(int layer) const {
    const Layer& at = layers_[static_cast<size_t>(layer)];
    return at.experts.router == nullptr ? nullptr : &at.experts.routing;
  }
  int64_t weight_bytes() const override { return weight_bytes_; }
  int64_t num_nonfinite_weights() const override { return num_nonfinite_weights_; }

 private:
  // Latent attention: queries and latents in, values out, through the latent space.
  struct LatentWeights {
    std::unique_ptr<Weight> q_a;  // null where queries are not compressed
    std::unique_ptr<Weight> q_a_norm;
    std::unique_ptr<Weight> q;    // from x, or from the compressed queries
    std::unique_ptr<Weight> kv_a;
    std::unique_ptr<Weight> kv_a_norm;
    std::vector<std::unique_ptr<Weight>> absorb_q;  // per head [kv_lora_rank, qk_nope_head_dim]
    std::vector<std::unique_ptr<Weight>> expand_v;  // per head [v_head_dim, kv_lora_rank]
  };
  // Mixture of attention heads: the experts that make a token's queries take what these attended to.
  struct AttentionExperts {
    std::unique_ptr<Weight> router;
    std::unique_ptr<Weight> kv;
    std::vector<std::unique_ptr<Weight>> in;   // per expert [kv_size, hidden]
    std::vector<std::unique_ptr<Weight>> out;  // per expert [hidden, kv_size]
    std::unique_ptr<Weight> bias;              // on the experts' sum
    Routing routing;
    ExpertBatches batches;
  };
  struct Layer {
    const LayerConfig* config = nullptr;
    AttentionShape shape;  // the config's, with its weights
    NormWeights input_norm;
    std::unique_ptr<Weight> qkv;  // or
    LatentWeights latent;         // or
    AttentionExperts experts;
    std::unique_ptr<Weight> q_norm;  // null unless the config has qk norms
    std::unique_ptr<Weight> k_norm;
    std::unique_ptr<Weight> sinks;   // null unless the config has them
    std::unique_ptr<Weight> output;
    NormWeights post_attention_norm;
    std::unique_ptr<MoeLayer> moe;  // or
    GatedMlp dense;
    NormWeights parallel_norm;      // of the MLP beside the MoE; none where its weight is null
    GatedMlp parallel;
  };
  class Loader;

  Transformer(const ModelConfig& config, Backend* backend) : config_(config), backend_(backend) {}

  absl::Status AllocateBuffers(const ModelLimits& limits);
  void Normalize(Matrix in, const NormWeights& norm, Matrix out);
  void Attend(Layer& layer, int32_t index, std::span<const AttentionSlice> slices, KvCache* cache, Matrix x);
  void AttendLatent(Layer& layer, int32_t index, std::span<const AttentionSlice> slices, KvCache* cache, Matrix h,
                    Matrix x);
  void AttendMixture(Layer& layer, int32_t index, std::span<const AttentionSlice> slices, KvCache* cache, Matrix h,
                     Matrix x);
  void FeedForward(Layer& layer, Matrix x);

  const ModelConfig config_;
  Backend* const backend_;
  std::unique_ptr<Weight> embedding_;
  NormWeights final_norm_;
  std::unique_ptr<Weight> lm_head_;
  std::vector<Layer> layers_;
  std::vector<const MoeLayer*> moe_layers_;
  int64_t weight_bytes_ = 0;
  int64_t num_nonfinite_weights_ = 0;

  Matrix x_;         // [max_tokens, hidden] the residual stream
  Matrix h_;         // [max_tokens, hidden] normalised input of a block
  Matrix qkv_;       // [max_tokens, widest qkv]
  Matrix attended_;  // [max_tokens, widest q]
  Matrix beside_;    // [max_tokens, hidden] what a MoE reads that stands beside the attention
  // Latent attention, [max_tokens, ...]:
  Matrix compressed_q_;  // q_lora_rank
  Matrix q_;             // heads * (nope + rope dim)
  Matrix latent_;        // kv_lora_rank + rope dim
  Matrix values_;        // heads * v_head_dim
  // Mixture of attention heads:
  Matrix kv_;            // [max_tokens, 2 * kv_size]
  Matrix head_rows_;     // [max_tokens * top_k, kv_size]
  Matrix last_;      // [max_logit_rows, hidden]
  Matrix logits_;    // [max_logit_rows, vocab]
  FeedForwardScratch scratch_;
  const int32_t* sampled_tokens_ = nullptr;
  int64_t num_valid_ids_ = 0;
};

}  // namespace switchyard

#endif  // SWITCHYARD_ENGINE_MODEL_TRANSFORMER_H_
