// A mistake that an implementation could well make, planted into a model of a golden fixture. As the engine is driven
// by its config, most of them are a changed config; others are changed tensors, or a backend that does one thing wrong.
#ifndef SWITCHYARD_TESTS_ENGINE_MODEL_PLANTED_MISTAKE_H_
#define SWITCHYARD_TESTS_ENGINE_MODEL_PLANTED_MISTAKE_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "engine/backend/backend.h"
#include "engine/checkpoint/weights.h"
#include "engine/config/model_config.h"

namespace switchyard::testing {

// One weight, as the model gets it.
struct WeightValues {
  WeightName name;
  int layer;
  int expert;
  int64_t rows;
  int64_t cols;
  std::vector<float>* values;  // [rows, cols], row-major
  const Weights& exact;        // all of them, unchanged
};

struct Mistake {
  std::string name = {};
  std::string fixture = {};
  // What the same mistake did to another implementation's logits on this fixture; 0: it was not measured.
  double expected = 0.0;

  // Any of these; the others stay empty.
  std::function<void(nlohmann::json& config)> edit_json = {};  // before config.json is parsed
  std::function<void(ModelConfig& config)> edit_config = {};   // after; the weights are opened with what was parsed
  std::function<WeightName(WeightName)> rename = {};           // which weight stands where another should
  std::function<int(WeightName, int layer)> layer_of = {};     // which layer's weight stands where another's should
  std::function<void(const WeightValues&)> edit_weight = {};
  std::function<void(std::string* model_file)> edit_file = {};
  std::function<std::unique_ptr<Backend>(Backend*)> break_backend = {};
  int32_t max_model_len = 0;  // instead of the fixture's
};

std::vector<Mistake> MistakesOfCoreFamilies();    // Mixtral, OLMoE, Qwen, GLM-4.5, DBRX, Granite
std::vector<Mistake> MistakesOfLatentFamilies();  // the DeepSeeks and Kimi-K2
std::vector<Mistake> MistakesOfOtherFamilies();   // Llama 4, gpt-oss, Phi-3.5-MoE, JetMoE, Arctic
std::vector<Mistake> MistakesOfGenericFamily();   // switchyard_moe
std::vector<Mistake> MistakesOfEncoderDecoders();  // Switch Transformers

// ---- what several mistakes are made of ----

using EditConfig = std::function<void(ModelConfig&)>;

inline EditConfig EachLayer(std::function<void(LayerConfig&)> edit) {
  return [edit = std::move(edit)](ModelConfig& config) {
    for (LayerConfig& layer : config.layers) edit(layer);
  };
}
inline EditConfig EachAttention(std::function<void(AttentionShape&)> edit) {
  return EachLayer([edit = std::move(edit)](LayerConfig& layer) { edit(layer.attention.shape); });
}
inline EditConfig EachRouter(std::function<void(RouterConfig&)> edit) {
  return EachLayer([edit = std::move(edit)](LayerConfig& layer) {
    if (layer.is_moe) edit(layer.moe.router);
  });
}

inline std::function<WeightName(WeightName)> Swap(WeightName a, WeightName b) {
  return [a, b](WeightName name) { return name == a ? b : name == b ? a : name; };
}

inline std::function<void(const WeightValues&)> Zero(std::vector<WeightName> names) {
  return [names = std::move(names)](const WeightValues& weight) {
    for (const WeightName name : names) {
      if (weight.name == name) weight.values->assign(weight.values->size(), 0.0f);
    }
  };
}

}  // namespace switchyard::testing

#endif  // SWITCHYARD_TESTS_ENGINE_MODEL_PLANTED_MISTAKE_H_
