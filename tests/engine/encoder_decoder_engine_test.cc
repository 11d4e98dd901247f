// An encoder-decoder through the engine's front door: facts, the rule of whole prompts, resuming, expert capacity.
#include <numeric>
#include <string>
#include <vector>

#include "engine/engine.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace switchyard {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

EngineOptions Options(const std::string& fixture = "switch_drop") {
  EngineOptions options;
  options.model_dir = std::string(SWITCHYARD_SOURCE_DIR) + "/tests/golden/fixtures/" + fixture;
  options.num_threads = 2;
  options.max_num_seqs = 4;
  options.max_num_batched_tokens = 64;
  options.max_model_len = 64;
  options.kv_cache_bytes = 1 << 20;
  options.device = "cpu";
  return options;
}

std::unique_ptr<Engine> Make(const EngineOptions& options) {
  auto engine = CreateEngine(options);
  EXPECT_TRUE(engine.ok()) << engine.status();
  return engine.ok() ? *std::move(engine) : nullptr;
}

// One sequence: twenty tokens for the encoder, the decoder's start token, and what is generated.
struct Sequence {
  static constexpr int32_t kEncoderTokens = 20;

  explicit Sequence(int32_t start_token) : tokens(kEncoderTokens) {
    std::iota(tokens.begin(), tokens.end(), 5);
    tokens.push_back(start_token);
    params.temperature = 0.0f;
    params.num_logprobs = 0;
  }

  SequenceSlice Slice(size_t first, size_t count) const {
    SequenceSlice slice;
    slice.sequence_id = 1;
    slice.tokens = std::span(tokens).subspan(first, count);
    slice.first_position = static_cast<int32_t>(first);
    slice.block_table = blocks;
    slice.sample = first + count == tokens.size();
    slice.sampling = &params;
    slice.num_encoder_tokens = kEncoderTokens;
    slice.prompt_tokens = std::span(tokens).subspan(kEncoderTokens, 1);
    slice.output_tokens = std::span(tokens).subspan(kEncoderTokens + 1);
    slice.explain_routing = true;
    return slice;
  }

  std::vector<int32_t> tokens;
  std::vector<int32_t> blocks = {3, 0, 2, 1};
  SamplingParams params;
};

const StepOutput* RunSlice(Engine* engine, const SequenceSlice& slice) {
  StepBatch batch;
  batch.slices.push_back(slice);
  EXPECT_TRUE(engine->Launch(batch).ok());
  auto output = engine->Collect();
  EXPECT_TRUE(output.ok()) << output.status();
  return *output;
}

absl::Status LaunchStatus(Engine* engine, const SequenceSlice& slice) {
  StepBatch batch;
  batch.slices.push_back(slice);
  return engine->Launch(batch);
}

int32_t Sum(const std::vector<int32_t>& values) { return std::accumulate(values.begin(), values.end(), 0); }

TEST(EncoderDecoderEngineTest, FactsTellBothStacks) {
  const auto engine = Make(Options());
  const ModelFacts& facts = engine->facts();
  EXPECT_EQ(facts.architecture, "switch_transformers");
  EXPECT_EQ(facts.num_layers, 8);
  EXPECT_EQ(facts.num_encoder_layers, 4);
  EXPECT_EQ(facts.decoder_start_token_id, 0);
  EXPECT_THAT(facts.moe_layers, ElementsAre(1, 3, 5, 7));
  EXPECT_THAT(facts.eos_token_ids, ElementsAre(1));
  // Three of four experts idle in each of four layers, two matrices each.
  EXPECT_EQ(facts.num_parameters - facts.num_active_parameters, 4 * 3 * 2 * 32 * 40);
  EXPECT_EQ(facts.kv_bytes_per_token, 2 * 4 * 4 * 32 * 4) << "the decoder's layers, heads of 8 in the room of 32";
}

TEST(EncoderDecoderEngineTest, ExpertsOfEachStackCountItsRows) {
  const auto engine = Make(Options());
  Sequence sequence(engine->facts().decoder_start_token_id);
  const StepOutput* output = RunSlice(engine.get(), sequence.Slice(0, 21));
  ASSERT_EQ(output->stats.moe_layers.size(), 4u);
  for (size_t i = 0; i < 4; ++i) {
    const MoeLayerStats& layer = output->stats.moe_layers[i];
    EXPECT_EQ(layer.num_tokens, i < 2 ? 20 : 1);
    EXPECT_EQ(Sum(layer.tokens_per_expert), i < 2 ? 20 : 1);
  }
  EXPECT_EQ(output->tokens[0].routing.margins.size(), 2u) << "the decoder's layers";
  sequence.tokens.push_back(output->tokens[0].token);
  output = RunSlice(engine.get(), sequence.Slice(21, 1));
  for (size_t i = 0; i < 4; ++i) {
    EXPECT_EQ(Sum(output->stats.moe_layers[i].tokens_per_expert), i < 2 ? 0 : 1) << i;
    EXPECT_EQ(output->stats.moe_layers[i].num_tokens, i < 2 ? 0 : 1) << i;
  }
}

