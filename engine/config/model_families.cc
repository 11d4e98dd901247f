#include "engine/config/model_families.h"

#include <algorithm>
#include <vector>

#include "absl/strings/str_cat.h"

namespace switchyard {
namespace {


void SetQkNorm(QkNorm norm, ModelConfig* model) {
  for (LayerConfig& layer : model->layers) {
    layer.attention.shape.qk_norm = norm;
    layer.attention.shape.qk_norm_eps = model->rms_norm_eps;
  }
}

void SetBiases(bool qkv, bool output, ModelConfig* model) {
  for (LayerConfig& layer : model->layers) {
    layer.attention.qkv_bias = qkv;
    layer.attention.output_bias = output;
  }
}

void SetNormalize(bool normalize, float eps, ModelConfig* model) {
  for (LayerConfig& layer : model->layers) {
    layer.moe.router.normalize = normalize;
    layer.moe.router.normalize_eps = eps;
  }
}

void SetSharedExpert(int32_t width, bool gate, ModelConfig* model) {
  for (LayerConfig& layer : model->layers) {
    layer.moe.shared_intermediate_size = width;
    layer.moe.shared_expert_gate = gate && width > 0;
  }
}

void SetDense(int32_t layer, int32_t intermediate_size, ModelConfig* model) {
  LayerConfig& config = model->layers[static_cast<size_t>(layer)];
  config.is_moe = false;
  config.moe = MoeConfig{};
  config.dense_intermediate_size = intermediate_size;
}

void FillMixtral(const ConfigReader& config, const FamilyDefaults&, ModelConfig* model) {
  const int32_t window = config.Int("sliding_window", 0, 1, INT32_MAX);
  for (LayerConfig& layer : model->layers) layer.attention.shape.sliding_window = window;
  SetNormalize(true, 0.0f, model);
}

void FillOlmoe(const ConfigReader& config, const FamilyDefaults&, ModelConfig* model) {
  const bool bias = config.Bool("attention_bias", false);
  const double clip = config.Real("clip_qkv", 0.0, 1e-6, 1e6);
  for (LayerConfig& layer : model->layers) layer.attention.shape.clip_qkv = static_cast<float>(clip);
  SetQkNorm(QkNorm::kFull, model);
  SetBiases(bias, bias, model);
  SetNormalize(config.Bool("norm_topk_prob", false), 0.0f, model);
}

// Layer l is dense when it is listed, or when l + 1 is no multiple of the step.
void FillQwenPattern(const ConfigReader& config, const FamilyDefaults& defaults, ModelConfig* model) {
  const int32_t num_layers = model->num_layers();
  if (num_layers == 0) return;  // noted already
  const int32_t step = std::max(1, config.Int("decoder_sparse_step", 1, 1, INT32_MAX));
  const int32_t dense = config.Int("intermediate_size", defaults.intermediate_size, 1, kMaxWidth);
  const std::vector<int32_t> listed =
      config.Ints("mlp_only_layers", 0, num_layers - 1, static_cast<size_t>(num_layers));
  for (int32_t l = 0; l < num_layers; ++l) {
    const bool is_listed = std::find(listed.begin(), listed.end(), l) != listed.end();
    if (is_listed || (l + 1) % step != 0) SetDense(l, dense, model);
  }
}

// Which layers slide, where the config lists no layer_types: with transformers, every other one of the first
// max_window_layers.
std::vector<bool> Qwen2SlidingLayers(const ConfigReader& config, int32_t num_layers) {
  std::vector<bool> sliding(static_cast<size_t>(num_layers));
  if (!config.HasValue("layer_types")) {
    const int32_t max_window_layers = config.Int("max_window_layers", 28, 0, INT32_MAX);
    for (int32_t l = 0; l < num_layers; ++l) sliding[static_cast<size_t>(l)] = l % 2 == 0 && l < max_window_layers;
    return sliding;
  }
  const std::vector<std::string> types = config.Texts("layer_types", sliding.size());
  if (types.size() != sliding.size()) {
    config.problems().AddInvalid(
        absl::StrCat("layer_types has ", types.size(), " elements, but the model has ", num_layers, " layers"));
    return sliding;
  }
  for (size_t l = 0; l < types.size(); ++l) sliding[l] = types[l] == "sliding_attention";
  return sliding;
}

int32_t ReadQwenWindow(const ConfigReader& config) {
  if (!config.Bool("use_sliding_window", false)) return 0;
  return config.IsNull("sliding_window") ? 0 : config.Int("sliding_window", 4096, 1, INT32_MAX);
}

void FillQwen2Moe(const ConfigReader& config, const FamilyDefaults& defaults, ModelConfig* model) {
  const int32_t window = ReadQwenWindow(config);
  if (window > 0 && model->num_layers() > 0) {
    const std::vector<bool> sliding = Qwen2SlidingLayers(config, model->num_layers());
    for (size_t l = 0; l < sliding.size(); ++l)
      model->layers[l].attention.shape.sliding_window = sliding[l] ? window : 0;
  }
  SetBiases(config.Bool("qkv_bias", true), false, model);
  SetNormalize(config.Bool("norm_topk_prob", false), 0.0f, model);
  SetSharedExpert(config.Int("shared_expert_intermediate_size", 5632, 0, kMaxWidth), /*gate=*/true, model);
  FillQwenPattern(config, defaults, model);
}

void FillQwen3Moe(const ConfigReader& config, const FamilyDefaults& defaults, ModelConfig* model) {
  const bool bias = config.Bool("attention_bias", false);
  const int32_t window = ReadQwenWindow(config);
  for (LayerConfig& layer : model->layers) layer.attention.shape.sliding_window = window;
  SetQkNorm(QkNorm::kHead, model);
  SetBiases(bias, bias, model);
  SetNormalize(config.Bool("norm_topk_prob", false), 0.0f, model);
  FillQwenPattern(config, defaults, model);
}

void RequireText(const ConfigReader& config, const std::string& key, const std::string& served) {
  if (config.Text(key, served) == served) return;
  config.problems().AddUnimplemented(absl::StrCat(config.Describe(key), "; only \"", served, "\" is served"));
}

void FillDeepseek(const ConfigReader& config, const FamilyDefaults& defaults, ModelConfig* model) {
  RequireText(config, "scoring_func", "softmax");
  RequireText(config, "topk_method", "greedy");
  const bool bias = config.Bool("attention_bias", false);
  const bool norm_topk_prob = config.Bool("norm_topk_prob", false);
  const int32_t num_shared = config.Int("n_shared_experts", 0, 0, 1024);
  const int32_t max_first_moe = model->layers.empty() ? INT32_MAX : model->num_layers();
  const int32_t first_moe = config.Int("first_k_dense_replace", 0, 0, max_first_moe);
  const int32_t frequency = std::max(1, config.Int("moe_layer_freq", 1, 1, INT32_MAX));
  const int32_t dense = config.Int("intermediate_size", defaults.intermediate_size, 1, kMaxWidth);
  SetBiases(bias, bias, model);
  for (LayerConfig& layer : model->layers) {
    layer.moe.router.normalize = norm_topk_prob && layer.moe.router.top_k > 1;
    layer.moe.router.normalize_eps = 1e-20f;
    layer.moe.shared_intermediate_size = num_shared * layer.moe.intermediate_size;
  }
  for (int32_t l = 0; l < model->num_layers(); ++l) {
    if (l < first_moe || l % frequency != 0) SetDense(l, dense, model);
  }
}

const Family kFamilies[] = {
    {"deepseek",
     {.vocab_size = 102400,
      .hidden_size = 4096,
      .intermediate_size = 11008,
      .moe_intermediate_size = 1407,
      .num_hidden_layers = 30,
      .num_attention_heads = 32,
      .num_key_value_heads = 32,
      .max_position_embeddings = 2048,
      .num_experts_key = "n_routed_experts",
      .eos_token_id = 100001,
      .rms_norm_eps = 1e-6,
      .rope_theta = 1e4},
     FillDeepseek},
    {"mixtral",
     {.vocab_size = 32000,
      .hidden_size = 4096,
      .intermediate_size = 14336,
      .num_hidden_layers = 32,
      .num_attention_heads = 32,
      .num_key_value_heads = 8,
      .max_position_embeddings = 131072,
      .num_experts_key = "num_local_experts",
      .num_experts = 8,
      .num_experts_per_tok = 2,
      .eos_token_id = 2,
      .rms_norm_eps = 1e-5,
      .rope_theta = 1e6},
     FillMixtral},
    {"olmoe",
     {.vocab_size = 50304,
      .hidden_size = 2048,
      .intermediate_size = 2048,
      .num_hidden_layers = 16,
      .num_attention_heads = 16,
      .max_position_embeddings = 4096,
      .num_experts = 64,
      .num_experts_per_tok = 8,
      .eos_token_id = 50279,
      .rms_norm_eps = 1e-5,
      .rope_theta = 1e4},
     FillOlmoe},
    {"qwen2_moe",
     {.vocab_size = 151936,
      .hidden_size = 2048,
      .intermediate_size = 5632,
      .moe_intermediate_size = 1408,
      .num_hidden_layers = 24,
      .num_attention_heads = 16,
      .num_key_value_heads = 16,
      .max_position_embeddings = 32768,
      .num_experts = 60,
      .num_experts_per_tok = 4,
      .rms_norm_eps = 1e-6,
      .rope_theta = 1e4},
     FillQwen2Moe},
    {"qwen3_moe",
     {.vocab_size = 151936,
      .hidden_size = 2048,
      .intermediate_size = 6144,
      .moe_intermediate_size = 768,
      .num_hidden_layers = 24,
      .num_attention_heads = 32,
      .num_key_value_heads = 4,
      .max_position_embeddings = 32768,
      .num_experts = 128,
      .num_experts_per_tok = 8,
      .rms_norm_eps = 1e-6,
      .rope_theta = 1e4},
     FillQwen3Moe},
};

}  // namespace

const Family* FindFamily(const std::string& model_type) {
  for (const Family& family : kFamilies) {
    if (model_type == family.model_type) return &family;
  }
  return nullptr;
}

std::string ServedModelTypes() {
  std::string names;
  for (const Family& family : kFamilies) absl::StrAppend(&names, names.empty() ? "" : ", ", family.model_type);
  return names;
}

}  // namespace switchyard
