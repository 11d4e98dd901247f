// What the families with blocks of their own make of their configs: class defaults, aliases, patterns and scalars.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "engine/config/model_config.h"

namespace switchyard {
namespace {

using nlohmann::json;
using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

ModelConfig Parse(const json& config, int32_t max_model_len = 0) {
  auto parsed = ParseModelConfig(config.dump(), max_model_len);
  EXPECT_TRUE(parsed.ok()) << parsed.status();
  return parsed.ok() ? *parsed : ModelConfig{};
}

std::string RefusalOf(const json& config) { return std::string(ParseModelConfig(config.dump()).status().message()); }

template <typename Field>
auto OfLayers(const ModelConfig& config, const Field& field) {
  std::vector<decltype(field(config.layers[0]))> values;
  for (const LayerConfig& layer : config.layers) values.push_back(field(layer));
  return values;
}

std::vector<bool> MoeLayers(const ModelConfig& config) {
  return OfLayers(config, [](const LayerConfig& layer) { return layer.is_moe; });
}

// ------------------------------------------------------------------------------------------------- DeepSeek, GLM

json SmallLatent(const std::string& model_type) {
  return {
      {"model_type", model_type},  {"vocab_size", 100},       {"hidden_size", 32},     {"num_hidden_layers", 4},
      {"num_attention_heads", 4},  {"n_routed_experts", 8},   {"n_group", 4},          {"topk_group", 2},
      {"num_experts_per_tok", 3},  {"kv_lora_rank", 12},      {"qk_nope_head_dim", 8}, {"qk_rope_head_dim", 4},
      {"v_head_dim", 10},          {"intermediate_size", 40}, {"head_dim", 7},         {"moe_intermediate_size", 24},
      {"first_k_dense_replace", 1}};
}

TEST(DeepseekTest, V3DefaultsAreTheClasses) {
  for (const char* model_type : {"deepseek_v3", "kimi_k2"}) {
    const ModelConfig config = Parse({{"model_type", model_type}});
    EXPECT_EQ(config.model_type, model_type);
    EXPECT_EQ(config.num_layers(), 61);
    EXPECT_EQ(config.vocab_size, 129280);
    EXPECT_FALSE(config.layers[2].is_moe);
    EXPECT_EQ(config.layers[2].dense_intermediate_size, 18432);
    const LayerConfig& layer = config.layers[3];
    const RouterConfig& router = layer.moe.router;
    EXPECT_EQ(router.num_experts, 256);
    EXPECT_EQ(router.top_k, 8);
    EXPECT_EQ(router.score, RouterScore::kSigmoid);
    EXPECT_EQ(router.weights, RouterWeights::kScore);
    EXPECT_TRUE(router.has_choice_bias);
    EXPECT_EQ(router.num_groups, 8);
    EXPECT_EQ(router.topk_group, 4);
    EXPECT_EQ(router.group_score, GroupScore::kTopTwoSum);
    EXPECT_TRUE(router.normalize);
    EXPECT_EQ(router.scale, 2.5f);
    EXPECT_EQ(layer.moe.shared_intermediate_size, 2048);
    const AttentionConfig& attention = layer.attention;
    EXPECT_EQ(attention.mla.q_lora_rank, 1536);
    EXPECT_EQ(attention.mla.kv_lora_rank, 512);
    EXPECT_EQ(attention.mla.qk_nope_head_dim, 128);
    EXPECT_EQ(attention.mla.qk_rope_head_dim, 64);
    EXPECT_EQ(attention.mla.v_head_dim, 128);
    EXPECT_EQ(attention.shape.num_kv_heads, 1);
    EXPECT_EQ(attention.shape.head_dim, 576);
    EXPECT_EQ(attention.shape.latent_dim, 512);
    EXPECT_FLOAT_EQ(attention.shape.scale, 1.0f / std::sqrt(192.0f));
    EXPECT_EQ(attention.shape.rope_inv_freq.size(), 32u);
    EXPECT_TRUE(attention.shape.rope_interleaved);
  }
}

TEST(DeepseekTest, V2DefaultsAreTheClasses) {
  const ModelConfig config = Parse({{"model_type", "deepseek_v2"}, {"num_experts_per_tok", 6}});
  EXPECT_EQ(config.num_layers(), 32);
  const LayerConfig& layer = config.layers[0];
  EXPECT_TRUE(layer.is_moe);
  EXPECT_EQ(layer.moe.intermediate_size, 1407);
  EXPECT_EQ(layer.moe.shared_intermediate_size, 2 * 1407);
  EXPECT_EQ(layer.moe.router.score, RouterScore::kSoftmax);
  EXPECT_EQ(layer.moe.router.num_groups, 1);
  EXPECT_FALSE(layer.moe.router.has_choice_bias);
  EXPECT_EQ(layer.attention.mla.q_lora_rank, 1536);
}

TEST(DeepseekTest, NullQueryRankMeansNoCompression) {
  json config = SmallLatent("deepseek_v2");
  config["q_lora_rank"] = nullptr;
  EXPECT_EQ(Parse(config).layers[0].attention.mla.q_lora_rank, 0);
}

TEST(DeepseekTest, V2NormalizesOrScales) {
  json config = SmallLatent("deepseek_v2");
  config["routed_scaling_factor"] = 3.0;
  EXPECT_EQ(Parse(config).layers[1].moe.router.scale, 3.0f);
  EXPECT_FALSE(Parse(config).layers[1].moe.router.normalize);
  config["norm_topk_prob"] = true;
  EXPECT_EQ(Parse(config).layers[1].moe.router.scale, 1.0f);
  EXPECT_TRUE(Parse(config).layers[1].moe.router.normalize);
}

// As DeepSeek's and Hugging Face's code of each version has it.
TEST(DeepseekTest, ASingleWeightIsNormalizedFromV3On) {
  for (const auto& [model_type, normalize] : {std::pair{"deepseek_v2", false}, std::pair{"deepseek_v3", true}}) {
    json config = SmallLatent(model_type);
    config["norm_topk_prob"] = true;
    config["num_experts_per_tok"] = 1;
    EXPECT_EQ(Parse(config).layers.back().moe.router.normalize, normalize) << model_type;
  }
}

TEST(DeepseekTest, V2GroupsOnlyWhereTheMethodSaysSo) {
  json config = SmallLatent("deepseek_v2");
  EXPECT_EQ(Parse(config).layers[1].moe.router.num_groups, 1);
  config["topk_method"] = "group_limited_greedy";
  EXPECT_EQ(Parse(config).layers[1].moe.router.num_groups, 4);
  EXPECT_EQ(Parse(config).layers[1].moe.router.group_score, GroupScore::kMax);
}

TEST(DeepseekTest, YarnScalesTheScoresByTheSquareOfItsMscale) {
  json config = SmallLatent("deepseek_v3");
  config["rope_scaling"] = {{"type", "yarn"},
                            {"factor", 40.0},
                            {"mscale", 0.707},
                            {"mscale_all_dim", 0.707},
                            {"original_max_position_embeddings", 4096}};
  const AttentionShape shape = Parse(config).layers[0].attention.shape;
  const double mscale = 0.1 * 0.707 * std::log(40.0) + 1.0;
  EXPECT_NEAR(shape.scale, mscale * mscale / std::sqrt(12.0), 1e-6);
  EXPECT_FLOAT_EQ(shape.rope_attention_factor, 1.0f);
  config["rope_scaling"].erase("mscale_all_dim");
  EXPECT_NEAR(Parse(config).layers[0].attention.shape.scale, 1.0 / std::sqrt(12.0), 1e-6);
}

TEST(DeepseekTest, RopeIsHalfSplitWhereTheConfigSaysSo) {
  json config = SmallLatent("deepseek_v3");
  config["rope_interleave"] = false;
  EXPECT_FALSE(Parse(config).layers[0].attention.shape.rope_interleaved);
}

TEST(DeepseekTest, SpeculativeLayersAreCountedApart) {
  json config = SmallLatent("deepseek_v3");
  config["num_nextn_predict_layers"] = 1;
  EXPECT_EQ(Parse(config).num_layers(), 4);
  EXPECT_EQ(Parse(config).num_nextn_predict_layers, 1);
}

TEST(GlmTest, TurnsHalfOfEachHeadAndHasNoOutputBias) {
  json config = {{"model_type", "glm4_moe"}, {"attention_bias", true}, {"use_qk_norm", true}, {"head_dim", 128}};
  const ModelConfig parsed = Parse(config);
  EXPECT_EQ(parsed.num_layers(), 46);
  EXPECT_THAT(parsed.eos_token_ids, IsEmpty());
  const LayerConfig& layer = parsed.layers[1];
  EXPECT_EQ(layer.attention.shape.rope_inv_freq.size(), 32u);
  EXPECT_FLOAT_EQ(layer.attention.shape.rope_inv_freq[16], 1e-2f);
  EXPECT_EQ(layer.attention.shape.qk_norm, QkNorm::kHead);
  EXPECT_TRUE(layer.attention.qkv_bias);
  EXPECT_FALSE(layer.attention.output_bias);
  EXPECT_EQ(layer.moe.router.score, RouterScore::kSigmoid);
  EXPECT_EQ(layer.moe.router.num_groups, 1);
  EXPECT_EQ(layer.moe.router.scale, 1.0f);
  EXPECT_TRUE(layer.moe.router.normalize);
  EXPECT_FALSE(parsed.layers[0].is_moe);
  config["rope_parameters"] = {{"rope_theta", 1e6}, {"rope_type", "default"}, {"partial_rotary_factor", 0.25}};
  EXPECT_EQ(Parse(config).layers[1].attention.shape.rope_inv_freq.size(), 16u);
}

// ------------------------------------------------------------------------------------------------- Granite

TEST(GraniteTest, ScalarsDefaultToOne) {
  for (const char* model_type : {"granitemoe", "granitemoeshared"}) {
    const ModelConfig config = Parse({{"model_type", model_type}});
    EXPECT_EQ(config.embedding_multiplier, 1.0f);
    EXPECT_EQ(config.logits_multiplier, 1.0f);
    EXPECT_EQ(config.layers[0].attention.shape.scale, 1.0f);  // not head_dim^-0.5
    EXPECT_EQ(config.layers[0].moe.router.weights, RouterWeights::kSoftmaxOfChosen);
    EXPECT_EQ(config.layers[0].moe.shared_intermediate_size, 0);
  }
}

TEST(GraniteTest, ResidualMultiplierMovesIntoEmbeddingAndNorm) {
  const ModelConfig config = Parse({{"model_type", "granitemoeshared"},
                                    {"embedding_multiplier", 12},
                                    {"residual_multiplier", 0.5},
                                    {"attention_multiplier", 0.015625},
                                    {"logits_scaling", 6},
                                    {"rms_norm_eps", 1e-6},
                                    {"shared_intermediate_size", 40}});
  EXPECT_FLOAT_EQ(config.embedding_multiplier, 24.0f);
  EXPECT_FLOAT_EQ(config.rms_norm_eps, 4e-6f);
  EXPECT_FLOAT_EQ(config.logits_multiplier, 1.0f / 6.0f);
  EXPECT_FLOAT_EQ(config.layers[0].attention.shape.scale, 0.015625f);
  EXPECT_EQ(config.layers[0].moe.shared_intermediate_size, 40);
}

// ------------------------------------------------------------------------------------------------- DBRX

TEST(DbrxTest, ReadsItsOwnKeys) {
  const ModelConfig config = Parse({{"model_type", "dbrx"},
                                    {"d_model", 6144},
                                    {"n_heads", 48},
                                    {"n_layers", 40},
                                    {"max_seq_len", 32768},
                                    {"vocab_size", 100352},
                                    {"attn_config", {{"kv_n_heads", 8}, {"clip_qkv", 8}, {"rope_theta", 5e5}}},
                                    {"ffn_config",
                                     {{"ffn_hidden_size", 10752},
                                      {"moe_num_experts", 16},
                                      {"moe_top_k", 4},
                                      {"moe_normalize_expert_weights", 2},
                                      {"ffn_act_fn", {{"name", "silu"}}}}}});
  EXPECT_EQ(config.hidden_size, 6144);
  EXPECT_EQ(config.num_layers(), 40);
  EXPECT_EQ(config.max_position_embeddings, 32768);
  EXPECT_EQ(config.norm, NormKind::kLayer);
  EXPECT_FALSE(config.norm_bias);
  EXPECT_FLOAT_EQ(config.rms_norm_eps, 1e-5f);
  const LayerConfig& layer = config.layers[39];
  EXPECT_EQ(layer.attention.shape.num_heads, 48);
  EXPECT_EQ(layer.attention.shape.num_kv_heads, 8);
  EXPECT_EQ(layer.attention.shape.head_dim, 128);
  EXPECT_EQ(layer.attention.shape.clip_qkv, 8.0f);
  EXPECT_NEAR(layer.attention.shape.rope_inv_freq[32], 1.0 / std::sqrt(5e5), 1e-7);
  EXPECT_EQ(layer.moe.intermediate_size, 10752);
  EXPECT_EQ(layer.moe.router.num_experts, 16);
  EXPECT_EQ(layer.moe.router.top_k, 4);
  EXPECT_TRUE(layer.moe.router.normalize);
  EXPECT_EQ(layer.moe.router.normalize_power, 2.0f);
}

TEST(DbrxTest, NullPowerMeansWeightsAsTheyAre) {
  const ModelConfig config =
      Parse({{"model_type", "dbrx"}, {"ffn_config", {{"moe_normalize_expert_weights", nullptr}}}});
  EXPECT_FALSE(config.layers[0].moe.router.normalize);
  EXPECT_EQ(config.layers[0].attention.shape.num_kv_heads, 1);  // the class's default
}

TEST(DbrxTest, MessagesNameItsKeys) {
  EXPECT_THAT(RefusalOf({{"model_type", "dbrx"},
                         {"d_model", 0},
                         {"attn_config", {{"kv_n_heads", 3}}},
                         {"ffn_config", {{"ffn_act_fn", {{"name", "gelu"}}}}}}),
              ::testing::AllOf(HasSubstr("d_model is 0;"), HasSubstr("attn_config.kv_n_heads is 3, but n_heads is 16"),
                               HasSubstr("ffn_config.ffn_act_fn.name is \"gelu\"; only \"silu\" is served")));
}

// ------------------------------------------------------------------------------------------------- Phi-3.5-MoE

json SmallPhi() {
  return {{"model_type", "phimoe"},
          {"hidden_size", 32},
          {"num_attention_heads", 4},
          {"num_key_value_heads", 2},
          {"max_position_embeddings", 64},
          {"rope_theta", 1e4},
          {"original_max_position_embeddings", 16},
          {"rope_scaling",
           {{"type", "longrope"},
            {"short_factor", {1, 1, 1, 2}},
            {"long_factor", {1, 2, 4, 8}},
            {"short_mscale", 1.1},
            {"long_mscale", 1.3}}}};
}

TEST(PhimoeTest, DefaultsAreTheClasses) {
  const ModelConfig config = Parse({{"model_type", "phimoe"}});
  EXPECT_EQ(config.norm, NormKind::kLayer);
  EXPECT_TRUE(config.norm_bias);
  EXPECT_FALSE(config.lm_head_bias);
  EXPECT_EQ(config.layers[0].moe.router.weights, RouterWeights::kSparseMixer);
  EXPECT_FLOAT_EQ(config.layers[0].moe.router.mixer_threshold, 0.02f);
  EXPECT_NEAR(config.layers[0].attention.shape.rope_inv_freq[32], 1e-3, 1e-9);
}

TEST(PhimoeTest, LongropeIsChosenOnceByTheLongestSequence) {
  const auto last = [](const ModelConfig& config) { return config.layers[0].attention.shape.rope_inv_freq[3]; };
  EXPECT_FLOAT_EQ(last(Parse(SmallPhi())), 0.001f / 8);
  EXPECT_FLOAT_EQ(last(Parse(SmallPhi(), 17)), 0.001f / 8);
  EXPECT_FLOAT_EQ(last(Parse(SmallPhi(), 16)), 0.001f / 2);
  EXPECT_FLOAT_EQ(Parse(SmallPhi()).layers[0].attention.shape.rope_attention_factor, 1.3f);
  EXPECT_FLOAT_EQ(Parse(SmallPhi(), 16).layers[0].attention.shape.rope_attention_factor, 1.1f);
}

TEST(PhimoeTest, LongropeWithoutMscalesHasTheGeneralFactor) {
  json config = SmallPhi();
  config["rope_scaling"].erase("long_mscale");
  EXPECT_NEAR(Parse(config).layers[0].attention.shape.rope_attention_factor,
              std::sqrt(1.0 + std::log(4.0) / std::log(16.0)), 1e-6);
}

TEST(PhimoeTest, ItsRouterChoosesTwo) {
  json config = SmallPhi();
  config["num_experts_per_tok"] = 3;
  EXPECT_THAT(RefusalOf(config), HasSubstr("num_experts_per_tok is 3; its router is served with 2 only"));
}

// ------------------------------------------------------------------------------------------------- Arctic

TEST(ArcticTest, EverySecondLayerHasExpertsBesideTheAttention) {
  json config = {{"model_type", "arctic"}, {"num_hidden_layers", 4}, {"hidden_size", 64}, {"num_experts_per_tok", 2}};
  EXPECT_THAT(MoeLayers(Parse(config)), ElementsAre(false, true, false, true));
  const auto parallel = [](const ModelConfig& parsed) {
    return OfLayers(parsed, [](const LayerConfig& layer) { return layer.parallel_mlp_size; });
  };
  EXPECT_THAT(parallel(Parse(config)), Each(0));
  config["parallel_attn_mlp_res"] = true;
  EXPECT_THAT(parallel(Parse(config)), ElementsAre(0, 64, 0, 64));
  EXPECT_TRUE(Parse(config).layers[1].moe.router.normalize);
  config["num_experts_per_tok"] = 1;
  EXPECT_FALSE(Parse(config).layers[1].moe.router.normalize);
  config["moe_layer_frequency"] = 1;
  EXPECT_THAT(MoeLayers(Parse(config)), Each(true));
}

// ------------------------------------------------------------------------------------------------- gpt-oss

TEST(GptOssTest, DefaultsAreTheClasses) {
  const ModelConfig config = Parse({{"model_type", "gpt_oss"}});
  EXPECT_EQ(config.num_layers(), 36);
  const auto windows = OfLayers(config, [](const LayerConfig& layer) { return layer.attention.shape.sliding_window; });
  EXPECT_EQ(windows[0], 128);
  EXPECT_EQ(windows[1], 0);
  EXPECT_EQ(windows[2], 128);
  const LayerConfig& layer = config.layers[0];
  EXPECT_EQ(layer.attention.shape.head_dim, 64);
  EXPECT_TRUE(layer.attention.shape.has_sinks);
  EXPECT_TRUE(layer.attention.qkv_bias && layer.attention.output_bias);
  EXPECT_NEAR(layer.attention.shape.rope_attention_factor, 0.1 * std::log(32.0) + 1.0, 1e-6);
  EXPECT_TRUE(layer.moe.router_bias);
  EXPECT_EQ(layer.moe.router.score, RouterScore::kLogit);
  EXPECT_EQ(layer.moe.router.weights, RouterWeights::kSoftmaxOfChosen);
  EXPECT_EQ(layer.moe.experts.activation, Activation::kClampedSwiglu);
  EXPECT_EQ(layer.moe.experts.limit, 7.0f);
  EXPECT_TRUE(layer.moe.experts.biases);
}

TEST(GptOssTest, LayerTypesAndLimitAreRead) {
  json config = {{"model_type", "gpt_oss"}, {"num_hidden_layers", 2},
                 {"sliding_window", 5},     {"swiglu_limit", 3.5},
                 {"rope_scaling", nullptr}, {"layer_types", {"full_attention", "sliding_attention"}}};
  const ModelConfig parsed = Parse(config);
  EXPECT_EQ(parsed.layers[0].attention.shape.sliding_window, 0);
  EXPECT_EQ(parsed.layers[1].attention.shape.sliding_window, 5);
  EXPECT_EQ(parsed.layers[0].moe.experts.limit, 3.5f);
  EXPECT_EQ(parsed.layers[0].attention.shape.rope_attention_factor, 1.0f);  // null is no scaling, not the default
  config["layer_types"] = {"full_attention", "linear_attention"};
  EXPECT_THAT(RefusalOf(config), HasSubstr("layer_types has an element other than sliding_attention, full_attention"));
}

// ------------------------------------------------------------------------------------------------- Llama 4

TEST(Llama4Test, DefaultsAreTheClasses) {
  const ModelConfig config = Parse({{"model_type", "llama4_text"}});
  EXPECT_EQ(config.num_layers(), 48);
  EXPECT_THAT(MoeLayers(config), Each(true));
  const AttentionShape& rope = config.layers[0].attention.shape;
  EXPECT_EQ(rope.chunk_size, 8192);
  EXPECT_EQ(rope.qk_norm, QkNorm::kL2AfterRope);
  EXPECT_TRUE(rope.rope_interleaved);
  EXPECT_EQ(rope.temperature_scale, 0.0f);
  EXPECT_EQ(rope.head_dim, 128);
  const AttentionShape& none = config.layers[3].attention.shape;
  EXPECT_THAT(none.rope_inv_freq, IsEmpty());
  EXPECT_EQ(none.chunk_size, 0);
  EXPECT_EQ(none.qk_norm, QkNorm::kNone);
  EXPECT_FLOAT_EQ(none.temperature_scale, 0.1f);
  EXPECT_EQ(none.temperature_floor, 8192.0f);
  const MoeConfig& moe = config.layers[0].moe;
  EXPECT_EQ(moe.router.top_k, 1);
  EXPECT_EQ(moe.router.weights, RouterWeights::kSigmoid);
  EXPECT_TRUE(moe.router.weigh_input);
  EXPECT_EQ(moe.intermediate_size, 8192);
  EXPECT_EQ(moe.shared_intermediate_size, 8192);
}

TEST(Llama4Test, TheTextModelMayBeOneOfSeveral) {
  const json text = {{"model_type", "llama4_text"}, {"vocab_size", 100}, {"num_hidden_layers", 4}};
  const ModelConfig config = Parse(
      {{"model_type", "llama4"}, {"torch_dtype", "bfloat16"}, {"text_config", text}, {"vision_config", {{"x", 1}}}});
  EXPECT_EQ(config.model_type, "llama4");
  EXPECT_EQ(config.vocab_size, 100);
  EXPECT_EQ(config.dtype, DType::kBF16);
  EXPECT_THAT(RefusalOf({{"model_type", "llama4"}, {"text_config", {{"vocab_size", 0}}}}),
              HasSubstr("config.json: text_config.vocab_size is 0;"));
  EXPECT_THAT(RefusalOf({{"model_type", "llama4"}}), HasSubstr("text_config is missing; it must be an object"));
}

TEST(Llama4Test, PatternsOfLayers) {
  json config = {{"model_type", "llama4_text"}, {"num_hidden_layers", 4}, {"interleave_moe_layer_step", 2}};
  EXPECT_THAT(MoeLayers(Parse(config)), ElementsAre(false, true, false, true));
  EXPECT_EQ(Parse(config).layers[0].dense_intermediate_size, 16384);
  config["moe_layers"] = {0, 3};
  EXPECT_THAT(MoeLayers(Parse(config)), ElementsAre(true, false, false, true));
  const auto rope = [](const ModelConfig& parsed) {
    return OfLayers(parsed, [](const LayerConfig& l) { return !l.attention.shape.rope_inv_freq.empty(); });
  };
  EXPECT_THAT(rope(Parse(config)), ElementsAre(true, true, true, false));
  config["no_rope_layers"] = {0, 1, 1, 1};
  EXPECT_THAT(rope(Parse(config)), ElementsAre(false, true, true, true));
  config["no_rope_layers"] = json::array();
  config["no_rope_layer_interval"] = 2;
  EXPECT_THAT(rope(Parse(config)), ElementsAre(true, false, true, false));
  config["attn_temperature_tuning"] = 0;
  EXPECT_EQ(Parse(config).layers[1].attention.shape.temperature_scale, 0.0f);
  config["attn_temperature_tuning"] = 4;
  EXPECT_FLOAT_EQ(Parse(config).layers[1].attention.shape.temperature_scale, 0.1f);
  config["attention_chunk_size"] = nullptr;
  EXPECT_EQ(Parse(config).layers[0].attention.shape.chunk_size, 0);
}

// ------------------------------------------------------------------------------------------------- JetMoE

TEST(JetmoeTest, EachExpertBringsAHeadPerKvHead) {
  const ModelConfig config = Parse({{"model_type", "jetmoe"}});
  EXPECT_TRUE(config.tie_word_embeddings);
  EXPECT_EQ(config.num_layers(), 12);
  const AttentionConfig& attention = config.layers[0].attention;
  EXPECT_EQ(attention.shape.num_heads, 32);
  EXPECT_EQ(attention.shape.num_kv_heads, 16);
  EXPECT_EQ(attention.shape.head_dim, 128);
  EXPECT_EQ(attention.experts.num_experts, 8);
  EXPECT_EQ(attention.experts.top_k, 2);
  EXPECT_EQ(attention.experts.weights, RouterWeights::kSoftmaxOfChosen);
  EXPECT_TRUE(config.layers[0].moe.output_bias);
}

// ------------------------------------------------------------------------------------------------- quantised weights

TEST(QuantizationTest, BlocksOfFp8AndMxfp4AreRead) {
  json config = SmallLatent("deepseek_v3");
  config["quantization_config"] = {{"quant_method", "fp8"}, {"fmt", "e4m3"}, {"weight_block_size", {128, 64}}};
  const Quantization fp8 = Parse(config).quantization;
  EXPECT_TRUE(fp8.fp8_blocks);
  EXPECT_EQ(fp8.block_rows, 128);
  EXPECT_EQ(fp8.block_cols, 64);
  EXPECT_TRUE(
      Parse({{"model_type", "gpt_oss"}, {"quantization_config", {{"quant_method", "mxfp4"}}}}).quantization.mxfp4);
}

TEST(QuantizationTest, WhatItCannotBeIsRefused) {
  EXPECT_THAT(
      RefusalOf(
          {{"model_type", "gpt_oss"}, {"hidden_size", 2900}, {"quantization_config", {{"quant_method", "mxfp4"}}}}),
      HasSubstr("hidden_size is 2900 and the experts' width 2880; mxfp4 needs multiples of 32"));
  json config = SmallLatent("deepseek_v3");
  config["quantization_config"] = {{"quant_method", "fp8"}, {"fmt", "e5m2"}};
  EXPECT_THAT(RefusalOf(config),
              ::testing::AllOf(HasSubstr("quantization_config.fmt is \"e5m2\"; only \"e4m3\" is served"),
                               HasSubstr("quantization_config.weight_block_size is missing")));
}

// ------------------------------------------------------------------------------------------- Switch Transformers

TEST(SwitchTest, DefaultsAreTheClasses) {
  const ModelConfig config = Parse({{"model_type", "switch_transformers"}});
  EXPECT_EQ(config.vocab_size, 32128);
  EXPECT_EQ(config.hidden_size, 768);
  EXPECT_EQ(config.num_layers(), 24);
  EXPECT_EQ(config.num_encoder_layers, 12);
  EXPECT_EQ(config.num_decoder_layers(), 12);
  EXPECT_EQ(config.max_position_embeddings, 1024);
  EXPECT_FLOAT_EQ(config.rms_norm_eps, 1e-6f);
  EXPECT_TRUE(config.tie_word_embeddings);
  EXPECT_FLOAT_EQ(config.logits_multiplier, 1.0f / std::sqrt(768.0f));
  EXPECT_EQ(config.decoder_start_token_id, 0);
  EXPECT_THAT(config.eos_token_ids, ElementsAre(1));
  for (int32_t l = 0; l < 24; ++l) {
    const LayerConfig& layer = config.layers[static_cast<size_t>(l)];
    EXPECT_EQ(layer.is_moe, l % 4 == 1) << l;
    EXPECT_EQ(layer.attention.bidirectional, l < 12) << l;
    EXPECT_EQ(layer.attention.cross_attention, l >= 12) << l;
    EXPECT_EQ(layer.attention.owns_relative_bias, l % 12 == 0) << l;
    EXPECT_EQ(layer.attention.shape.relative_max_distance, 128);
    EXPECT_EQ(layer.attention.relative_num_buckets, 32);
    EXPECT_EQ(layer.attention.shape.scale, 1.0f);
    EXPECT_EQ(layer.attention.shape.head_dim, 64);
    EXPECT_THAT(layer.attention.shape.rope_inv_freq, IsEmpty());
    EXPECT_EQ(layer.dense_activation, Activation::kRelu);
    if (!layer.is_moe) continue;
    EXPECT_EQ(layer.moe.experts.activation, Activation::kRelu);
    EXPECT_EQ(layer.moe.intermediate_size, 2048);
    EXPECT_EQ(layer.moe.router.num_experts, 8);
    EXPECT_EQ(layer.moe.router.top_k, 1);
    EXPECT_EQ(layer.moe.router.capacity, 64);
    EXPECT_FALSE(layer.moe.router.normalize);
  }
}

TEST(SwitchTest, StacksAndStepsMayDiffer) {
  const ModelConfig config = Parse({{"model_type", "switch_transformers"},
                                    {"num_layers", 6},
                                    {"num_decoder_layers", 4},
                                    {"num_sparse_encoder_layers", 6},
                                    {"decoder_sparse_step", 2},
                                    {"tie_word_embeddings", false},
                                    {"n_positions", 100},
                                    {"router_bias", true},
                                    {"pad_token_id", 3}});
  EXPECT_THAT(MoeLayers(config), ElementsAre(true, true, true, true, true, true, false, true, false, true));
  EXPECT_EQ(config.logits_multiplier, 1.0f);
  EXPECT_EQ(config.max_position_embeddings, 200);
  EXPECT_EQ(config.decoder_start_token_id, 3);
  EXPECT_TRUE(config.layers[0].moe.router_bias);
}

// Three sparse layers, the default, of two make a step of 0, which is also what the class stores then.
TEST(SwitchTest, AStackMayBeDense) {
  for (const json& encoder : {json{{"num_layers", 2}}, json{{"num_layers", 2}, {"encoder_sparse_step", 0}}}) {
    json config = {{"model_type", "switch_transformers"}, {"num_decoder_layers", 3}};
    config.update(encoder);
    EXPECT_THAT(MoeLayers(Parse(config)), ElementsAre(false, false, true, true, true)) << config;
  }
}

TEST(SwitchTest, EveryProblemAtOnce) {
  const std::string refusal = RefusalOf({{"model_type", "switch_transformers"},
                                         {"dense_act_fn", "gelu_new"},
                                         {"d_kv", 7},
                                         {"num_sparse_encoder_layers", 13},
                                         {"expert_capacity", 0},
                                         {"relative_attention_num_buckets", 10},
                                         {"relative_attention_max_distance", 5},
                                         {"router_dtype", "bfloat16"},
                                         {"is_encoder_decoder", false},
                                         {"decoder_start_token_id", 40000}});
  for (const char* problem :
       {"dense_act_fn is \"gelu_new\"; only \"relu\" is served", "d_kv is 7; it must be even",
        "num_sparse_encoder_layers is 13; it must be an integer from 0 to 12",
        "expert_capacity is 0; it must be an integer from 1",
        "relative_attention_num_buckets is 10; it must be a multiple",
        "relative_attention_max_distance is 5; it must be above half of", "router_dtype is \"bfloat16\"; only",
        "is_encoder_decoder is false; only true is served", "decoder_start_token_id is 40000; it must be"}) {
    EXPECT_THAT(refusal, HasSubstr(problem));
  }
}

// ------------------------------------------------------------------------------------------------- all problems

TEST(FamiliesTest, EveryProblemAtOnce) {
  json config = SmallLatent("deepseek_v3");
  config["n_group"] = 3;
  config["kv_lora_rank"] = 13;
  config["qk_rope_head_dim"] = 3;
  config["scoring_func"] = "softmax";
  config["routed_scaling_factor"] = "big";
  config["num_nextn_predict_layers"] = -1;
  EXPECT_EQ(
      RefusalOf(config),
      "config.json: kv_lora_rank is 13; it must be even\n"
      "config.json: qk_rope_head_dim is 3; it must be even\n"
      "config.json: scoring_func is \"softmax\"; only \"sigmoid\" is served\n"
      "config.json: n_group is 3 and topk_group is 2, but 3 of 8 experts are chosen; groups must be equal and the "
      "kept ones hold these\n"
      "config.json: routed_scaling_factor is \"big\"; it must be a number from -1e+06 to 1e+06\n"
      "config.json: num_nextn_predict_layers is -1; it must be an integer from 0 to 64");
}

class FixtureConfigTest : public ::testing::TestWithParam<const char*> {};

TEST_P(FixtureConfigTest, IsAccepted) {
  const auto config = ReadModelConfig(std::string(SWITCHYARD_SOURCE_DIR) + "/tests/golden/fixtures/" + GetParam());
  ASSERT_TRUE(config.ok()) << config.status();
}

INSTANTIATE_TEST_SUITE_P(All, FixtureConfigTest,
                         ::testing::Values("arctic", "dbrx", "deepseek_v2", "deepseek_v2_lite", "deepseek_v3",
                                           "deepseek_v3_fp8", "deepseek_v3_negbias", "glm4_moe", "gpt_oss_bf16",
                                           "gpt_oss_mxfp4", "granitemoe", "granitemoeshared", "jetmoe",
                                           "llama4_maverick_like", "llama4_scout_like", "phimoe_long", "phimoe_short",
                                           "switch_drop", "switch_nodrop"),
                         [](const auto& info) { return std::string(info.param); });

}  // namespace
}  // namespace switchyard
