// The engine on a CPU and on a device that draws tokens itself gives the same answers. SWITCHYARD_PLUGIN_DIR says which
// device it is: an emulated or a real one.
#include <cstdlib>
#include <numeric>
#include <string>
#include <vector>

#include "engine/engine.h"
#include "gtest/gtest.h"

namespace switchyard {
namespace {

constexpr int32_t kNumSequences = 3, kBlocksEach = 3, kPromptTokens = 6;

absl::StatusOr<std::unique_ptr<Engine>> MakeEngine(const std::string& fixture, const std::string& device) {
  EngineOptions options;
  options.model_dir = std::string(SWITCHYARD_SOURCE_DIR) + "/tests/golden/fixtures/" + fixture;
  options.device = device;
  options.dtype = "float32";
  options.num_threads = 1;
  options.max_num_seqs = kNumSequences;
  options.max_num_batched_tokens = 32;
  options.block_size = 16;
  options.kv_cache_bytes = 1 << 22;
  return CreateEngine(options);
}

// The answers of `params.size()` sequences that run together, one step per token.
std::vector<std::vector<int32_t>> Answer(Engine* engine, const std::vector<SamplingParams>& params, int num_tokens) {
  std::vector<std::vector<int32_t>> tokens, blocks;
  for (int32_t s = 0; s < static_cast<int32_t>(params.size()); ++s) {
    tokens.emplace_back(kPromptTokens);
    std::iota(tokens.back().begin(), tokens.back().end(), 5 + 3 * s);
    blocks.emplace_back(kBlocksEach);
    std::iota(blocks.back().begin(), blocks.back().end(), s * kBlocksEach);
  }
  for (int n = 0; n < num_tokens; ++n) {
    StepBatch batch;
    for (size_t s = 0; s < params.size(); ++s) {
      SequenceSlice slice;
      slice.sequence_id = s;
      slice.tokens = n == 0 ? std::span<const int32_t>(tokens[s]) : std::span<const int32_t>(tokens[s]).last(1);
      slice.first_position = static_cast<int32_t>(tokens[s].size() - slice.tokens.size());
      slice.block_table = blocks[s];
      slice.sample = true;
      slice.sampling = &params[s];
      slice.prompt_tokens = std::span<const int32_t>(tokens[s]).first(kPromptTokens);
      slice.output_tokens = std::span<const int32_t>(tokens[s]).subspan(kPromptTokens);
      batch.slices.push_back(slice);
    }
    EXPECT_TRUE(engine->Launch(batch).ok());
    const auto output = engine->Collect();
    EXPECT_TRUE(output.ok()) << output.status();
    if (!output.ok()) return tokens;
    for (size_t s = 0; s < params.size(); ++s) tokens[s].push_back((*output)->tokens[s].token);
  }
  return tokens;
}

SamplingParams Params(float temperature, int top_k, float top_p, uint64_t seed) {
  SamplingParams params;
  params.temperature = temperature;
  params.top_k = top_k;
  params.top_p = top_p;
  params.seed = seed;
  return params;
}

class DeviceSamplingTest : public ::testing::TestWithParam<const char*> {};

TEST_P(DeviceSamplingTest, TheDeviceDrawsTheTokensOfTheHost) {
  const auto cpu = MakeEngine(GetParam(), "cpu"), device = MakeEngine(GetParam(), "cuda");
  ASSERT_TRUE(cpu.ok()) << cpu.status();
  if (device.status().code() == absl::StatusCode::kFailedPrecondition &&
      std::getenv("SWITCHYARD_FAKE_DEVICES") == nullptr) {
    GTEST_SKIP() << "no GPU to test on: " << device.status().message();
  }
  ASSERT_TRUE(device.ok()) << device.status();
  std::vector<std::vector<SamplingParams>> batches = {
      {Params(0.7f, 0, 1.0f, 1), Params(1.0f, 0, 1.0f, 2), Params(0.0f, 0, 1.0f, 3)},
      {Params(0.7f, 20, 0.9f, 4), Params(1.0f, 5, 1.0f, 5), Params(1.0f, 0, 0.8f, 6)}};
  // One sequence that the host has to sample takes the whole step there.
  batches.push_back(batches.back());
  batches.back()[1].frequency_penalty = 0.5f;
  for (const std::vector<SamplingParams>& params : batches) {
    EXPECT_EQ(Answer(device->get(), params, 24), Answer(cpu->get(), params, 24));
  }
}

INSTANTIATE_TEST_SUITE_P(Fixtures, DeviceSamplingTest, ::testing::Values("mixtral", "olmoe", "qwen3_moe"));

}  // namespace
}  // namespace switchyard
