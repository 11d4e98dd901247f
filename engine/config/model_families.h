// The model families that are served: one entry each, which fills the orthogonal blocks of ModelConfig from the keys
// that its Hugging Face class knows. Adding a family is adding an entry to the table of model_families.cc with a fill
// function (family_fills.h), and its tensor names to engine/checkpoint/tensor_names.cc.
#ifndef SWITCHYARD_ENGINE_CONFIG_MODEL_FAMILIES_H_
#define SWITCHYARD_ENGINE_CONFIG_MODEL_FAMILIES_H_

#include <cstdint>
#include <string>

#include "engine/config/config_reader.h"
#include "engine/config/model_config.h"

namespace switchyard {

inline constexpr int32_t kMaxWidth = 1 << 20;  // of any layer, far above every published model
inline constexpr int32_t kMaxHeads = 4096;     // of one layer
inline constexpr int32_t kMaxLayers = 1000;    // of one stack

// How a family spells the keys that all have; a path leads into an object ("attn_config.kv_n_heads").
struct FamilyKeys {
  const char* hidden_size = "hidden_size";
  const char* num_hidden_layers = "num_hidden_layers";
  const char* num_attention_heads = "num_attention_heads";
  const char* num_key_value_heads = "num_key_value_heads";
  const char* head_dim = "head_dim";
  const char* max_position_embeddings = "max_position_embeddings";
  const char* intermediate_size = "intermediate_size";
  const char* num_experts = "num_experts";  // the other names are taken too
  const char* num_experts_per_tok = "num_experts_per_tok";
  const char* hidden_act = "hidden_act";
  const char* rope_theta = "rope_theta";
  const char* rms_norm_eps = "rms_norm_eps";
};

// What a missing key means: the default of the Hugging Face config class, which is not the value of any checkpoint. A
// size that is 0 here has none: its key is required, unless its comment says otherwise.
struct FamilyDefaults {
  FamilyKeys keys = {};
  int32_t vocab_size = 0;
  int32_t hidden_size = 0;
  int32_t intermediate_size = 0;
  int32_t moe_intermediate_size = 0;  // 0: intermediate_size, unless the config has the key
  int32_t num_hidden_layers = 0;
  int32_t num_attention_heads = 0;
  int32_t num_key_value_heads = 0;  // 0: as many as attention heads
  int32_t max_position_embeddings = 0;
  int32_t head_dim = 0;             // 0: hidden_size / num_attention_heads
  int32_t num_experts = 0;
  int32_t num_experts_per_tok = 0;
  int32_t eos_token_id = -1;        // -1: none
  double rms_norm_eps = 0.0;
  const char* hidden_act = "silu";      // the one that is served
  bool has_rope = true;
  double rope_theta = 1e4;
  const char* rope_scaling = nullptr;   // JSON; null: none
  double partial_rotary_factor = 0.0;   // 0: the family turns whole heads and has no such key
  bool tie_word_embeddings = false;
  bool is_latent = false;               // MLA; its own keys have the same defaults in every class
};

struct Family {
  const char* model_type;
  FamilyDefaults defaults;
  // Fills what differs from layer to layer or from family to family. The fields that every family shares, and the
  // same attention (without norms, biases and window) and MoE block in every layer, are there already.
  void (*fill)(const ConfigReader& config, const FamilyDefaults& defaults, ModelConfig* model);
  // The object of the config that describes the text model, where it is one of several; null: the config itself.
  const char* text_config = nullptr;
};

// nullptr: not served.
const Family* FindFamily(const std::string& model_type);

// "deepseek, mixtral, ...", for messages.
std::string ServedModelTypes();

}  // namespace switchyard

#endif  // SWITCHYARD_ENGINE_CONFIG_MODEL_FAMILIES_H_
