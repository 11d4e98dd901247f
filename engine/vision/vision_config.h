// What the config.json of a V-MoE (vision mixture of experts) says, in our own layout (README.md lists the keys).
#ifndef SWITCHYARD_ENGINE_VISION_VISION_CONFIG_H_
#define SWITCHYARD_ENGINE_VISION_VISION_CONFIG_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/backend/backend.h"
#include "engine/base/dtype.h"
#include "engine/moe/moe_config.h"

namespace switchyard {

struct VisionConfig {
  int32_t image_size = 0;              // pixels of a side; images are square
  int32_t patch_size = 0;              // likewise; divides image_size
  int32_t num_classes = 0;
  int32_t hidden_size = 0;
  int32_t num_hidden_layers = 0;
  int32_t num_attention_heads = 0;     // divides hidden_size
  int32_t intermediate_size = 0;       // of dense layers and of each expert
  int32_t representation_size = 0;     // of tanh(Dense) before the head; 0 = none
  float layer_norm_eps = 1e-6f;
  std::vector<int32_t> moe_layers;     // ascending; the other layers are dense
  RouterConfig router;                 // of each of them; its capacity is per image
  DType dtype = DType::kF32;           // of the checkpoint

  int32_t num_patches() const { return (image_size / patch_size) * (image_size / patch_size); }
  int32_t tokens_per_image() const { return num_patches() + 1; }  // and the class token, which is the first
  int32_t patch_pixels() const { return patch_size * patch_size * kNumChannels; }
  int32_t head_dim() const { return hidden_size / num_attention_heads; }
  int64_t image_values() const { return int64_t{image_size} * image_size * kNumChannels; }

  static constexpr int32_t kNumChannels = 3;
};

// The blocks of its layers, which are alike but for the MLP: dense, or experts.
AttentionShape AttentionOf(const VisionConfig& config);
MoeConfig MoeOf(const VisionConfig& config);

// What an MoE layer asks of a device; points into both.
LayerBlocks BlocksOf(const VisionConfig& config, const AttentionShape& attention);

// Reads the text of a config.json.
// INVALID_ARGUMENT: not JSON, or values that are missing, out of range or contradict each other; lists every problem.
// UNIMPLEMENTED: another model_type, or something that this engine does not serve, by name.
absl::StatusOr<VisionConfig> ParseVisionConfig(const std::string& config_json);
// The same for the config.json in a model folder. NOT_FOUND: no folder, or no such file in it.
absl::StatusOr<VisionConfig> ReadVisionConfig(const std::string& model_dir);

// Does the config.json in this folder say that it is an image classifier's? False if it cannot be read.
bool HoldsImageClassifier(const std::string& model_dir);

}  // namespace switchyard

#endif  // SWITCHYARD_ENGINE_VISION_VISION_CONFIG_H_
