// switchyard_moe: the routings of the literature, and that whatever cannot be one of them is refused by name.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <ostream>
#include <string>
#include <tuple>
#include <vector>

#include "engine/config/model_config.h"

namespace switchyard {
namespace {

using nlohmann::json;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

json Small() {
  return {{"model_type", "switchyard_moe"}, {"vocab_size", 100},      {"hidden_size", 32},
          {"num_hidden_layers", 4},         {"num_experts", 8},       {"num_attention_heads", 4},
          {"num_experts_per_tok", 2},       {"intermediate_size", 40}, {"max_position_embeddings", 64}};
}

json With(json config, const json& changes) {
  config.update(changes);
  return config;
}

ModelConfig Parse(const json& config) {
  auto parsed = ParseModelConfig(config.dump());
  EXPECT_TRUE(parsed.ok()) << parsed.status();
  return parsed.ok() ? *parsed : ModelConfig{};
}

std::vector<bool> MoeLayers(const ModelConfig& config) {
  std::vector<bool> moe;
  for (const LayerConfig& layer : config.layers) moe.push_back(layer.is_moe);
  return moe;
}

TEST(GenericFamilyTest, ByDefaultTheLikeliestExpertsCountByTheirProbability) {
  const ModelConfig config = Parse(Small());
  EXPECT_EQ(config.model_type, "switchyard_moe");
  EXPECT_FLOAT_EQ(config.rms_norm_eps, 1e-6f);
  EXPECT_THAT(config.eos_token_ids, ElementsAre());
  EXPECT_THAT(MoeLayers(config), ElementsAre(true, true, true, true));
  const LayerConfig& layer = config.layers[3];
  EXPECT_EQ(layer.moe.router.num_experts, 8);
  EXPECT_EQ(layer.moe.router.top_k, 2);
  EXPECT_EQ(layer.moe.router.score, RouterScore::kSoftmax);
  EXPECT_EQ(layer.moe.router.weights, RouterWeights::kScore);
  EXPECT_FALSE(layer.moe.router.normalize);
  EXPECT_EQ(layer.moe.router.capacity, 0);
  EXPECT_EQ(layer.moe.experts.activation, Activation::kSilu);
  EXPECT_FALSE(layer.moe.experts.biases);
  EXPECT_EQ(layer.moe.intermediate_size, 40);
  EXPECT_EQ(layer.moe.shared_intermediate_size, 0);
  EXPECT_EQ(layer.attention.shape.num_kv_heads, 4);
  EXPECT_EQ(layer.attention.shape.qk_norm, QkNorm::kNone);
  EXPECT_FLOAT_EQ(layer.attention.shape.rope_inv_freq[1], 0.1f);
  EXPECT_FALSE(layer.attention.qkv_bias);
}

TEST(GenericFamilyTest, TopKWeightsSumToOneIfAsked) {
  const ModelConfig config = Parse(With(Small(), {{"routing", "top_k"}, {"norm_topk_prob", true}}));
  EXPECT_TRUE(config.layers[0].moe.router.normalize);
  EXPECT_EQ(config.layers[0].moe.router.normalize_power, 1.0f);
}

TEST(GenericFamilyTest, NoisyTopKIsASoftmaxOverTheKeptLogits) {
  const ModelConfig config = Parse(With(Small(), {{"routing", "noisy_top_k"}, {"norm_topk_prob", true}}));
  for (const LayerConfig& layer : config.layers) {
    EXPECT_EQ(layer.moe.router.score, RouterScore::kLogit);
    EXPECT_EQ(layer.moe.router.weights, RouterWeights::kSoftmaxOfChosen);
    EXPECT_FALSE(layer.moe.router.normalize);
    EXPECT_EQ(layer.moe.router.top_k, 2);
  }
}

TEST(GenericFamilyTest, ADenseMixtureRunsAllExperts) {
  json config = With(Small(), {{"routing", "dense_mixture"}, {"num_experts_per_tok", nullptr}});
  EXPECT_EQ(Parse(config).layers[1].moe.router.top_k, 8);
  EXPECT_EQ(Parse(config).layers[1].moe.router.weights, RouterWeights::kScore);
  EXPECT_FALSE(Parse(config).layers[1].moe.router.normalize);
  config["num_experts_per_tok"] = 8;
  EXPECT_EQ(Parse(config).layers[1].moe.router.top_k, 8);
  config.erase("num_experts_per_tok");
  config["num_experts"] = 1;
  EXPECT_EQ(Parse(config).layers[1].moe.router.top_k, 1);
}

TEST(GenericFamilyTest, ExpertsHaveAGateOrNone) {
  for (const auto& [act, activation, is_gated] : {std::tuple{"silu", Activation::kSilu, true},
                                                  {"relu", Activation::kRelu, false},
                                                  {"gelu_pytorch_tanh", Activation::kGeluTanh, false}}) {
    const ModelConfig config = Parse(With(Small(), {{"expert_act", act}, {"decoder_sparse_step", 2}}));
    EXPECT_EQ(config.layers[1].moe.experts.activation, activation) << act;
    EXPECT_EQ(IsGated(config.layers[1].moe.experts.activation), is_gated) << act;
    EXPECT_EQ(config.layers[0].dense_activation, Activation::kSilu) << act;
  }
}

TEST(GenericFamilyTest, EveryNthLayerHasExpertsCountedFromTheFirstAsOne) {
  json config = With(Small(), {{"decoder_sparse_step", 2}, {"moe_intermediate_size", 24}});
  EXPECT_THAT(MoeLayers(Parse(config)), ElementsAre(false, true, false, true));
  EXPECT_EQ(Parse(config).layers[0].dense_intermediate_size, 40);
  EXPECT_EQ(Parse(config).layers[1].moe.intermediate_size, 24);
  config["mlp_only_layers"] = {1};
  EXPECT_THAT(MoeLayers(Parse(config)), ElementsAre(false, false, false, true));
}

TEST(GenericFamilyTest, TheWidthOfDenseLayersIsNeededWhereThereAreSome) {
  json config = With(Small(), {{"moe_intermediate_size", 24}});
  config.erase("intermediate_size");
  EXPECT_EQ(Parse(config).layers[0].moe.intermediate_size, 24);
  config["decoder_sparse_step"] = 2;
  EXPECT_EQ(ParseModelConfig(config.dump()).status().message(),
            "config.json: intermediate_size is missing; layers without experts have this width");
}

// ------------------------------------------------------------------------------------------------- refusals

struct BadValue {
  const char* name;
  json changes;
  std::string message;
};

void PrintTo(const BadValue& bad, std::ostream* out) { *out << bad.name; }

class BadGenericConfigTest : public ::testing::TestWithParam<BadValue> {};

TEST_P(BadGenericConfigTest, IsRefusedWithOneLine) {
  const absl::Status status = ParseModelConfig(With(Small(), GetParam().changes).dump()).status();
  EXPECT_EQ(status.message(), "config.json: " + GetParam().message);
}

const char kRoutings[] = "it must be one of \"top_k\", \"noisy_top_k\", \"dense_mixture\"";
const char kActs[] = "it must be one of \"silu\", \"relu\", \"gelu_pytorch_tanh\"";
const char kAttention[] = "; this family has full attention without biases";
const char kRows[] = "; experts of a decoder take every row, leave it out";

INSTANTIATE_TEST_SUITE_P(
    All, BadGenericConfigTest,
    ::testing::Values(
        BadValue{"UnknownRouting", {{"routing", "expert_choice"}},
                 std::string("routing is \"expert_choice\"; ") + kRoutings},
        BadValue{"EmptyRouting", {{"routing", ""}}, std::string("routing is \"\"; ") + kRoutings},
        BadValue{"CapitalRouting", {{"routing", "Top_K"}}, std::string("routing is \"Top_K\"; ") + kRoutings},
        BadValue{"NumericRouting", {{"routing", 2}}, std::string("routing is 2; ") + kRoutings},
        BadValue{"ListOfRoutings", {{"routing", {"top_k"}}}, std::string("routing is an array; ") + kRoutings},
        BadValue{"UnknownAct", {{"expert_act", "swish"}}, std::string("expert_act is \"swish\"; ") + kActs},
        BadValue{"BooleanAct", {{"expert_act", true}}, std::string("expert_act is true; ") + kActs},
        BadValue{"ActOfDenseLayers", {{"hidden_act", "relu"}}, "hidden_act is \"relu\"; only \"silu\" is served"},
        BadValue{"NormText", {{"norm_topk_prob", "yes"}}, "norm_topk_prob is \"yes\"; it must be true or false"},
        BadValue{"NormTextOfAnother", {{"routing", "dense_mixture"}, {"norm_topk_prob", 1}, {"num_experts_per_tok", 8}},
                 "norm_topk_prob is 1; it must be true or false"},
        BadValue{"ExpertsPerTokenMissing", {{"num_experts_per_tok", nullptr}},
                 "num_experts_per_tok is missing; with routing \"top_k\" it must be an integer from 1 to num_experts"},
        BadValue{"NoisyExpertsPerTokenMissing", {{"num_experts_per_tok", nullptr}, {"routing", "noisy_top_k"}},
                 "num_experts_per_tok is missing; with routing \"noisy_top_k\" it must be an integer from 1 to "
                 "num_experts"},
        BadValue{"ExpertsPerTokenZero", {{"num_experts_per_tok", 0}},
                 "num_experts_per_tok is 0; it must be an integer from 1 to 65536"},
        BadValue{"ExpertsPerTokenAboveExperts", {{"num_experts_per_tok", 9}},
                 "num_experts_per_tok is 9, but num_experts is 8; it must be from 1 to num_experts"},
        BadValue{"DenseMixtureOfSome", {{"routing", "dense_mixture"}},
                 "num_experts_per_tok is 2, but num_experts is 8; with routing \"dense_mixture\" all of them run"},
        BadValue{"DenseMixtureOfMoreThanAll", {{"routing", "dense_mixture"}, {"num_experts_per_tok", 9}},
                 "num_experts_per_tok is 9, but num_experts is 8; it must be from 1 to num_experts"},
        BadValue{"DenseMixtureOfText", {{"routing", "dense_mixture"}, {"num_experts_per_tok", "all"}},
                 "num_experts_per_tok is \"all\"; it must be an integer from 1 to 65536"},
        BadValue{"ExpertsMissing", {{"num_experts", nullptr}},
                 "num_experts is missing; it must be an integer from 1 to 65536"},
        BadValue{"HiddenSizeMissing", {{"hidden_size", nullptr}},
                 "hidden_size is missing; it must be an integer from 1 to 1048576"},
        BadValue{"VocabularyMissing", {{"vocab_size", nullptr}},
                 "vocab_size is missing; it must be an integer from 1 to 16777216"},
        BadValue{"LayersMissing", {{"num_hidden_layers", nullptr}},
                 "num_hidden_layers is missing; it must be an integer from 1 to 1000"},
        BadValue{"HeadsMissing", {{"num_attention_heads", nullptr}},
                 "num_attention_heads is missing; it must be an integer from 1 to 4096"},
        BadValue{"PositionsMissing", {{"max_position_embeddings", nullptr}},
                 "max_position_embeddings is missing; it must be an integer from 1 to 1073741824"},
        BadValue{"WidthMissing", {{"intermediate_size", nullptr}},
                 "intermediate_size is missing; it must be an integer from 1 to 1048576"},
        BadValue{"StepZero", {{"decoder_sparse_step", 0}},
                 "decoder_sparse_step is 0; it must be an integer from 1 to 2147483647"},
        BadValue{"StepBeyondTheLayers", {{"decoder_sparse_step", 5}}, "no layer has experts; every layer is dense"},
        BadValue{"DenseLayerBeyondTheLayers", {{"mlp_only_layers", {4}}},
                 "mlp_only_layers is 4; it must be an integer from 0 to 3"},
        BadValue{"SlidingWindow", {{"use_sliding_window", true}, {"sliding_window", 64}},
                 std::string("use_sliding_window is true") + kAttention},
        BadValue{"AttentionBias", {{"attention_bias", true}}, std::string("attention_bias is true") + kAttention},
        BadValue{"Capacity", {{"expert_capacity", 64}}, std::string("expert_capacity is 64") + kRows},
        BadValue{"CapacityFactor", {{"capacity_factor", 1.25}}, std::string("capacity_factor is 1.25") + kRows},
        BadValue{"EvalCapacityFactor", {{"eval_capacity_factor", 2}},
                 std::string("eval_capacity_factor is 2") + kRows}),
    [](const auto& info) { return info.param.name; });

TEST(GenericFamilyTest, EveryProblemAtOnce) {
  const absl::Status status = ParseModelConfig(R"({"model_type": "switchyard_moe", "vocab_size": 0, "num_experts": -1,
      "num_hidden_layers": 2, "expert_capacity": 4, "expert_act": "tanh", "routing": "hash", "norm_topk_prob": 0.5,
      "decoder_sparse_step": "2", "moe_intermediate_size": 8, "mlp_only_layers": [0]})").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  for (const std::string& problem :
       {std::string("vocab_size is 0; it must be an integer from 1 to 16777216"),
        std::string("hidden_size is missing; it must be an integer"),
        std::string("max_position_embeddings is missing; it must be an integer"),
        std::string("num_attention_heads is missing; it must be an integer"),
        std::string("num_experts is -1; it must be an integer from 1 to 65536"),
        std::string("expert_capacity is 4") + kRows, std::string("expert_act is \"tanh\"; ") + kActs,
        std::string("routing is \"hash\"; ") + kRoutings,
        std::string("norm_topk_prob is 0.5; it must be true or false"),
        std::string("decoder_sparse_step is \"2\"; it must be an integer from 1 to 2147483647"),
        std::string("intermediate_size is missing; layers without experts have this width")}) {
    EXPECT_THAT(std::string(status.message()), HasSubstr("config.json: " + problem));
  }
  EXPECT_THAT(std::string(status.message()), Not(HasSubstr("num_experts_per_tok")));  // which the routing decides
}

}  // namespace
}  // namespace switchyard
