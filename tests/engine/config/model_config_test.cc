#include "engine/config/model_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <numbers>
#include <string>
#include <vector>

#include "tests/support/temp_folder.h"

namespace switchyard {
namespace {

using nlohmann::json;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

ModelConfig Parse(const json& config) {
  auto parsed = ParseModelConfig(config.dump());
  EXPECT_TRUE(parsed.ok()) << parsed.status();
  return parsed.ok() ? *parsed : ModelConfig{};
}

absl::Status Refusal(const json& config) { return ParseModelConfig(config.dump()).status(); }

// A small valid config of a family.
json Small(const std::string& model_type) {
  json config = {{"model_type", model_type}, {"vocab_size", 100},        {"hidden_size", 32},
                 {"num_hidden_layers", 4},   {"num_attention_heads", 4}, {"num_key_value_heads", 2},
                 {"intermediate_size", 40},  {"num_experts_per_tok", 2}, {"max_position_embeddings", 64}};
  config[model_type == "deepseek" ? "n_routed_experts" : "num_experts"] = 8;
  if (model_type != "mixtral" && model_type != "olmoe") config["moe_intermediate_size"] = 24;
  return config;
}

const char* const kFamilies[] = {"mixtral", "olmoe", "qwen2_moe", "qwen3_moe", "deepseek"};

std::vector<bool> MoeLayers(const ModelConfig& config) {
  std::vector<bool> moe;
  for (const LayerConfig& layer : config.layers) moe.push_back(layer.is_moe);
  return moe;
}

// ------------------------------------------------------------------------------------------------- the class defaults

TEST(ModelConfigDefaultsTest, Mixtral) {
  const ModelConfig config = Parse({{"model_type", "mixtral"}});
  EXPECT_EQ(config.model_type, "mixtral");
  EXPECT_EQ(config.vocab_size, 32000);
  EXPECT_EQ(config.hidden_size, 4096);
  EXPECT_EQ(config.num_layers(), 32);
  EXPECT_EQ(config.max_position_embeddings, 131072);
  EXPECT_FLOAT_EQ(config.rms_norm_eps, 1e-5f);
  EXPECT_FALSE(config.tie_word_embeddings);
  EXPECT_EQ(config.dtype, DType::kF32);
  EXPECT_THAT(config.eos_token_ids, ElementsAre(2));
  const LayerConfig& layer = config.layers[31];
  EXPECT_TRUE(layer.is_moe);
  EXPECT_EQ(layer.moe.intermediate_size, 14336);
  EXPECT_EQ(layer.moe.router.num_experts, 8);
  EXPECT_EQ(layer.moe.router.top_k, 2);
  EXPECT_TRUE(layer.moe.router.normalize);
  EXPECT_EQ(layer.moe.router.scale, 1.0f);
  EXPECT_EQ(layer.moe.shared_intermediate_size, 0);
  const AttentionShape& shape = layer.attention.shape;
  EXPECT_EQ(shape.num_heads, 32);
  EXPECT_EQ(shape.num_kv_heads, 8);
  EXPECT_EQ(shape.head_dim, 128);
  EXPECT_FLOAT_EQ(shape.scale, 1.0f / std::sqrt(128.0f));
  EXPECT_EQ(shape.qk_norm, QkNorm::kNone);
  EXPECT_EQ(shape.sliding_window, 0);
  EXPECT_EQ(shape.clip_qkv, 0.0f);
  ASSERT_EQ(shape.rope_inv_freq.size(), 64u);
  EXPECT_FLOAT_EQ(shape.rope_inv_freq[0], 1.0f);
  EXPECT_FLOAT_EQ(shape.rope_inv_freq[32], 1e-3f);
  EXPECT_FALSE(layer.attention.qkv_bias);
}

TEST(ModelConfigDefaultsTest, Olmoe) {
  const ModelConfig config = Parse({{"model_type", "olmoe"}});
  EXPECT_EQ(config.vocab_size, 50304);
  EXPECT_EQ(config.num_layers(), 16);
  EXPECT_FLOAT_EQ(config.rms_norm_eps, 1e-5f);
  EXPECT_THAT(config.eos_token_ids, ElementsAre(50279));
  const LayerConfig& layer = config.layers[0];
  EXPECT_EQ(layer.moe.intermediate_size, 2048);
  EXPECT_EQ(layer.moe.router.num_experts, 64);
  EXPECT_EQ(layer.moe.router.top_k, 8);
  EXPECT_FALSE(layer.moe.router.normalize);
  EXPECT_EQ(layer.attention.shape.num_kv_heads, 16);
  EXPECT_EQ(layer.attention.shape.qk_norm, QkNorm::kFull);
  EXPECT_FLOAT_EQ(layer.attention.shape.qk_norm_eps, 1e-5f);
  EXPECT_FLOAT_EQ(layer.attention.shape.rope_inv_freq[32], 1e-2f);
}

TEST(ModelConfigDefaultsTest, Qwen2Moe) {
  const ModelConfig config = Parse({{"model_type", "qwen2_moe"}});
  EXPECT_EQ(config.vocab_size, 151936);
  EXPECT_EQ(config.num_layers(), 24);
  EXPECT_FLOAT_EQ(config.rms_norm_eps, 1e-6f);
  EXPECT_THAT(config.eos_token_ids, IsEmpty());
  const LayerConfig& layer = config.layers[0];
  EXPECT_EQ(layer.moe.intermediate_size, 1408);
  EXPECT_EQ(layer.moe.shared_intermediate_size, 5632);
  EXPECT_TRUE(layer.moe.shared_expert_gate);
  EXPECT_EQ(layer.moe.router.num_experts, 60);
  EXPECT_EQ(layer.moe.router.top_k, 4);
  EXPECT_FALSE(layer.moe.router.normalize);
  EXPECT_TRUE(layer.attention.qkv_bias);
  EXPECT_FALSE(layer.attention.output_bias);
  EXPECT_EQ(layer.attention.shape.sliding_window, 0);
}

TEST(ModelConfigDefaultsTest, Qwen3Moe) {
  const ModelConfig config = Parse({{"model_type", "qwen3_moe"}});
  EXPECT_EQ(config.num_layers(), 24);
  const LayerConfig& layer = config.layers[0];
  EXPECT_EQ(layer.moe.intermediate_size, 768);
  EXPECT_EQ(layer.moe.router.num_experts, 128);
  EXPECT_EQ(layer.moe.router.top_k, 8);
  EXPECT_FALSE(layer.moe.router.normalize);
  EXPECT_EQ(layer.moe.shared_intermediate_size, 0);
  EXPECT_FALSE(layer.attention.qkv_bias);
  EXPECT_EQ(layer.attention.shape.num_kv_heads, 4);
  EXPECT_EQ(layer.attention.shape.head_dim, 64);
  EXPECT_EQ(layer.attention.shape.qk_norm, QkNorm::kHead);
}

TEST(ModelConfigDefaultsTest, Deepseek) {
  const ModelConfig config = Parse({{"model_type", "deepseek"}, {"n_routed_experts", 64}, {"num_experts_per_tok", 6}});
  EXPECT_EQ(config.vocab_size, 102400);
  EXPECT_EQ(config.num_layers(), 30);
  EXPECT_EQ(config.max_position_embeddings, 2048);
  EXPECT_THAT(config.eos_token_ids, ElementsAre(100001));
  const LayerConfig& layer = config.layers[0];
  EXPECT_TRUE(layer.is_moe);
  EXPECT_EQ(layer.moe.intermediate_size, 1407);
  EXPECT_EQ(layer.moe.shared_intermediate_size, 0);
  EXPECT_FALSE(layer.moe.router.normalize);
  EXPECT_EQ(layer.attention.shape.num_kv_heads, 32);
}

// ------------------------------------------------------------------------------------------------- aliases and nulls

TEST(ModelConfigTest, ExpertCountHasThreeNames) {
  for (const char* family : kFamilies) {
    for (const char* name : {"num_local_experts", "num_experts", "n_routed_experts"}) {
      json config = Small(family);
      config.erase("num_experts");
      config.erase("n_routed_experts");
      config[name] = 5;
      EXPECT_EQ(Parse(config).layers[3].moe.router.num_experts, 5) << family << " " << name;
    }
  }
}

TEST(ModelConfigTest, ExpertsPerTokenHasThreeNames) {
  for (const char* name : {"num_experts_per_tok", "experts_per_token", "num_selected_experts"}) {
    json config = Small("mixtral");
    config.erase("num_experts_per_tok");
    config[name] = 3;
    EXPECT_EQ(Parse(config).layers[0].moe.router.top_k, 3) << name;
  }
}

TEST(ModelConfigTest, TwoNamesMayAgreeButNotDiffer) {
  json config = Small("mixtral");
  config["num_local_experts"] = 8;
  EXPECT_EQ(Parse(config).layers[0].moe.router.num_experts, 8);
  config["num_local_experts"] = 4;
  EXPECT_THAT(std::string(Refusal(config).message()),
              HasSubstr("num_local_experts is 4, but num_experts is 8; they mean the same"));
}

TEST(ModelConfigTest, DTypeHasTwoNames) {
  json config = Small("olmoe");
  config["torch_dtype"] = "bfloat16";
  EXPECT_EQ(Parse(config).dtype, DType::kBF16);
  config["dtype"] = "bfloat16";
  EXPECT_EQ(Parse(config).dtype, DType::kBF16);
  config.erase("torch_dtype");
  config["dtype"] = "float16";
  EXPECT_EQ(Parse(config).dtype, DType::kF16);
  config["dtype"] = nullptr;
  EXPECT_EQ(Parse(config).dtype, DType::kF32);
}

TEST(ModelConfigTest, NullKvHeadsMeanOnePerHead) {
  json config = Small("mixtral");
  config["num_key_value_heads"] = nullptr;
  EXPECT_EQ(Parse(config).layers[0].attention.shape.num_kv_heads, 4);
}

TEST(ModelConfigTest, HeadDimCountsWhereItIsGiven) {
  json config = Small("qwen3_moe");
  EXPECT_EQ(Parse(config).layers[0].attention.shape.head_dim, 8);
  config["head_dim"] = nullptr;
  EXPECT_EQ(Parse(config).layers[0].attention.shape.head_dim, 8);
  config["head_dim"] = 16;
  const AttentionShape shape = Parse(config).layers[0].attention.shape;
  EXPECT_EQ(shape.head_dim, 16);
  EXPECT_FLOAT_EQ(shape.scale, 0.25f);
  EXPECT_EQ(shape.rope_inv_freq.size(), 8u);
}

TEST(ModelConfigTest, EosIsAnIntegerAListOrNull) {
  json config = Small("mixtral");
  config["eos_token_id"] = 7;
  EXPECT_THAT(Parse(config).eos_token_ids, ElementsAre(7));
  config["eos_token_id"] = {7, 99};
  EXPECT_THAT(Parse(config).eos_token_ids, ElementsAre(7, 99));
  config["eos_token_id"] = nullptr;
  EXPECT_THAT(Parse(config).eos_token_ids, IsEmpty());
}

TEST(ModelConfigTest, AClassDefaultEosOutsideTheVocabularyIsNone) {
  EXPECT_THAT(Parse(Small("olmoe")).eos_token_ids, IsEmpty());
}

TEST(ModelConfigTest, UnknownKeysAreIgnored) {
  json config = Small("mixtral");
  config["router_aux_loss_coef"] = 0.02;
  config["auto_map"] = {{"AutoConfig", "x.y"}};
  config["quantization_config"] = nullptr;
  EXPECT_EQ(Parse(config).num_layers(), 4);
}

// ------------------------------------------------------------------------------------------------- attention

TEST(ModelConfigTest, MixtralWindowHoldsForAllLayers) {
  json config = Small("mixtral");
  config["sliding_window"] = 7;
  for (const LayerConfig& layer : Parse(config).layers) EXPECT_EQ(layer.attention.shape.sliding_window, 7);
  config["sliding_window"] = nullptr;
  EXPECT_EQ(Parse(config).layers[0].attention.shape.sliding_window, 0);
}

TEST(ModelConfigTest, QwenWindowNeedsTheSwitch) {
  for (const char* family : {"qwen2_moe", "qwen3_moe"}) {
    json config = Small(family);
    config["sliding_window"] = 7;
    for (const LayerConfig& layer : Parse(config).layers) EXPECT_EQ(layer.attention.shape.sliding_window, 0) << family;
  }
  json config = Small("qwen3_moe");
  config["sliding_window"] = 7;
  config["use_sliding_window"] = true;
  for (const LayerConfig& layer : Parse(config).layers) EXPECT_EQ(layer.attention.shape.sliding_window, 7);
}

std::vector<int> Windows(const json& config) {
  std::vector<int> windows;
  for (const LayerConfig& layer : Parse(config).layers) windows.push_back(layer.attention.shape.sliding_window);
  return windows;
}

TEST(ModelConfigTest, Qwen2WindowsAlternateBelowMaxWindowLayersOrFollowLayerTypes) {
  json config = Small("qwen2_moe");
  config["sliding_window"] = 7;
  config["use_sliding_window"] = true;
  EXPECT_THAT(Windows(config), ElementsAre(7, 0, 7, 0));
  config["max_window_layers"] = 2;
  EXPECT_THAT(Windows(config), ElementsAre(7, 0, 0, 0));
  config["layer_types"] = {"full_attention", "full_attention", "sliding_attention", "full_attention"};
  EXPECT_THAT(Windows(config), ElementsAre(0, 0, 7, 0));
}

TEST(ModelConfigTest, BiasesFollowTheFamily) {
  json config = Small("qwen2_moe");
  config["qkv_bias"] = false;
  EXPECT_FALSE(Parse(config).layers[0].attention.qkv_bias);
  for (const char* family : {"olmoe", "qwen3_moe", "deepseek"}) {
    config = Small(family);
    EXPECT_FALSE(Parse(config).layers[0].attention.qkv_bias) << family;
    config["attention_bias"] = true;
    EXPECT_TRUE(Parse(config).layers[0].attention.qkv_bias) << family;
    EXPECT_TRUE(Parse(config).layers[0].attention.output_bias) << family;
  }
}

TEST(ModelConfigTest, ClipIsOffWhenNull) {
  json config = Small("olmoe");
  config["clip_qkv"] = nullptr;
  EXPECT_EQ(Parse(config).layers[0].attention.shape.clip_qkv, 0.0f);
  config["clip_qkv"] = 8;
  EXPECT_EQ(Parse(config).layers[0].attention.shape.clip_qkv, 8.0f);
}

// ------------------------------------------------------------------------------------------------- layer patterns

TEST(ModelConfigTest, QwenStepAndListMakeDenseLayers) {
  for (const char* family : {"qwen2_moe", "qwen3_moe"}) {
    json config = Small(family);
    EXPECT_THAT(MoeLayers(Parse(config)), ElementsAre(true, true, true, true));
    config["decoder_sparse_step"] = 2;
    EXPECT_THAT(MoeLayers(Parse(config)), ElementsAre(false, true, false, true));
    config["mlp_only_layers"] = {1};
    const ModelConfig parsed = Parse(config);
    EXPECT_THAT(MoeLayers(parsed), ElementsAre(false, false, false, true));
    EXPECT_EQ(parsed.layers[0].dense_intermediate_size, 40);
    EXPECT_EQ(parsed.layers[0].moe.router.num_experts, 0);
    EXPECT_EQ(parsed.layers[3].moe.intermediate_size, 24);
  }
}

TEST(ModelConfigTest, DeepseekBeginsDenseAndHasPlainSharedExperts) {
  json config = Small("deepseek");
  config["first_k_dense_replace"] = 1;
  config["moe_layer_freq"] = 2;
  config["n_shared_experts"] = 2;
  config["norm_topk_prob"] = true;
  const ModelConfig parsed = Parse(config);
  EXPECT_THAT(MoeLayers(parsed), ElementsAre(false, false, true, false));
  EXPECT_EQ(parsed.layers[2].moe.shared_intermediate_size, 48);
  EXPECT_FALSE(parsed.layers[2].moe.shared_expert_gate);
  EXPECT_TRUE(parsed.layers[2].moe.router.normalize);
  EXPECT_FLOAT_EQ(parsed.layers[2].moe.router.normalize_eps, 1e-20f);
  EXPECT_EQ(parsed.layers[0].dense_intermediate_size, 40);
  config["n_shared_experts"] = nullptr;
  EXPECT_EQ(Parse(config).layers[2].moe.shared_intermediate_size, 0);
}

TEST(ModelConfigTest, DeepseekDoesNotNormalizeASingleExpert) {
  json config = Small("deepseek");
  config["norm_topk_prob"] = true;
  config["num_experts_per_tok"] = 1;
  EXPECT_FALSE(Parse(config).layers[0].moe.router.normalize);
}

TEST(ModelConfigTest, NormTopkProbIsRead) {
  for (const char* family : {"olmoe", "qwen2_moe", "qwen3_moe"}) {
    json config = Small(family);
    config["norm_topk_prob"] = true;
    EXPECT_TRUE(Parse(config).layers[0].moe.router.normalize) << family;
  }
}

TEST(ModelConfigTest, Qwen2WithoutSharedWidthHasNoSharedExpert) {
  json config = Small("qwen2_moe");
  config["shared_expert_intermediate_size"] = 0;
  EXPECT_EQ(Parse(config).layers[0].moe.shared_intermediate_size, 0);
  EXPECT_FALSE(Parse(config).layers[0].moe.shared_expert_gate);
}

// ------------------------------------------------------------------------------------------------- RoPE

// Small("mixtral") has 8 dimensions per head: four frequencies.
std::vector<float> Frequencies(const json& rope, const std::string& key = "rope_scaling", double theta = 1e4) {
  json config = Small("mixtral");
  config["rope_theta"] = theta;
  if (!rope.is_null()) config[key] = rope;
  return Parse(config).layers[0].attention.shape.rope_inv_freq;
}

void ExpectNear(const std::vector<float>& actual, const std::vector<double>& expected) {
  ASSERT_EQ(actual.size(), expected.size());
  for (size_t m = 0; m < expected.size(); ++m) EXPECT_NEAR(actual[m] / expected[m], 1.0, 1e-6) << m;
}

TEST(RopeTest, ThetaMayStandInsideRopeParameters) {
  json config = Small("mixtral");
  config["rope_parameters"] = {{"rope_type", "default"}, {"rope_theta", 1e4}};
  ExpectNear(Parse(config).layers[0].attention.shape.rope_inv_freq, {1.0, 0.1, 0.01, 0.001});
  config["rope_theta"] = 1e4;
  ExpectNear(Parse(config).layers[0].attention.shape.rope_inv_freq, {1.0, 0.1, 0.01, 0.001});
  config["rope_theta"] = 5e4;
  EXPECT_THAT(std::string(Refusal(config).message()),
              HasSubstr("rope_theta is 50000.0, but rope_parameters.rope_theta"));
}

TEST(RopeTest, LinearDividesAllFrequencies) {
  ExpectNear(Frequencies({{"type", "linear"}, {"factor", 4.0}}), {0.25, 0.025, 0.0025, 0.00025});
  ExpectNear(Frequencies({{"rope_type", "linear"}, {"factor", 4}}, "rope_parameters"), {0.25, 0.025, 0.0025, 0.00025});
  ExpectNear(Frequencies({{"rope_type", "default"}}), {1.0, 0.1, 0.01, 0.001});
}

TEST(RopeTest, Llama3KeepsShortWavelengthsAndBlends) {
  // Wavelengths 6.28, 62.8, 628, 6283; original 256: keep below 256 / 4 = 64, divide above 256 / 1.
  const json rope = {{"rope_type", "llama3"},
                     {"factor", 8.0},
                     {"low_freq_factor", 1.0},
                     {"high_freq_factor", 4.0},
                     {"original_max_position_embeddings", 256}};
  ExpectNear(Frequencies(rope), {1.0, 0.1, 0.01 / 8, 0.001 / 8});
  json blended = rope;
  blended["original_max_position_embeddings"] = 1256;  // 628 lies between 314 and 1256
  const double blend = (1256 * 0.01 / (2 * std::numbers::pi) - 1.0) / 3.0;
  ExpectNear(Frequencies(blended), {1.0, 0.1, (1 - blend) * 0.01 / 8 + blend * 0.01, 0.001 / 8});
}

TEST(RopeTest, Llama3WithEqualBoundsDoesNotDivideByZero) {
  ExpectNear(Frequencies({{"rope_type", "llama3"},
                          {"factor", 8.0},
                          {"low_freq_factor", 1.0},
                          {"high_freq_factor", 1.0},
                          {"original_max_position_embeddings", 256}}),
             {1.0, 0.1, 0.01 / 8, 0.001 / 8});
}

TEST(RopeTest, YarnRampsAndScalesAttention) {
  json config = Small("mixtral");
  config["rope_theta"] = 1e4;
  config["rope_scaling"] = {{"rope_type", "yarn"}, {"factor", 4.0}, {"original_max_position_embeddings", 4096}};
  const AttentionShape shape = Parse(config).layers[0].attention.shape;
  // Pairs with 32 and 1 turns over 4096 positions: 1.309 -> 1 and 2.814 -> 3.
  ExpectNear(shape.rope_inv_freq, {1.0, 0.1, 0.01 * (0.5 + 0.5 / 4), 0.001 / 4});
  EXPECT_NEAR(shape.rope_attention_factor, 0.1 * std::log(4.0) + 1.0, 1e-6);

  config["rope_scaling"]["attention_factor"] = 1.5;
  EXPECT_FLOAT_EQ(Parse(config).layers[0].attention.shape.rope_attention_factor, 1.5f);
  config["rope_scaling"].erase("attention_factor");
  config["rope_scaling"]["mscale"] = 1.0;
  config["rope_scaling"]["mscale_all_dim"] = 1.0;
  EXPECT_FLOAT_EQ(Parse(config).layers[0].attention.shape.rope_attention_factor, 1.0f);
}

TEST(RopeTest, YarnWithEqualBetasIsAStep) {
  json config = Small("mixtral");
  config["rope_theta"] = 1e4;
  config["rope_scaling"] = {{"rope_type", "yarn"}, {"factor", 4.0},  {"original_max_position_embeddings", 4096},
                            {"beta_fast", 1},      {"beta_slow", 1}, {"truncate", false}};
  const std::vector<float> frequencies = Parse(config).layers[0].attention.shape.rope_inv_freq;
  for (const float f : frequencies) EXPECT_TRUE(std::isfinite(f) && f > 0);
}

TEST(RopeTest, OriginalLengthMayStandAtTheTop) {
  json config = Small("mixtral");
  config["rope_theta"] = 1e4;
  config["original_max_position_embeddings"] = 4096;
  config["rope_scaling"] = {{"type", "yarn"}, {"factor", 4.0}};
  ExpectNear(Parse(config).layers[0].attention.shape.rope_inv_freq, {1.0, 0.1, 0.01 * 0.625, 0.001 / 4});
}

// ------------------------------------------------------------------------------------------------- refusals

TEST(ModelConfigTest, ReportsEveryProblemAtOnce) {
  json config = Small("mixtral");
  config["vocab_size"] = 0;
  config["num_experts"] = 8;
  config["num_experts_per_tok"] = 9;
  config["rms_norm_eps"] = -1;
  config["hidden_act"] = "gelu";
  const absl::Status status = Refusal(config);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(status.message(),
            "config.json: hidden_act is \"gelu\"; only \"silu\" is served\n"
            "config.json: vocab_size is 0; it must be an integer from 1 to 16777216\n"
            "config.json: rms_norm_eps is -1; it must be a number from 1e-30 to 1\n"
            "config.json: num_experts_per_tok is 9, but num_experts is 8; it must be from 1 to num_experts");
}

TEST(ModelConfigTest, BoundsTheNumberOfProblemsShown) {
  json config = Small("mixtral");
  config["eos_token_id"] = std::vector<int>(64, -1);
  const std::string message(Refusal(config).message());
  EXPECT_THAT(message, HasSubstr("\nand 14 more"));
}

TEST(ModelConfigTest, NamesWhatIsNotServed) {
  const absl::Status family = Refusal({{"model_type", "grok-1"}});
  EXPECT_EQ(family.code(), absl::StatusCode::kUnimplemented);
  EXPECT_EQ(family.message(),
            "config.json: model_type is \"grok-1\"; served are arctic, dbrx, deepseek, deepseek_v2, deepseek_v3, "
            "glm4_moe, gpt_oss, granitemoe, granitemoeshared, jetmoe, kimi_k2, llama4, llama4_text, mixtral, olmoe, "
            "phimoe, qwen2_moe, qwen3_moe, switch_transformers, switchyard_moe");

  json config = Small("mixtral");
  config["quantization_config"] = {{"quant_method", "awq"}};
  config["rope_scaling"] = {{"type", "dynamic"}, {"factor", 2.0}};
  const absl::Status blocks = Refusal(config);
  EXPECT_EQ(blocks.code(), absl::StatusCode::kUnimplemented);
  EXPECT_THAT(std::string(blocks.message()),
              HasSubstr("quant_method is \"awq\"; of quantized weights, \"fp8\" and \"mxfp4\" are served"));
  EXPECT_THAT(std::string(blocks.message()), HasSubstr("RoPE scaling of the kind \"dynamic\" is not served"));
}

TEST(ReadModelConfigTest, ReadsTheFolder) {
  testing::TempFolder folder;
  EXPECT_EQ(ReadModelConfig(folder.path()).status().code(), absl::StatusCode::kNotFound);
  folder.Write("config.json", Small("olmoe").dump());
  EXPECT_TRUE(ReadModelConfig(folder.path()).ok());
}

class FixtureConfigTest : public ::testing::TestWithParam<std::string> {};

TEST_P(FixtureConfigTest, IsAccepted) {
  const auto config = ReadModelConfig(std::string(SWITCHYARD_SOURCE_DIR) + "/tests/golden/fixtures/" + GetParam());
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->num_layers(), 3);
  EXPECT_EQ(config->vocab_size, 97);
}

INSTANTIATE_TEST_SUITE_P(All, FixtureConfigTest,
                         ::testing::Values("mixtral", "olmoe", "qwen2_moe", "qwen3_moe", "deepseek_v1"),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace switchyard
