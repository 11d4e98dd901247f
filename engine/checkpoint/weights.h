// The weights of a model under our own names, whatever the checkpoint calls them.
//
// Opening checks everything at once: each tensor that the config calls for must be there with the right shape and a
// readable type, and nothing unknown may be left over. Nothing large is allocated before that.
#ifndef SWITCHYARD_ENGINE_CHECKPOINT_WEIGHTS_H_
#define SWITCHYARD_ENGINE_CHECKPOINT_WEIGHTS_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "engine/base/tensor_reader.h"
#include "engine/config/model_config.h"

namespace switchyard {

enum class WeightName : uint8_t {
  // once per model
  kEmbedding,  // [vocab_size, hidden_size]
  kFinalNorm,  // [hidden_size]
  kLmHead,     // [vocab_size, hidden_size]; the embedding when tied
  kFinalNormBias,
  kLmHeadBias,  // [vocab_size]
  kEncoderFinalNorm,  // [hidden_size]
  // per layer
  kInputNorm, kPostAttentionNorm,           // [hidden_size]
  kInputNormBias, kPostAttentionNormBias,
  kQ, kK, kV, kO,                           // [heads * head_dim, hidden_size], ..., [hidden_size, heads * head_dim]
  kQBias, kKBias, kVBias, kOBias,
  kQNorm, kKNorm,                           // [head_dim] per head, or the full projected width
  kSinks,                                   // [heads]
  kRelativeBias,                            // [buckets, heads] of a stack, in its first layer
  kCrossNorm,                               // [hidden_size] of a decoder's attention to the encoder's output; likewise
  kCrossQ, kCrossK, kCrossV, kCrossO,
  kQA, kQABias, kQANorm, kQB,               // MLA: queries through q_lora_rank; without it kQ is whole
  kKvA, kKvABias, kKvANorm,                 // [kv_lora_rank + rope dim, hidden_size], ..., [kv_lora_rank]
  kKvB,                                     // [heads * (nope dim + value dim), kv_lora_rank]
  kAttentionRouter, kAttentionBias,         // JetMoE: [num_experts, hidden_size], [hidden_size] on the experts' sum
  kParallelNorm,                            // [hidden_size] of Arctic's MLP beside the MoE
  kParallelGate, kParallelUp, kParallelDown,
  kMlpGate, kMlpUp, kMlpDown,               // dense layers: [I, hidden], [I, hidden], [hidden, I]
  kRouter,                                  // [num_experts, hidden_size]
  kRouterBias, kChoiceBias,                 // [num_experts] of the logits; of the scores, for the choice only
  kMoeBias,                                 // [hidden_size] on the experts' sum
  kSharedGate, kSharedUp, kSharedDown,      // shared expert
  kSharedExpertGate,                        // [1, hidden_size]
  // per layer and expert
  kExpertGate, kExpertUp, kExpertDown,      // [I, hidden], [I, hidden], [hidden, I]
  kExpertGateBias, kExpertUpBias, kExpertDownBias,
  kAttentionIn, kAttentionOut,              // JetMoE: [kv heads * head_dim, hidden], [hidden, kv heads * head_dim]
};

constexpr bool IsExpertMatrix(WeightName name) {
  return name == WeightName::kExpertGate || name == WeightName::kExpertUp || name == WeightName::kExpertDown;
}

class Weights {
 public:
  virtual ~Weights() = default;

  // The tensor, or nullptr where the model has none of that name. Lives as long as this object.
  // REQUIRES: layer (and expert) given exactly where the name is per layer (and expert).
  virtual const TensorReader* Find(WeightName name, int layer = -1, int expert = -1) const = 0;

  virtual int64_t num_parameters() const = 0;

  // Says that all weights are about to be read, so that files are fetched ahead.
  virtual void StartReading() const {}
};

// The weights of the folder: model.safetensors, or model.safetensors.index.json and its shards.
// INVALID_ARGUMENT: lists every missing, unknown, misshapen or unreadable tensor, up to a bound, with file and offset.
// NOT_FOUND: no weight file.
absl::StatusOr<std::unique_ptr<Weights>> OpenWeights(const ModelConfig& config, const std::string& model_dir);

// Random weights of the right shapes, reproducible: value i of a tensor depends on (seed, tensor, i) only. Matrices
// are normal with deviation 1/sqrt(cols) (so activations keep their scale), untied embeddings with deviation 1 (so that
// tokens differ and routing is balanced), norms 1, biases small. Experts are of random codes where the config says that
// they are quantized.
std::unique_ptr<Weights> MakeDummyWeights(const ModelConfig& config, uint64_t seed);

}  // namespace switchyard

#endif  // SWITCHYARD_ENGINE_CHECKPOINT_WEIGHTS_H_
