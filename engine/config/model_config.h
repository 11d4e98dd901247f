// What a checkpoint's config.json says, in the terms of the one decoder that serves every decoder-only family, and of
// the encoder that stands before it in some.
//
// The blocks are orthogonal: a family is a choice of blocks (see engine/model/README.md), never a branch in the
// forward pass. Field names follow Hugging Face configs.
#ifndef SWITCHYARD_ENGINE_CONFIG_MODEL_CONFIG_H_
#define SWITCHYARD_ENGINE_CONFIG_MODEL_CONFIG_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/backend/backend.h"
#include "engine/base/dtype.h"
#include "engine/moe/moe_config.h"

namespace switchyard {

// The projections of latent attention (DeepSeek-V2). Off where kv_lora_rank is 0.
struct MlaConfig {
  int32_t q_lora_rank = 0;  // 0: queries are not compressed
  int32_t kv_lora_rank = 0;
  int32_t qk_nope_head_dim = 0;
  int32_t qk_rope_head_dim = 0;
  int32_t v_head_dim = 0;
};

struct AttentionConfig {
  AttentionShape shape;      // heads, head size, masks, norms, RoPE: what the backend needs
  // Mixture of attention heads (JetMoE): experts that make queries and take what they attended to, chosen per token;
  // each has one head per KV head, so that shape.num_heads is num_kv_heads * top_k. Off where num_experts is 0.
  RouterConfig experts;
  MlaConfig mla;             // shape is then that of the absorbed form: one KV head, the latent
  bool bidirectional = false;        // of an encoder
  bool cross_attention = false;      // of a decoder: attends to the encoder's output, too, after itself
  int32_t relative_num_buckets = 0;  // of the table that shape.relative_bias is made of; 0: there is none
  bool owns_relative_bias = false;   // the table is stored here, and all layers of the stack use it
  bool qkv_bias = false;
  bool output_bias = false;

  // Columns of the output projection's input.
  int64_t output_in() const {
    return mla.kv_lora_rank > 0 ? int64_t{shape.num_heads} * mla.v_head_dim : shape.out_size();
  }
};

struct LayerConfig {
  AttentionConfig attention;
  bool is_moe = false;
  MoeConfig moe;                           // when is_moe
  int32_t dense_intermediate_size = 0;     // when not
  Activation dense_activation = Activation::kSilu;
  // Arctic: the MoE reads what the attention read, and a dense MLP of this width stands where it would. 0 = off.
  int32_t parallel_mlp_size = 0;
};

enum class NormKind : uint8_t { kRms, kLayer };

// How weights are stored beside F32, F16 and BF16. They are dequantised while they are read, but experts that the
// backend keeps as they are.
struct Quantization {
  bool fp8_blocks = false;  // F8_E4M3 with one scale per block (DeepSeek-V3)
  int32_t block_rows = 0;
  int32_t block_cols = 0;
  bool mxfp4 = false;       // experts in blocks of 32 four-bit numbers (gpt-oss)
};

struct ModelConfig {
  std::string model_type;
  int32_t vocab_size = 0;
  int32_t hidden_size = 0;
  int32_t max_position_embeddings = 0;
  float rms_norm_eps = 1e-6f;
  NormKind norm = NormKind::kRms;
  bool norm_bias = false;
  bool lm_head_bias = false;
  float embedding_multiplier = 1.0f;
  float logits_multiplier = 1.0f;
  bool tie_word_embeddings = false;
  DType dtype = DType::kF32;               // of the checkpoint
  std::vector<int32_t> eos_token_ids;      // generation_config.json overrides
  std::vector<LayerConfig> layers;
  // Encoder-decoders: so many of `layers`, the first ones, are the encoder's; the others are the decoder's, which
  // begins each answer with this token. 0: a decoder alone.
  int32_t num_encoder_layers = 0;
  int32_t decoder_start_token_id = -1;
  Quantization quantization;
  int32_t num_nextn_predict_layers = 0;    // stored after the last layer, for speculation; not loaded

  int32_t num_layers() const { return static_cast<int32_t>(layers.size()); }
  int32_t num_decoder_layers() const { return num_layers() - num_encoder_layers; }
};

// What a layer asks of a device; points into `layer`.
LayerBlocks BlocksOf(const ModelConfig& model, const LayerConfig& layer);

// Reads the text of a config.json. RoPE that depends on the length of sequences (longrope) is settled here, once for
// the engine's life, by `max_model_len` tokens per sequence (0: max_position_embeddings).
// INVALID_ARGUMENT: not JSON, or values that are missing, out of range or contradict each other. The message lists
// every problem at once as `config.json: vocab_size is 0; it must be an integer from 1 to 16777216`.
// UNIMPLEMENTED: a model_type or block that this engine does not serve, by name.
absl::StatusOr<ModelConfig> ParseModelConfig(const std::string& config_json, int32_t max_model_len = 0);
// The same for the config.json in a model folder. NOT_FOUND: no folder, or no such file in it.
absl::StatusOr<ModelConfig> ReadModelConfig(const std::string& model_dir, int32_t max_model_len = 0);

}  // namespace switchyard

#endif  // SWITCHYARD_ENGINE_CONFIG_MODEL_CONFIG_H_
