#include "server/scheduler/scheduler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "tests/server/scheduler/recording_sink.h"
#include "tests/server/scheduler/scheduler_driver.h"

namespace switchyard {
namespace {

using std::chrono::seconds;
using testing::ElementsAre;
using testing::HasSubstr;

// --- Options and CheckFits ---

TEST(SchedulerOptionsTest, DefaultsAreValid) { EXPECT_TRUE(ValidateSchedulerOptions(SchedulerOptions()).ok()); }

TEST(SchedulerOptionsTest, NamesTheFieldTheValueAndTheLimit) {
  SchedulerOptions options = SmallOptions();
  options.max_num_batched_tokens = 3;
  EXPECT_THAT(std::string(ValidateSchedulerOptions(options).message()),
              HasSubstr("max_num_batched_tokens is 3; it must be at least 4 (max_num_seqs)"));
}

TEST(SchedulerOptionsTest, WithoutChunksAnyPromptMustFitAStep) {
  SchedulerOptions options = SmallOptions();
  options.enable_chunked_prefill = false;
  options.max_num_batched_tokens = 67;
  EXPECT_FALSE(ValidateSchedulerOptions(options).ok());
  options.max_num_batched_tokens = 68;
  EXPECT_TRUE(ValidateSchedulerOptions(options).ok());
}

TEST(CheckFitsTest, SaysHowManyBlocksAreNeeded) {
  SchedulerOptions options;
  options.max_model_len = 4096;
  options.num_kv_blocks = 128;
  EXPECT_TRUE(CheckFits(options, 2000, 49).ok()) << "2048 tokens to keep: the last one sampled needs no place";
  EXPECT_FALSE(CheckFits(options, 2000, 50).ok());
  const absl::Status status = CheckFits(options, 2000, 81);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("needs 130 KV blocks; the pool has 128"));
}

TEST(CheckFitsTest, RefusesMoreThanTheContextAndSurvivesHugeNumbers) {
  const SchedulerOptions options = SmallOptions();
  EXPECT_TRUE(CheckFits(options, 60, 4).ok());
  EXPECT_FALSE(CheckFits(options, 60, 5).ok());
  EXPECT_FALSE(CheckFits(options, 1, INT64_MAX).ok());
  EXPECT_FALSE(CheckFits(options, INT64_MAX, INT64_MAX).ok());
  EXPECT_FALSE(CheckFits(options, 0, 1).ok());
  EXPECT_FALSE(CheckFits(options, 1, 0).ok());
}

// --- What runs in a step ---

TEST(SchedulerTest, PrefillsThenDecodesToTheLimit) {
  Driver driver(SmallOptions());
  RecordingSink* sink = driver.Add(1, Prompt(5), 3);
  EXPECT_EQ(driver.Step(), "1:5s");
  EXPECT_EQ(driver.Step(), "1:1s");
  EXPECT_EQ(driver.Step(), "1:1s");
  EXPECT_EQ(driver.Step(), "");
  EXPECT_THAT(sink->tokens, ElementsAre(100, 101, 102));
  EXPECT_EQ(sink->num_finished, 1);
  EXPECT_EQ(sink->finished.reason, FinishReason::kLength);
  EXPECT_EQ(sink->finished.num_output_tokens, 3);
  EXPECT_EQ(driver.counts().kv_blocks_used, 0);
}

TEST(SchedulerTest, SplitsALongPromptIntoChunksOfTheBudget) {
  Driver driver(SmallOptions());
  driver.Add(1, Prompt(40), 2);
  EXPECT_EQ(driver.Step(), "1:16");
  EXPECT_EQ(driver.Step(), "1:16");
  EXPECT_EQ(driver.Step(), "1:8s");
  EXPECT_EQ(driver.Step(), "1:1s");
}

TEST(SchedulerTest, PutsDecodesFirstAndBoundsThePrefillBesideThem) {
  Driver driver(SmallOptions());  // a quarter of 16 tokens may be prefill
  driver.Add(1, Prompt(2), 20);
  driver.Add(2, Prompt(2), 20);
  EXPECT_EQ(driver.Step(), "1:2s 2:2s");
  driver.Add(3, Prompt(9), 20);
  EXPECT_EQ(driver.Step(), "1:1s 2:1s 3:4");
  EXPECT_EQ(driver.Step(), "1:1s 2:1s 3:4");
  EXPECT_EQ(driver.Step(), "1:1s 2:1s 3:1s") << "the end of the prefill runs as a decode";
}

TEST(SchedulerTest, FillsTheBudgetWithSeveralPrompts) {
  Driver driver(SmallOptions());
  for (uint64_t id = 1; id <= 3; ++id) driver.Add(id, Prompt(7), 2);
  EXPECT_EQ(driver.Step(), "1:7s 2:7s 3:2");
}

TEST(SchedulerTest, WithoutChunksRunsPromptsWhole) {
  SchedulerOptions options = SmallOptions();
  options.enable_chunked_prefill = false;
  options.max_num_batched_tokens = 68;
  Driver driver(options);
  driver.Add(1, Prompt(40), 5);
  driver.Add(2, Prompt(40), 5);
  EXPECT_EQ(driver.Step(), "1:40s");
  EXPECT_EQ(driver.Step(), "1:1s 2:40s");
}

TEST(SchedulerTest, RunsAtMostMaxNumSeqs) {
  Driver driver(SmallOptions());
  for (uint64_t id = 1; id <= 6; ++id) driver.Add(id, Prompt(1), 2);
  EXPECT_EQ(driver.Step(), "1:1s 2:1s 3:1s 4:1s");
  EXPECT_EQ(driver.counts().waiting, 2);
  EXPECT_EQ(driver.Step(), "1:1s 2:1s 3:1s 4:1s");
  EXPECT_EQ(driver.Step(), "5:1s 6:1s");
}

TEST(SchedulerTest, NeverLetsASmallerRequestOvertakeTheHead) {
  SchedulerOptions options = SmallOptions();
  options.num_kv_blocks = 8;
  Driver driver(options);
  driver.Add(1, Prompt(16), 8);
  driver.Step();
  driver.Add(2, Prompt(20), 4);  // needs 5 blocks; 4 are free
  driver.Add(3, Prompt(1), 4);
  EXPECT_EQ(driver.Step(), "1:1s");
  EXPECT_EQ(driver.counts().waiting, 2);
}

TEST(SchedulerTest, LowerPriorityNumbersRunFirst) {
  SchedulerOptions options = SmallOptions();
  options.policy = SchedulingPolicy::kPriority;
  options.max_num_seqs = 1;
  Driver driver(options);
  driver.Add(1, Prompt(1), 1, /*priority=*/5);
  driver.Add(2, Prompt(1), 1, /*priority=*/-5);
  driver.Add(3, Prompt(1), 1, /*priority=*/0);
  driver.RunToEnd();
  EXPECT_THAT(driver.finished, ElementsAre(2, 3, 1));
}

TEST(SchedulerTest, WaitingMakesUpForPriority) {
  SchedulerOptions options = SmallOptions();
  options.policy = SchedulingPolicy::kPriority;
  options.priority_step = seconds(10);
  options.max_num_seqs = 1;
  Driver driver(options);
  driver.Add(1, Prompt(1), 1, /*priority=*/1);
  driver.now += seconds(11);
  driver.Add(2, Prompt(1), 1, /*priority=*/0);
  driver.RunToEnd();
  EXPECT_THAT(driver.finished, ElementsAre(1, 2));
}

TEST(SchedulerTest, UnderFcfsThePriorityMeansNothing) {
  SchedulerOptions options = SmallOptions();
  options.max_num_seqs = 1;
  Driver driver(options);
  driver.Add(1, Prompt(1), 1, /*priority=*/5);
  driver.Add(2, Prompt(1), 1, /*priority=*/-5);
  driver.RunToEnd();
  EXPECT_THAT(driver.finished, ElementsAre(1, 2));
}

// --- Ends ---

TEST(SchedulerTest, EosAndOwnStopIdsEndWithTheirReasons) {
  Driver driver(SmallOptions());
  RecordingSink* eos = driver.Add(1, Prompt(2), 9);
  RecordingSink* stop = driver.Add(2, Prompt(2), 9);
  driver.next_token = {{1, kEosId}, {2, kStopId}};
  driver.RunToEnd();
  EXPECT_EQ(eos->finished.reason, FinishReason::kEos);
  EXPECT_THAT(eos->tokens, ElementsAre(kEosId));
  EXPECT_THAT(eos->stop_flags, ElementsAre(true));
  EXPECT_EQ(stop->finished.reason, FinishReason::kStop);
  EXPECT_EQ(stop->finished.status, TerminalStatus::kOk);
}

TEST(SchedulerTest, AStopStringSeenByTheSinkEndsTheSequence) {
  Driver driver(SmallOptions());
  RecordingSink* sink = driver.Add(1, Prompt(2), 9);
  sink->verdict_at = 3;
  driver.RunToEnd();
  EXPECT_EQ(sink->finished.reason, FinishReason::kStop);
  EXPECT_EQ(sink->finished.num_output_tokens, 3);
}

TEST(SchedulerTest, ASlowReaderEndsAndItsTokenDoesNotCount) {
  Driver driver(SmallOptions());
  RecordingSink* sink = driver.Add(1, Prompt(2), 9);
  sink->verdict_at = 3;
  sink->verdict = SinkVerdict::kSlowReader;
  driver.RunToEnd();
  EXPECT_EQ(sink->finished.reason, FinishReason::kError);
  EXPECT_EQ(sink->finished.status, TerminalStatus::kSlowReader);
  EXPECT_EQ(sink->finished.num_output_tokens, 2);
  EXPECT_EQ(driver.counts().generation_tokens_total, 2);
}

TEST(SchedulerTest, ANonFiniteLogitEndsOnlyItsSequence) {
  Driver driver(SmallOptions());
  RecordingSink* bad = driver.Add(1, Prompt(2), 3);
  RecordingSink* good = driver.Add(2, Prompt(2), 3);
  driver.nonfinite = 1;
  driver.RunToEnd();
  EXPECT_EQ(bad->finished.status, TerminalStatus::kDataLoss);
  EXPECT_TRUE(bad->tokens.empty());
  EXPECT_EQ(good->finished.status, TerminalStatus::kOk);
}

TEST(SchedulerTest, AQueuedRequestPastItsDeadlineNeverRuns) {
  SchedulerOptions options = SmallOptions();
  options.max_num_seqs = 1;
  Driver driver(options);
  driver.Add(1, Prompt(2), 9);
  RecordingSink* late = driver.Add(2, Prompt(2), 9, 0, driver.now + seconds(2));
  EXPECT_EQ(driver.scheduler.next_deadline(), driver.now + seconds(2));
  driver.Step();
  driver.Step();
  EXPECT_EQ(late->num_finished, 0);
  driver.Step();
  EXPECT_EQ(late->finished.status, TerminalStatus::kDeadlineExceeded);
  EXPECT_EQ(driver.counts().deadline_total[static_cast<size_t>(Phase::kQueued)], 1);
  EXPECT_EQ(driver.scheduler.next_deadline(), TimePoint::max());
}

TEST(SchedulerTest, ARunningRequestPastItsDeadlineEndsAtTheStepBoundary) {
  Driver driver(SmallOptions());
  RecordingSink* sink = driver.Add(1, Prompt(2), 9, 0, driver.now + seconds(2));
  driver.RunToEnd();
  EXPECT_EQ(sink->finished.reason, FinishReason::kDeadline);
  EXPECT_EQ(sink->finished.num_output_tokens, 2);
  EXPECT_EQ(driver.counts().deadline_total[static_cast<size_t>(Phase::kDecode)], 1);
}

TEST(SchedulerTest, CancelFreesAtOnceWhenNoStepRunsIt) {
  Driver driver(SmallOptions());
  RecordingSink* running = driver.Add(1, Prompt(20), 9);
  driver.Step();
  RecordingSink* queued = driver.Add(2, Prompt(2), 9);
  driver.scheduler.Cancel(1, driver.now);
  driver.scheduler.Cancel(2, driver.now);
  driver.scheduler.Cancel(2, driver.now);
  driver.scheduler.Cancel(77, driver.now);
  EXPECT_EQ(running->finished.status, TerminalStatus::kCancelled);
  EXPECT_EQ(queued->num_finished, 1);
  EXPECT_EQ(driver.counts().kv_blocks_used, 0);
  EXPECT_EQ(driver.counts().cancelled_total[static_cast<size_t>(Phase::kPrefill)], 1);
  EXPECT_EQ(driver.counts().cancelled_total[static_cast<size_t>(Phase::kQueued)], 1);
}

TEST(SchedulerTest, CancelOfAStepInFlightKeepsTheBlocksUntilTheStepIsOver) {
  Driver driver(SmallOptions());
  RecordingSink* sink = driver.Add(1, Prompt(5), 9);
  driver.Plan();
  driver.scheduler.Cancel(1, driver.now);
  EXPECT_EQ(sink->num_finished, 0);
  EXPECT_EQ(driver.counts().kv_blocks_used, 2);
  driver.Apply();
  EXPECT_EQ(sink->num_finished, 1);
  EXPECT_TRUE(sink->tokens.empty());
  EXPECT_EQ(driver.counts().kv_blocks_used, 0);
}

TEST(SchedulerTest, FailAllEndsRunningWaitingAndInFlight) {
  SchedulerOptions options = SmallOptions();
  options.max_num_seqs = 2;
  Driver driver(options);
  for (uint64_t id = 1; id <= 4; ++id) driver.Add(id, Prompt(3), 9);
  driver.Step();
  driver.Plan();
  driver.scheduler.FailAll(TerminalStatus::kUnavailable, driver.now);
  for (const auto& [id, sink] : driver.sinks) {
    EXPECT_EQ(sink->num_finished, 1);
    EXPECT_EQ(sink->finished.status, TerminalStatus::kUnavailable);
    EXPECT_EQ(sink->finished.reason, FinishReason::kError);
  }
  EXPECT_EQ(driver.counts().kv_blocks_used, 0);
  EXPECT_EQ(driver.Plan(), "");
}

TEST(SchedulerTest, ARequestThatCannotFitEndsAtOnceInsteadOfBlockingTheOthers) {
  Driver driver(SmallOptions());
  RecordingSink* impossible = driver.Add(1, Prompt(60), 60);
  RecordingSink* good = driver.Add(2, Prompt(3), 2);
  EXPECT_EQ(impossible->finished.status, TerminalStatus::kUnavailable);
  driver.RunToEnd();
  EXPECT_EQ(good->finished.status, TerminalStatus::kOk);
}

TEST(SchedulerTest, TellsHowLongEachPartTook) {
  SchedulerOptions options = SmallOptions();
  options.max_num_seqs = 1;
  Driver driver(options);
  driver.Add(1, Prompt(2), 3);
  RecordingSink* second = driver.Add(2, Prompt(20), 3);
  driver.RunToEnd();
  EXPECT_EQ(second->finished.queue_seconds, 3.0);
  EXPECT_EQ(second->finished.prefill_seconds, 2.0);
  EXPECT_EQ(second->finished.decode_seconds, 2.0);
}

// --- KV blocks ---

SchedulerOptions TinyPool() {
  SchedulerOptions options = SmallOptions();
  options.num_kv_blocks = 6;
  return options;
}

TEST(SchedulerTest, PreemptsNewestWhenBlocksRunOut) {
  Driver driver(TinyPool());
  RecordingSink* old_sink = driver.Add(1, Prompt(4), 20);
  RecordingSink* new_sink = driver.Add(2, Prompt(4), 16);
  driver.RunToEnd();
  EXPECT_EQ(old_sink->finished.num_preemptions, 0);
  EXPECT_GE(new_sink->finished.num_preemptions, 1);
  for (const RecordingSink* sink : {old_sink, new_sink}) {
    for (size_t i = 0; i < sink->tokens.size(); ++i) EXPECT_EQ(sink->tokens[i], 100 + static_cast<int32_t>(i));
  }
  EXPECT_EQ(old_sink->tokens.size(), 20u);
  EXPECT_EQ(new_sink->tokens.size(), 16u);
  EXPECT_EQ(driver.counts().kv_blocks_used, 0);
  EXPECT_GT(driver.counts().recomputed_tokens_total, 0);
}

TEST(SchedulerTest, RecomputesPromptAndOutputInChunksAndSamplesOnlyAfterTheLast) {
  SchedulerOptions options = TinyPool();
  options.max_num_batched_tokens = 6;
  Driver driver(options);
  driver.Add(1, Prompt(4), 20);
  RecordingSink* preempted = driver.Add(2, Prompt(5), 16);
  while (driver.counts().preemptions_total == 0) driver.Step();
  driver.scheduler.Cancel(1, driver.now);
  const std::vector<int32_t> before = preempted->tokens;
  ASSERT_EQ(before.size(), 6u);
  EXPECT_EQ(driver.Step(), "2:6");
  EXPECT_EQ(preempted->tokens, before);
  EXPECT_EQ(driver.Step(), "2:5s") << "11 tokens in all: 5 of the prompt, 6 of output";
  EXPECT_EQ(preempted->tokens.size(), 7u);
  EXPECT_EQ(driver.counts().recomputed_tokens_total, 10) << "the newest token had not been computed before";
}

TEST(SchedulerTest, IsNeverPreemptedMoreOftenThanAllowed) {
  for (const int32_t limit : {0, 1, 3}) {
    SchedulerOptions options = TinyPool();
    options.max_preemptions = limit;
    Driver driver(options);
    for (uint64_t id = 1; id <= 12; ++id) driver.Add(id, Prompt(3), 20);
    driver.RunToEnd();
    for (const auto& [id, sink] : driver.sinks) {
      EXPECT_LE(sink->finished.num_preemptions, limit);
      EXPECT_EQ(sink->finished.num_output_tokens, 20);
    }
  }
}

TEST(SchedulerTest, KeepsHeadroomAtAdmission) {
  SchedulerOptions options = SmallOptions();
  options.num_kv_blocks = 4;
  Driver driver(options);
  driver.Add(1, Prompt(4), 8);  // one block now, three in the end
  driver.Add(2, Prompt(4), 4);  // one block; two more would have to stay free
  EXPECT_EQ(driver.Step(), "1:4s 2:4s");
  Driver full(options);
  full.Add(1, Prompt(8), 8);
  full.Add(2, Prompt(4), 4);
  EXPECT_EQ(full.Step(), "1:8s") << "two blocks taken, one needed, two of headroom: five of four";
}

// An attack on the KV pool: many short prompts that grow to long outputs, four times what fits.
TEST(SchedulerTest, SpendsAtMostAFifthOfItsRowsOnRecomputation) {
  SchedulerOptions options = SmallOptions();
  options.max_num_seqs = 16;
  options.max_num_batched_tokens = 64;
  options.num_kv_blocks = 64;  // 16 sequences grow to 16 blocks each
  Driver driver(options);
  for (uint64_t id = 1; id <= 200; ++id) driver.Add(id, Prompt(2), 60);
  driver.RunToEnd();
  const SchedulerCounts counts = driver.counts();
  const int64_t num_rows = counts.prompt_tokens_total + counts.generation_tokens_total + counts.recomputed_tokens_total;
  EXPECT_GT(counts.preemptions_total, 0);
  EXPECT_LE(counts.recomputed_tokens_total * 5, num_rows) << counts.recomputed_tokens_total << " of " << num_rows;
}

TEST(SchedulerTest, CancelWhilePreemptedLeaksNothing) {
  Driver driver(TinyPool());
  driver.Add(1, Prompt(4), 20);
  driver.Add(2, Prompt(4), 16);
  while (driver.counts().preemptions_total == 0) driver.Step();
  driver.scheduler.Cancel(2, driver.now);
  EXPECT_EQ(driver.sinks[2]->finished.status, TerminalStatus::kCancelled);
  EXPECT_EQ(driver.counts().cancelled_total[static_cast<size_t>(Phase::kPreempted)], 1);
  driver.RunToEnd();
  EXPECT_EQ(driver.counts().kv_blocks_used, 0);
  EXPECT_EQ(driver.counts().waiting_tokens, 0);
}

SchedulerOptions WithPrefixCaching() {
  SchedulerOptions options = SmallOptions();
  options.enable_prefix_caching = true;
  return options;
}

TEST(SchedulerTest, ReusesFullBlocksOfAnEqualPrompt) {
  Driver driver(WithPrefixCaching());
  driver.Add(1, Prompt(10), 1);
  driver.RunToEnd();
  RecordingSink* second = driver.Add(2, Prompt(10), 1);
  EXPECT_EQ(driver.Step(), "2:2s");
  EXPECT_EQ(second->finished.num_cached_prompt_tokens, 8);
  EXPECT_EQ(driver.counts().prefix_query_tokens_total, 20);
  EXPECT_EQ(driver.counts().prefix_hit_tokens_total, 8);
}

TEST(SchedulerTest, AlwaysRunsAtLeastTheLastPromptToken) {
  Driver driver(WithPrefixCaching());
  driver.Add(1, Prompt(8), 5);
  driver.RunToEnd();
  driver.Add(2, Prompt(8), 1);
  EXPECT_EQ(driver.Step(), "2:4s");
}

TEST(SchedulerTest, SharesTheBlocksOfARunningSequence) {
  Driver driver(WithPrefixCaching());
  driver.Add(1, Prompt(9), 20);
  driver.Step();
  driver.Add(2, Prompt(9), 20);
  EXPECT_EQ(driver.Step(), "1:1s 2:1s");
  EXPECT_EQ(driver.counts().kv_blocks_used, 4);
  driver.scheduler.Cancel(1, driver.now);
  EXPECT_EQ(driver.counts().kv_blocks_used, 3);
  driver.RunToEnd();
  EXPECT_EQ(driver.counts().kv_blocks_used, 0);
}

TEST(SchedulerTest, ReusesOutputToo) {
  Driver driver(WithPrefixCaching());
  driver.Add(1, {1, 2, 3}, 6);  // then 100, 101, ...: computed up to 104
  driver.RunToEnd();
  driver.Add(2, {1, 2, 3, 100, 101, 102, 103, 104, 105, 9}, 1);
  EXPECT_EQ(driver.Step(), "2:2s");
}

TEST(SchedulerTest, ARequestCanOptOutOfReuseBothWays) {
  Driver driver(WithPrefixCaching());
  auto private_request = [](uint64_t id) {
    auto request = MakeRequest(id, Prompt(10), 1, std::make_shared<RecordingSink>());
    request->allow_prefix_reuse = false;
    return request;
  };
  driver.scheduler.Add(private_request(1), driver.now);
  driver.RunToEnd();
  EXPECT_EQ(driver.counts().kv_blocks_cached, 0) << "does not publish";
  driver.Add(2, Prompt(10), 1);
  driver.RunToEnd();
  driver.scheduler.Add(private_request(3), driver.now);
  EXPECT_EQ(driver.Step(), "3:10s") << "does not look";
}

TEST(SchedulerTest, CountsAddUp) {
  Driver driver(TinyPool());
  for (uint64_t id = 1; id <= 8; ++id) driver.Add(id, Prompt(static_cast<int32_t>(id)), 6);
  driver.Step();
  driver.scheduler.Cancel(8, driver.now);
  SchedulerCounts counts = driver.counts();
  EXPECT_EQ(counts.admitted_total, 8);
  EXPECT_EQ(counts.waiting + counts.running + 1, 8);
  EXPECT_EQ(counts.kv_blocks_total, 6);
  EXPECT_EQ(counts.oldest_waiting_seconds, 1.0);
  driver.RunToEnd();
  counts = driver.counts();
  EXPECT_EQ(counts.finished_total[static_cast<size_t>(FinishReason::kLength)], 7);
  EXPECT_EQ(counts.finished_total[static_cast<size_t>(FinishReason::kCancelled)], 1);
  EXPECT_EQ(counts.prompt_tokens_total, 28);
  EXPECT_EQ(counts.generation_tokens_total, 42);
  EXPECT_EQ(counts.waiting_tokens, 0);
}

}  // namespace
}  // namespace switchyard
