// "switchyard_moe": routing that was published without weights, as a configuration of the same decoder.
//
//   routing          a token's experts                    their weights
//   top_k            the num_experts_per_tok likeliest    their probabilities; sum to 1 with norm_topk_prob
//   noisy_top_k      those with the largest logits        softmax over these logits
//   dense_mixture    all                                  their probabilities
//
// top_k: GShard (2006.16668) and GLaM (2112.06905) with two experts and norm_topk_prob, Switch (2101.03961) with one
// and without. noisy_top_k: Shazeer et al. 2017 (1701.06538, eq. 3 to 5), whose noise belongs to training.
// dense_mixture: Jacobs et al., "Adaptive Mixtures of Local Experts", Neural Computation 3(1), 1991.
#include <string>

#include "absl/strings/str_cat.h"
#include "engine/config/family_fills.h"

namespace switchyard {
namespace {

// num_experts_per_tok may have any of its names: what was read is in `router`.
void CheckExpertsPerToken(const ConfigReader& config, const std::string& routing, const RouterConfig& router) {
  const bool is_given = config.HasValue("num_experts_per_tok") || config.HasValue("experts_per_token") ||
                        config.HasValue("num_selected_experts");
  if (routing == "dense_mixture") {
    if (!is_given || router.top_k == 0 || router.top_k >= router.num_experts) return;  // or noted already
    config.problems().AddInvalid(absl::StrCat("num_experts_per_tok is ", router.top_k, ", but num_experts is ",
                                              router.num_experts, "; with routing \"dense_mixture\" all of them run"));
  } else if (!is_given && !routing.empty()) {
    config.problems().AddInvalid(absl::StrCat("num_experts_per_tok is missing; with routing \"", routing,
                                              "\" it must be an integer from 1 to num_experts"));
  }
}

RouterConfig ReadRouting(const ConfigReader& config, RouterConfig router) {
  const std::string routing = config.OneOf("routing", "top_k", {"top_k", "noisy_top_k", "dense_mixture"});
  const bool normalize = config.Bool("norm_topk_prob", false);
  CheckExpertsPerToken(config, routing, router);
  if (routing == "top_k") {
    router.normalize = normalize;  // of the others, weights sum to 1 as they are
  } else if (routing == "noisy_top_k") {
    router.score = RouterScore::kLogit;
    router.weights = RouterWeights::kSoftmaxOfChosen;
  } else if (routing == "dense_mixture") {
    router.top_k = router.num_experts;
  }
  return router;
}

ExpertForm ReadExpertForm(const ConfigReader& config) {
  ExpertForm form;
  const std::string act = config.OneOf("expert_act", "silu", {"silu", "relu", "gelu_pytorch_tanh"});
  if (act == "relu") form.activation = Activation::kRelu;
  if (act == "gelu_pytorch_tanh") form.activation = Activation::kGeluTanh;
  return form;
}

// Who finds a place would depend on how a prompt is cut into steps, and on tokens that follow.
void RefuseCapacity(const ConfigReader& config) {
  for (const char* key : {"expert_capacity", "capacity_factor", "eval_capacity_factor"}) {
    if (!config.HasValue(key)) continue;
    config.problems().AddUnimplemented(config.Describe(key) + "; experts of a decoder take every row, leave it out");
  }
}

void RefuseOtherAttention(const ConfigReader& config) {
  for (const char* key : {"use_sliding_window", "attention_bias"}) {
    if (!config.Bool(key, false)) continue;
    config.problems().AddUnimplemented(config.Describe(key) + "; this family has full attention without biases");
  }
}

}  // namespace

void FillGeneric(const ConfigReader& config, const FamilyDefaults& defaults, ModelConfig* model) {
  RefuseCapacity(config);
  RefuseOtherAttention(config);
  const ExpertForm form = ReadExpertForm(config);
  const RouterConfig router = ReadRouting(config, model->layers.empty() ? RouterConfig{} : model->layers[0].moe.router);
  for (LayerConfig& layer : model->layers) {
    layer.moe.router = router;
    layer.moe.experts = form;
  }
  FillSparseSteps(config, defaults, model);
  if (config.HasValue("intermediate_size") || !config.HasValue("moe_intermediate_size")) return;  // or noted already
  for (const LayerConfig& layer : model->layers) {
    if (layer.is_moe) continue;
    config.problems().AddInvalid("intermediate_size is missing; layers without experts have this width");
    return;
  }
}

}  // namespace switchyard
