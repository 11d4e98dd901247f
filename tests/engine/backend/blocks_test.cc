// Every block that not every device computes has a name, so that a backend can refuse it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <string>

#include "engine/backend/backend.h"

namespace switchyard {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

struct Layer {
  AttentionShape attention;
  RouterConfig router;
  LayerBlocks blocks;
};

std::vector<std::string> NamesAfter(const std::function<void(Layer&)>& change) {
  Layer layer;
  layer.blocks.attention = &layer.attention;
  layer.blocks.router = &layer.router;
  change(layer);
  return ExtraBlocks(layer.blocks);
}

TEST(ExtraBlocksTest, ThePlainDecoderHasNone) {
  EXPECT_THAT(NamesAfter([](Layer&) {}), IsEmpty());
  EXPECT_THAT(NamesAfter([](Layer& layer) {
                layer.attention.qk_norm = QkNorm::kHead;
                layer.attention.sliding_window = 5;
                layer.attention.clip_qkv = 8.0f;
                layer.router.normalize = true;
                layer.router.scale = 2.5f;
              }),
              IsEmpty());
  EXPECT_THAT(NamesAfter([](Layer& layer) {
                layer.router.has_choice_bias = true;
                layer.blocks.router = nullptr;  // dense
              }),
              IsEmpty());
}

TEST(ExtraBlocksTest, EachIsNamed) {
  const std::pair<const char*, std::function<void(Layer&)>> blocks[] = {
      {"layer norm", [](Layer& l) { l.blocks.layer_norm = true; }},
      {"mixture of attention heads", [](Layer& l) { l.blocks.attention_experts = true; }},
      {"bidirectional attention", [](Layer& l) { l.blocks.bidirectional = true; }},
      {"cross attention", [](Layer& l) { l.blocks.cross_attention = true; }},
      {"relative position bias", [](Layer& l) { l.attention.relative_max_distance = 128; }},
      {"bias on the experts' sum", [](Layer& l) { l.blocks.moe_output_bias = true; }},
      {"latent attention (MLA)", [](Layer& l) { l.attention.latent_dim = 512; }},
      {"interleaved RoPE", [](Layer& l) { l.attention.rope_interleaved = true; }},
      {"q/k norm after RoPE", [](Layer& l) { l.attention.qk_norm = QkNorm::kL2AfterRope; }},
      {"chunked attention", [](Layer& l) { l.attention.chunk_size = 8192; }},
      {"query temperature", [](Layer& l) { l.attention.temperature_scale = 0.1f; }},
      {"attention sinks", [](Layer& l) { l.attention.has_sinks = true; }},
      {"sigmoid router", [](Layer& l) { l.router.score = RouterScore::kSigmoid; }},
      {"router that chooses by logits", [](Layer& l) { l.router.score = RouterScore::kLogit; }},
      {"router weights other than the scores", [](Layer& l) { l.router.weights = RouterWeights::kSparseMixer; }},
      {"grouped router", [](Layer& l) { l.router.num_groups = 8; }},
      {"router choice bias", [](Layer& l) { l.router.has_choice_bias = true; }},
      {"router bias", [](Layer& l) { l.blocks.router_bias = true; }},
      {"router weights on the experts' inputs", [](Layer& l) { l.router.weigh_input = true; }},
      {"clamped SwiGLU", [](Layer& l) { l.blocks.experts.activation = Activation::kClampedSwiglu; }},
      {"experts without a gate", [](Layer& l) { l.blocks.experts.activation = Activation::kRelu; }},
      {"expert capacity", [](Layer& l) { l.router.capacity = 8; }},
      {"expert biases", [](Layer& l) { l.blocks.experts.biases = true; }},
      {"router weights normalised by a p-norm", [](Layer& l) {
         l.router.normalize = true;
         l.router.normalize_power = 2.0f;
       }}};
  for (const auto& [name, change] : blocks) EXPECT_THAT(NamesAfter(change), ElementsAre(name));
}

}  // namespace
}  // namespace switchyard
