// One HTTP answer out of several calls, with the serving loop and the connection played here, in any order of events.
#include "server/http/exchange.h"

#include <gtest/gtest.h>

#include <atomic>
#include <nlohmann/json.hpp>
#include <random>
#include <thread>

#include "tests/server/http/http_test_server.h"

namespace switchyard::http {
namespace {

class FakeSink : public AnswerSink {
 public:
  void Send(AnswerPart part) override {
    MutexLock lock(&mutex_);
    EXPECT_FALSE(in_flight_) << "two parts at once";
    EXPECT_FALSE(ended_) << "a part after the last";
    EXPECT_EQ(part.head.has_value(), head_.status == 0) << "the head comes first, and once";
    if (part.head) head_ = *part.head;
    text_ += part.body;
    in_flight_ = true;
    ended_ = part.last;
  }
  void Break() override { ++num_breaks; }

  // Whether there was a part to report.
  bool TakeInFlight() {
    MutexLock lock(&mutex_);
    return std::exchange(in_flight_, false);
  }
  bool ended() const {
    MutexLock lock(&mutex_);
    return ended_;
  }
  std::string text() const {
    MutexLock lock(&mutex_);
    return text_;
  }
  int status() const {
    MutexLock lock(&mutex_);
    return head_.status;
  }
  nlohmann::json json() const { return nlohmann::json::parse(text()); }

  std::atomic<int> num_breaks{0};

 private:
  mutable Mutex mutex_;
  AnswerHead head_ ABSL_GUARDED_BY(mutex_){.status = 0};
  std::string text_ ABSL_GUARDED_BY(mutex_);
  bool in_flight_ ABSL_GUARDED_BY(mutex_) = false;
  bool ended_ ABSL_GUARDED_BY(mutex_) = false;
};

class ExchangeTest : public testing::Test {
 protected:
  void Begin(const std::string& body, Endpoint endpoint = Endpoint::kCompletions) {
    exchange_ = std::make_shared<Exchange>(&server_.parts, endpoint, "id", sink_);
    exchange_->Begin(body);
  }

  std::vector<std::unique_ptr<Request>> Queued() {
    auto batch = server_.queue.TakeAll();
    server_.queue.SetWaiting(0, 0);
    cancelled_.insert(cancelled_.end(), batch.cancelled.begin(), batch.cancelled.end());
    return std::move(batch.requests);
  }

  // A step that adds `text` to the choice, a byte per token.
  static void Generate(const Request& request, const std::string& text) {
    for (const char c : text) {
      SampledToken token;
      token.token = static_cast<unsigned char>(c);
      request.sink->OnToken(token, false);
    }
  }
  static void End(const Request& request, TerminalStatus status = TerminalStatus::kOk, int32_t num_tokens = 1) {
    FinishedEvent event;
    event.reason = status == TerminalStatus::kOk ? FinishReason::kLength : FinishReason::kError;
    event.status = status;
    event.num_output_tokens = num_tokens;
    request.sink->OnFinished(event);
  }

