#include <cmath>
#include <cstring>

#include "tests/engine/model/planted/broken_backends.h"
#include "tests/engine/model/planted/mistake.h"

namespace switchyard::testing {
namespace {

const EditConfig kNoMscale = EachLayer([](LayerConfig& layer) {
  const MlaConfig& mla = layer.attention.mla;
  layer.attention.shape.scale = 1.0f / std::sqrt(static_cast<float>(mla.qk_nope_head_dim + mla.qk_rope_head_dim));
});
const EditConfig kHalfSplit = EachAttention([](AttentionShape& shape) { shape.rope_interleaved = false; });
const EditConfig kNoYarn = EachAttention([](AttentionShape& shape) {
  constexpr double kTheta = 1e4;
  const size_t pairs = shape.rope_inv_freq.size();
  for (size_t m = 0; m < pairs; ++m) {
    shape.rope_inv_freq[m] = static_cast<float>(std::pow(kTheta, -static_cast<double>(m) / static_cast<double>(pairs)));
  }
});
const EditConfig kNoGroups = EachRouter([](RouterConfig& router) { router.num_groups = router.topk_group = 1; });
const EditConfig kNotScaled = EachRouter([](RouterConfig& router) { router.scale = 1.0f; });
const EditConfig kNormalized = EachRouter([](RouterConfig& router) { router.normalize = true; });
const EditConfig kNotNormalized = EachRouter([](RouterConfig& router) { router.normalize = false; });
const EditConfig kNoChoiceBias = EachRouter([](RouterConfig& router) { router.has_choice_bias = false; });
const EditConfig kNoShared = EachLayer([](LayerConfig& layer) { layer.moe.shared_intermediate_size = 0; });

EditConfig GroupsBy(GroupScore score) {
  return EachRouter([score](RouterConfig& router) { router.group_score = score; });
}

// Every scale of fp8 blocks becomes change(scale).
std::function<void(std::string*)> ChangeScales(float (*change)(float)) {
  return [change](std::string* file) {
    uint64_t header_size = 0;
    std::memcpy(&header_size, file->data(), sizeof(header_size));
    const size_t data = sizeof(header_size) + header_size;
    const nlohmann::json header = nlohmann::json::parse(file->substr(sizeof(header_size), header_size));
    for (const auto& [name, entry] : header.items()) {
      if (!name.ends_with("_scale_inv")) continue;
      for (size_t at = entry["data_offsets"][0]; at < entry["data_offsets"][1]; at += sizeof(float)) {
        float scale;
        std::memcpy(&scale, file->data() + data + at, sizeof(scale));
        scale = change(scale);
        std::memcpy(file->data() + data + at, &scale, sizeof(scale));
      }
    }
  };
}

}  // namespace

std::vector<Mistake> MistakesOfLatentFamilies() {
  return {
      {.name = "WeightsNormalized", .fixture = "deepseek_v1", .edit_config = kNormalized},
      {.name = "NoSharedExperts", .fixture = "deepseek_v1", .edit_config = kNoShared},
      {.name = "SharedGateAndUpSwapped",
       .fixture = "deepseek_v1",
       .rename = Swap(WeightName::kSharedGate, WeightName::kSharedUp)},

      {.name = "NoMscale", .fixture = "deepseek_v2_lite", .edit_config = kNoMscale},
      {.name = "NoYarn", .fixture = "deepseek_v2_lite", .edit_config = kNoYarn},
      {.name = "NoMscale", .fixture = "deepseek_v2", .expected = 0.58, .edit_config = kNoMscale},
      {.name = "RopeHalfSplit", .fixture = "deepseek_v2", .edit_config = kHalfSplit},
      {.name = "GroupsByTopTwoSum", .fixture = "deepseek_v2", .edit_config = GroupsBy(GroupScore::kTopTwoSum)},
      {.name = "NoGroups", .fixture = "deepseek_v2", .edit_config = kNoGroups},
      {.name = "WeightsNotScaled", .fixture = "deepseek_v2", .edit_config = kNotScaled},
      {.name = "WeightsNormalizedAndScaled", .fixture = "deepseek_v2", .edit_config = kNormalized},

      {.name = "NoMscale", .fixture = "deepseek_v3", .expected = 0.58, .edit_config = kNoMscale},
      {.name = "NoChoiceBias", .fixture = "deepseek_v3", .expected = 0.89, .edit_config = kNoChoiceBias},
      {.name = "WeightsFromBiasedScores",
       .fixture = "deepseek_v3",
       .break_backend = [](Backend* backend) { return MakeBrokenRouter(backend, RouterFault::kBiasedWeights); }},
      {.name = "GroupsByMaximum",
       .fixture = "deepseek_v3",
       .expected = 0.78,
       .edit_config = GroupsBy(GroupScore::kMax)},
      {.name = "NoGroups", .fixture = "deepseek_v3", .expected = 0.75, .edit_config = kNoGroups},
      {.name = "WeightsNotScaled", .fixture = "deepseek_v3", .expected = 0.43, .edit_config = kNotScaled},
      {.name = "WeightsNotNormalized", .fixture = "deepseek_v3", .expected = 1.2, .edit_config = kNotNormalized},
      {.name = "ScoresBySoftmax", .fixture = "deepseek_v3", .edit_config = EachRouter([](RouterConfig& router) {
                                                              router.score = RouterScore::kSoftmax;
                                                            })},
      {.name = "RopeHalfSplit", .fixture = "deepseek_v3", .expected = 0.73, .edit_config = kHalfSplit},
      {.name = "NoYarn", .fixture = "deepseek_v3", .expected = 0.56, .edit_config = kNoYarn},
      {.name = "NoSharedExperts", .fixture = "deepseek_v3", .expected = 0.91, .edit_config = kNoShared},
      {.name = "GroupsMaskedByZero",
       .fixture = "deepseek_v3_negbias",
       .expected = 1.1,
       .break_backend = [](Backend* backend) { return MakeBrokenRouter(backend, RouterFault::kGroupsMaskedByZero); }},

      {.name = "ScalesIgnored", .fixture = "deepseek_v3_fp8", .edit_file = ChangeScales([](float) { return 1.0f; })},
      {.name = "ScalesDivide", .fixture = "deepseek_v3_fp8", .edit_file = ChangeScales([](float scale) {
                                                               return 1.0f / scale;
                                                             })},

      {.name = "UsualYarnBetas",
       .fixture = "kimi_k2",
       .edit_json = [](nlohmann::json& config) { config["rope_scaling"]["beta_fast"] = 32.0; }},
      {.name = "NoChoiceBias", .fixture = "kimi_k2", .edit_config = kNoChoiceBias},
      {.name = "WeightsNotScaled", .fixture = "kimi_k2", .edit_config = kNotScaled},
  };
}

}  // namespace switchyard::testing
