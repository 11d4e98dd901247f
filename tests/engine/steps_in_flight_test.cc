// Launching a step before the last one is collected, on a device that samples: the tokens, statistics and explanations
// are those of steps run one by one on the CPU. SWITCHYARD_PLUGIN_DIR says which device it is: an emulated or a real one.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <memory>
#include <numeric>
#include <span>
#include <string>
#include <vector>

#include "engine/engine.h"

namespace switchyard {
namespace {

using ::testing::HasSubstr;

constexpr int32_t kSequences = 3, kTokens = 6;

EngineOptions Options(const std::string& device) {
  EngineOptions options;
  options.model_dir = std::string(SWITCHYARD_SOURCE_DIR) + "/tests/golden/fixtures/mixtral";
  options.device = device;
  options.dtype = "float32";
  options.num_threads = 2;
  options.max_num_seqs = kSequences;
  options.max_num_batched_tokens = 32;
  options.kv_cache_bytes = 1 << 20;
  return options;
}

// What the steps of one conversation gave.
struct Answers {
  std::vector<std::vector<int32_t>> tokens = std::vector<std::vector<int32_t>>(kSequences);
  std::vector<std::vector<int32_t>> expert_ids;       // of each sampled row, in order
  std::vector<std::vector<int32_t>> tokens_per_expert;  // of each step, all layers
};

class Conversation {
 public:
  Conversation(Engine* engine, SamplingParams params) : engine_(engine), params_(std::move(params)) {
    for (int32_t s = 0; s < kSequences; ++s) {
      prompts_.emplace_back(3 + 2 * s);
      std::iota(prompts_.back().begin(), prompts_.back().end(), 5 * s + 1);
      blocks_.push_back({2 * s + 1, 2 * s});
    }
  }

  // Step 0 runs the prompts, later ones a token each; those of `ahead` do not know it yet.
  StepBatch Step(int32_t number, bool ahead) {
    StepBatch batch;
    for (int32_t s = 0; s < kSequences; ++s) {
      const int32_t first = number == 0 ? 0 : static_cast<int32_t>(prompts_[s].size()) + number - 1;
      if (number > 0) known_[s] = ahead ? ~s : answers_.tokens[s].back();
      batch.slices.push_back({.sequence_id = static_cast<uint64_t>(s),
                              .tokens = number == 0 ? std::span<const int32_t>(prompts_[s]) : std::span(&known_[s], 1),
                              .first_position = first,
                              .block_table = blocks_[s],
                              .sample = true,
                              .sampling = &params_,
                              .prompt_tokens = prompts_[s],
                              .output_tokens = {},
                              .explain_routing = true});
    }
    return batch;
  }

  void Collect() {
    const auto output = engine_->Collect();
    ASSERT_TRUE(output.ok()) << output.status();
    ASSERT_EQ((*output)->tokens.size(), static_cast<size_t>(kSequences));
    for (int32_t s = 0; s < kSequences; ++s) {
      const SampledToken& token = (*output)->tokens[s];
      EXPECT_EQ(token.sequence_id, static_cast<uint64_t>(s));
      EXPECT_TRUE(token.finite);
      answers_.tokens[s].push_back(token.token);
      answers_.expert_ids.push_back(token.routing.expert_ids);
    }
    std::vector<int32_t>& counts = answers_.tokens_per_expert.emplace_back();
    for (const MoeLayerStats& layer : (*output)->stats.moe_layers) {
      EXPECT_EQ(layer.num_tokens, (*output)->stats.num_tokens);
      EXPECT_GT(layer.squared_logsumexp_sum, 0.0);
      EXPECT_GT(layer.seconds, 0.0f);
      counts.insert(counts.end(), layer.tokens_per_expert.begin(), layer.tokens_per_expert.end());
    }
  }

  Answers OneByOne() {
    for (int32_t number = 0; number < kTokens; ++number) {
      const StepBatch batch = Step(number, /*ahead=*/false);
      EXPECT_TRUE(engine_->Launch(batch).ok());
      Collect();
    }
    return answers_;
  }

