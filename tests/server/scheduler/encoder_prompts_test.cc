// Prompts of encoder-decoders: the encoder's tokens run in one step, are never shared as a prefix, and run again whole
// after a preemption.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <numeric>
#include <string>
#include <vector>

#include "server/scheduler/scheduler.h"
#include "tests/server/scheduler/recording_sink.h"

namespace switchyard {
namespace {

using testing::HasSubstr;

SchedulerOptions SmallOptions() {
  SchedulerOptions options;
  options.max_num_seqs = 4;
  options.max_num_batched_tokens = 16;
  options.max_model_len = 64;
  options.block_size = 4;
  options.num_kv_blocks = 64;
  options.max_prefill_tokens_while_decoding = 16;
  return options;
}

class Driver {
 public:
  explicit Driver(const SchedulerOptions& options) : scheduler(options) {}

  // So many tokens for the encoder, and one that the decoder begins with.
  RecordingSink* Add(uint64_t id, int32_t num_encoder_tokens, int32_t max_tokens) {
    std::vector<int32_t> prompt(static_cast<size_t>(num_encoder_tokens) + 1);
    std::iota(prompt.begin(), prompt.end(), 1);
    auto sink = std::make_shared<RecordingSink>();
    auto request = MakeRequest(id, std::move(prompt), max_tokens, sink);
    request->num_encoder_tokens = num_encoder_tokens;
    request->arrival = now;
    scheduler.Add(std::move(request), now);
    sinks.push_back(sink);
    return sink.get();
  }

  // "1:4 2:1s" = four tokens of sequence 1, one of sequence 2 and sample; "" = nothing to run.
  std::string Step() {
    const StepBatch* batch = scheduler.Plan(now);
    if (batch == nullptr) return "";
    std::string text;
    StepOutput output;
    for (const SequenceSlice& slice : batch->slices) {
      text += (text.empty() ? "" : " ") + std::to_string(slice.sequence_id) + ":";
      text += std::to_string(slice.tokens.size()) + (slice.sample ? "s" : "");
      const bool whole = slice.first_position == 0
                             ? static_cast<int32_t>(slice.tokens.size()) >= slice.num_encoder_tokens
                             : slice.first_position >= slice.num_encoder_tokens;
      EXPECT_TRUE(whole) << text;
      EXPECT_EQ(slice.prompt_tokens.size(), 1u) << "the decoder's";
      if (!slice.sample) continue;
      SampledToken token;
      token.sequence_id = slice.sequence_id;
      token.token = 100 + static_cast<int32_t>(slice.output_tokens.size());
      output.tokens.push_back(token);
    }
    now += std::chrono::seconds(1);
    scheduler.Apply(output, now);
    return text;
  }

  TimePoint now{std::chrono::seconds(1000)};
  std::vector<std::shared_ptr<RecordingSink>> sinks;
  Scheduler scheduler;
};

TEST(EncoderPromptsTest, WaitForAStepWithRoomForAllOfThem) {
  Driver driver(SmallOptions());
  driver.Add(1, 10, 8);
  driver.Add(2, 12, 8);
  EXPECT_EQ(driver.Step(), "1:11s") << "five tokens of room are not enough for twelve";
  EXPECT_EQ(driver.Step(), "1:1s 2:13s");
  EXPECT_EQ(driver.Step(), "1:1s 2:1s");
}

TEST(EncoderPromptsTest, MayBeCutBehindTheEncodersTokens) {
  Driver driver(SmallOptions());
  driver.Add(1, 4, 8);
  driver.Add(2, 11, 8);
  EXPECT_EQ(driver.Step(), "1:5s 2:11");
  EXPECT_EQ(driver.Step(), "1:1s 2:1s");
}

TEST(EncoderPromptsTest, AreNotReused) {
  Driver driver(SmallOptions());
  RecordingSink* const first = driver.Add(1, 12, 1);
  EXPECT_EQ(driver.Step(), "1:13s");
  RecordingSink* const second = driver.Add(2, 12, 1);
  EXPECT_EQ(driver.Step(), "2:13s");
  EXPECT_EQ(driver.scheduler.counts(driver.now).prefix_query_tokens_total, 0);
  EXPECT_EQ(driver.scheduler.counts(driver.now).kv_blocks_cached, 0);
  EXPECT_EQ(first->tokens, second->tokens);
}

TEST(EncoderPromptsTest, RunAgainWholeAfterAPreemption) {
  SchedulerOptions options = SmallOptions();
  options.num_kv_blocks = 6;  // of four tokens: both begin, not both end
  Driver driver(options);
  RecordingSink* const first = driver.Add(1, 6, 12);
  RecordingSink* const second = driver.Add(2, 6, 12);
  for (int step = 0; step < 200 && !driver.scheduler.idle(); ++step) driver.Step();
  EXPECT_TRUE(driver.scheduler.idle());
  EXPECT_GT(driver.scheduler.counts(driver.now).preemptions_total, 0);
  std::vector<int32_t> expected(12);
  std::iota(expected.begin(), expected.end(), 100);
  EXPECT_EQ(first->tokens, expected);
  EXPECT_EQ(second->tokens, expected);
}

TEST(EncoderPromptsTest, ThatNoStepCanHoldAreRefused) {
  const SchedulerOptions options = SmallOptions();
  EXPECT_TRUE(CheckEncoderFits(options, 13).ok()) << "beside one token for each of three others";
  const absl::Status status = CheckEncoderFits(options, 14);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("the prompt has 14 tokens; this model's encoder reads it in one step, which has room for 13"));
  EXPECT_TRUE(CheckEncoderFits(options, 0).ok());
  EXPECT_FALSE(CheckEncoderFits(options, INT64_MAX).ok());
}

}  // namespace
}  // namespace switchyard
