// Steps that are planned before the last one is read, with engines that take two at once.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <string>

#include "server/scheduler/scheduler.h"
#include "tests/server/scheduler/scheduler_driver.h"

namespace switchyard {
namespace {

using std::chrono::seconds;
using testing::ElementsAre;

TEST(PlanAheadTest, RunsTheTokensThatTheStepInFlightSamples) {
  Driver driver(SmallOptions());
  RecordingSink* first = driver.Add(1, Prompt(5), 4);
  RecordingSink* second = driver.Add(2, Prompt(3), 3);
  EXPECT_EQ(driver.Plan(), "1:5s 2:3s");
  EXPECT_EQ(driver.PlanAhead(), "1:~0s 2:~1s");
  driver.Apply();
  EXPECT_THAT(first->tokens, ElementsAre(100));
  EXPECT_EQ(driver.PlanAhead(), "1:~0s 2:~1s");
  driver.Apply();
  EXPECT_EQ(driver.PlanAhead(), "1:~0s") << "the other ends with its third token, which is in flight";
  driver.Apply();
  EXPECT_EQ(second->finished.reason, FinishReason::kLength);
  EXPECT_EQ(driver.PlanAhead(), "");
  driver.Apply();
  EXPECT_THAT(first->tokens, ElementsAre(100, 101, 102, 103));
  EXPECT_THAT(second->tokens, ElementsAre(100, 101, 102));
  EXPECT_EQ(driver.counts().kv_blocks_used, 0);
}

TEST(PlanAheadTest, PositionsAndBlocksRunAheadOfTheTokens) {
  Driver driver(SmallOptions());
  driver.Add(1, Prompt(4), 9);
  driver.Plan();
  driver.PlanAhead();
  driver.Apply();
  const SequenceSlice& slice = driver.scheduler.oldest_step().slices[0];
  EXPECT_EQ(slice.first_position, 4);
  EXPECT_EQ(slice.block_table.size(), 2u);
  EXPECT_EQ(slice.tokens[0], ~0) << "as it was launched, although the token is known by now";
  EXPECT_TRUE(slice.output_tokens.empty());
}

TEST(PlanAheadTest, GoesOnWithAPromptsNextChunk) {
  Driver driver(SmallOptions());
  driver.Add(1, Prompt(40), 3);
  EXPECT_EQ(driver.Plan(), "1:16");
  EXPECT_EQ(driver.PlanAhead(), "1:16");
  driver.Apply();
  EXPECT_EQ(driver.PlanAhead(), "1:8s");
  driver.Apply();
  EXPECT_EQ(driver.PlanAhead(), "1:~0s");
}

TEST(PlanAheadTest, AdmitsWhoWaits) {
  Driver driver(SmallOptions());
  driver.Add(1, Prompt(5), 9);
  EXPECT_EQ(driver.Plan(), "1:5s");
  driver.Add(2, Prompt(9), 9);
  EXPECT_EQ(driver.PlanAhead(), "1:~0s 2:4");
  driver.Apply();
  EXPECT_EQ(driver.PlanAhead(), "1:~0s 2:4");
}

TEST(PlanAheadTest, WhoEndsHearsOfItAtOnceAndKeepsItsBlocksUntilItsLastStepIsOver) {
  Driver driver(SmallOptions());
  driver.next_token[1] = kEosId;
  RecordingSink* sink = driver.Add(1, Prompt(5), 9);
  driver.Plan();
  driver.PlanAhead();
  driver.Apply();
  EXPECT_EQ(sink->num_finished, 1);
  EXPECT_EQ(sink->finished.reason, FinishReason::kEos);
  EXPECT_EQ(sink->finished.num_output_tokens, 1);
  EXPECT_EQ(driver.counts().running, 0);
  EXPECT_EQ(driver.counts().kv_blocks_used, 2);
  EXPECT_EQ(driver.PlanAhead(), "");
  driver.Apply();
  EXPECT_THAT(sink->tokens, ElementsAre(kEosId));
  EXPECT_EQ(sink->num_finished, 1);
  EXPECT_EQ(driver.counts().generation_tokens_total, 1);
  EXPECT_EQ(driver.counts().kv_blocks_used, 0);
}

TEST(PlanAheadTest, EveryWayToEndSparesTheOthers) {
  Driver driver(SmallOptions());
  RecordingSink* slow = driver.Add(1, Prompt(2), 9);
  slow->verdict_at = 1;
  slow->verdict = SinkVerdict::kSlowReader;
  RecordingSink* nonfinite = driver.Add(2, Prompt(2), 9);
  driver.nonfinite = 2;
  RecordingSink* cancelled = driver.Add(3, Prompt(2), 9);
  RecordingSink* other = driver.Add(4, Prompt(2), 9);
  driver.Plan();
  EXPECT_EQ(driver.PlanAhead(), "1:~0s 2:~1s 3:~2s 4:~3s");
  driver.scheduler.Cancel(3, driver.now);
  EXPECT_EQ(cancelled->num_finished, 0);
  driver.Apply();
  EXPECT_EQ(slow->finished.status, TerminalStatus::kSlowReader);
  EXPECT_EQ(nonfinite->finished.status, TerminalStatus::kDataLoss);
  EXPECT_EQ(cancelled->finished.status, TerminalStatus::kCancelled);
  EXPECT_EQ(driver.PlanAhead(), "4:~3s");
  driver.Apply();
  EXPECT_EQ(driver.counts().kv_blocks_used, 1);
  driver.Apply();
  EXPECT_THAT(other->tokens, ElementsAre(100, 101, 102));
  EXPECT_EQ(driver.finished.size(), 3u);
}

TEST(PlanAheadTest, ACancelledOneGetsNoFurtherStep) {
  Driver driver(SmallOptions());
  RecordingSink* sink = driver.Add(1, Prompt(5), 9);
  driver.Add(2, Prompt(5), 9);
  driver.Plan();
  driver.scheduler.Cancel(1, driver.now);
  EXPECT_EQ(driver.PlanAhead(), "2:~1s");
  driver.Apply();
  EXPECT_EQ(sink->num_finished, 1);
  EXPECT_EQ(driver.counts().kv_blocks_used, 2);
}

TEST(PlanAheadTest, WaitsForATokenThatTheHostSamples) {
  Driver driver(SmallOptions());
  SamplingParams sampling;
  sampling.num_logprobs = 0;
  driver.Add(1, Prompt(20), 9, 0, TimePoint::max(), sampling);
  driver.Add(2, Prompt(2), 2);
  EXPECT_EQ(driver.Plan(), "1:16");
  EXPECT_EQ(driver.PlanAhead(), "1:4s 2:2s") << "no token of the first step is needed";
  driver.Apply();
  EXPECT_EQ(driver.PlanAhead(), "");
  driver.Apply();
  EXPECT_EQ(driver.Plan(), "1:1s 2:1s");
}

TEST(PlanAheadTest, WaitsWhenADeadlineHasPassed) {
  Driver driver(SmallOptions());
  RecordingSink* late = driver.Add(1, Prompt(5), 9, 0, driver.now + seconds(1));
  driver.Add(2, Prompt(5), 9);
  driver.Plan();
  EXPECT_EQ(driver.PlanAhead(), "1:~0s 2:~1s");
  driver.Apply();
  EXPECT_EQ(driver.PlanAhead(), "");
  EXPECT_EQ(late->num_finished, 0);
  driver.Apply();
  EXPECT_EQ(driver.Plan(), "2:1s");
  EXPECT_EQ(late->finished.reason, FinishReason::kDeadline);
}

TEST(PlanAheadTest, LeavesPreemptionToAPlanWithNothingInFlight) {
  SchedulerOptions options = SmallOptions();
  options.num_kv_blocks = 4;
  Driver driver(options);
  driver.Add(1, Prompt(3), 9);
  driver.Add(2, Prompt(3), 9);
  EXPECT_EQ(driver.Plan(), "1:3s 2:3s");
  int steps_ahead = 0;
  for (; driver.PlanAhead() != ""; ++steps_ahead) driver.Apply();
  EXPECT_EQ(steps_ahead, 5) << "eight positions each in four blocks";
  EXPECT_EQ(driver.counts().preemptions_total, 0);
  EXPECT_EQ(driver.counts().kv_blocks_used, 4);
  driver.Apply();
  EXPECT_EQ(driver.Plan(), "1:1s");
  EXPECT_EQ(driver.counts().preemptions_total, 1);
}

TEST(PlanAheadTest, OffersABlockForReuseOnlyWhenTheStepThatFilledItIsOver) {
  SchedulerOptions options = SmallOptions();
  options.enable_prefix_caching = true;
  Driver driver(options);
  driver.Add(1, {1, 2, 3}, 20);
  driver.Plan();
  driver.PlanAhead();  // fills the block with token 100
  driver.Apply();
  driver.Add(2, {1, 2, 3, 100, 7}, 1);
  EXPECT_EQ(driver.PlanAhead(), "1:~0s 2:4");
  driver.Apply();
  driver.Add(3, {1, 2, 3, 100, 7}, 1);
  EXPECT_EQ(driver.PlanAhead(), "1:~0s 2:1s 3:1s");
}

TEST(PlanAheadTest, FailAllForgetsBothStepsInFlight) {
  Driver driver(SmallOptions());
  driver.next_token[1] = kEosId;
  for (uint64_t id = 1; id <= 3; ++id) driver.Add(id, Prompt(3), 9);
  driver.Plan();
  driver.PlanAhead();
  driver.Apply();  // the first has ended, its slice is in flight
  driver.PlanAhead();
  driver.scheduler.FailAll(TerminalStatus::kUnavailable, driver.now);
  EXPECT_EQ(driver.finished.size(), 3u);
  EXPECT_EQ(driver.sinks[2]->finished.status, TerminalStatus::kUnavailable);
  EXPECT_EQ(driver.counts().kv_blocks_used, 0);
  EXPECT_TRUE(driver.scheduler.idle());
  driver.outputs.clear();
  driver.Add(4, Prompt(3), 1);
  EXPECT_EQ(driver.Step(), "4:3s");
  EXPECT_THAT(driver.sinks[4]->tokens, ElementsAre(100));
}

}  // namespace
}  // namespace switchyard
