// An exchange whose serving loop and connection are played by the test.
#ifndef SWITCHYARD_TESTS_SERVER_HTTP_EXCHANGE_FIXTURE_H_
#define SWITCHYARD_TESTS_SERVER_HTTP_EXCHANGE_FIXTURE_H_

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "server/http/exchange.h"
#include "tests/server/http/http_test_server.h"

namespace switchyard::http {

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

  // Until the text worker has queued some.
  std::vector<std::unique_ptr<Request>> AwaitQueued() {
    std::vector<std::unique_ptr<Request>> requests;
    AwaitWithoutSending([&] { return !(requests = Queued()).empty(); });
    return requests;
  }

  // The end of a step: what is announced is written.
  template <typename Condition>
  bool AwaitWithoutSending(Condition is_so) {
    const TimePoint give_up = std::chrono::steady_clock::now() + std::chrono::minutes(1);
    while (!is_so()) {
      if (std::chrono::steady_clock::now() > give_up) return false;
      server_.writer.Flush();
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    return true;
  }
  // The connection sends as well.
  template <typename Condition>
  bool Await(Condition is_so) {
    return AwaitWithoutSending([&] {
      if (sink_->TakeInFlight()) exchange_->OnSent(true);
      return is_so();
    });
  }
  bool AwaitText(const std::string& text) {
    return Await([&] { return sink_->text().find(text) != std::string::npos; });
  }
  // Until the writer is through with all that was announced before.
  bool AwaitAnnounced() {
    struct Mark : StreamWriter::Stream {
      void WritePending() override { reached = true; }
      std::atomic<bool> reached{false};
    };
    const auto mark = std::make_shared<Mark>();
    server_.writer.Announce(mark);
    return Await([&] { return mark->reached.load(); });
  }
  bool AwaitNoCalls() {
    return Await([&] { return server_.metrics.open_calls() == 0; });
  }
  void StepToEnd() {
    EXPECT_TRUE(Await([&] { return sink_->ended(); }));
    EXPECT_TRUE(AwaitNoCalls());
  }

  TestParts server_;
  std::shared_ptr<FakeSink> sink_ = std::make_shared<FakeSink>();
  std::shared_ptr<Exchange> exchange_;
  std::vector<uint64_t> cancelled_;
};

}  // namespace switchyard::http

#endif  // SWITCHYARD_TESTS_SERVER_HTTP_EXCHANGE_FIXTURE_H_
