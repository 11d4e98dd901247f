// What a model folder holds and whether this server can serve it, without loading it.
#ifndef SWITCHYARD_ENGINE_INSPECT_H_
#define SWITCHYARD_ENGINE_INSPECT_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace switchyard {

// A fact for people and its value for programs: {"kv_bytes_per_token", "bfloat16", 98304}.
struct BytesPerDType {
  std::string dtype;               // as the setting --dtype takes it
  int64_t weight_bytes = 0;        // of all weights in memory
  int64_t kv_bytes_per_token = 0;  // of all layers, without padding of a backend's layout
  // Of all weights with experts as the checkpoint stores them, which a CPU keeps so; 0: it would not.
  int64_t weight_bytes_quantized = 0;
};

// What only an image classifier has.
struct ImageFacts {
  int32_t image_size = 0;        // pixels of a side
  int32_t patch_size = 0;        // likewise
  int32_t tokens_per_image = 0;  // its patches and the class token
  int32_t num_classes = 0;
  int32_t expert_capacity = 0;   // choices of one image's tokens that an expert runs; 0: all
};

struct ModelInspection {
  std::string architecture;            // Hugging Face model_type
  std::string stored_dtype;            // config.json's
  int64_t stored_bytes = 0;            // of all tensors in the weight files; 0 where there are none
  int64_t num_parameters = 0;
  int64_t num_active_parameters = 0;   // per token
  int64_t num_expert_parameters = 0;   // in all experts of all layers
  int32_t num_layers = 0;
  std::vector<int32_t> moe_layers;
  int32_t num_experts = 0;             // per MoE layer
  int32_t top_k = 0;
  int32_t expert_width = 0;            // intermediate size of one expert
  int32_t shared_expert_width = 0;     // 0: none
  std::string attention;               // for people: "32 query heads on 8 KV heads of 128"
  int32_t hidden_size = 0;
  std::optional<ImageFacts> image;     // of an image classifier, which has no text: these are then 0, and no KV cache
  int32_t vocab_size = 0;
  int32_t max_position_embeddings = 0;
  std::vector<BytesPerDType> memory;   // one entry per type of computation

  // OK, or every problem found. NOT_FOUND: the folder has no such file.
  absl::Status weights;
  absl::Status tokenizer;      // OK for an image classifier, which needs none; likewise
  absl::Status chat_template;
  absl::Status cuda;  // UNIMPLEMENTED: names what it does not compute. The CPU computes all that a config can say.
};

// NOT_FOUND: no folder, or no config.json in it. INVALID_ARGUMENT, UNIMPLEMENTED: as ParseModelConfig or
// ParseVisionConfig; then there is nothing else to say about the model.
absl::StatusOr<ModelInspection> InspectModel(const std::string& model_dir);

}  // namespace switchyard

#endif  // SWITCHYARD_ENGINE_INSPECT_H_
