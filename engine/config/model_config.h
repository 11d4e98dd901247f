// What a checkpoint's config.json says, in the terms of the one decoder that serves every decoder-only family.
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

struct AttentionConfig {
  AttentionShape shape;      // heads, head size, masks, norms, RoPE: what the backend needs
  bool qkv_bias = false;
  bool output_bias = false;
};

struct LayerConfig {
  AttentionConfig attention;
  bool is_moe = false;
  MoeConfig moe;                           // when is_moe
  int32_t dense_intermediate_size = 0;     // when not
};

struct ModelConfig {
  std::string model_type;
  int32_t vocab_size = 0;
  int32_t hidden_size = 0;
  int32_t max_position_embeddings = 0;
  float rms_norm_eps = 1e-6f;
  bool tie_word_embeddings = false;
  DType dtype = DType::kF32;               // of the checkpoint
  std::vector<int32_t> eos_token_ids;      // generation_config.json overrides
  std::vector<LayerConfig> layers;

  int32_t num_layers() const { return static_cast<int32_t>(layers.size()); }
};

// Reads the text of a config.json.
// INVALID_ARGUMENT: not JSON, or values that are missing, out of range or contradict each other. The message lists
// every problem at once as `config.json: vocab_size is 0; it must be an integer from 1 to 16777216`.
// UNIMPLEMENTED: a model_type or block that this engine does not serve, by name.
absl::StatusOr<ModelConfig> ParseModelConfig(const std::string& config_json);
// The same for the config.json in a model folder. NOT_FOUND: no folder, or no such file in it.
absl::StatusOr<ModelConfig> ReadModelConfig(const std::string& model_dir);

}  // namespace switchyard

#endif  // SWITCHYARD_ENGINE_CONFIG_MODEL_CONFIG_H_