  Answers Ahead() {
    std::vector<StepBatch> batches(2);
    for (int32_t number = 0; number < kTokens; ++number) {
      StepBatch& batch = batches[static_cast<size_t>(number % 2)] = Step(number, /*ahead=*/true);
      const absl::Status launched = engine_->Launch(batch);
      EXPECT_TRUE(launched.ok()) << launched;
      if (number > 0) Collect();
    }
    Collect();
    return answers_;
  }

 private:
  Engine* const engine_;
  const SamplingParams params_;
  std::vector<std::vector<int32_t>> prompts_, blocks_;
  int32_t known_[kSequences] = {};
  Answers answers_;
};

SamplingParams Greedy() {
  SamplingParams params;
  params.temperature = 0.0f;
  return params;
}

SamplingParams Drawn() {
  SamplingParams params;
  params.temperature = 0.9f;
  params.top_k = 40;
  params.top_p = 0.95f;
  params.seed = 5;
  return params;
}

class StepsInFlightTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto engine = CreateEngine(Options("cuda"));
    if (engine.status().code() == absl::StatusCode::kFailedPrecondition &&
        std::getenv("SWITCHYARD_FAKE_DEVICES") == nullptr) {
      GTEST_SKIP() << "no GPU to test on: " << engine.status().message();
    }
    ASSERT_TRUE(engine.ok()) << engine.status();
    device_ = *std::move(engine);
    ASSERT_EQ(device_->facts().max_steps_in_flight, 2);
  }

  std::unique_ptr<Engine> device_;
};

TEST_F(StepsInFlightTest, AnswersAreThoseOfStepsRunOneByOneOnTheCpu) {
  auto cpu = CreateEngine(Options("cpu"));
  ASSERT_TRUE(cpu.ok()) << cpu.status();
  EXPECT_EQ((*cpu)->facts().max_steps_in_flight, 1);
  for (const SamplingParams& params : {Greedy(), Drawn()}) {
    const Answers expected = Conversation(cpu->get(), params).OneByOne();
    // Twice: the second time the steps are repeated from recordings.
    for (int round = 0; round < 2; ++round) {
      const Answers ahead = Conversation(device_.get(), params).Ahead();
      EXPECT_EQ(ahead.tokens, expected.tokens);
      EXPECT_EQ(ahead.expert_ids, expected.expert_ids);
      EXPECT_EQ(ahead.tokens_per_expert, expected.tokens_per_expert);
    }
    EXPECT_EQ(Conversation(device_.get(), params).OneByOne().tokens, expected.tokens);
  }
}

TEST_F(StepsInFlightTest, WhatTheContractForbidsIsRefusedAndTheEngineGoesOn) {
  Conversation conversation(device_.get(), Greedy());
  EXPECT_THAT(device_->Collect().status().ToString(), HasSubstr("no step is in flight"));
  StepBatch early = conversation.Step(1, /*ahead=*/true);
  EXPECT_THAT(device_->Launch(early).ToString(), HasSubstr("token id -1"));
  const StepBatch first = conversation.Step(0, false);
  ASSERT_TRUE(device_->Launch(first).ok());
  StepBatch second = conversation.Step(1, /*ahead=*/true);
  const int32_t nobody = ~kSequences;
  second.slices[0].tokens = std::span(&nobody, 1);
  EXPECT_THAT(device_->Launch(second).ToString(), HasSubstr("token id -4"));
  second = conversation.Step(1, /*ahead=*/true);
  ASSERT_TRUE(device_->Launch(second).ok());
  EXPECT_THAT(device_->Launch(second).ToString(), HasSubstr("2 steps are in flight"));
  conversation.Collect();
  conversation.Collect();

  SamplingParams on_host = Greedy();
  on_host.num_logprobs = 0;
  Conversation slower(device_.get(), on_host);
  const StepBatch host_sampled = slower.Step(0, false);
  ASSERT_TRUE(device_->Launch(host_sampled).ok());
  const StepBatch behind = slower.Step(1, /*ahead=*/true);
  EXPECT_THAT(device_->Launch(behind).ToString(), HasSubstr("the host samples"));
  slower.Collect();
}

}  // namespace
}  // namespace switchyard
