// Launching a step before the last one is collected, on a device that samples: the tokens, statistics and explanations
// are those of steps run one by one on the CPU. SWITCHYARD_PLUGIN_DIR says which device that is: emulated or real.
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

constexpr int32_t kSequences = 3, kSteps = 9;
// The last sequence comes later, with its prompt in two chunks, the first of which samples nothing.
constexpr int32_t kLate = 2, kLateStep = 2, kLatePrompt = 20, kLateChunk = 8;

EngineOptions Options(const std::string& device, const std::string& dtype = "float32") {
  EngineOptions options;
  options.model_dir = std::string(SWITCHYARD_SOURCE_DIR) + "/tests/golden/fixtures/mixtral";
  options.device = device;
  options.dtype = dtype;
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
      prompts_.emplace_back(s == kLate ? kLatePrompt : 3 + 2 * s);
      std::iota(prompts_.back().begin(), prompts_.back().end(), 5 * s + 1);
      blocks_.push_back({2 * s + 1, 2 * s});
    }
  }

  // Chunks of prompts first, then a token each; a step launched `ahead` does not know them yet.
  StepBatch Step(int32_t number, bool ahead) {
    StepBatch batch;
    for (int32_t s = 0; s < kSequences; ++s) {
      const int32_t turn = s == kLate ? number - kLateStep : number;  // of this sequence
      if (turn < 0) continue;
      const std::vector<int32_t>& prompt = prompts_[s];
      const int32_t num_chunks = s == kLate ? 2 : 1;
      std::span<const int32_t> tokens(prompt);
      int32_t first = 0;
      if (turn >= num_chunks) {
        known_[s] = ahead ? ~s : answers_.tokens[s].back();
        tokens = std::span(&known_[s], 1);
        first = static_cast<int32_t>(prompt.size()) + turn - num_chunks;
      } else if (num_chunks == 2) {
        first = turn * kLateChunk;
        tokens = turn == 0 ? tokens.first(kLateChunk) : tokens.subspan(kLateChunk);
      }
      batch.slices.push_back({.sequence_id = static_cast<uint64_t>(s),
                              .tokens = tokens,
                              .first_position = first,
                              .block_table = blocks_[s],
                              .sample = turn >= num_chunks - 1,
                              .sampling = &params_,
                              .prompt_tokens = prompt,
                              .output_tokens = {},
                              .explain_routing = true});
    }
    return batch;
  }

  void Collect() {
    const auto output = engine_->Collect();
    ASSERT_TRUE(output.ok()) << output.status();
    for (const SampledToken& token : (*output)->tokens) {
      EXPECT_TRUE(token.finite);
      answers_.tokens[token.sequence_id].push_back(token.token);
      answers_.expert_ids.push_back(token.routing.expert_ids);
    }
    std::vector<int32_t>& counts = answers_.tokens_per_expert.emplace_back();
    for (const MoeLayerStats& layer : (*output)->stats.moe_layers) {
      EXPECT_EQ(layer.num_tokens, (*output)->stats.num_tokens);
      EXPECT_GT(layer.squared_logsumexp_sum, 0.0);
      EXPECT_GT(layer.seconds, 0.0f);
      ASSERT_EQ(layer.seconds_per_expert.size(), layer.tokens_per_expert.size());
      for (size_t e = 0; e < layer.tokens_per_expert.size(); ++e) {
        EXPECT_EQ(layer.seconds_per_expert[e] > 0.0f, layer.tokens_per_expert[e] > 0) << "expert " << e;
      }
      counts.insert(counts.end(), layer.tokens_per_expert.begin(), layer.tokens_per_expert.end());
    }
  }

  Answers OneByOne() {
    for (int32_t number = 0; number < kSteps; ++number) {
      const StepBatch batch = Step(number, /*ahead=*/false);
      EXPECT_TRUE(engine_->Launch(batch).ok());
      Collect();
    }
    return answers_;
  }

  Answers Ahead() {
    std::vector<StepBatch> batches(2);
    for (int32_t number = 0; number < kSteps; ++number) {
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
  void SetUp() override { Open("float32"); }

  void Open(const std::string& dtype) {
    device_ = nullptr;
    auto engine = CreateEngine(Options("cuda", dtype));
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
    // Twice, so that steps of each form come back and are recorded.
    for (int round = 0; round < 2; ++round) {
      const Answers ahead = Conversation(device_.get(), params).Ahead();
      EXPECT_EQ(ahead.tokens, expected.tokens);
      EXPECT_EQ(ahead.expert_ids, expected.expert_ids);
      EXPECT_EQ(ahead.tokens_per_expert, expected.tokens_per_expert);
    }
    EXPECT_EQ(Conversation(device_.get(), params).OneByOne().tokens, expected.tokens);
  }
}

// Other kernels than in fp32, with inputs of their own for prompts.
TEST_F(StepsInFlightTest, AnswersInBfloat16AreThoseOfStepsRunOneByOne) {
  Open("bfloat16");
  const Answers expected = Conversation(device_.get(), Drawn()).OneByOne();
  for (int round = 0; round < 2; ++round) {
    const Answers ahead = Conversation(device_.get(), Drawn()).Ahead();
    EXPECT_EQ(ahead.tokens, expected.tokens);
    EXPECT_EQ(ahead.expert_ids, expected.expert_ids);
    EXPECT_EQ(ahead.tokens_per_expert, expected.tokens_per_expert);
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
