#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <set>
#include <vector>

#include "engine/base/bf16.h"
#include "engine/checkpoint/weight_table.h"
#include "tests/engine/checkpoint/tiny_model.h"

namespace switchyard {
namespace {

using testing::ReadAll;

ModelConfig Config(const std::string& json) {
  auto config = ParseModelConfig(json);
  CHECK(config.ok());
  return *config;
}

ModelConfig Qwen2() {
  return Config(R"({"model_type": "qwen2_moe", "vocab_size": 500, "hidden_size": 256, "num_hidden_layers": 2,
      "num_attention_heads": 4, "num_key_value_heads": 4, "moe_intermediate_size": 128, "num_experts": 4,
      "shared_expert_intermediate_size": 64, "intermediate_size": 64, "mlp_only_layers": [1]})");
}

struct Moments {
  double mean = 0.0;
  double deviation = 0.0;
};

Moments MomentsOf(const std::vector<float>& values) {
  double sum = 0.0, squares = 0.0;
  for (const float value : values) {
    sum += value;
    squares += double{value} * value;
  }
  const double n = static_cast<double>(values.size());
  return {sum / n, std::sqrt(squares / n - (sum / n) * (sum / n))};
}

TEST(DummyWeightsTest, HasEveryWeightOfTheConfig) {
  const ModelConfig config = Qwen2();
  const auto weights = MakeDummyWeights(config, 1);
  int64_t num_parameters = 0;
  ForEachWeight(config, [&](const WeightSpec& spec) {
    const TensorReader* reader = weights->Find(spec.name, spec.layer, spec.expert);
    ASSERT_NE(reader, nullptr);
    EXPECT_EQ(reader->rows(), spec.rows);
    EXPECT_EQ(reader->cols(), spec.cols);
    num_parameters += spec.rows * spec.cols;
  });
  EXPECT_EQ(weights->num_parameters(), num_parameters);
  EXPECT_EQ(weights->Find(WeightName::kQNorm, 0), nullptr);
  EXPECT_EQ(weights->Find(WeightName::kRouter, 1), nullptr);
}

// The configs as published, in the keys that matter, and the parameters that their makers count.
TEST(DummyWeightsTest, PublishedModelsHaveTheirPublishedSizes) {
  const std::pair<const char*, int64_t> models[] = {
      // Mixtral-8x7B
      {R"({"model_type": "mixtral"})", 46'702'792'704},
      // OLMoE-1B-7B
      {R"({"model_type": "olmoe", "intermediate_size": 1024})", 6'919'161'856},
      // Qwen1.5-MoE-A2.7B
      {R"({"model_type": "qwen2_moe"})", 14'315'784'192},
      // Qwen3-30B-A3B
      {R"({"model_type": "qwen3_moe", "num_hidden_layers": 48, "head_dim": 128})", 30'532'122'624},
      // switch-base-8
      {R"({"model_type": "switch_transformers", "d_ff": 3072, "num_sparse_encoder_layers": 6,
           "num_sparse_decoder_layers": 6})", 619'339'008},
      // DeepSeekMoE-16B
      {R"({"model_type": "deepseek", "num_hidden_layers": 28, "hidden_size": 2048, "num_attention_heads": 16,
           "num_key_value_heads": 16, "intermediate_size": 10944, "moe_intermediate_size": 1408, "n_routed_experts": 64,
           "n_shared_experts": 2, "num_experts_per_tok": 6, "first_k_dense_replace": 1})",
       16'375'728'128},
      // DeepSeek-V2-Lite
      {R"({"model_type": "deepseek_v2", "vocab_size": 102400, "num_hidden_layers": 27, "hidden_size": 2048,
           "num_attention_heads": 16, "q_lora_rank": null, "intermediate_size": 10944, "moe_intermediate_size": 1408,
           "num_experts_per_tok": 6, "first_k_dense_replace": 1})",
       15'706'484'224},
      // DeepSeek-V3, with the biases of 58 routers
      {R"({"model_type": "deepseek_v3"})", 671'026'419'200},
      // GLM-4.5-Air, with the biases of 45 routers
      {R"({"model_type": "glm4_moe", "attention_bias": true, "head_dim": 128})", 106'852'245'504 + 45 * 128},
      // Granite-3.0-1b-a400m
      {R"({"model_type": "granitemoe", "vocab_size": 49155, "num_hidden_layers": 24, "hidden_size": 1024,
           "num_attention_heads": 16, "num_key_value_heads": 8, "num_local_experts": 32, "num_experts_per_tok": 8,
           "intermediate_size": 512, "tie_word_embeddings": true})",
       1'334'628'352},
      // DBRX
      {R"({"model_type": "dbrx", "d_model": 6144, "n_heads": 48, "n_layers": 40, "vocab_size": 100352,
           "attn_config": {"kv_n_heads": 8},
           "ffn_config": {"ffn_hidden_size": 10752, "moe_num_experts": 16, "moe_top_k": 4}})",
       131'596'523'520},
      // Phi-3.5-MoE, with the biases of the final norm and of the output
      {R"({"model_type": "phimoe", "attention_bias": true, "lm_head_bias": true})", 41'873'117'184 + 4096 + 32064},
      // Arctic
      {R"({"model_type": "arctic", "num_hidden_layers": 35, "hidden_size": 7168, "num_attention_heads": 56,
           "num_key_value_heads": 8, "num_local_experts": 128, "num_experts_per_tok": 2, "intermediate_size": 4864,
           "moe_layer_frequency": 1, "parallel_attn_mlp_res": true})",
       478'584'608'768},
      // gpt-oss-20b
      {R"({"model_type": "gpt_oss", "num_hidden_layers": 24, "num_local_experts": 32})", 20'914'757'184},
      // Llama-4-Scout and Maverick, text
      {R"({"model_type": "llama4_text"})", 107'769'861'120},
      {R"({"model_type": "llama4_text", "num_local_experts": 128, "interleave_moe_layer_step": 2})", 400'711'848'960},
      // JetMoE-8b
      {R"({"model_type": "jetmoe", "num_hidden_layers": 24})", 8'522'237'952}};
  for (const auto& [json, num_parameters] : models) {
    EXPECT_EQ(MakeDummyWeights(Config(json), 1)->num_parameters(), num_parameters) << json;
  }
}

TEST(DummyWeightsTest, TheSameSeedGivesTheSameValues) {
  const ModelConfig config = Qwen2();
  const auto a = MakeDummyWeights(config, 7), b = MakeDummyWeights(config, 7);
  EXPECT_EQ(*ReadAll(*a->Find(WeightName::kQ, 0)), *ReadAll(*b->Find(WeightName::kQ, 0)));
}

// The first values of seed 1, so that an accidental change of the generator shows.
TEST(DummyWeightsTest, TheValuesAreFixed) {
  const auto weights = MakeDummyWeights(Qwen2(), 1);
  std::vector<float> values = *ReadAll(*weights->Find(WeightName::kQ, 0));
  std::vector<int> steps;
  const double step = 1.0 / 16 / std::sqrt(65535.0 / 3);
  for (int i = 0; i < 6; ++i) steps.push_back(static_cast<int>(std::lround(values[static_cast<size_t>(i)] / step)));
  EXPECT_EQ(steps, (std::vector<int>{-127, 196, -7, -47, -166, -133}));
}

TEST(DummyWeightsTest, SeedsLayersExpertsAndNamesDiffer) {
  const ModelConfig config = Qwen2();
  const auto a = MakeDummyWeights(config, 7), b = MakeDummyWeights(config, 8);
  const std::vector<std::vector<float>> sets = {*ReadAll(*a->Find(WeightName::kQ, 0)),
                                                *ReadAll(*b->Find(WeightName::kQ, 0)),
                                                *ReadAll(*a->Find(WeightName::kQ, 1)),
                                                *ReadAll(*a->Find(WeightName::kK, 0)),
                                                *ReadAll(*a->Find(WeightName::kExpertGate, 0, 0)),
                                                *ReadAll(*a->Find(WeightName::kExpertGate, 0, 1)),
                                                *ReadAll(*a->Find(WeightName::kExpertUp, 0, 0))};
  for (size_t i = 0; i < sets.size(); ++i) {
    for (size_t j = 0; j < i; ++j) {
      const size_t n = std::min(sets[i].size(), sets[j].size());
      double product = 0.0;
      for (size_t k = 0; k < n; ++k) product += double{sets[i][k]} * sets[j][k];
      // Uncorrelated: the mean product of two such values has deviation 1 / (256 sqrt(n)).
      EXPECT_LT(std::fabs(product / static_cast<double>(n)), 5.0 / 256 / std::sqrt(static_cast<double>(n)))
          << i << " " << j;
    }
  }
}

TEST(DummyWeightsTest, MatricesAreNearNormalWithDeviationOneOverRootOfColumns) {
  const auto weights = MakeDummyWeights(Qwen2(), 3);
  for (const TensorReader* reader :
       {weights->Find(WeightName::kLmHead), weights->Find(WeightName::kQ, 1),
        weights->Find(WeightName::kExpertDown, 0, 3), weights->Find(WeightName::kMlpDown, 1)}) {
    const std::vector<float> values = *ReadAll(*reader);
    const double n = static_cast<double>(values.size());
    const double expected = 1.0 / std::sqrt(static_cast<double>(reader->cols()));
    const Moments moments = MomentsOf(values);
    EXPECT_NEAR(moments.mean, 0.0, 5 * expected / std::sqrt(n));
    EXPECT_NEAR(moments.deviation / expected, 1.0, 5 / std::sqrt(2 * n));
    // 68.3 % of a normal distribution lie within one deviation, 99.7 % within three.
    const auto within = [&](double deviations) {
      return static_cast<double>(
                 std::count_if(values.begin(), values.end(),
                               [&](float value) { return std::fabs(value) <= deviations * expected; })) /
             n;
    };
    EXPECT_NEAR(within(1.0), 0.683, 0.02);
    EXPECT_GT(within(3.0), 0.995);
  }
}

// Tied, the embedding is also the output matrix, which has to keep the scale of the logits.
TEST(DummyWeightsTest, EmbeddingsHaveDeviationOneUnlessTied) {
  ModelConfig config = Qwen2();
  for (const bool tied : {false, true}) {
    config.tie_word_embeddings = tied;
    const auto weights = MakeDummyWeights(config, 3);
    const TensorReader* reader = weights->Find(WeightName::kEmbedding);
    const double n = static_cast<double>(reader->rows() * reader->cols());
    const double expected = tied ? 1.0 / std::sqrt(static_cast<double>(reader->cols())) : 1.0;
    EXPECT_NEAR(MomentsOf(*ReadAll(*reader)).deviation / expected, 1.0, 5 / std::sqrt(2 * n)) << "tied " << tied;
  }
}

TEST(DummyWeightsTest, NormsAreOneAndBiasesSmall) {
  const auto weights = MakeDummyWeights(Qwen2(), 3);
  const std::vector<float> norm = *ReadAll(*weights->Find(WeightName::kInputNorm, 0));
  EXPECT_EQ(norm, std::vector<float>(256, 1.0f));
  const Moments bias = MomentsOf(*ReadAll(*weights->Find(WeightName::kQBias, 0)));
  EXPECT_NEAR(bias.mean, 0.0, 0.01);
  EXPECT_NEAR(bias.deviation, 0.02, 0.006);
}

TEST(DummyWeightsTest, AnyRangeOfRowsReadsTheSame) {
  const auto weights = MakeDummyWeights(Qwen2(), 3);
  const TensorReader* reader = weights->Find(WeightName::kExpertUp, 0, 2);
  const std::vector<float> whole = *ReadAll(*reader);
  for (const auto& [first, count] :
       std::vector<std::pair<int64_t, int64_t>>{{0, 1}, {1, 1}, {5, 100}, {127, 1}, {3, 0}}) {
    std::vector<float> part(static_cast<size_t>(count * reader->cols()));
    ASSERT_TRUE(reader->ReadRows(first, count, DType::kF32, part.data()).ok());
    EXPECT_TRUE(std::equal(part.begin(), part.end(), whole.begin() + first * reader->cols()));
  }
}

TEST(DummyWeightsTest, Bf16IsTheRoundedFloat) {
  const auto weights = MakeDummyWeights(Qwen2(), 3);
  const TensorReader* reader = weights->Find(WeightName::kO, 0);
  const std::vector<float> floats = *ReadAll(*reader);
  std::vector<uint16_t> rounded(floats.size());
  ASSERT_TRUE(reader->ReadRows(0, reader->rows(), DType::kBF16, rounded.data()).ok());
  for (size_t i = 0; i < floats.size(); ++i) ASSERT_EQ(rounded[i], FloatToBf16(floats[i])) << i;
}

// Rows around value 2^32 of a tensor: no repetition, and chunks still agree.
TEST(DummyWeightsTest, HugeTensorsDoNotRepeat) {
  const ModelConfig config = Config(R"({"model_type": "mixtral", "vocab_size": 16777216, "hidden_size": 1024})");
  const auto weights = MakeDummyWeights(config, 3);
  const TensorReader* reader = weights->Find(WeightName::kEmbedding);
  const int64_t rows_per_key = (int64_t{1} << 32) / 1024;
  std::vector<float> across(2048), before(1024), after(1024), start(1024);
  ASSERT_TRUE(reader->ReadRows(rows_per_key - 1, 2, DType::kF32, across.data()).ok());
  ASSERT_TRUE(reader->ReadRows(rows_per_key - 1, 1, DType::kF32, before.data()).ok());
  ASSERT_TRUE(reader->ReadRows(rows_per_key, 1, DType::kF32, after.data()).ok());
  ASSERT_TRUE(reader->ReadRows(0, 1, DType::kF32, start.data()).ok());
  EXPECT_TRUE(std::equal(before.begin(), before.end(), across.begin()));
  EXPECT_TRUE(std::equal(after.begin(), after.end(), across.begin() + 1024));
  EXPECT_NE(after, start);
}

}  // namespace
}  // namespace switchyard
