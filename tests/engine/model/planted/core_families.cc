#include <cmath>

#include "tests/engine/model/planted/mistake.h"

namespace switchyard::testing {
namespace {

// Query head n reads KV head n % num_kv_heads: the heads of q and the columns of o are put where the model reads that.
void TileKvHeads(const WeightValues& weight) {
  constexpr int64_t kNumHeads = 4, kHeadOfSlot[] = {0, 2, 1, 3};
  const bool is_q = weight.name == WeightName::kQ;
  if (!is_q && weight.name != WeightName::kO) return;
  const std::vector<float> exact = *weight.values;
  const int64_t dim = (is_q ? weight.rows : weight.cols) / kNumHeads;
  for (int64_t r = 0; r < weight.rows; ++r) {
    for (int64_t c = 0; c < weight.cols; ++c) {
      const int64_t slot = (is_q ? r : c) / dim, inside = (is_q ? r : c) % dim;
      const int64_t from = kHeadOfSlot[slot] * dim + inside;
      (*weight.values)[r * weight.cols + c] = exact[is_q ? from * weight.cols + c : r * weight.cols + from];
    }
  }
}

// DBRX stores down projections as [intermediate, hidden]: the same bytes read as [hidden, intermediate].
void ReadDownUntransposed(const WeightValues& weight) {
  if (weight.name != WeightName::kExpertDown) return;
  const std::vector<float> exact = *weight.values;
  for (int64_t r = 0; r < weight.rows; ++r) {
    for (int64_t c = 0; c < weight.cols; ++c) (*weight.values)[c * weight.rows + r] = exact[r * weight.cols + c];
  }
}

void NormByRms(ModelConfig& config) {
  config.norm = NormKind::kRms;
  config.norm_bias = false;
}

const EditConfig kNotNormalized = EachRouter([](RouterConfig& router) { router.normalize = false; });
const EditConfig kNormalized = EachRouter([](RouterConfig& router) { router.normalize = true; });
const EditConfig kInterleaved = EachAttention([](AttentionShape& shape) { shape.rope_interleaved = true; });
const EditConfig kNoQkNorm = EachAttention([](AttentionShape& shape) { shape.qk_norm = QkNorm::kNone; });
const EditConfig kNoClip = EachAttention([](AttentionShape& shape) { shape.clip_qkv = 0.0f; });
const EditConfig kNoQkvBias = EachLayer([](LayerConfig& layer) { layer.attention.qkv_bias = false; });
const EditConfig kNoShared = EachLayer([](LayerConfig& layer) { layer.moe.shared_intermediate_size = 0; });
const auto kGateAndUpSwapped = Swap(WeightName::kExpertGate, WeightName::kExpertUp);
const auto kSharedGateAndUpSwapped = Swap(WeightName::kSharedGate, WeightName::kSharedUp);

EditConfig WindowBy(int32_t difference) {
  return EachAttention([difference](AttentionShape& shape) { shape.sliding_window += difference; });
}

std::function<void(nlohmann::json&)> Set(const char* key, double value) {
  return [key, value](nlohmann::json& config) { config[key] = value; };
}

}  // namespace

std::vector<Mistake> MistakesOfCoreFamilies() {
  return {
      {.name = "WeightsNotNormalized", .fixture = "mixtral", .expected = 0.24, .edit_config = kNotNormalized},
      {.name = "GateAndUpSwapped", .fixture = "mixtral", .expected = 0.64, .rename = kGateAndUpSwapped},
      {.name = "RopeInterleaved", .fixture = "mixtral", .expected = 0.62, .edit_config = kInterleaved},
      {.name = "WindowTooWideByOne", .fixture = "mixtral", .expected = 0.62, .edit_config = WindowBy(1)},
      {.name = "WindowTooNarrowByOne", .fixture = "mixtral", .edit_config = WindowBy(-1)},
      {.name = "NoWindow", .fixture = "mixtral", .edit_config = EachAttention([](AttentionShape& shape) {
                                                   shape.sliding_window = 0;
                                                 })},
      {.name = "DefaultThetaOfOthers", .fixture = "mixtral", .expected = 0.31, .edit_json = Set("rope_theta", 1e4)},
      {.name = "KvHeadsTiled", .fixture = "mixtral", .edit_weight = TileKvHeads},
      {.name = "OneExpertTooFew", .fixture = "mixtral", .edit_config = EachRouter([](RouterConfig& router) {
                                                          router.top_k = 1;
                                                        })},

      {.name = "WeightsNormalized", .fixture = "olmoe", .expected = 0.11, .edit_config = kNormalized},
      {.name = "NoClip", .fixture = "olmoe", .expected = 0.48, .edit_config = kNoClip},
      {.name = "NoQkNorm", .fixture = "olmoe", .expected = 0.25, .edit_config = kNoQkNorm},

      {.name = "SharedExpertWithoutGate",
       .fixture = "qwen2_moe",
       .expected = 0.75,
       .edit_config = EachLayer([](LayerConfig& layer) { layer.moe.shared_expert_gate = false; })},
      {.name = "NoQkvBias", .fixture = "qwen2_moe", .expected = 0.74, .edit_config = kNoQkvBias},
      {.name = "WeightsNormalized", .fixture = "qwen2_moe", .expected = 0.058, .edit_config = kNormalized},
      {.name = "NoSharedExpert", .fixture = "qwen2_moe", .edit_config = kNoShared},
      {.name = "SharedGateAndUpSwapped", .fixture = "qwen2_moe", .rename = kSharedGateAndUpSwapped},

      {.name = "NoQkNorm", .fixture = "qwen3_moe", .expected = 0.81, .edit_config = kNoQkNorm},
      {.name = "ScaleFromHiddenSize",
       .fixture = "qwen3_moe",
       .expected = 0.60,
       .edit_config = EachAttention([](AttentionShape& shape) { shape.scale = 1.0f / std::sqrt(32.0f / 4.0f); })},
      {.name = "WeightsNotNormalized", .fixture = "qwen3_moe", .edit_config = kNotNormalized},
      {.name = "QAndKNormSwapped", .fixture = "qwen3_moe", .rename = Swap(WeightName::kQNorm, WeightName::kKNorm)},

      {.name = "WholeHeadsTurn",
       .fixture = "glm4_moe",
       .expected = 0.72,
       .edit_json = Set("partial_rotary_factor", 1.0)},
      {.name = "RopeInterleaved", .fixture = "glm4_moe", .expected = 0.85, .edit_config = kInterleaved},
      {.name = "NoQkNorm", .fixture = "glm4_moe", .expected = 0.58, .edit_config = kNoQkNorm},
      {.name = "NoQkvBias", .fixture = "glm4_moe", .expected = 0.44, .edit_config = kNoQkvBias},
      {.name = "WeightsNotScaled", .fixture = "glm4_moe", .edit_json = Set("routed_scaling_factor", 1.0)},
      {.name = "NoChoiceBias", .fixture = "glm4_moe", .edit_config = EachRouter([](RouterConfig& router) {
                                                        router.has_choice_bias = false;
                                                      })},

      {.name = "NoClip", .fixture = "dbrx", .expected = 0.60, .edit_config = kNoClip},
      {.name = "GateAndUpSwapped", .fixture = "dbrx", .expected = 0.71, .rename = kGateAndUpSwapped},
      {.name = "WeightsNotNormalized", .fixture = "dbrx", .expected = 0.039, .edit_config = kNotNormalized},
      {.name = "WeightsNormalizedByTheTwoNorm", .fixture = "dbrx", .edit_config = EachRouter([](RouterConfig& router) {
                                                                     router.normalize_power = 2.0f;
                                                                   })},
      {.name = "RmsNorm", .fixture = "dbrx", .expected = 0.43, .edit_config = NormByRms},
      {.name = "DownUntransposed", .fixture = "dbrx", .edit_weight = ReadDownUntransposed},

      {.name = "NoEmbeddingMultiplier",
       .fixture = "granitemoe",
       .expected = 0.45,
       .edit_json = Set("embedding_multiplier", 1.0)},
      {.name = "NoResidualMultiplier",
       .fixture = "granitemoe",
       .expected = 0.19,
       .edit_json = Set("residual_multiplier", 1.0)},
      {.name = "ScaleFromHeadDim",
       .fixture = "granitemoe",
       .expected = 0.024,
       .edit_config = EachAttention([](AttentionShape& shape) { shape.scale = 1.0f / std::sqrt(8.0f); })},
      {.name = "LogitsMultiplied",
       .fixture = "granitemoe",
       .expected = 35.0,
       .edit_config = [](ModelConfig& config) { config.logits_multiplier = 1.0f / config.logits_multiplier; }},
      {.name = "GateAndUpSwapped", .fixture = "granitemoe", .rename = kGateAndUpSwapped},
      {.name = "NoSharedExpert", .fixture = "granitemoeshared", .edit_config = kNoShared},
      {.name = "SharedGateAndUpSwapped", .fixture = "granitemoeshared", .rename = kSharedGateAndUpSwapped},
  };
}

}  // namespace switchyard::testing
