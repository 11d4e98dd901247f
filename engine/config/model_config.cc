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
#include "engine/config/weight_dtype.h"

namespace switchyard {
namespace {

// Far above every published model. With them no product of sizes overflows 64 bits, and no table made from a config
// alone takes more than some megabytes.
constexpr JsonLimits kLimits = {.max_bytes = size_t{1} << 20, .max_depth = 32, .max_values = 100'000};
constexpr int32_t kMaxVocab = 1 << 24;
constexpr int32_t kMaxHeadDim = 1024;  // what the backends take
constexpr int32_t kMaxExperts = 65536;
constexpr int64_t kMaxExpertsOfAllLayers = 1 << 18;
constexpr int32_t kMaxPositions = 1 << 30;
constexpr int64_t kMaxParameters = int64_t{1} << 46;
constexpr size_t kMaxEosTokens = 64;

int32_t ReadIntOrRequire(const ConfigReader& config, const std::string& key, int32_t missing, int32_t max) {
  return missing == 0 ? config.RequiredInt(key, 1, max) : config.Int(key, missing, 1, max);
}

// Where the class's default is no token of this model, the model has none.
std::vector<int32_t> ReadEosTokens(const ConfigReader& config, const FamilyDefaults& defaults, int32_t vocab_size) {
  if (vocab_size == 0) return {};
  if (config.IsPresent("eos_token_id")) return config.Ints("eos_token_id", 0, vocab_size - 1, kMaxEosTokens);
  if (defaults.eos_token_id < 0 || defaults.eos_token_id >= vocab_size) return {};
  return {defaults.eos_token_id};
}

int32_t ReadHeadDim(const ConfigReader& config, const FamilyDefaults& defaults, int32_t hidden_size,
                    int32_t num_heads) {
  const std::string key = defaults.keys.head_dim;
  if (config.HasValue(key)) {
    const int32_t head_dim = config.Int(key, 0, 2, kMaxHeadDim);
    if (head_dim % 2 != 0) config.problems().AddInvalid(config.Describe(key) + "; it must be even");
    return head_dim % 2 == 0 ? head_dim : 0;
  }
  if (defaults.head_dim > 0 && !config.IsNull(key)) return defaults.head_dim;
  if (hidden_size == 0 || num_heads == 0) return 0;
  const int32_t head_dim = hidden_size / num_heads;
  if (hidden_size % num_heads == 0 && head_dim % 2 == 0 && head_dim <= kMaxHeadDim) return head_dim;
  config.problems().AddInvalid(absl::StrCat(defaults.keys.hidden_size, " is ", hidden_size, " and ",
                                            defaults.keys.num_attention_heads, " is ", num_heads, "; without ", key,
                                            ", hidden_size must be an even multiple of it, at most ", kMaxHeadDim,
                                            " times"));
  return 0;
}

// Null means one per attention head; a missing key means the class's default.
int32_t ReadNumKvHeads(const ConfigReader& config, const FamilyDefaults& defaults, int32_t num_heads) {
  const std::string key = defaults.keys.num_key_value_heads;
  const bool as_heads = config.IsNull(key) || (!config.IsPresent(key) && defaults.num_key_value_heads == 0);
  const int32_t num_kv_heads = as_heads ? num_heads : config.Int(key, defaults.num_key_value_heads, 1, kMaxHeads);
  if (num_heads == 0 || num_kv_heads == 0 || num_heads % num_kv_heads == 0) return num_kv_heads;
  config.problems().AddInvalid(
      absl::StrCat(key, " is ", num_kv_heads, ", but ", defaults.keys.num_attention_heads, " is ", num_heads,
                   "; it must divide that"));
  return 0;
}

RopeSpec MakeRopeSpec(const FamilyDefaults& defaults, int32_t rotated_dim, const ModelConfig& model,
                      int32_t max_model_len) {
  RopeSpec spec;
  spec.rotated_dim = rotated_dim;
  spec.theta_key = defaults.keys.rope_theta;
  spec.default_theta = defaults.rope_theta;
  spec.default_scaling = defaults.rope_scaling;
  spec.max_position_embeddings = model.max_position_embeddings;
  spec.max_model_len = max_model_len;
  return spec;
}

void SetRope(Rope rope, AttentionShape* shape) {
  shape->rope_inv_freq = std::move(rope.inv_freq);
  shape->rope_attention_factor = rope.attention_factor;
}

// How many dimensions of each head turn; 0: noted. The factor may stand at the top or inside the RoPE parameters.
int32_t ReadRotatedDim(const ConfigReader& config, const FamilyDefaults& defaults, int32_t head_dim) {
  const bool partial = defaults.partial_rotary_factor > 0.0;
  double factor = partial ? defaults.partial_rotary_factor : 1.0;
  for (const char* key : {"partial_rotary_factor", "rope_scaling.partial_rotary_factor",
                          "rope_parameters.partial_rotary_factor"}) {
    if (!config.HasValue(key)) continue;
    factor = config.Real(key, factor, 0.0, 1.0);
    if (partial || factor == 1.0) continue;
    config.problems().AddUnimplemented(config.Describe(key) + "; this family turns whole heads");
    return 0;
  }
  const int32_t rotated = static_cast<int32_t>(head_dim * factor);
  if (rotated >= 2 && rotated % 2 == 0) return rotated;
  config.problems().AddInvalid(absl::StrCat("partial_rotary_factor makes ", rotated, " of ", head_dim,
                                            " dimensions turn; it must be an even number of them"));
  return 0;
}

AttentionConfig ReadAttention(const ConfigReader& config, const FamilyDefaults& defaults, const ModelConfig& model,
                              int32_t max_model_len) {
  AttentionConfig attention;
  AttentionShape& shape = attention.shape;
  shape.num_heads =
      ReadIntOrRequire(config, defaults.keys.num_attention_heads, defaults.num_attention_heads, kMaxHeads);
  shape.num_kv_heads = ReadNumKvHeads(config, defaults, shape.num_heads);
  shape.head_dim = ReadHeadDim(config, defaults, model.hidden_size, shape.num_heads);
  if (shape.head_dim == 0) return attention;
  shape.scale = static_cast<float>(1.0 / std::sqrt(shape.head_dim));
  if (!defaults.has_rope) return attention;
  const int32_t rotated = ReadRotatedDim(config, defaults, shape.head_dim);
  if (rotated > 0) SetRope(ReadRope(config, MakeRopeSpec(defaults, rotated, model, max_model_len)), &shape);
  return attention;
}

int32_t ReadEven(const ConfigReader& config, const std::string& key, int32_t missing, int32_t max) {
  const int32_t value = config.Int(key, missing, 2, max);
  if (value % 2 == 0) return value;
  config.problems().AddInvalid(config.Describe(key) + "; it must be even");
  return 0;
}

// `head_dim` of such a config is not the width of a head, and is not read.
AttentionConfig ReadLatentAttention(const ConfigReader& config, const FamilyDefaults& defaults,
                                    const ModelConfig& model, int32_t max_model_len) {
  AttentionConfig attention;
  MlaConfig& mla = attention.mla;
  AttentionShape& shape = attention.shape;
  shape.num_heads = config.Int(defaults.keys.num_attention_heads, defaults.num_attention_heads, 1, kMaxHeads);
  shape.num_kv_heads = 1;
  mla.q_lora_rank = config.IsNull("q_lora_rank") ? 0 : config.Int("q_lora_rank", 1536, 1, kMaxWidth);
  mla.kv_lora_rank = ReadEven(config, "kv_lora_rank", 512, kMaxHeadDim);
  mla.qk_nope_head_dim = config.Int("qk_nope_head_dim", 128, 1, kMaxHeadDim);
  mla.qk_rope_head_dim = ReadEven(config, "qk_rope_head_dim", 64, kMaxHeadDim);
  mla.v_head_dim = config.Int("v_head_dim", 128, 1, kMaxHeadDim);
  if (mla.kv_lora_rank == 0 || mla.qk_rope_head_dim == 0) return attention;  // noted already
  shape.latent_dim = mla.kv_lora_rank;
  shape.head_dim = mla.kv_lora_rank + mla.qk_rope_head_dim;
  if (shape.head_dim > kMaxHeadDim) {
    config.problems().AddInvalid(absl::StrCat("kv_lora_rank and qk_rope_head_dim add up to ", shape.head_dim,
                                              "; at most ", kMaxHeadDim, " are possible"));
  }
  constexpr float kLatentNormEps = 1e-6f;  // whatever rms_norm_eps says
  shape.qk_norm_eps = kLatentNormEps;
  shape.rope_interleaved = config.Bool("rope_interleave", true);
  Rope rope = ReadRope(config, MakeRopeSpec(defaults, mla.qk_rope_head_dim, model, max_model_len));
  shape.scale = static_cast<float>(rope.softmax_factor / std::sqrt(mla.qk_nope_head_dim + mla.qk_rope_head_dim));
  SetRope(std::move(rope), &shape);
  return attention;
}

MoeConfig ReadMoe(const ConfigReader& config, const FamilyDefaults& defaults) {
  const std::string experts =
      config.NameInUse({defaults.keys.num_experts, "num_local_experts", "num_experts", "n_routed_experts"});
  const std::string per_token = config.NameInUse(
      {defaults.keys.num_experts_per_tok, "num_experts_per_tok", "experts_per_token", "num_selected_experts"});
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
                              : ReadIntOrRequire(config, defaults.keys.intermediate_size, defaults.intermediate_size,
                                                 kMaxWidth);
  return moe;
}

void CheckAct(const ConfigReader& config, const FamilyDefaults& defaults) {
  const std::string served = defaults.hidden_act;
  const std::string act = config.Text(defaults.keys.hidden_act, served);
  if (act == served || (served == "silu" && act == "swish")) return;
  config.problems().AddUnimplemented(
      absl::StrCat(config.Describe(defaults.keys.hidden_act), "; only \"", served, "\" is served"));
}

void ReadFp8Blocks(const ConfigReader& config, Quantization* quantization) {
  if (config.Text("fmt", "e4m3") != "e4m3") {
    config.problems().AddUnimplemented(config.Describe("fmt") + "; only \"e4m3\" is served");
  }
  const std::vector<int32_t> block = config.Ints("weight_block_size", 1, kMaxWidth, 2);
  if (block.size() != 2) {
    config.problems().AddUnimplemented(config.Describe("weight_block_size") +
                                       "; fp8 weights are served with two sizes of blocks only");
    return;
  }
  *quantization = {.fp8_blocks = true, .block_rows = block[0], .block_cols = block[1]};
}

Quantization ReadQuantization(const ConfigReader& config) {
  Quantization quantization;
  const std::optional<ConfigReader> object = config.Object("quantization_config");
  if (!object.has_value()) return quantization;
  const std::string method = object->Text("quant_method", "");
  if (method == "fp8") {
    ReadFp8Blocks(*object, &quantization);
  } else if (method == "mxfp4") {
    quantization.mxfp4 = true;
  } else {
    config.problems().AddUnimplemented(object->Describe("quant_method") +
                                       "; of quantized weights, \"fp8\" and \"mxfp4\" are served");
  }
  return quantization;
}

// What every family shares; all layers alike, with attention and MoE.
ModelConfig ReadCommon(const ConfigReader& config, const Family& family, int32_t max_model_len) {
  const FamilyDefaults& defaults = family.defaults;
  ModelConfig model;
  model.model_type = family.model_type;
  model.vocab_size = ReadIntOrRequire(config, "vocab_size", defaults.vocab_size, kMaxVocab);
  model.hidden_size = ReadIntOrRequire(config, defaults.keys.hidden_size, defaults.hidden_size, kMaxWidth);
  model.max_position_embeddings =
      ReadIntOrRequire(config, defaults.keys.max_position_embeddings, defaults.max_position_embeddings, kMaxPositions);
  model.rms_norm_eps = static_cast<float>(config.Real(defaults.keys.rms_norm_eps, defaults.rms_norm_eps, 1e-30, 1.0));
  model.tie_word_embeddings = config.Bool("tie_word_embeddings", defaults.tie_word_embeddings);
  model.dtype = ReadWeightDType(config);
  model.eos_token_ids = ReadEosTokens(config, defaults, model.vocab_size);

  LayerConfig layer;
  layer.is_moe = true;
  layer.attention = defaults.is_latent ? ReadLatentAttention(config, defaults, model, max_model_len)
                                       : ReadAttention(config, defaults, model, max_model_len);
  layer.moe = ReadMoe(config, defaults);
  const int32_t num_layers =
      ReadIntOrRequire(config, defaults.keys.num_hidden_layers, defaults.num_hidden_layers, kMaxLayers);
  model.layers.assign(static_cast<size_t>(num_layers), layer);
  return model;
}

int64_t NumLatentParameters(const AttentionConfig& attention, int64_t hidden_size) {
  const MlaConfig& mla = attention.mla;
  const int64_t heads = attention.shape.num_heads;
  const int64_t q_size = heads * (mla.qk_nope_head_dim + mla.qk_rope_head_dim);
  const int64_t q = mla.q_lora_rank > 0 ? mla.q_lora_rank * (hidden_size + q_size) : hidden_size * q_size;
  return q + hidden_size * attention.shape.head_dim +
         heads * (mla.qk_nope_head_dim + mla.v_head_dim) * mla.kv_lora_rank + hidden_size * heads * mla.v_head_dim;
}

int64_t NumAttentionParameters(const AttentionConfig& attention, int64_t hidden_size) {
  const AttentionShape& shape = attention.shape;
  if (shape.latent_dim > 0) return NumLatentParameters(attention, hidden_size);
  if (attention.experts.num_experts > 0) return 2 * (attention.experts.num_experts + 1) * shape.kv_size() * hidden_size;
  return (shape.qkv_size() + shape.q_size()) * hidden_size * (attention.cross_attention ? 2 : 1);
}

int64_t NumParameters(const LayerConfig& layer, int64_t hidden_size) {
  const int64_t attention = NumAttentionParameters(layer.attention, hidden_size);
  const int64_t matrices = IsGated(layer.is_moe ? layer.moe.experts.activation : layer.dense_activation) ? 3 : 2;
  if (!layer.is_moe) return attention + matrices * hidden_size * layer.dense_intermediate_size;
  const int64_t experts = int64_t{layer.moe.router.num_experts} * layer.moe.intermediate_size;
  return attention +
         matrices * hidden_size * (experts + layer.moe.shared_intermediate_size + layer.parallel_mlp_size);
}

void CheckSizes(const ModelConfig& model, ConfigProblems* problems) {
  int64_t num_parameters = int64_t{2} * model.vocab_size * model.hidden_size;
  int64_t num_experts = 0;
  bool any_moe = false;
  int32_t expert_width = 0;
  for (const LayerConfig& layer : model.layers) {
    any_moe |= layer.is_moe;
    if (layer.is_moe) expert_width = layer.moe.intermediate_size;
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
  if (model.quantization.mxfp4 && (model.hidden_size % 32 != 0 || expert_width % 32 != 0)) {
    problems->AddInvalid(absl::StrCat("hidden_size is ", model.hidden_size, " and the experts' width ", expert_width,
                                      "; mxfp4 needs multiples of 32"));
  }
  if (!model.layers.empty() && !any_moe) problems->AddInvalid("no layer has experts; every layer is dense");
}

}  // namespace

LayerBlocks BlocksOf(const ModelConfig& model, const LayerConfig& layer) {
  LayerBlocks blocks;
  blocks.attention = &layer.attention.shape;
  blocks.router = layer.is_moe ? &layer.moe.router : nullptr;
  blocks.experts = layer.moe.experts;
  blocks.layer_norm = model.norm == NormKind::kLayer;
  blocks.attention_experts = layer.attention.experts.num_experts > 0;
  blocks.bidirectional = layer.attention.bidirectional;
  blocks.cross_attention = layer.attention.cross_attention;
  blocks.moe_output_bias = layer.moe.output_bias;
  blocks.router_bias = layer.moe.router_bias;
  return blocks;
}

absl::StatusOr<ModelConfig> ParseModelConfig(const std::string& config_json, int32_t max_model_len) {
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

  std::optional<ConfigReader> text = config;
  if (family->text_config != nullptr) {
    text = config.Object(family->text_config);
    if (!text.has_value()) problems.AddInvalid(config.Describe(family->text_config) + "; it must be an object");
    RETURN_IF_ERROR(problems.ToStatus());
  }
  CheckAct(*text, family->defaults);
  const Quantization quantization = ReadQuantization(config);
  ModelConfig model = ReadCommon(*text, *family, max_model_len);
  model.quantization = quantization;
  // Of a model of several parts, the type of the weights may stand beside them.
  if (!text->HasValue("torch_dtype") && !text->HasValue("dtype")) model.dtype = ReadWeightDType(config);
  family->fill(*text, family->defaults, &model);
  CheckSizes(model, &problems);
  RETURN_IF_ERROR(problems.ToStatus());
  return model;
}

absl::StatusOr<ModelConfig> ReadModelConfig(const std::string& model_dir, int32_t max_model_len) {
  ASSIGN_OR_RETURN(const ModelFolder folder, ModelFolder::Open(model_dir));
  ASSIGN_OR_RETURN(const std::string text, folder.ReadSmallFile("config.json", kLimits.max_bytes));
  return ParseModelConfig(text, max_model_len);
}

}  // namespace switchyard
