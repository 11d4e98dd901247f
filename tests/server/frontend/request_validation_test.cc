#include "server/frontend/request_validation.h"

#include <gtest/gtest.h>

#include <set>

namespace switchyard {
namespace {

RequestLimits Limits() {
  RequestLimits limits;
  limits.served_model_name = "toy";
  limits.vocab_size = 100;
  limits.max_model_len = 50;
  limits.eos_token_ids = {7, 9};
  limits.moe_layers = {1, 3, 5};
  return limits;
}

v1::GenerateRequest Prompt() {
  v1::GenerateRequest request;
  request.set_text("hello");
  return request;
}

TEST(RequestValidationTest, AbsentFieldsTakeTheModelsDefaults) {
  RequestLimits limits = Limits();
  limits.defaults.temperature = 0.5f;
  limits.defaults.top_k = 20;
  const auto spec = ValidateGenerateRequest(Prompt(), limits);
  ASSERT_TRUE(spec.ok()) << spec.status();
  EXPECT_EQ(spec->sampling.temperature, 0.5f);
  EXPECT_EQ(spec->sampling.top_k, 20);
  EXPECT_EQ(spec->sampling.top_p, 1.0f);
  EXPECT_EQ(spec->sampling.num_logprobs, -1);
  EXPECT_EQ(spec->n, 1);
  EXPECT_FALSE(spec->seed.has_value());
  EXPECT_TRUE(spec->skip_special_tokens);
  EXPECT_TRUE(spec->add_special_tokens);
  EXPECT_TRUE(spec->allow_prefix_reuse);
}

TEST(RequestValidationTest, ZeroIsNotAbsent) {
  RequestLimits limits = Limits();
  limits.defaults.temperature = 0.5f;
  v1::GenerateRequest request = Prompt();
  request.set_temperature(0.0f);
  request.set_seed(0);
  request.set_logprobs(0);
  const auto spec = ValidateGenerateRequest(request, limits);
  ASSERT_TRUE(spec.ok()) << spec.status();
  EXPECT_EQ(spec->sampling.temperature, 0.0f);
  EXPECT_EQ(spec->seed, uint64_t{0});
  EXPECT_EQ(spec->sampling.num_logprobs, 0);
}

TEST(RequestValidationTest, NegativeZeroIsZero) {
  v1::GenerateRequest request = Prompt();
  request.set_temperature(-0.0f);
  request.set_min_p(-0.0f);
  request.set_presence_penalty(-0.0f);
  const auto spec = ValidateGenerateRequest(request, Limits());
  ASSERT_TRUE(spec.ok()) << spec.status();
  EXPECT_FALSE(std::signbit(spec->sampling.temperature));
  EXPECT_FALSE(std::signbit(spec->sampling.min_p));
  EXPECT_FALSE(std::signbit(spec->sampling.presence_penalty));
}

TEST(RequestValidationTest, StopTokensAreTheRequestsAndTheModels) {
  v1::GenerateRequest request = Prompt();
  request.add_stop_token_ids(9);
  request.add_stop_token_ids(3);
  auto spec = ValidateGenerateRequest(request, Limits());
  ASSERT_TRUE(spec.ok());
  EXPECT_EQ(spec->sampling.stop_token_ids, (std::vector<int32_t>{3, 7, 9}));
  EXPECT_EQ(spec->eos_token_ids, (std::vector<int32_t>{7, 9}));
  request.set_ignore_eos(true);
  spec = ValidateGenerateRequest(request, Limits());
  ASSERT_TRUE(spec.ok());
  EXPECT_EQ(spec->sampling.stop_token_ids, (std::vector<int32_t>{3, 9}));
  EXPECT_TRUE(spec->eos_token_ids.empty());
}

TEST(RequestValidationTest, MaxTokensDefaultsToWhatFits) {
  auto spec = ValidateGenerateRequest(Prompt(), Limits());
  ASSERT_TRUE(spec.ok());
  ASSERT_TRUE(FitPrompt(10, Limits(), &*spec).ok());
  EXPECT_EQ(spec->max_tokens, 40);
}

TEST(RequestValidationTest, PromptAndMaxTokensMustFitTogether) {
  v1::GenerateRequest request = Prompt();
  request.set_max_tokens(41);
  auto spec = ValidateGenerateRequest(request, Limits());
  ASSERT_TRUE(spec.ok());
  EXPECT_EQ(FitPrompt(10, Limits(), &*spec).message(),
            "max_tokens is 41, but prompt 10 + max_tokens exceed the model's 50; use at most 40");
  EXPECT_TRUE(FitPrompt(9, Limits(), &*spec).ok());
}

TEST(RequestValidationTest, PromptMustLeaveRoomForOneToken) {
  auto spec = ValidateGenerateRequest(Prompt(), Limits());
  ASSERT_TRUE(spec.ok());
  EXPECT_EQ(FitPrompt(50, Limits(), &*spec).message(),
            "prompt has 50 tokens; this server accepts at most 50 including max_tokens");
  EXPECT_EQ(FitPrompt(0, Limits(), &*spec).message(), "prompt is empty; it has no tokens");
  EXPECT_TRUE(FitPrompt(49, Limits(), &*spec).ok());
}

TEST(RequestValidationTest, ExplainTakesLayersOfTheModel) {
  v1::GenerateRequest request = Prompt();
  request.mutable_explain()->set_enabled(true);
  auto spec = ValidateGenerateRequest(request, Limits());
  ASSERT_TRUE(spec.ok());
  EXPECT_EQ(spec->explain_layers, (std::vector<int32_t>{0, 1, 2}));
  request.mutable_explain()->add_layers(5);
  request.mutable_explain()->add_layers(1);
  request.mutable_explain()->add_layers(5);
  spec = ValidateGenerateRequest(request, Limits());
  ASSERT_TRUE(spec.ok());
  EXPECT_EQ(spec->explain_layers, (std::vector<int32_t>{0, 2}));
}

TEST(RequestValidationTest, TopKAboveTheVocabularyMeansAll) {
  v1::GenerateRequest request = Prompt();
  request.set_top_k(5000);
  const auto spec = ValidateGenerateRequest(request, Limits());
  ASSERT_TRUE(spec.ok());
  EXPECT_EQ(spec->sampling.top_k, 100);
}

TEST(RequestValidationTest, SeedsOfChoicesDiffer) {
  std::set<uint64_t> seeds;
  for (uint64_t seed : {0u, 1u, 2u, 3u}) {
    EXPECT_EQ(SeedOfChoice(seed, 0), seed);
    for (int32_t i = 0; i < kMaxChoices; ++i) seeds.insert(SeedOfChoice(seed, i));
  }
  EXPECT_EQ(seeds.size(), 4u * kMaxChoices);
}

TEST(RequestValidationTest, NumbersAreShownInGroupsOfThree) {
  EXPECT_EQ(WithCommas(0), "0");
  EXPECT_EQ(WithCommas(999), "999");
  EXPECT_EQ(WithCommas(1000), "1,000");
  EXPECT_EQ(WithCommas(-1234567), "-1,234,567");
}

TEST(RequestValidationTest, NobodyWaitsBehindUrgentOnesToTheEnd) {
  for (double max_seconds : {0.1, 600.0, 86'400.0}) {
    const std::chrono::duration<double> longest_wait = 2 * kMaxPriority * PriorityStep(max_seconds);
    EXPECT_LE(longest_wait.count(), max_seconds / 2);
  }
  EXPECT_EQ(PriorityStep(1e9), std::chrono::seconds(10));
}

}  // namespace
}  // namespace switchyard
