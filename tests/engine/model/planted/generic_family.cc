#include <utility>

#include "tests/engine/model/planted/mistake.h"

namespace switchyard::testing {
namespace {

constexpr const char* kTopK = "switchyard_moe_top_k";          // two of six without gates, in every second layer
constexpr const char* kNoisy = "switchyard_moe_noisy_top_k";   // three of eight
constexpr const char* kDense = "switchyard_moe_dense_mixture";  // all five, without gates

EditConfig WithActivation(Activation activation) {
  return EachLayer([activation](LayerConfig& layer) { layer.moe.experts.activation = activation; });
}

// Layers 0, 2, ... have experts instead of 1, 3, ...; each kind of block is read in the order in which it is stored.
void ExpertsInEvenLayers(ModelConfig& config) {
  for (size_t l = 0; l + 1 < config.layers.size(); l += 2) std::swap(config.layers[l], config.layers[l + 1]);
}
int FeedForwardOfTheNeighbor(WeightName name, int layer) {
  return name >= WeightName::kMlpGate && name <= WeightName::kExpertDown ? layer ^ 1 : layer;
}

}  // namespace

std::vector<Mistake> MistakesOfGenericFamily() {
  return {
      {.name = "WeightsNotNormalized", .fixture = kTopK, .edit_config = EachRouter([](RouterConfig& router) {
                                                           router.normalize = false;
                                                         })},
      {.name = "StepsBeginAtTheFirstLayer",
       .fixture = kTopK,
       .edit_config = ExpertsInEvenLayers,
       .layer_of = FeedForwardOfTheNeighbor},
      {.name = "OneExpertTooFew", .fixture = kTopK, .edit_config = EachRouter([](RouterConfig& router) {
                                                      router.top_k = 1;
                                                    })},
      {.name = "GeluForRelu", .fixture = kTopK, .edit_config = WithActivation(Activation::kGeluTanh)},

      {.name = "SoftmaxBeforeTopK", .fixture = kNoisy, .edit_config = EachRouter([](RouterConfig& router) {
                                                         router.score = RouterScore::kSoftmax;
                                                         router.weights = RouterWeights::kScore;
                                                       })},
      {.name = "ExpertsWithoutTheirGate", .fixture = kNoisy, .edit_config = WithActivation(Activation::kGeluTanh)},
      {.name = "GateAndUpSwapped", .fixture = kNoisy, .rename = Swap(WeightName::kExpertGate, WeightName::kExpertUp)},

      {.name = "OneExpertLeftOut", .fixture = kDense, .edit_config = EachRouter([](RouterConfig& router) {
                                                        router.top_k = router.num_experts - 1;
                                                      })},
      {.name = "SigmoidScores", .fixture = kDense, .edit_config = EachRouter([](RouterConfig& router) {
                                                     router.score = RouterScore::kSigmoid;
                                                   })},
      {.name = "ReluForGelu", .fixture = kDense, .edit_config = WithActivation(Activation::kRelu)},
  };
}

}  // namespace switchyard::testing