  // The end of a step: the writer writes, the connection sends, until nothing moves for a while or the answer ended.
  void Step() {
    server_.writer.Flush();
    for (int idle = 0; idle < 20; ++idle) {
      if (sink_->TakeInFlight()) {
        exchange_->OnSent(true);
        idle = 0;
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
  }
  void StepToEnd() {
    for (int i = 0; i < 3000 && !sink_->ended(); ++i) Step();
    Step();
    EXPECT_TRUE(sink_->ended());
    EXPECT_EQ(server_.metrics.open_calls(), 0);
  }

  TestParts server_;
  std::shared_ptr<FakeSink> sink_ = std::make_shared<FakeSink>();
  std::shared_ptr<Exchange> exchange_;
  std::vector<uint64_t> cancelled_;
};

TEST_F(ExchangeTest, AnswersOnceWithAllChoices) {
  Begin(R"({"prompt": ["a", "b"], "n": 2})");
  const auto requests = Queued();
  ASSERT_EQ(requests.size(), 4u);
  for (size_t i = 4; i-- > 0;) {
    Generate(*requests[i], std::string(1, static_cast<char>('w' + i)));
    End(*requests[i]);
  }
  StepToEnd();
  EXPECT_EQ(sink_->status(), 200);
  const auto json = sink_->json();
  for (size_t i = 0; i < 4; ++i) {
    EXPECT_EQ(json["choices"][i]["index"], i);
    EXPECT_EQ(json["choices"][i]["text"], std::string(1, static_cast<char>('w' + i)));
  }
  EXPECT_EQ(json["usage"]["prompt_tokens"], 2);
  EXPECT_EQ(json["usage"]["completion_tokens"], 4);
}

TEST_F(ExchangeTest, StreamsAnEventPerStepAndEndsWithDone) {
  Begin(R"({"prompt": "a", "stream": true, "stream_options": {"include_usage": true}})");
  const auto requests = Queued();
  Step();
  EXPECT_EQ(sink_->text(), "") << "until there is output a failure can have its own status";
  Generate(*requests[0], "x");
  Step();
  EXPECT_NE(sink_->text().find("\"text\":\"x\""), std::string::npos);
  Generate(*requests[0], "y");
  End(*requests[0], TerminalStatus::kOk, 2);
  StepToEnd();
  const std::string text = sink_->text();
  EXPECT_LT(text.find("\"text\":\"x\""), text.find("\"text\":\"y\""));
  EXPECT_NE(text.find("\"finish_reason\":\"length\""), std::string::npos);
  EXPECT_NE(text.find("\"choices\":[],\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":2"), std::string::npos);
  EXPECT_EQ(text.substr(text.size() - 14), kDoneEvent);
}

TEST_F(ExchangeTest, APromptThatIsRefusedEndsTheOthers) {
  Begin(R"({"prompt": ["a", "b", ""]})");
  const auto requests = Queued();
  EXPECT_EQ(requests.size(), 2u);
  EXPECT_EQ(cancelled_.size(), 2u);
  StepToEnd();
  EXPECT_EQ(sink_->status(), 400);
  EXPECT_EQ(sink_->json()["error"]["param"], "prompt");
  for (const auto& request : requests) End(*request, TerminalStatus::kCancelled);
}

TEST_F(ExchangeTest, ANumberOfChoicesOutOfRangeIsAnAnswer) {
  for (const char* n : {"-1", "0", "2147483647", "-2147483648"}) {
    for (const auto& [endpoint, start] : {std::pair(Endpoint::kCompletions, R"({"prompt": ["a", "b"], "n": )"),
                                          std::pair(Endpoint::kChat, R"({"messages": [], "n": )")}) {
      sink_ = std::make_shared<FakeSink>();
      Begin(std::string(start) + n + "}", endpoint);
      EXPECT_EQ(sink_->status(), 400);
      EXPECT_EQ(sink_->json()["error"]["param"], "n");
      EXPECT_TRUE(sink_->TakeInFlight());
      exchange_->OnSent(true);
      EXPECT_EQ(server_.metrics.open_calls(), 0);
    }
  }
}

TEST_F(ExchangeTest, AFullQueueRefusesAll) {
  Begin(R"({"prompt": ["a", "b", "c"], "n": 4, "stream": true})");
  EXPECT_EQ(Queued().size(), 8u) << "the third did not fit";
  StepToEnd();
  EXPECT_EQ(sink_->status(), 429);
  EXPECT_EQ(cancelled_.size(), 8u);
}

TEST_F(ExchangeTest, AFailureBeforeOutputHasItsStatus) {
  Begin(R"({"prompt": "a", "stream": true})");
  End(*Queued()[0], TerminalStatus::kDeadlineExceeded);
  StepToEnd();
  EXPECT_EQ(sink_->status(), 504);
}

TEST_F(ExchangeTest, AFailureAfterOutputIsAnEvent) {
  Begin(R"({"prompt": ["a", "b"], "stream": true})");
  const auto requests = Queued();
  Generate(*requests[0], "x");
  Step();
  End(*requests[1], TerminalStatus::kDataLoss);
  StepToEnd();
  EXPECT_EQ(sink_->status(), 200);
  EXPECT_NE(sink_->text().find("data: {\"error\":{\"message\":\"the model produced"), std::string::npos);
  Queued();
  EXPECT_FALSE(cancelled_.empty()) << "the other prompt was ended";
}

TEST_F(ExchangeTest, AClientThatLeavesCancelsEverything) {
  for (const bool streams : {false, true}) {
    sink_ = std::make_shared<FakeSink>();
    cancelled_.clear();
    Begin(std::string(R"({"prompt": ["a", "b"], "n": 2, "stream": )") + (streams ? "true}" : "false}"));
    const auto requests = Queued();
    ASSERT_EQ(requests.size(), 4u);
    Generate(*requests[0], "x");
    server_.writer.Flush();
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    exchange_->OnGone();
    if (sink_->TakeInFlight()) exchange_->OnSent(false);
    Queued();
    EXPECT_GE(cancelled_.size(), 4u);
    EXPECT_EQ(server_.metrics.open_calls(), 0);
    EXPECT_FALSE(sink_->ended());
    for (const auto& request : requests) End(*request, TerminalStatus::kCancelled);
  }
}

TEST_F(ExchangeTest, ALongBodyIsParsedByTheTextWorker) {
  Begin(R"({"prompt": "a", "user": ")" + std::string(100'000, 'x') + "\"}");
  std::vector<std::unique_ptr<Request>> requests;
  for (int i = 0; i < 10'000 && requests.empty(); ++i) {
    requests = Queued();
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  ASSERT_EQ(requests.size(), 1u);
  End(*requests[0]);
  StepToEnd();
  EXPECT_EQ(sink_->status(), 200);
}

TEST_F(ExchangeTest, ChatLogprobsHaveTheBytesOfEachToken) {
  Begin(R"({"messages": [{"role": "user", "content": "a"}], "logprobs": true, "top_logprobs": 1})", Endpoint::kChat);
  std::vector<std::unique_ptr<Request>> requests;
  for (int i = 0; i < 10'000 && requests.empty(); ++i) {
    requests = Queued();
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  ASSERT_EQ(requests.size(), 1u);
  SampledToken token;
  token.token = 0xC3;  // half of a character
  token.logprob = -std::numeric_limits<float>::infinity();
  token.top_logprobs = {{0x41, -0.5f}};
  requests[0]->sink->OnToken(token, false);
  End(*requests[0]);
  StepToEnd();
  const auto entry = sink_->json()["choices"][0]["logprobs"]["content"][0];
  EXPECT_EQ(entry["bytes"], nlohmann::json({0xC3}));
  EXPECT_EQ(entry["token"], "\uFFFD");
  EXPECT_EQ(entry["logprob"], -9999.0) << "JSON knows no infinity";
  EXPECT_EQ(entry["top_logprobs"][0]["token"], "A");
}

// Loop, connection and client act at once; whatever the order, the exchange ends once and lets go of all it had.
TEST_F(ExchangeTest, AnyOrderOfEventsEndsOnce) {
  std::mt19937 random(1);
  for (int round = 0; round < 300; ++round) {
    sink_ = std::make_shared<FakeSink>();
    Begin(R"({"prompt": ["a", "b"], "n": 2, "stream": )" + std::string(round % 2 == 0 ? "true}" : "false}"));
    const auto requests = Queued();
    ASSERT_EQ(requests.size(), 4u);
    const bool leaves = round % 3 == 0;
    const bool fails = round % 5 == 0;
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
        if (sink_->TakeInFlight()) exchange_->OnSent(true);
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
    ASSERT_TRUE(leaves || sink_->ended());
    Queued();
  }
}

}  // namespace
}  // namespace switchyard::http
