#include "server/frontend/write_sequencer.h"

#include <gtest/gtest.h>

#include <random>

namespace switchyard {
namespace {

TEST(WriteSequencerTest, WritesOneAtATime) {
  WriteSequencer sequencer;
  EXPECT_EQ(sequencer.Poll({}), WriteAction::kNothing);
  EXPECT_EQ(sequencer.Poll({.has_output = true}), WriteAction::kWrite);
  EXPECT_EQ(sequencer.Poll({.has_output = true}), WriteAction::kNothing);
  sequencer.OnWriteDone(true);
  EXPECT_EQ(sequencer.Poll({.has_output = true}), WriteAction::kWrite);
}

TEST(WriteSequencerTest, HeadersGoBeforeOutputAndOnce) {
  WriteSequencer sequencer;
  EXPECT_EQ(sequencer.Poll({.has_headers = true, .has_output = true}), WriteAction::kSendHeaders);
  EXPECT_EQ(sequencer.Poll({.has_headers = true, .has_output = true}), WriteAction::kNothing);
  sequencer.OnHeadersSent();
  EXPECT_EQ(sequencer.Poll({.has_headers = true, .has_output = true}), WriteAction::kWrite);
}

TEST(WriteSequencerTest, EndWithoutHeadersNeedsNone) {
  WriteSequencer sequencer;
  EXPECT_EQ(sequencer.Poll({.ended = true, .ok = false}), WriteAction::kFinish);
  WriteSequencer cancelled;
  cancelled.OnCancel();
  EXPECT_EQ(cancelled.Poll({.has_headers = true}), WriteAction::kFinish);
}

TEST(WriteSequencerTest, CancelWhileHeadersAreSentFinishesAfterThem) {
  WriteSequencer sequencer;
  EXPECT_EQ(sequencer.Poll({.has_headers = true}), WriteAction::kSendHeaders);
  sequencer.OnCancel();
  EXPECT_EQ(sequencer.Poll({.has_headers = true}), WriteAction::kNothing);
  sequencer.OnHeadersSent();
  EXPECT_EQ(sequencer.Poll({.has_headers = true}), WriteAction::kFinish);
}

TEST(WriteSequencerTest, LastOutputOfAGoodCallGoesWithItsStatus) {
  WriteSequencer sequencer;
  EXPECT_EQ(sequencer.Poll({.has_output = true, .ended = true, .ok = true}), WriteAction::kWriteAndFinish);
  EXPECT_EQ(sequencer.Poll({.ended = true}), WriteAction::kNothing);
}

TEST(WriteSequencerTest, LastOutputOfAFailedCallIsWrittenBeforeItsStatus) {
  WriteSequencer sequencer;
  EXPECT_EQ(sequencer.Poll({.has_output = true, .ended = true, .ok = false}), WriteAction::kWrite);
  EXPECT_EQ(sequencer.Poll({.ended = true, .ok = false}), WriteAction::kNothing);
  sequencer.OnWriteDone(true);
  EXPECT_EQ(sequencer.Poll({.ended = true, .ok = false}), WriteAction::kFinish);
}

TEST(WriteSequencerTest, CancelWhileAWriteIsInFlightFinishesWhenTheWriteReportsBack) {
  for (bool ok : {true, false}) {
    WriteSequencer sequencer;
    EXPECT_EQ(sequencer.Poll({.has_output = true}), WriteAction::kWrite);
    sequencer.OnCancel();
    EXPECT_EQ(sequencer.Poll({.has_output = true}), WriteAction::kNothing);
    sequencer.OnWriteDone(ok);
    EXPECT_EQ(sequencer.Poll({.has_output = true}), WriteAction::kFinish);
  }
}

TEST(WriteSequencerTest, FailedWriteEndsTheCall) {
  WriteSequencer sequencer;
  EXPECT_EQ(sequencer.Poll({.has_output = true}), WriteAction::kWrite);
  sequencer.OnWriteDone(false);
  EXPECT_EQ(sequencer.Poll({}), WriteAction::kFinish);
}

// Any order of events: never two actions at once, exactly one end, and the end always comes.
TEST(WriteSequencerTest, EveryOrderOfEventsEndsExactlyOnce) {
  std::mt19937 random(11);
  for (int round = 0; round < 200'000; ++round) {
    WriteSequencer sequencer;
    WriteDemand demand;
    demand.ok = random() % 2 == 0;
    bool writing = false;
    int ends = 0;
    const auto poll = [&] {
      const WriteAction action = sequencer.Poll(demand);
      if (action == WriteAction::kNothing) return;
      ASSERT_FALSE(writing) << "an action while a write is in flight";
      ASSERT_EQ(ends, 0) << "an action after the end";
      if (action == WriteAction::kWrite) {
        ASSERT_TRUE(demand.has_output);
        demand.has_output = false;
        writing = true;
      } else {
        ++ends;
      }
    };
    for (int event = 0; event < 12; ++event) {
      switch (random() % 4) {
        case 0: demand.has_output = demand.has_output || !demand.ended; break;
        case 1: demand.ended = demand.ended || random() % 3 == 0; break;
        case 2:
          if (random() % 4 == 0) sequencer.OnCancel();
          break;
        case 3:
          if (writing) sequencer.OnWriteDone(random() % 4 != 0);
          writing = false;
          break;
      }
      poll();
    }
    demand.ended = true;
    for (int i = 0; i < 3; ++i) {
      if (writing) sequencer.OnWriteDone(true);
      writing = false;
      poll();
    }
    ASSERT_EQ(ends, 1);
    ASSERT_TRUE(sequencer.finished());
  }
}

}  // namespace
}  // namespace switchyard
