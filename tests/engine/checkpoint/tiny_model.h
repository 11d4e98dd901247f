// A complete model of a few hundred numbers, to be spoiled: one Mixtral layer with two experts.
#ifndef SWITCHYARD_TESTS_ENGINE_CHECKPOINT_TINY_MODEL_H_
#define SWITCHYARD_TESTS_ENGINE_CHECKPOINT_TINY_MODEL_H_

#include <memory>
#include <string>
#include <vector>

#include "engine/base/status_macros.h"
#include "engine/checkpoint/weights.h"
#include "engine/config/generation_config.h"
#include "engine/config/model_config.h"
#include "tests/support/safetensors_writer.h"
#include "tests/support/temp_folder.h"

namespace switchyard {
namespace testing {

inline std::string TinyConfig(const std::string& more = "") {
  return R"({"model_type": "mixtral", "vocab_size": 8, "hidden_size": 8, "num_hidden_layers": 1,
             "num_attention_heads": 2, "num_key_value_heads": 1, "intermediate_size": 6, "num_local_experts": 2,
             "num_experts_per_tok": 1, "max_position_embeddings": 64)" +
         more + "}";
}

// Value i of the n-th tensor is n + i / 1024: exact in F32, and in no other place the same.
inline std::vector<RawTensor> TinyTensors() {
  const std::string layer = "model.layers.0.";
  const std::string moe = layer + "block_sparse_moe.";
  std::vector<RawTensor> tensors;
  const auto add = [&](const std::string& name, const std::vector<int64_t>& shape) {
    int64_t size = 1;
    for (const int64_t dim : shape) size *= dim;
    std::vector<float> values;
    for (int64_t i = 0; i < size; ++i)
      values.push_back(static_cast<float>(tensors.size()) + static_cast<float>(i) / 1024);
    tensors.push_back(F32Tensor(name, shape, values));
  };
  add("model.embed_tokens.weight", {8, 8});
  add("model.norm.weight", {8});
  add("lm_head.weight", {8, 8});
  add(layer + "input_layernorm.weight", {8});
  add(layer + "post_attention_layernorm.weight", {8});
  add(layer + "self_attn.q_proj.weight", {8, 8});
  add(layer + "self_attn.k_proj.weight", {4, 8});
  add(layer + "self_attn.v_proj.weight", {4, 8});
  add(layer + "self_attn.o_proj.weight", {8, 8});
  add(moe + "gate.weight", {2, 8});
  for (const char* expert : {"experts.0.", "experts.1."}) {
    add(moe + expert + "w1.weight", {6, 8});
    add(moe + expert + "w2.weight", {8, 6});
    add(moe + expert + "w3.weight", {6, 8});
  }
  return tensors;
}

struct LoadedModel {
  ModelConfig config;
  std::unique_ptr<Weights> weights;
};

// As a server does it at start.
inline absl::StatusOr<LoadedModel> LoadModel(const std::string& folder) {
  ASSIGN_OR_RETURN(ModelConfig config, ReadModelConfig(folder));
  RETURN_IF_ERROR(ReadGenerationConfig(folder).status());
  ASSIGN_OR_RETURN(std::unique_ptr<Weights> weights, OpenWeights(config, folder));
  return LoadedModel{std::move(config), std::move(weights)};
}

inline absl::StatusOr<std::vector<float>> ReadAll(const TensorReader& reader) {
  std::vector<float> values(static_cast<size_t>(reader.rows() * reader.cols()));
  RETURN_IF_ERROR(reader.ReadRows(0, reader.rows(), DType::kF32, values.data()));
  return values;
}

}  // namespace testing
}  // namespace switchyard

#endif  // SWITCHYARD_TESTS_ENGINE_CHECKPOINT_TINY_MODEL_H_
