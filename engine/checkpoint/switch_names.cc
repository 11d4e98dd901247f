#include "engine/checkpoint/switch_names.h"

#include <algorithm>
#include <iterator>

#include "absl/strings/str_cat.h"
#include "engine/base/status_macros.h"

namespace switchyard {
namespace {

struct Name {
  WeightName name;
  const char* text;
};

constexpr Name kOfModel[] = {
    {WeightName::kEmbedding, "shared.weight"},
    {WeightName::kLmHead, "lm_head.weight"},
    {WeightName::kEncoderFinalNorm, "encoder.final_layer_norm.weight"},
    {WeightName::kFinalNorm, "decoder.final_layer_norm.weight"},
};

// After "encoder.block.{i}.layer." or "decoder.block.{i}.layer.".
constexpr Name kOfAttention[] = {
    {WeightName::kInputNorm, "0.layer_norm.weight"},
    {WeightName::kQ, "0.SelfAttention.q.weight"},
    {WeightName::kK, "0.SelfAttention.k.weight"},
    {WeightName::kV, "0.SelfAttention.v.weight"},
    {WeightName::kO, "0.SelfAttention.o.weight"},
    {WeightName::kRelativeBias, "0.SelfAttention.relative_attention_bias.weight"},
    {WeightName::kCrossNorm, "1.layer_norm.weight"},
    {WeightName::kCrossQ, "1.EncDecAttention.q.weight"},
    {WeightName::kCrossK, "1.EncDecAttention.k.weight"},
    {WeightName::kCrossV, "1.EncDecAttention.v.weight"},
    {WeightName::kCrossO, "1.EncDecAttention.o.weight"},
};

// The last sub-layer of a block, which is number 1 in the encoder and number 2 in the decoder.
constexpr Name kOfFeedForward[] = {
    {WeightName::kPostAttentionNorm, "layer_norm.weight"},
    {WeightName::kMlpUp, "mlp.wi.weight"},
    {WeightName::kMlpDown, "mlp.wo.weight"},
    {WeightName::kRouter, "mlp.router.classifier.weight"},
    {WeightName::kRouterBias, "mlp.router.classifier.bias"},
};

// Null where the table lacks it.
template <typename Names>
const char* Find(const Names& names, WeightName name) {
  const auto found = std::find_if(std::begin(names), std::end(names), [&](const Name& n) { return n.name == name; });
  return found == std::end(names) ? nullptr : found->text;
}

}  // namespace

std::string SwitchTensorName(const ModelConfig& config, const WeightSpec& spec) {
  if (spec.layer < 0) {
    const char* const text = Find(kOfModel, spec.name);
    CHECK(text != nullptr);
    return text;
  }
  const bool is_decoder = spec.layer >= config.num_encoder_layers;
  const std::string block = absl::StrCat(is_decoder ? "decoder" : "encoder", ".block.",
                                         is_decoder ? spec.layer - config.num_encoder_layers : spec.layer, ".layer.");
  if (const char* text = Find(kOfAttention, spec.name)) return block + text;
  const std::string last = absl::StrCat(block, is_decoder ? 2 : 1, ".");
  if (const char* text = Find(kOfFeedForward, spec.name)) return last + text;
  CHECK(spec.name == WeightName::kExpertUp || spec.name == WeightName::kExpertDown);
  return absl::StrCat(last, "mlp.experts.expert_", spec.expert,
                      spec.name == WeightName::kExpertUp ? ".wi.weight" : ".wo.weight");
}

bool IsSwitchCopy(const std::string& tensor) {
  return tensor == "encoder.embed_tokens.weight" || tensor == "decoder.embed_tokens.weight";
}

}  // namespace switchyard
