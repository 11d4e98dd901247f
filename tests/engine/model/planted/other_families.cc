#include <algorithm>

#include "tests/engine/model/planted/broken_backends.h"
#include "tests/engine/model/planted/mistake.h"

namespace switchyard::testing {
namespace {

const EditConfig kNoShared = EachLayer([](LayerConfig& layer) { layer.moe.shared_intermediate_size = 0; });
const auto kGateAndUpSwapped = Swap(WeightName::kExpertGate, WeightName::kExpertUp);

EditConfig WeighBy(RouterScore score, RouterWeights weights) {
  return EachRouter([=](RouterConfig& router) {
    router.score = score;
    router.weights = weights;
  });
}

void TurnInEveryLayer(ModelConfig& config) {
  for (LayerConfig& layer : config.layers) {
    layer.attention.shape.rope_inv_freq = config.layers[0].attention.shape.rope_inv_freq;
    layer.attention.shape.rope_interleaved = true;
  }
}

void SlideInEveryLayer(ModelConfig& config) {
  for (LayerConfig& layer : config.layers) {
    layer.attention.shape.sliding_window = config.layers[0].attention.shape.sliding_window;
  }
}

// Gate and up taken for the two halves of what alternates between them.
void ReadGateUpInHalves(const WeightValues& weight) {
  const bool is_gate = weight.name == WeightName::kExpertGate;
  if (!is_gate && weight.name != WeightName::kExpertUp) return;
  for (int64_t r = 0; r < weight.rows; ++r) {
    const int64_t stored = is_gate ? r : weight.rows + r;  // row of the whole
    const WeightName from = stored % 2 == 0 ? WeightName::kExpertGate : WeightName::kExpertUp;
    const absl::Status read = weight.exact.Find(from, weight.layer, weight.expert)
                                  ->ReadRows(stored / 2, 1, DType::kF32, weight.values->data() + r * weight.cols);
    CHECK(read.ok());
  }
}

void SwapHalvesOfBytes(const WeightValues& weight) {
  if (weight.name < WeightName::kExpertGate || weight.name > WeightName::kExpertDown) return;
  for (size_t i = 0; i < weight.values->size(); i += 2) std::swap((*weight.values)[i], (*weight.values)[i + 1]);
}

}  // namespace

std::vector<Mistake> MistakesOfOtherFamilies() {
  return {
      {.name = "WeightsOnTheOutput",
       .fixture = "llama4_maverick_like",
       .expected = 0.081,
       .edit_config = EachRouter([](RouterConfig& router) { router.weigh_input = false; })},
      {.name = "WeightsBySoftmax",
       .fixture = "llama4_maverick_like",
       .expected = 0.15,
       .edit_config = WeighBy(RouterScore::kSoftmax, RouterWeights::kScore)},
      {.name = "SlidingForChunked",
       .fixture = "llama4_maverick_like",
       .expected = 1.0,
       .edit_config = EachAttention([](AttentionShape& shape) { std::swap(shape.chunk_size, shape.sliding_window); })},
      {.name = "NoQkNorm",
       .fixture = "llama4_maverick_like",
       .expected = 0.31,
       .edit_config = EachAttention([](AttentionShape& shape) { shape.qk_norm = QkNorm::kNone; })},
      {.name = "NoTemperature",
       .fixture = "llama4_maverick_like",
       .expected = 0.021,
       .edit_config = EachAttention([](AttentionShape& shape) { shape.temperature_scale = 0.0f; })},
      {.name = "RopeInEveryLayer",
       .fixture = "llama4_maverick_like",
       .expected = 0.23,
       .edit_config = TurnInEveryLayer},
      {.name = "RopeHalfSplit",
       .fixture = "llama4_maverick_like",
       .expected = 0.54,
       .edit_config = EachAttention([](AttentionShape& shape) { shape.rope_interleaved = false; })},
      {.name = "GateAndUpSwapped", .fixture = "llama4_maverick_like", .expected = 0.32, .rename = kGateAndUpSwapped},
      {.name = "NoSharedExpert", .fixture = "llama4_maverick_like", .expected = 0.37, .edit_config = kNoShared},
      {.name = "NoRopeScaling",
       .fixture = "llama4_scout_like",
       .expected = 0.51,
       .edit_json = [](nlohmann::json& config) { config.erase("rope_scaling"); }},

      {.name = "NoSinks",
       .fixture = "gpt_oss_bf16",
       .expected = 0.63,
       .edit_config = EachAttention([](AttentionShape& shape) { shape.has_sinks = false; })},
      {.name = "NoClamp", .fixture = "gpt_oss_bf16", .expected = 1.1, .edit_config = EachLayer([](LayerConfig& layer) {
                                                                        layer.moe.experts.limit = 1e6f;
                                                                      })},
      {.name = "PlainSilu",
       .fixture = "gpt_oss_bf16",
       .expected = 0.97,
       .edit_config = EachLayer([](LayerConfig& layer) { layer.moe.experts.activation = Activation::kSilu; })},
      {.name = "SoftmaxOverAllExperts",
       .fixture = "gpt_oss_bf16",
       .expected = 0.22,
       .edit_config = WeighBy(RouterScore::kSoftmax, RouterWeights::kScore)},
      {.name = "NoAttentionFactor",
       .fixture = "gpt_oss_bf16",
       .expected = 0.54,
       .edit_config = EachAttention([](AttentionShape& shape) { shape.rope_attention_factor = 1.0f; })},
      {.name = "YarnTruncated",
       .fixture = "gpt_oss_bf16",
       .expected = 0.42,
       .edit_json = [](nlohmann::json& config) { config["rope_scaling"]["truncate"] = true; }},
      {.name = "SlidingInEveryLayer", .fixture = "gpt_oss_bf16", .expected = 0.73, .edit_config = SlideInEveryLayer},
      {.name = "WindowTooWideByOne", .fixture = "gpt_oss_bf16", .edit_config = EachAttention([](AttentionShape& shape) {
                                                                  if (shape.sliding_window > 0) ++shape.sliding_window;
                                                                })},
      {.name = "NoExpertBiases",
       .fixture = "gpt_oss_bf16",
       .expected = 0.50,
       .edit_config = EachLayer([](LayerConfig& layer) { layer.moe.experts.biases = false; })},
      {.name = "NoRouterBias",
       .fixture = "gpt_oss_bf16",
       .expected = 0.42,
       .edit_config = EachLayer([](LayerConfig& layer) { layer.moe.router_bias = false; })},
      {.name = "GateAndUpInHalves", .fixture = "gpt_oss_bf16", .edit_weight = ReadGateUpInHalves},
      {.name = "HalvesOfBytesSwapped", .fixture = "gpt_oss_mxfp4", .edit_weight = SwapHalvesOfBytes},
      {.name = "GateAndUpInHalves", .fixture = "gpt_oss_mxfp4", .edit_weight = ReadGateUpInHalves},

      {.name = "SoftmaxOfTheChosen",
       .fixture = "phimoe_long",
       .expected = 0.55,
       .edit_config = WeighBy(RouterScore::kLogit, RouterWeights::kSoftmaxOfChosen)},
      {.name = "SoftmaxOfAllExperts",
       .fixture = "phimoe_long",
       .expected = 0.75,
       .edit_config = WeighBy(RouterScore::kSoftmax, RouterWeights::kScore)},
      {.name = "ThresholdHalved", .fixture = "phimoe_long", .edit_config = EachRouter([](RouterConfig& router) {
                                                              router.mixer_threshold /= 2;
                                                            })},
      {.name = "ShortFactors", .fixture = "phimoe_long", .expected = 0.70, .max_model_len = 16},
      {.name = "RmsNorm",
       .fixture = "phimoe_long",
       .expected = 0.90,
       .edit_config =
           [](ModelConfig& config) {
             config.norm = NormKind::kRms;
             config.norm_bias = false;
           }},
      {.name = "NoNormBias",
       .fixture = "phimoe_long",
       .expected = 0.65,
       .edit_config = [](ModelConfig& config) { config.norm_bias = false; }},
      {.name = "NoHeadBias",
       .fixture = "phimoe_long",
       .expected = 0.12,
       .edit_config = [](ModelConfig& config) { config.lm_head_bias = false; }},
      {.name = "LongFactors", .fixture = "phimoe_short", .max_model_len = 64},

      {.name = "NoBiases",
       .fixture = "jetmoe",
       .expected = 1.0,
       .edit_weight = Zero({WeightName::kMoeBias, WeightName::kAttentionBias})},
      {.name = "KvHeadsRepeated", .fixture = "jetmoe", .break_backend = MakeBrokenHeads},
      {.name = "AttentionRoutedByTheMlpsRouter",
       .fixture = "jetmoe",
       .rename = [](WeightName name) { return name == WeightName::kAttentionRouter ? WeightName::kRouter : name; }},

      {.name = "NoResidualMlp", .fixture = "arctic", .edit_weight = Zero({WeightName::kParallelDown})},
      {.name = "MoeReadsWhatFollowsTheAttention", .fixture = "arctic", .break_backend = MakeBrokenArctic},
      {.name = "NormsSwapped",
       .fixture = "arctic",
       .rename = Swap(WeightName::kPostAttentionNorm, WeightName::kParallelNorm)},
      {.name = "WeightsNotNormalized", .fixture = "arctic", .edit_config = EachRouter([](RouterConfig& router) {
                                                              router.normalize = false;
                                                            })},
      {.name = "GateAndUpSwapped", .fixture = "arctic", .rename = kGateAndUpSwapped},
  };
}

}  // namespace switchyard::testing
