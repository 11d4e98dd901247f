#include "engine/config/model_config.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <optional>

#include "absl/strings/str_cat.h"
#include "engine/base/json.h"
#include "engine/base/model_folder.h"
#include "engine/base/status_macros.h"
#include "engine/config/config_reader.h"
#include "engine/config/model_families.h"
#include "engine/config/rope.h"

namespace switchyard {
namespace {

// Far above every published model. With them no product of sizes overflows 64 bits, and no table made from a config
// alone takes more than some megabytes.
constexpr JsonLimits kLimits = {.max_bytes = size_t{1} << 20, .max_depth = 32, .max_values = 100'000};
constexpr int32_t kMaxLayers = 1000;
constexpr int32_t kMaxVocab = 1 << 24;
constexpr int32_t kMaxHeads = 4096;
constexpr int32_t kMaxHeadDim = 1024;  // what the backends take
constexpr int32_t kMaxExperts = 65536;
constexpr int64_t kMaxExpertsOfAllLayers = 1 << 18;
constexpr int32_t kMaxPositions = 1 << 30;
constexpr int64_t kMaxParameters = int64_t{1} << 46;
constexpr size_t kMaxEosTokens = 64;

DType ReadDType(const ConfigReader& config) {
  std::string name = config.Text(config.NameInUse({"torch_dtype", "dtype"}), "float32");
  if (name.rfind("torch.", 0) == 0) name = name.substr(6);
  if (name == "float32" || name == "auto" || name.empty()) return DType::kF32;
  if (name == "float16") return DType::kF16;
  if (name == "bfloat16") return DType::kBF16;
  config.problems().AddUnimplemented(
      absl::StrCat("the type \"", Printable(name), "\" is not served; float32, float16 and bfloat16 are"));
  return DType::kF32;
}

// Where the class's default is no token of this model, the model has none.
std::vector<int32_t> ReadEosTokens(const ConfigReader& config, const FamilyDefaults& defaults, int32_t vocab_size) {
  if (vocab_size == 0) return {};
  if (config.IsPresent("eos_token_id")) return config.Ints("eos_token_id", 0, vocab_size - 1, kMaxEosTokens);
  if (defaults.eos_token_id < 0 || defaults.eos_token_id >= vocab_size) return {};
  return {defaults.eos_token_id};
}

int32_t ReadHeadDim(const ConfigReader& config, int32_t hidden_size, int32_t num_heads) {
  if (config.HasValue("head_dim")) {
    const int32_t head_dim = config.Int("head_dim", 0, 2, kMaxHeadDim);
    if (head_dim % 2 != 0) config.problems().AddInvalid(config.Describe("head_dim") + "; it must be even");
    return head_dim % 2 == 0 ? head_dim : 0;
  }
  if (hidden_size == 0 || num_heads == 0) return 0;
  const int32_t head_dim = hidden_size / num_heads;
  if (hidden_size % num_heads == 0 && head_dim % 2 == 0 && head_dim <= kMaxHeadDim) return head_dim;
  config.problems().AddInvalid(absl::StrCat("hidden_size is ", hidden_size, " and num_attention_heads is ", num_heads,
                                            "; without head_dim, hidden_size must be an even multiple of it, at most ",
                                            kMaxHeadDim, " times"));
  return 0;
}

// Null means one per attention head; a missing key means the class's default.
int32_t ReadNumKvHeads(const ConfigReader& config, const FamilyDefaults& defaults, int32_t num_heads) {
  const std::string key = "num_key_value_heads";
  const bool as_heads = config.IsNull(key) || (!config.IsPresent(key) && defaults.num_key_value_heads == 0);
  const int32_t num_kv_heads = as_heads ? num_heads : config.Int(key, defaults.num_key_value_heads, 1, kMaxHeads);
  if (num_heads == 0 || num_kv_heads == 0 || num_heads % num_kv_heads == 0) return num_kv_heads;
  config.problems().AddInvalid(
      absl::StrCat(key, " is ", num_kv_heads, ", but num_attention_heads is ", num_heads, "; it must divide that"));
  return 0;
}

AttentionConfig ReadAttention(const ConfigReader& config, const FamilyDefaults& defaults, const ModelConfig& model) {
  AttentionConfig attention;
  AttentionShape& shape = attention.shape;
  shape.num_heads = config.Int("num_attention_heads", defaults.num_attention_heads, 1, kMaxHeads);
  shape.num_kv_heads = ReadNumKvHeads(config, defaults, shape.num_heads);
  shape.head_dim = ReadHeadDim(config, model.hidden_size, shape.num_heads);
  if (shape.head_dim == 0) return attention;
  shape.scale = static_cast<float>(1.0 / std::sqrt(shape.head_dim));
  Rope rope = ReadRope(config, shape.head_dim, defaults.rope_theta, model.max_position_embeddings);
  shape.rope_inv_freq = std::move(rope.inv_freq);
  shape.rope_attention_factor = rope.attention_factor;
  return attention;
}

int32_t ReadIntOrRequire(const ConfigReader& config, const std::string& key, int32_t missing, int32_t max) {
  return missing == 0 ? config.RequiredInt(key, 1, max) : config.Int(key, missing, 1, max);
}

MoeConfig ReadMoe(const ConfigReader& config, const FamilyDefaults& defaults) {
  const std::string experts =
      config.NameInUse({defaults.num_experts_key, "num_local_experts", "num_experts", "n_routed_experts"});
  const std::string per_token = config.NameInUse({"num_experts_per_tok", "experts_per_token", "num_selected_experts"});
  MoeConfig moe;
  moe.router.num_experts = ReadIntOrRequire(config, experts, defaults.num_experts, kMaxExperts);
  moe.router.top_k = ReadIntOrRequire(config, per_token, defaults.num_experts_per_tok, kMaxExperts);
  if (moe.router.num_experts > 0 && moe.router.top_k > moe.router.num_experts) {
    config.problems().AddInvalid(absl::StrCat(per_token, " is ", moe.router.top_k, ", but ", experts, " is ",
                                              moe.router.num_experts, "; it must be from 1 to ", experts));
  }
  const bool has_own_width = defaults.moe_intermediate_size > 0 || config.HasValue("moe_intermediate_size");
  moe.intermediate_size = has_own_width
                              ? config.Int("moe_intermediate_size", defaults.moe_intermediate_size, 1, kMaxWidth)
                              : config.Int("intermediate_size", defaults.intermediate_size, 1, kMaxWidth);
  return moe;
}

void CheckServed(const ConfigReader& config) {
  const std::string act = config.Text("hidden_act", "silu");
  if (act != "silu" && act != "swish") {
    config.problems().AddUnimplemented(config.Describe("hidden_act") + "; only \"silu\" is served");
  }
  if (const std::optional<ConfigReader> quantization = config.Object("quantization_config")) {
    config.problems().AddUnimplemented(
        absl::StrCat(quantization->Describe("quant_method"), "; quantized weights are not served"));
  }
}

// What every family shares; all layers alike, with attention and MoE.
ModelConfig ReadCommon(const ConfigReader& config, const Family& family) {
  const FamilyDefaults& defaults = family.defaults;
  ModelConfig model;
  model.model_type = family.model_type;
  model.vocab_size = config.Int("vocab_size", defaults.vocab_size, 1, kMaxVocab);
  model.hidden_size = config.Int("hidden_size", defaults.hidden_size, 1, kMaxWidth);
  model.max_position_embeddings =
      config.Int("max_position_embeddings", defaults.max_position_embeddings, 1, kMaxPositions);
  model.rms_norm_eps = static_cast<float>(config.Real("rms_norm_eps", defaults.rms_norm_eps, 1e-30, 1.0));
  model.tie_word_embeddings = config.Bool("tie_word_embeddings", false);
  model.dtype = ReadDType(config);
  model.eos_token_ids = ReadEosTokens(config, defaults, model.vocab_size);

  LayerConfig layer;
  layer.is_moe = true;
  layer.attention = ReadAttention(config, defaults, model);
  layer.moe = ReadMoe(config, defaults);
  const int32_t num_layers = config.Int("num_hidden_layers", defaults.num_hidden_layers, 1, kMaxLayers);
  model.layers.assign(static_cast<size_t>(num_layers), layer);
  return model;
}

int64_t NumParameters(const LayerConfig& layer, int64_t hidden_size) {
  const AttentionShape& shape = layer.attention.shape;
  const int64_t attention = (shape.qkv_size() + shape.q_size()) * hidden_size;
  if (!layer.is_moe) return attention + 3 * hidden_size * layer.dense_intermediate_size;
  const int64_t experts = int64_t{layer.moe.router.num_experts} * layer.moe.intermediate_size;
  return attention + 3 * hidden_size * (experts + layer.moe.shared_intermediate_size);
}

void CheckSizes(const ModelConfig& model, ConfigProblems* problems) {
  int64_t num_parameters = int64_t{2} * model.vocab_size * model.hidden_size;
  int64_t num_experts = 0;
  bool any_moe = false;
  for (const LayerConfig& layer : model.layers) {
    any_moe |= layer.is_moe;
    num_experts += layer.moe.router.num_experts;
    if (num_experts > kMaxExpertsOfAllLayers) break;
    num_parameters += NumParameters(layer, model.hidden_size);
  }
  if (num_experts > kMaxExpertsOfAllLayers) {
    problems->AddInvalid(absl::StrCat("all layers together have more than ", kMaxExpertsOfAllLayers, " experts"));
  } else if (num_parameters > kMaxParameters) {
    problems->AddInvalid(absl::StrCat("these sizes make a model of ", num_parameters, " parameters; at most ",
                                      kMaxParameters, " are possible"));
  }
  if (!model.layers.empty() && !any_moe) problems->AddInvalid("no layer has experts; every layer is dense");
}

}  // namespace

absl::StatusOr<ModelConfig> ParseModelConfig(const std::string& config_json) {
  ASSIGN_OR_RETURN(const nlohmann::json document, ParseJson(config_json, kLimits, "config.json"));
  if (!document.is_object()) return absl::InvalidArgumentError("config.json: is not a JSON object");
  ConfigProblems problems("config.json");
  const ConfigReader config(document, "", &problems);

  const std::string model_type = config.Text("model_type", "");
  const Family* family = FindFamily(model_type);
  if (model_type.empty()) {
    problems.AddInvalid(absl::StrCat(config.Describe("model_type"), "; it must be one of ", ServedModelTypes()));
  } else if (family == nullptr) {
    problems.AddUnimplemented(absl::StrCat(config.Describe("model_type"), "; served are ", ServedModelTypes()));
  }
  RETURN_IF_ERROR(problems.ToStatus());

  CheckServed(config);
  ModelConfig model = ReadCommon(config, *family);
  family->fill(config, family->defaults, &model);
  CheckSizes(model, &problems);
  RETURN_IF_ERROR(problems.ToStatus());
  return model;
}

absl::StatusOr<ModelConfig> ReadModelConfig(const std::string& model_dir) {
  ASSIGN_OR_RETURN(const ModelFolder folder, ModelFolder::Open(model_dir));
  ASSIGN_OR_RETURN(const std::string text, folder.ReadSmallFile("config.json", kLimits.max_bytes));
  return ParseModelConfig(text);
}

}  // namespace switchyard
