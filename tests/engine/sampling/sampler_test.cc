#include "engine/sampling/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <random>
#include <set>
#include <vector>

#include "engine/sampling/philox.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace switchyard {
namespace {

using ::testing::ElementsAre;

SampledToken Draw(const std::vector<float>& logits, const SamplingParams& params, int64_t position = 0,
                  const std::vector<int32_t>& prompt = {}, const std::vector<int32_t>& output = {}) {
  Sampler sampler(static_cast<int32_t>(logits.size()));
  SampledToken token;
  sampler.Sample(logits, params, prompt, output, position, &token);
  return token;
}

SamplingParams Greedy() {
  SamplingParams params;
  params.temperature = 0.0f;
  return params;
}

// How often each token is drawn over many positions.
std::map<int32_t, double> Frequencies(const std::vector<float>& logits, const SamplingParams& params, int draws) {
  std::map<int32_t, double> shares;
  for (int i = 0; i < draws; ++i) shares[Draw(logits, params, i).token] += 1.0 / draws;
  return shares;
}

std::vector<double> Softmax(const std::vector<float>& logits, double temperature) {
  std::vector<double> p;
  double sum = 0.0;
  for (const float v : logits) sum += p.emplace_back(std::exp(v / temperature));
  for (double& v : p) v /= sum;
  return p;
}

std::vector<float> RandomLogits(int n, uint32_t seed) {
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal(0.0f, 2.0f);
  std::vector<float> logits(n);
  for (float& v : logits) v = normal(generator);
  return logits;
}

TEST(PhiloxTest, MatchesThePublishedVectors) {
  // Known answers of Random123's kat_vectors for philox4x32-10.
  EXPECT_THAT(Philox4x32(0, 0).x, ElementsAre(0x6627e8d5u, 0xe169c58du, 0xbc57ac4cu, 0x9b00dbd8u));
}

TEST(SamplerTest, GreedyTakesTheLowestIdAmongEquals) {
  EXPECT_EQ(Draw({1.0f, 3.0f, 3.0f, 2.0f}, Greedy()).token, 1);
}

TEST(SamplerTest, NonFiniteLogitsAreReported) {
  const float inf = std::numeric_limits<float>::infinity();
  for (const float bad : {inf, -inf, std::nanf("")}) {
    for (size_t at = 0; at < 5; ++at) {
      std::vector<float> logits = {0.5f, -1.0f, 2.0f, 0.0f, 1.0f};
      logits[at] = bad;
      EXPECT_FALSE(Draw(logits, Greedy()).finite);
      EXPECT_FALSE(Draw(logits, SamplingParams{}).finite);
    }
  }
  EXPECT_TRUE(Draw({3e38f, -3e38f, 3e38f}, SamplingParams{}).finite);
}

TEST(SamplerTest, PaddingIdsAreNeverChosenOrCounted) {
  Sampler sampler(3);
  SampledToken token;
  const std::vector<float> logits = {0.0f, 0.0f, 0.0f, 100.0f};
  SamplingParams params = Greedy();
  params.num_logprobs = 5;
  sampler.Sample(logits, params, {}, {}, 0, &token);
  EXPECT_EQ(token.token, 0);
  EXPECT_NEAR(token.logprob, -std::log(3.0), 1e-6);
  EXPECT_EQ(token.top_logprobs.size(), 3u);
}

TEST(SamplerTest, DrawsFollowTheSoftmax) {
  const std::vector<float> logits = RandomLogits(12, 1);
  for (const float temperature : {0.5f, 1.0f, 2.0f}) {
    SamplingParams params;
    params.temperature = temperature;
    params.seed = 7;
    const std::vector<double> expected = Softmax(logits, temperature);
    const auto shares = Frequencies(logits, params, 40000);
    for (size_t t = 0; t < logits.size(); ++t) {
      const double share = shares.count(t) ? shares.at(t) : 0.0;
      EXPECT_NEAR(share, expected[t], 5.0 * std::sqrt(expected[t] / 40000) + 1e-4) << "token " << t;
    }
  }
}

TEST(SamplerTest, TopKKeepsExactlyTheKMostLikely) {
  const std::vector<float> logits = RandomLogits(50, 2);
  std::vector<int> order(50);
  for (int i = 0; i < 50; ++i) order[i] = i;
  std::sort(order.begin(), order.end(), [&](int a, int b) { return logits[a] > logits[b]; });
  SamplingParams params;
  params.temperature = 5.0f;
  params.top_k = 7;
  const auto shares = Frequencies(logits, params, 5000);
  std::set<int32_t> drawn;
  for (const auto& [token, share] : shares) drawn.insert(token);
  EXPECT_EQ(drawn, std::set<int32_t>(order.begin(), order.begin() + 7));
}

TEST(SamplerTest, TopPKeepsTheSmallestSetThatReachesP) {
  // Probabilities 0.5, 0.25, 0.15, 0.1.
  const std::vector<float> logits = {std::log(0.25f), std::log(0.5f), std::log(0.1f), std::log(0.15f)};
  const auto kept = [&](float p) {
    SamplingParams params;
    params.top_p = p;
    std::set<int32_t> drawn;
    for (const auto& [token, share] : Frequencies(logits, params, 2000)) drawn.insert(token);
    return drawn;
  };
  EXPECT_EQ(kept(0.4f), (std::set<int32_t>{1}));
  EXPECT_EQ(kept(0.6f), (std::set<int32_t>{0, 1}));
  EXPECT_EQ(kept(0.8f), (std::set<int32_t>{0, 1, 3}));
  EXPECT_EQ(kept(0.95f), (std::set<int32_t>{0, 1, 2, 3}));
}

TEST(SamplerTest, TopPOfAFlatWideDistributionKeepsItsShare) {
  const std::vector<float> logits(5000, 1.0f);
  SamplingParams params;
  params.top_p = 0.5f;
  int32_t highest = 0;
  for (int i = 0; i < 4000; ++i) highest = std::max(highest, Draw(logits, params, i).token);
  EXPECT_LT(highest, 2501);
  EXPECT_GT(highest, 2300);
}

TEST(SamplerTest, TopPIsAShareOfWhatTopKKept) {
  // Kept by top-k 2: 0.5 and 0.25, renormalised 0.667 and 0.333; p = 0.6 then keeps one.
  const std::vector<float> logits = {std::log(0.5f), std::log(0.25f), std::log(0.25f)};
  SamplingParams params;
  params.top_k = 2;
  params.top_p = 0.6f;
  const auto shares = Frequencies(logits, params, 500);
  EXPECT_EQ(shares.size(), 1u);
}

TEST(SamplerTest, MinPDropsTokensBelowAShareOfTheLargest) {
  const std::vector<float> logits = {std::log(0.6f), std::log(0.3f), std::log(0.1f)};
  for (const bool with_top_k : {false, true}) {
    SamplingParams params;
    params.min_p = 0.25f;
    if (with_top_k) params.top_p = 0.999f;
    const auto shares = Frequencies(logits, params, 3000);
    EXPECT_EQ(shares.size(), 2u);
    EXPECT_EQ(shares.count(2), 0u);
  }
}

TEST(SamplerTest, SameSeedAndPositionGiveTheSameToken) {
  const std::vector<float> logits = RandomLogits(1000, 3);
  SamplingParams params;
  params.seed = 99;
  params.top_p = 0.9f;
  Sampler reused(1000);
  for (int position = 0; position < 50; ++position) {
    SampledToken token;
    reused.Sample(logits, params, {}, {}, position, &token);
    EXPECT_EQ(token.token, Draw(logits, params, position).token);
  }
  SamplingParams other = params;
  other.seed = 100;
  int equal = 0;
  for (int position = 0; position < 200; ++position) {
    equal += Draw(logits, params, position).token == Draw(logits, other, position).token;
  }
  EXPECT_LT(equal, 60);
}

TEST(SamplerTest, LogprobsAreOfTheAdjustedLogitsAndSorted) {
  const std::vector<float> logits = {1.0f, 2.0f, 3.0f, 2.0f};
  SamplingParams params = Greedy();
  params.num_logprobs = 3;
  const SampledToken token = Draw(logits, params);
  const std::vector<double> p = Softmax(logits, 1.0);
  EXPECT_NEAR(token.logprob, std::log(p[2]), 1e-6);
  ASSERT_EQ(token.top_logprobs.size(), 3u);
  EXPECT_EQ(token.top_logprobs[0].token, 2);
  EXPECT_EQ(token.top_logprobs[1].token, 1);
  EXPECT_EQ(token.top_logprobs[2].token, 3);
  EXPECT_NEAR(token.top_logprobs[1].logprob, std::log(p[1]), 1e-6);
}

TEST(SamplerTest, RepetitionPenaltyCountsPromptAndOutputOnce) {
  SamplingParams params = Greedy();
  params.repetition_penalty = 2.0f;
  params.num_logprobs = 0;
  // Token 0 in both, token 1 in the output twice, token 3 in the prompt: 4 -> 2, 3 -> 1.5, -1 -> -2.
  const SampledToken token = Draw({4.0f, 3.0f, 1.9f, -1.0f}, params, 0, {0, 3, 3}, {0, 1, 1});
  EXPECT_EQ(token.token, 0);
  const std::vector<double> p = Softmax({2.0f, 1.5f, 1.9f, -2.0f}, 1.0);
  EXPECT_NEAR(token.logprob, std::log(p[0]), 1e-6);
}

TEST(SamplerTest, PresenceAndFrequencyPenaltiesCountTheOutputOnly) {
  SamplingParams params = Greedy();
  params.presence_penalty = 0.5f;
  params.frequency_penalty = 0.25f;
  params.num_logprobs = 0;
  const SampledToken token = Draw({2.0f, 2.0f, 1.8f}, params, 0, {2, 2}, {0, 0, 1});
  EXPECT_EQ(token.token, 2);  // 2 - 0.5 - 0.5 = 1; 2 - 0.5 - 0.25 = 1.25; 1.8
  const std::vector<double> p = Softmax({1.0f, 1.25f, 1.8f}, 1.0);
  EXPECT_NEAR(token.logprob, std::log(p[2]), 1e-6);
}

TEST(SamplerTest, LogitBiasMovesTheChoice) {
  SamplingParams params = Greedy();
  params.logit_bias = {{2, 5.0f}, {0, -100.0f}};
  EXPECT_EQ(Draw({3.0f, 1.0f, 0.0f}, params).token, 2);
}

TEST(SamplerTest, StopTokensCannotComeBeforeMinTokens) {
  SamplingParams params = Greedy();
  params.stop_token_ids = {1};
  params.min_tokens = 2;
  EXPECT_EQ(Draw({0.0f, 9.0f, 1.0f}, params, 0, {}, {}).token, 2);
  EXPECT_EQ(Draw({0.0f, 9.0f, 1.0f}, params, 1, {}, {2}).token, 2);
  EXPECT_EQ(Draw({0.0f, 9.0f, 1.0f}, params, 2, {}, {2, 2}).token, 1);
}

// Whatever a request may ask for: the draw ends, with a token whose probability is a number.
TEST(SamplerTest, ExtremePenaltiesGiveFiniteLogprobs) {
  const std::vector<std::vector<float>> rows = {{5.0f, -5.0f, 1.0f, 0.0f},
                                                {3e38f, -3e38f, 1e38f, 0.0f},
                                                {-3e38f, -3e38f, -3e38f, -3e38f}};
  std::vector<SamplingParams> modes(5);
  modes[0].temperature = 0.0f;
  modes[2].top_k = 2;
  modes[3].top_p = 0.5f;
  modes[4].top_k = 3;
  modes[4].top_p = 0.9f;
  const float denormal = std::numeric_limits<float>::denorm_min();
  for (const float penalty : {denormal, 1.2e-38f, static_cast<float>(kMinRepetitionPenalty),
                              static_cast<float>(kMaxRepetitionPenalty), 3e38f}) {
    for (const float frequency : {-2.0f, 2.0f}) {
      for (SamplingParams params : modes) {
        params.repetition_penalty = penalty;
        params.frequency_penalty = frequency;
        params.num_logprobs = 4;
        params.logit_bias = {{3, 100.0f}};
        params.min_tokens = 10;
        params.stop_token_ids = {2};
        for (const std::vector<float>& logits : rows) {
          const SampledToken token = Draw(logits, params, 0, {0, 1}, {0, 0, 3});
          EXPECT_TRUE(token.finite);
          EXPECT_TRUE(std::isfinite(token.logprob)) << penalty;
          for (const TokenLogprob& top : token.top_logprobs) EXPECT_TRUE(std::isfinite(top.logprob)) << penalty;
        }
      }
    }
  }
}

// At the lowest temperature all but the best tokens have weight 0; the last uniform numbers must not reach them.
TEST(SamplerTest, TokensOfWeightZeroAreNeverDrawn) {
  const std::vector<float> logits = {9.0f, 8.0f, 9.0f, 1.0f};
  for (const int mode : {0, 1, 2}) {
    SamplingParams params;
    params.temperature = 1e-5f;
    if (mode == 1) params.top_k = 3;
    if (mode == 2) params.top_p = 0.9999999f;
    for (int position = 0; position < 3000; ++position) EXPECT_EQ(Draw(logits, params, position).token % 2, 0);
  }
}

TEST(SamplerTest, PenaltiesLeaveNothingBehindForTheNextRow) {
  const std::vector<float> logits = RandomLogits(50, 4);
  SamplingParams penalized = Greedy();
  penalized.repetition_penalty = 1.3f;
  penalized.frequency_penalty = 0.5f;
  penalized.num_logprobs = 0;
  Sampler reused(50);
  for (int row = 0; row < 20; ++row) {
    const std::vector<int32_t> prompt = {row, row + 1, -1, 50}, output = {row + 2, row + 2, row + 1, 1000};
    SampledToken token;
    reused.Sample(logits, penalized, prompt, output, row, &token);
    const SampledToken fresh = Draw(logits, penalized, row, prompt, output);
    EXPECT_EQ(token.token, fresh.token);
    EXPECT_EQ(token.logprob, fresh.logprob);
  }
}

TEST(SamplerTest, TinyTemperatureIsGreedy) {
  SamplingParams params;
  params.temperature = 1e-30f;
  const std::vector<float> logits = RandomLogits(100, 5);
  const int32_t best = Draw(logits, Greedy()).token;
  for (int i = 0; i < 100; ++i) EXPECT_EQ(Draw(logits, params, i).token, best);
}

}  // namespace
}  // namespace switchyard
