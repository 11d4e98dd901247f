#include <algorithm>
#include <cmath>
#include <vector>

#include "engine/model/relative_bias.h"
#include "tests/engine/model/planted/broken_encoder_decoders.h"
#include "tests/engine/model/planted/mistake.h"
#include "tests/support/values_reader.h"

namespace switchyard::testing {
namespace {

// Both fixtures have four layers per stack, of which 1 and 3 have experts; numbers go through both.
constexpr int kNumEncoderLayers = 4;

std::function<std::unique_ptr<Backend>(Backend*)> Broken(EncoderDecoderFault fault) {
  return [fault](Backend* inner) { return MakeBrokenEncoderDecoder(inner, fault); };
}

// Instead of the layer's own.
void TakeOfLayer(int layer, const WeightValues& weight) {
  *weight.values = ValuesReader::ReadAll(*weight.exact.Find(weight.name, layer, weight.expert));
}

// The table of relative positions with row b taken from row from(b).
template <typename From>
void TakeRows(const WeightValues& weight, const From& from) {
  const std::vector<float> table = *weight.values;
  for (int64_t b = 0; b < weight.rows; ++b) {
    std::copy_n(table.begin() + from(static_cast<int32_t>(b)) * weight.cols, weight.cols,
                weight.values->begin() + b * weight.cols);
  }
}

// Each bucket of the decoder holds what the encoder's numbering of buckets has for the same distance back.
void NumberDecoderBucketsAsTheEncoders(const WeightValues& weight) {
  if (weight.name != WeightName::kRelativeBias || weight.layer < kNumEncoderLayers) return;
  constexpr int32_t kMaxDistance = 16;  // of the fixtures
  const int32_t num_buckets = static_cast<int32_t>(weight.rows);
  TakeRows(weight, [&](int32_t bucket) {
    int32_t distance = 0;
    while (RelativeBucket(-distance, /*bidirectional=*/false, num_buckets, kMaxDistance) != bucket) ++distance;
    return RelativeBucket(-distance, /*bidirectional=*/true, num_buckets, kMaxDistance);
  });
}

// Keys before the query for those behind it.
void TurnEncoderDistances(const WeightValues& weight) {
  if (weight.name != WeightName::kRelativeBias || weight.layer >= kNumEncoderLayers) return;
  const int32_t half = static_cast<int32_t>(weight.rows) / 2;
  TakeRows(weight, [&](int32_t bucket) { return bucket % half == 0 ? bucket : (bucket + half) % (2 * half); });
}

void TakeTheEncodersBias(const WeightValues& weight) {
  if (weight.name == WeightName::kRelativeBias) TakeOfLayer(0, weight);
}

void ReadBiasByHeads(const WeightValues& weight) {
  if (weight.name != WeightName::kRelativeBias) return;
  const std::vector<float> table = *weight.values;
  for (int64_t b = 0; b < weight.rows; ++b) {
    for (int64_t h = 0; h < weight.cols; ++h) (*weight.values)[b * weight.cols + h] = table[h * weight.rows + b];
  }
}

// As if the other sparse layer of the stack came first.
void TakeExpertsOfTheOtherLayer(const WeightValues& weight) {
  if (weight.name != WeightName::kExpertUp && weight.name != WeightName::kExpertDown) return;
  TakeOfLayer(weight.layer ^ 2, weight);
}

// As if the router of each layer were the first sparse layer's of its stack.
void TakeTheFirstRouter(const WeightValues& weight) {
  if (weight.name == WeightName::kRouter) TakeOfLayer(weight.layer & ~2, weight);
}

const EditConfig kGelu = EachLayer(
    [](LayerConfig& layer) { layer.dense_activation = layer.moe.experts.activation = Activation::kGeluTanh; });

EditConfig WithCapacity(int32_t capacity, CapacityOrder order = CapacityOrder::kFirstCome) {
  return EachRouter([=](RouterConfig& router) {
    router.capacity = capacity;
    router.capacity_order = order;
  });
}

}  // namespace

std::vector<Mistake> MistakesOfEncoderDecoders() {
  return {
      {.name = "DecodersBucketsBidirectional",
       .fixture = "switch_nodrop",
       .edit_weight = NumberDecoderBucketsAsTheEncoders},
      {.name = "EncodersDistancesTurned", .fixture = "switch_nodrop", .edit_weight = TurnEncoderDistances},
      {.name = "EncodersBiasInBothStacks", .fixture = "switch_nodrop", .edit_weight = TakeTheEncodersBias},
      {.name = "BiasReadByHeads", .fixture = "switch_nodrop", .edit_weight = ReadBiasByHeads},
      {.name = "NoRelativeBias", .fixture = "switch_nodrop", .edit_weight = Zero({WeightName::kRelativeBias})},
      {.name = "DecodersBiasInFirstLayerOnly",
       .fixture = "switch_nodrop",
       .break_backend = Broken(EncoderDecoderFault::kBiasInFirstLayerOnly)},
      {.name = "CrossAttentionBiased",
       .fixture = "switch_nodrop",
       .break_backend = Broken(EncoderDecoderFault::kCrossAttentionBiased)},
      {.name = "CrossAttentionToItself",
       .fixture = "switch_nodrop",
       .break_backend = Broken(EncoderDecoderFault::kCrossAttentionToItself)},
      {.name = "CrossKeysAndValuesSwapped",
       .fixture = "switch_nodrop",
       .rename = Swap(WeightName::kCrossK, WeightName::kCrossV)},
      {.name = "CrossAndOwnQueriesSwapped",
       .fixture = "switch_nodrop",
       .rename = Swap(WeightName::kCrossQ, WeightName::kQ)},
      {.name = "NormsOfSubLayersSwapped",
       .fixture = "switch_nodrop",
       .rename = Swap(WeightName::kCrossNorm, WeightName::kPostAttentionNorm)},
      {.name = "FinalNormsSwapped",
       .fixture = "switch_nodrop",
       .rename = Swap(WeightName::kEncoderFinalNorm, WeightName::kFinalNorm)},
      {.name = "EncoderIsCausal",
       .fixture = "switch_nodrop",
       .break_backend = Broken(EncoderDecoderFault::kEncoderIsCausal)},
      {.name = "ScoresScaled", .fixture = "switch_nodrop", .edit_config = EachAttention([](AttentionShape& shape) {
                                                             shape.scale = 1.0f / std::sqrt(shape.head_dim);
                                                           })},
      {.name = "NormsSubtractTheMean",
       .fixture = "switch_nodrop",
       .break_backend = Broken(EncoderDecoderFault::kNormsSubtractTheMean)},
      {.name = "GeluForRelu", .fixture = "switch_nodrop", .edit_config = kGelu},
      {.name = "TiedHeadNotScaled",
       .fixture = "switch_nodrop",
       .edit_config = [](ModelConfig& config) { config.logits_multiplier = 1.0f; }},
      {.name = "RouterWeightMadeOne", .fixture = "switch_nodrop", .edit_config = EachRouter([](RouterConfig& router) {
                                                                    router.normalize = true;
                                                                  })},
      {.name = "RouterWeightBySigmoid", .fixture = "switch_nodrop", .edit_config = EachRouter([](RouterConfig& router) {
                                                                      router.weights = RouterWeights::kSigmoid;
                                                                    })},
      {.name = "ExpertsOfTheOtherLayer", .fixture = "switch_nodrop", .edit_weight = TakeExpertsOfTheOtherLayer},
      {.name = "RoutersOfTheFirstLayer", .fixture = "switch_nodrop", .edit_weight = TakeTheFirstRouter},

      {.name = "UntiedHeadScaled",
       .fixture = "switch_drop",
       .edit_config = [](ModelConfig& config) { config.logits_multiplier = 1.0f / std::sqrt(config.hidden_size); }},
      {.name = "NoCapacity", .fixture = "switch_drop", .edit_config = WithCapacity(0)},
      {.name = "CapacityTooLargeByOne", .fixture = "switch_drop", .edit_config = WithCapacity(4)},
      {.name = "LikeliestTokensFirst",
       .fixture = "switch_drop",
       .edit_config = WithCapacity(3, CapacityOrder::kBestGateFirst)},
      {.name = "LastTokensFirst",
       .fixture = "switch_drop",
       .break_backend = Broken(EncoderDecoderFault::kLastComeFirst)},
      {.name = "DroppedTokensBecomeZero",
       .fixture = "switch_drop",
       .break_backend = Broken(EncoderDecoderFault::kDroppedBecomeZero)},
      {.name = "DroppedTokensKeepTheirInput",
       .fixture = "switch_drop",
       .break_backend = Broken(EncoderDecoderFault::kDroppedKeepTheirInput)},
  };
}

}  // namespace switchyard::testing