TEST(EncoderDecoderEngineTest, CapacityCountsTheEncodersRowsOnlyIfAsked) {
  for (const bool limited : {false, true}) {
    EngineOptions options = Options();
    options.expert_capacity = limited ? "config" : "none";
    const auto engine = Make(options);
    const Sequence sequence(engine->facts().decoder_start_token_id);
    const StepOutput* output = RunSlice(engine.get(), sequence.Slice(0, 21));
    for (size_t i = 0; i < 4; ++i) {
      const MoeLayerStats& layer = output->stats.moe_layers[i];
      EXPECT_EQ(Sum(layer.tokens_per_expert) + layer.num_dropped, i < 2 ? 20 : 1);
      EXPECT_EQ(layer.num_dropped >= 20 - 4 * 3, limited && i < 2) << "four experts with three places each";
      EXPECT_EQ(layer.num_dropped > 0, limited && i < 2);
    }
  }
}

// As after a preemption: the prompt and all that was generated run again, at once or in two pieces.
TEST(EncoderDecoderEngineTest, ResumingGivesTheSameTokens) {
  EngineOptions options = Options();
  options.expert_capacity = "config";
  const auto engine = Make(options);
  Sequence sequence(engine->facts().decoder_start_token_id);
  float logprob = 0.0f;
  for (size_t first = 0; sequence.tokens.size() < 40; ) {
    const size_t count = sequence.tokens.size() - first;
    const StepOutput* output = RunSlice(engine.get(), sequence.Slice(first, count));
    first += count;
    logprob = output->tokens[0].logprob;
    sequence.tokens.push_back(output->tokens[0].token);
  }
  const int32_t last = sequence.tokens.back();
  sequence.tokens.pop_back();
  sequence.blocks = {1, 2, 3, 0};
  const StepOutput* output = RunSlice(engine.get(), sequence.Slice(0, sequence.tokens.size()));
  EXPECT_EQ(output->tokens[0].token, last);
  EXPECT_EQ(output->tokens[0].logprob, logprob);
  RunSlice(engine.get(), sequence.Slice(0, 25));
  output = RunSlice(engine.get(), sequence.Slice(25, sequence.tokens.size() - 25));
  EXPECT_EQ(output->tokens[0].token, last);
  EXPECT_EQ(output->tokens[0].logprob, logprob);
}

TEST(EncoderDecoderEngineTest, RefusesPromptsInPieces) {
  const auto engine = Make(Options());
  Sequence sequence(0);
  sequence.tokens.push_back(7);
  const std::string reason = "encoder tokens, which run in one slice";
  EXPECT_THAT(std::string(LaunchStatus(engine.get(), sequence.Slice(0, 19)).message()), HasSubstr(reason));
  EXPECT_THAT(std::string(LaunchStatus(engine.get(), sequence.Slice(5, 17)).message()), HasSubstr(reason));
  SequenceSlice without = sequence.Slice(0, 22);
  without.num_encoder_tokens = 0;
  EXPECT_EQ(LaunchStatus(engine.get(), without).code(), absl::StatusCode::kInternal);
  SequenceSlice too_early = sequence.Slice(0, 20);
  too_early.sample = true;
  EXPECT_EQ(LaunchStatus(engine.get(), too_early).code(), absl::StatusCode::kInternal);
  EXPECT_EQ(RunSlice(engine.get(), sequence.Slice(0, 22))->tokens.size(), 1u) << "nothing was started";

  const auto decoder = Make(Options("mixtral"));
  EXPECT_THAT(std::string(LaunchStatus(decoder.get(), sequence.Slice(0, 22)).message()),
              HasSubstr("20 encoder tokens, but the model has no encoder"));
}

TEST(EncoderDecoderEngineTest, RunsOnDummyWeights) {
  EngineOptions options = Options("switch_nodrop");
  options.load_format = LoadFormat::kDummy;
  const auto engine = Make(options);
  const StepOutput* output = RunSlice(engine.get(), Sequence(0).Slice(0, 21));
  ASSERT_EQ(output->tokens.size(), 1u);
  EXPECT_TRUE(output->tokens[0].finite);
}

TEST(EncoderDecoderEngineTest, RefusesUnknownCapacities) {
  EngineOptions options = Options();
  options.expert_capacity = "64";
  const auto engine = CreateEngine(options);
  EXPECT_EQ(engine.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(engine.status().message()), HasSubstr("expert_capacity is '64'; use none or config"));
}

}  // namespace
}  // namespace switchyard
