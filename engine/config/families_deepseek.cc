// DeepSeek v1, V2, V3 (and Kimi-K2, the same code) and GLM-4.5: first layers dense, plain shared experts.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "engine/config/family_fills.h"

namespace switchyard {
namespace {

constexpr float kNormalizeEps = 1e-20f;
constexpr double kMaxRoutedScale = 1e6;

// Layer l is dense below first_k_dense_replace, or when it is no multiple of the frequency.
void FillDensePattern(const ConfigReader& config, const FamilyDefaults& defaults, int32_t default_first,
                      ModelConfig* model) {
  const int32_t max_first_moe = model->layers.empty() ? INT32_MAX : model->num_layers();
  const int32_t first_moe = config.Int("first_k_dense_replace", default_first, 0, max_first_moe);
  const int32_t frequency = std::max(1, config.Int("moe_layer_freq", 1, 1, INT32_MAX));
  const int32_t dense = config.Int("intermediate_size", defaults.intermediate_size, 1, kMaxWidth);
  for (int32_t l = 0; l < model->num_layers(); ++l) {
    if (l < first_moe || l % frequency != 0) SetDense(l, dense, model);
  }
}

// All shared experts of a layer are stored as one.
void FillSharedExperts(const ConfigReader& config, int32_t missing, ModelConfig* model) {
  const int32_t num_shared = config.Int("n_shared_experts", missing, 0, 1024);
  for (LayerConfig& layer : model->layers) {
    layer.moe.shared_intermediate_size = num_shared * layer.moe.intermediate_size;
  }
}

// A single weight is left alone by the softmax routers of v1 and V2, and becomes 1 with the sigmoid ones of V3.
void FillNormalize(const ConfigReader& config, bool missing, int32_t min_top_k, ModelConfig* model) {
  const bool norm_topk_prob = config.Bool("norm_topk_prob", missing);
  for (LayerConfig& layer : model->layers) {
    layer.moe.router.normalize = norm_topk_prob && layer.moe.router.top_k >= min_top_k;
    layer.moe.router.normalize_eps = kNormalizeEps;
  }
}

// Groups of which topk_group stay; nothing is left to choose from where they hold fewer than top_k experts.
void FillGroups(const ConfigReader& config, int32_t default_groups, int32_t default_kept, GroupScore score,
                ModelConfig* model) {
  const int32_t num_groups = config.Int("n_group", default_groups, 1, 65536);
  const int32_t kept = config.Int("topk_group", default_kept, 1, 65536);
  if (num_groups == 0 || kept == 0 || model->layers.empty()) return;  // noted already
  RouterConfig router = model->layers[0].moe.router;
  if (router.num_experts % num_groups != 0 || kept > num_groups ||
      int64_t{router.num_experts} / num_groups * kept < router.top_k) {
    config.problems().AddInvalid(
        absl::StrCat("n_group is ", num_groups, " and topk_group is ", kept, ", but ", router.top_k, " of ",
                     router.num_experts, " experts are chosen; groups must be equal and the kept ones hold these"));
    return;
  }
  for (LayerConfig& layer : model->layers) {
    layer.moe.router.num_groups = num_groups;
    layer.moe.router.topk_group = kept;
    layer.moe.router.group_score = score;
  }
}

float ReadRoutedScale(const ConfigReader& config, double missing) {
  return static_cast<float>(config.Real("routed_scaling_factor", missing, -kMaxRoutedScale, kMaxRoutedScale));
}

// Sigmoid scores, a bias for the choice only, weights normalised and then scaled.
void FillV3Router(const ConfigReader& config, const RouterConfig& defaults, ModelConfig* model) {
  RequireText(config, "scoring_func", "sigmoid");
  RequireText(config, "topk_method", "noaux_tc");
  FillGroups(config, defaults.num_groups, defaults.topk_group, GroupScore::kTopTwoSum, model);
  FillNormalize(config, true, /*min_top_k=*/1, model);
  const float scale = ReadRoutedScale(config, defaults.scale);
  for (LayerConfig& layer : model->layers) {
    layer.moe.router.score = RouterScore::kSigmoid;
    layer.moe.router.has_choice_bias = true;
    layer.moe.router.scale = scale;
  }
}

void ReadNextnLayers(const ConfigReader& config, ModelConfig* model) {
  model->num_nextn_predict_layers = config.Int("num_nextn_predict_layers", 0, 0, 64);
}

}  // namespace

void FillDeepseek(const ConfigReader& config, const FamilyDefaults& defaults, ModelConfig* model) {
  RequireText(config, "scoring_func", "softmax");
  RequireText(config, "topk_method", "greedy");
  const bool bias = config.Bool("attention_bias", false);
  SetBiases(bias, bias, model);
  FillNormalize(config, false, /*min_top_k=*/2, model);
  FillSharedExperts(config, 0, model);
  FillDensePattern(config, defaults, 0, model);
}

// Weights are normalised or scaled, never both.
void FillDeepseekV2(const ConfigReader& config, const FamilyDefaults& defaults, ModelConfig* model) {
  RequireText(config, "scoring_func", "softmax");
  const std::string method = config.Text("topk_method", "greedy");
  if (method == "group_limited_greedy") {
    FillGroups(config, 1, 1, GroupScore::kMax, model);
  } else if (method != "greedy") {
    config.problems().AddUnimplemented(config.Describe("topk_method") +
                                       "; \"greedy\" and \"group_limited_greedy\" are served");
  }
  const bool bias = config.Bool("attention_bias", false);
  SetBiases(bias, bias, model);
  FillNormalize(config, false, /*min_top_k=*/2, model);
  const float scale = ReadRoutedScale(config, 1.0);
  for (LayerConfig& layer : model->layers) {
    if (!layer.moe.router.normalize) layer.moe.router.scale = scale;
  }
  FillSharedExperts(config, 2, model);
  FillDensePattern(config, defaults, 0, model);
}

void FillDeepseekV3(const ConfigReader& config, const FamilyDefaults& defaults, ModelConfig* model) {
  const bool bias = config.Bool("attention_bias", false);
  SetBiases(bias, bias, model);
  RouterConfig router;
  router.num_groups = 8;
  router.topk_group = 4;
  router.scale = 2.5f;
  FillV3Router(config, router, model);
  FillSharedExperts(config, 1, model);
  FillDensePattern(config, defaults, 3, model);
  ReadNextnLayers(config, model);
}

void FillGlm4Moe(const ConfigReader& config, const FamilyDefaults& defaults, ModelConfig* model) {
  SetBiases(config.Bool("attention_bias", false), false, model);
  if (config.Bool("use_qk_norm", false)) SetQkNorm(QkNorm::kHead, model);
  FillV3Router(config, RouterConfig{}, model);
  FillSharedExperts(config, 1, model);
  FillDensePattern(config, defaults, 1, model);
  ReadNextnLayers(config, model);
}

}  // namespace switchyard
