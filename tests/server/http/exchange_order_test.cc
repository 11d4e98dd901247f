// Who stops reading, who leaves and when: whatever the order of events, an exchange ends once and holds on to nothing.
#include <random>

#include "tests/server/http/exchange_fixture.h"

namespace switchyard::http {
namespace {

TEST_F(ExchangeTest, AClientThatLeavesCancelsEverything) {
  for (const bool streams : {false, true}) {
    sink_ = std::make_shared<FakeSink>();
    cancelled_.clear();
    Begin(std::string(R"({"prompt": ["a", "b"], "n": 2, "stream": )") + (streams ? "true}" : "false}"));
    const auto requests = Queued();
    ASSERT_EQ(requests.size(), 4u);
    Generate(*requests[0], "x");
    EXPECT_TRUE(!streams || AwaitWithoutSending([&] { return !sink_->text().empty(); }));
    exchange_->OnGone();
    EXPECT_TRUE(!streams || server_.metrics.open_calls() > 0) << "a part is on its way";
    if (sink_->TakeInFlight()) exchange_->OnSent(false);
    EXPECT_TRUE(AwaitNoCalls());
    Queued();
    EXPECT_GE(cancelled_.size(), 4u);
    EXPECT_FALSE(sink_->ended());
    for (const auto& request : requests) End(*request, TerminalStatus::kCancelled);
  }
}

TEST_F(ExchangeTest, OnlyAPartThatNobodyReadsBreaksTheConnection) {
  constexpr std::chrono::seconds kStalled{60};
  const auto break_stalled = [&](TimePoint since) {
    for (const auto& call : server_.open_calls.All()) call->BreakIfStalled(since + kStalled, kStalled);
  };
  for (const char* stream : {"false}", "true}"}) {
    sink_ = std::make_shared<FakeSink>();
    Begin(std::string(R"({"prompt": ["a", "b"], "stream": )") + stream);
    const auto requests = Queued();
    ASSERT_EQ(requests.size(), 2u);
    // The first call gives all it has, and stays open until the other has ended.
    Generate(*requests[0], "x");
    End(*requests[0]);
    ASSERT_TRUE(AwaitAnnounced());
    while (sink_->TakeInFlight()) exchange_->OnSent(true);
    const TimePoint first_ended = std::chrono::steady_clock::now();
    break_stalled(first_ended);
    EXPECT_EQ(sink_->num_breaks, 0) << "the client has read all there was";
    End(*requests[1]);
    ASSERT_TRUE(AwaitWithoutSending([&] { return sink_->ended(); }));
    break_stalled(first_ended);
    EXPECT_EQ(sink_->num_breaks, 0) << "the last part has left only now";
    break_stalled(std::chrono::steady_clock::now());
    EXPECT_EQ(sink_->num_breaks, 2) << "nobody reads it, as both calls say";
    StepToEnd();
    break_stalled(std::chrono::steady_clock::now());
    EXPECT_EQ(sink_->num_breaks, 2) << "after the end";
  }
}

// The model is published while requests come in: they are refused, or served with all that their answers need of it.
TEST_F(ExchangeTest, AModelThatAppearsIsSeenWholeOrNotAtAll) {
  std::atomic<bool> stop{false};
  std::thread starting([&] {
    while (!stop.load()) {
      server_.parts.model.store(nullptr);
      std::this_thread::yield();
      server_.parts.model.store(&server_.model);
      std::this_thread::yield();
    }
  });
  for (int round = 0; round < 500; ++round) {
    sink_ = std::make_shared<FakeSink>();
    Begin(R"({"prompt": "a", "logprobs": 1})");
    for (const auto& request : Queued()) {
      Generate(*request, "x");
      End(*request);
    }
    StepToEnd();
    if (sink_->status() == 503) continue;
    EXPECT_EQ(sink_->status(), 200);
    EXPECT_EQ(sink_->json()["model"], "toy");
  }
  stop = true;
  starting.join();
}

// Loop, connection and client act at once, and parts get lost; whatever the order, the exchange ends once and lets go
// of all it had.
TEST_F(ExchangeTest, AnyOrderOfEventsEndsOnce) {
  std::mt19937 random(1);
  for (int round = 0; round < 300; ++round) {
    sink_ = std::make_shared<FakeSink>();
    Begin(R"({"prompt": ["a", "b"], "n": 2, "stream": )" + std::string(round % 2 == 0 ? "true}" : "false}"));
    const auto requests = Queued();
    ASSERT_EQ(requests.size(), 4u);
    const bool leaves = round % 3 == 0;
    const bool fails = round % 5 == 0;
    const bool breaks = round % 7 == 0;
    const auto pause = std::chrono::microseconds(random() % 300);
    std::atomic<bool> stop{false};
    std::thread loop([&] {
      for (const auto& request : requests) {
        Generate(*request, "xy");
        server_.writer.Flush();
        End(*request, fails ? TerminalStatus::kUnavailable : TerminalStatus::kOk);
        server_.writer.Flush();
      }
    });
    std::thread connection([&] {
      while (!stop.load()) {
        if (sink_->TakeInFlight()) exchange_->OnSent(!breaks);
        std::this_thread::yield();
      }
    });
    if (leaves) {
      std::this_thread::sleep_for(pause);
      exchange_->OnGone();
    }
    loop.join();
    for (int i = 0; i < 20'000 && server_.metrics.open_calls() > 0; ++i) {
      server_.writer.Flush();
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    stop = true;
    connection.join();
    ASSERT_EQ(server_.metrics.open_calls(), 0) << "round " << round;
    ASSERT_TRUE(leaves || breaks || sink_->ended());
    Queued();
  }
}

}  // namespace
}  // namespace switchyard::http
