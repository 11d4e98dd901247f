// Mixtral, OLMoE, Qwen2-MoE and Qwen3-MoE; and what all families share.
#include <algorithm>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "engine/config/family_fills.h"

namespace switchyard {

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

void SetWindow(int32_t window, ModelConfig* model) {
  for (LayerConfig& layer : model->layers) layer.attention.shape.sliding_window = window;
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

void RequireText(const ConfigReader& config, const std::string& key, const std::string& served) {
  if (config.Text(key, served) == served) return;
  config.problems().AddUnimplemented(absl::StrCat(config.Describe(key), "; only \"", served, "\" is served"));
}

std::vector<std::string> ReadLayerTypes(const ConfigReader& config, const std::vector<std::string>& known,
                                        int32_t num_layers) {
  if (!config.HasValue("layer_types") || num_layers == 0) return {};
  std::vector<std::string> types = config.Texts("layer_types", static_cast<size_t>(num_layers));
  if (static_cast<int32_t>(types.size()) != num_layers) {
    config.problems().AddInvalid(
        absl::StrCat("layer_types has ", types.size(), " elements, but the model has ", num_layers, " layers"));
    return {};
  }
  for (const std::string& type : types) {
    if (std::find(known.begin(), known.end(), type) != known.end()) continue;
    config.problems().AddUnimplemented(
        absl::StrCat("layer_types has an element other than ", absl::StrJoin(known, ", ")));
    return {};
  }
  return types;
}

void FillMixtral(const ConfigReader& config, const FamilyDefaults&, ModelConfig* model) {
  SetWindow(config.Int("sliding_window", 0, 1, INT32_MAX), model);
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

void FillSparseSteps(const ConfigReader& config, const FamilyDefaults& defaults, ModelConfig* model) {
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

namespace {

// Which layers slide, where the config lists no layer_types: with transformers, every other one of the first
// max_window_layers.
std::vector<bool> Qwen2SlidingLayers(const ConfigReader& config, int32_t num_layers) {
  std::vector<bool> sliding(static_cast<size_t>(num_layers));
  if (!config.HasValue("layer_types")) {
    const int32_t max_window_layers = config.Int("max_window_layers", 28, 0, INT32_MAX);
    for (int32_t l = 0; l < num_layers; ++l) sliding[static_cast<size_t>(l)] = l % 2 == 0 && l < max_window_layers;
    return sliding;
  }
  const std::vector<std::string> types = ReadLayerTypes(config, {"sliding_attention", "full_attention"}, num_layers);
  for (size_t l = 0; l < types.size(); ++l) sliding[l] = types[l] == "sliding_attention";
  return sliding;
}

int32_t ReadQwenWindow(const ConfigReader& config) {
  if (!config.Bool("use_sliding_window", false)) return 0;
  return config.IsNull("sliding_window") ? 0 : config.Int("sliding_window", 4096, 1, INT32_MAX);
}

}  // namespace

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
  FillSparseSteps(config, defaults, model);
}

void FillQwen3Moe(const ConfigReader& config, const FamilyDefaults& defaults, ModelConfig* model) {
  const bool bias = config.Bool("attention_bias", false);
  SetWindow(ReadQwenWindow(config), model);
  SetQkNorm(QkNorm::kHead, model);
  SetBiases(bias, bias, model);
  SetNormalize(config.Bool("norm_topk_prob", false), 0.0f, model);
  FillSparseSteps(config, defaults, model);
}

}  // namespace switchyard
