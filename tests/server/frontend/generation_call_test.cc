// A call driven by events in any order, without gRPC: the transport, the serving loop and the client are played here.
#include "server/frontend/generation_call.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <random>
#include <thread>

#include "server/byte_tokenizer.h"
#include "server/frontend/errors.h"
#include "server/frontend/open_calls.h"
#include "server/log.h"

namespace switchyard {
namespace {

class FakeTransport : public CallTransport {
 public:
  void SendRequestId(const std::string& id) override {
    Begin();
    EXPECT_EQ(num_messages.load(), 0) << "headers after output";
    EXPECT_EQ(request_id, "") << "headers twice";
    request_id = id;
  }
  void Write(const v1::GenerateStreamResponse& message) override {
    Begin();
    Take(message);
    write_in_flight = true;
  }
  void WriteAndFinish(const v1::GenerateStreamResponse& message) override {
    Begin();
    Take(message);
    ++num_ends;
  }
  void Respond(const v1::GenerateResponse& response) override {
    Begin();
    Take(response);
    ++num_ends;
  }
  void Finish(const absl::Status& final_status) override {
    Begin();
    status = final_status;
    ++num_ends;
  }
  void Break(TimePoint) override { ++num_breaks; }

  std::string request_id;
  std::string text;
  std::string last_message;
  absl::Status status;
  // Set last: the writer's thread acts too.
  std::atomic<bool> write_in_flight{false};
  std::atomic<int> num_messages{0};
  std::atomic<int> num_ends{0};
  int num_breaks = 0;

 private:
  void Begin() {
    EXPECT_FALSE(write_in_flight.load()) << "two actions at once";
    EXPECT_EQ(num_ends.load(), 0) << "an action after the end";
  }
  void Take(const google::protobuf::MessageLite& message) {
    ++num_messages;
    last_message = message.SerializeAsString();
    v1::GenerateStreamResponse response;
    ASSERT_TRUE(response.ParseFromString(last_message));
    for (const auto& choice : response.choices()) text += choice.text();
  }
};

class GenerationCallTest : public testing::Test {
 protected:
  GenerationCallTest() {
    model_.limits.served_model_name = "toy";
    model_.limits.vocab_size = 257;
    model_.limits.max_model_len = 100;
    model_.scheduler.max_model_len = 100;
    model_.tokenizer = tokenizer_.get();
    model_.queue = &queue_;
    parts_.metrics = &metrics_;
    parts_.writer = &writer_;
    parts_.text_worker = &text_worker_;
    parts_.open_calls = &open_calls_;
    parts_.model.store(&model_);
    parts_.phase.store(ServingPhase::kServing);
  }

  std::shared_ptr<GenerationCall> Start(const v1::GenerateRequest& request, bool streaming = true) {
    auto call = std::make_shared<GenerationCall>(&parts_, streaming, TimePoint::max());
    transport_ = std::make_shared<FakeTransport>();
    call->Start(transport_, request, "");
    return call;
  }

  // As the serving loop does it, with a scheduler that runs everything at once.
  RequestQueue::Batch TakeAll() {
    RequestQueue::Batch batch = queue_.TakeAll();
    queue_.SetWaiting(0, 0);
    return batch;
  }

  static v1::GenerateRequest Hello() {
    v1::GenerateRequest request;
    request.set_text("hello");
    return request;
  }

  static void SendToken(const Request& request, int32_t id) {
    SampledToken token;
    token.token = id;
    request.sink->OnToken(token, false);
  }

  static void End(const Request& request, FinishReason reason, TerminalStatus status = TerminalStatus::kOk) {
    FinishedEvent event;
    event.reason = reason;
    event.status = status;
    request.sink->OnFinished(event);
  }

  // What the loop does at the end of a step; the writer's thread writes.
  void AwaitEnd() {
    writer_.Flush();
    for (int i = 0; i < 60'000 && transport_->num_ends == 0; ++i)
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    ASSERT_EQ(transport_->num_ends.load(), 1);
  }

  std::unique_ptr<Tokenizer> tokenizer_ = *Tokenizer::Parse(ByteTokenizerJson());
  ServingMetrics metrics_{"toy", "1"};
  RequestQueue queue_{4, 1000};
  OpenCalls open_calls_{3};
  static constexpr int kMaxTextJobs = 60'000;
  TextWorker text_worker_{kMaxTextJobs, 100'000};
  ServedModel model_;
  FrontendParts parts_;
  std::shared_ptr<FakeTransport> transport_;
  StreamWriter writer_;  // last: stops first
};

TEST_F(GenerationCallTest, QueuesTheTokenizedPrompt) {
  v1::GenerateRequest request = Hello();
  request.set_max_tokens(5);
  request.set_seed(42);
  request.set_request_id("mine");
  const auto call = Start(request);
  const auto batch = TakeAll();
  ASSERT_EQ(batch.requests.size(), 1u);
  EXPECT_EQ(batch.requests[0]->prompt_tokens, (std::vector<int32_t>{'h', 'e', 'l', 'l', 'o'}));
  EXPECT_EQ(batch.requests[0]->max_tokens, 5);
  EXPECT_EQ(batch.requests[0]->sampling.seed, 42u);
  EXPECT_EQ(transport_->request_id, "mine");
  EXPECT_LT(batch.requests[0]->deadline, TimePoint::max()) << "the server's own limit";
  call->OnDone();
}

TEST_F(GenerationCallTest, ChoicesAreRequestsWithSeedsOfTheirOwn) {
  v1::GenerateRequest request = Hello();
  request.set_n(3);
  request.set_seed(42);
  const auto call = Start(request);
  const auto batch = TakeAll();
  ASSERT_EQ(batch.requests.size(), 3u);
  for (int32_t i = 0; i < 3; ++i) EXPECT_EQ(batch.requests[static_cast<size_t>(i)]->sampling.seed, SeedOfChoice(42, i));
  call->OnDone();
}

// Without headers, or gRPC's clients would not retry; and all choices or none.
TEST_F(GenerationCallTest, FullQueueRefusesTheWholeCallWithRetryAndWithoutHeaders) {
  const auto first = Start(Hello());
  EXPECT_FALSE(transport_->request_id.empty());
  v1::GenerateRequest request = Hello();
  request.set_n(4);
  const auto call = Start(request);
  EXPECT_EQ(transport_->num_ends.load(), 1);
  EXPECT_EQ(transport_->status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_GE(RetryPushbackMillis(transport_->status), 80);
  EXPECT_EQ(transport_->request_id, "");
  EXPECT_EQ(TakeAll().requests.size(), 1u) << "the first call's";
  call->OnDone();
  first->OnDone();
}

TEST_F(GenerationCallTest, MoreChoicesThanCanEverWaitAreInvalid) {
  parts_.limits.max_num_queued_reqs = 4;
  v1::GenerateRequest request = Hello();
  request.set_n(5);
  const auto call = Start(request);
  EXPECT_EQ(transport_->status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(transport_->status.message(), "n is 5, but only 4 requests may wait at this server; use at most that");
  call->OnDone();
}

TEST_F(GenerationCallTest, TooManyOpenCallsAreRefusedWithRetry) {
  std::vector<std::shared_ptr<GenerationCall>> calls;
  for (int i = 0; i < 3; ++i) {
    calls.push_back(Start(Hello()));
    EXPECT_EQ(transport_->num_ends.load(), 0);
  }
  const auto refused = Start(Hello());
  EXPECT_EQ(transport_->status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_GE(RetryPushbackMillis(transport_->status), 80);
  refused->OnDone();
  calls[0]->OnDone();
  TakeAll();
  calls.push_back(Start(Hello()));
  EXPECT_EQ(transport_->num_ends.load(), 0) << "room again";
}

TEST_F(GenerationCallTest, PhaseDecidesWhetherCallsAreTaken) {
  for (const auto& [phase, reason] : {std::pair{ServingPhase::kStarting, "starting"},
                                      {ServingPhase::kDraining, "shutting down"},
                                      {ServingPhase::kEngineFailed, "engine failed"}}) {
    parts_.phase.store(phase);
    const auto call = Start(Hello());
    EXPECT_EQ(transport_->status.code(), absl::StatusCode::kUnavailable);
    EXPECT_NE(std::string(transport_->status.message()).find(reason), std::string::npos) << transport_->status;
    call->OnDone();
  }
}

TEST_F(GenerationCallTest, ClosedQueueSaysWhy) {
  queue_.Close();
  parts_.phase.store(ServingPhase::kServing);
  const auto call = Start(Hello());
  EXPECT_EQ(transport_->status.code(), absl::StatusCode::kUnavailable);
  call->OnDone();
}

TEST_F(GenerationCallTest, UnaryAnswersOnceWithEverything) {
  const auto call = Start(Hello(), /*streaming=*/false);
  auto batch = TakeAll();
  for (int32_t c : {'a', 'b', 'c'}) SendToken(*batch.requests[0], c);
  EXPECT_EQ(transport_->num_messages.load(), 0);
  End(*batch.requests[0], FinishReason::kEos);
  AwaitEnd();
  v1::GenerateResponse response;
  ASSERT_TRUE(response.ParseFromString(transport_->last_message));
  EXPECT_EQ(response.choices(0).text(), "abc");
  EXPECT_EQ(response.choices(0).finish_reason(), v1::FINISH_REASON_EOS);
  call->OnDone();
}

TEST_F(GenerationCallTest, EachTerminalStatusHasItsCode) {
  const std::pair<TerminalStatus, absl::StatusCode> cases[] = {
      {TerminalStatus::kCancelled, absl::StatusCode::kCancelled},
      {TerminalStatus::kDeadlineExceeded, absl::StatusCode::kDeadlineExceeded},
      {TerminalStatus::kUnavailable, absl::StatusCode::kUnavailable},
      {TerminalStatus::kDataLoss, absl::StatusCode::kDataLoss},
      {TerminalStatus::kSlowReader, absl::StatusCode::kResourceExhausted}};
  for (bool streaming : {true, false}) {
    for (const auto& [terminal, code] : cases) {
      const auto call = Start(Hello(), streaming);
      auto batch = TakeAll();
      End(*batch.requests[0], FinishReason::kError, terminal);
      writer_.Flush();
      for (int i = 0; i < 60'000 && transport_->num_messages + transport_->num_ends == 0; ++i) {
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
      }
      if (streaming) {
        transport_->write_in_flight = false;
        call->OnWriteDone(true);
      }
      AwaitEnd();
      EXPECT_EQ(transport_->status.code(), code);
      EXPECT_EQ(RetryPushbackMillis(transport_->status), -1);
      call->OnDone();
    }
  }
}

// What a client quotes leads to a line of the log, and an end that was fine to none.
TEST_F(GenerationCallTest, LogsEndsThatAreNotOk) {
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  SetLogFileDescriptor(ends[1]);
  SetLogLevel(LogLevel::kDebug);
  for (const auto terminal : {TerminalStatus::kOk, TerminalStatus::kDataLoss}) {
    v1::GenerateRequest request = Hello();
    request.set_request_id("mine");
    const auto call = Start(request, /*streaming=*/false);
    const auto batch = TakeAll();
    SendToken(*batch.requests[0], 'a');
    End(*batch.requests[0], FinishReason::kError, terminal);
    AwaitEnd();
    call->OnDone();
  }
  SetLogLevel(LogLevel::kInfo);
  SetLogFileDescriptor(2);
  close(ends[1]);
  std::string log(4096, '\0');
  log.resize(static_cast<size_t>(read(ends[0], log.data(), log.size())));
  close(ends[0]);
  EXPECT_EQ(std::count(log.begin(), log.end(), '\n'), 1) << log;
  EXPECT_NE(log.find(R"("event":"call_ended","request_id":"mine","code":"DATA_LOSS","reason":"NON_FINITE_LOGIT",)"
                     R"("tokens":1})"),
            std::string::npos)
      << log;
}

TEST_F(GenerationCallTest, CancelWhileQueuedReachesTheQueueAndEndsTheCall) {
  const auto call = Start(Hello());
  const uint64_t id = TakeAll().requests[0]->id;
  call->OnCancel();
  EXPECT_EQ(TakeAll().cancelled, std::vector<uint64_t>{id});
  EXPECT_EQ(transport_->num_ends.load(), 1);
  call->OnDone();
}

TEST_F(GenerationCallTest, CancelAtTheDeadlineIsLeftToTheLoop) {
  auto call = std::make_shared<GenerationCall>(&parts_, true, std::chrono::steady_clock::now());
  transport_ = std::make_shared<FakeTransport>();
  call->Start(transport_, Hello(), "");
  call->OnCancel();
  EXPECT_TRUE(TakeAll().cancelled.empty());
  EXPECT_EQ(transport_->status.code(), absl::StatusCode::kDeadlineExceeded);
  call->OnDone();
}

TEST_F(GenerationCallTest, StalledWriteIsBrokenOff) {
  const auto call = Start(Hello());
  auto batch = TakeAll();
  const TimePoint later = std::chrono::steady_clock::now() + std::chrono::hours(1);
  call->BreakIfStalled(later, std::chrono::seconds(60));
  EXPECT_EQ(transport_->num_breaks, 0) << "nothing is being written";
  SendToken(*batch.requests[0], 'a');
  call->WritePending();
  ASSERT_TRUE(transport_->write_in_flight.load());
  call->BreakIfStalled(std::chrono::steady_clock::now(), std::chrono::seconds(60));
  EXPECT_EQ(transport_->num_breaks, 0);
  call->BreakIfStalled(later, std::chrono::seconds(60));
  EXPECT_EQ(transport_->num_breaks, 1);
  transport_->write_in_flight = false;
  call->OnWriteDone(false);
  EXPECT_EQ(transport_->num_ends.load(), 1);
  call->OnDone();
}

TEST_F(GenerationCallTest, StalledLastMessageIsBrokenOff) {
  for (bool streaming : {true, false}) {
    const auto call = Start(Hello(), streaming);
    auto batch = TakeAll();
    SendToken(*batch.requests[0], 'a');
    End(*batch.requests[0], FinishReason::kLength);
    AwaitEnd();
    const TimePoint now = std::chrono::steady_clock::now();
    call->BreakIfStalled(now, std::chrono::seconds(60));
    EXPECT_EQ(transport_->num_breaks, 0);
    call->BreakIfStalled(now + std::chrono::seconds(61), std::chrono::seconds(60));
    EXPECT_EQ(transport_->num_breaks, 1) << (streaming ? "WriteAndFinish" : "a unary answer");
    call->OnDone();
    call->BreakIfStalled(now + std::chrono::seconds(61), std::chrono::seconds(60));
    EXPECT_EQ(transport_->num_breaks, 1) << "after the end";
  }
}

// Prompts that are tokenized by the text worker, which is busy until Release.
class LongPromptTest : public GenerationCallTest {
 protected:
  LongPromptTest() {
    model_.limits.max_model_len = 20'000;
    model_.scheduler.max_model_len = 20'000;
    model_.scheduler.num_kv_blocks = 2000;
    model_.queue = &large_queue_;
    std::atomic<bool> started{false};
    text_worker_.Post(1, [&](bool) {
      started = true;
      while (!released_) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    });
    while (!started) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  ~LongPromptTest() override { Release(); }

  std::shared_ptr<GenerationCall> StartLong() {
    v1::GenerateRequest request;
    request.set_text(std::string(10'000, 'a'));
    return Start(request);
  }

  // Lets the worker work, and waits until it has done all there was.
  void Release() {
    released_ = true;
    std::atomic<bool> reached{false};
    if (!text_worker_.Post(0, [&](bool) { reached = true; })) return;
    while (!reached) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }

  RequestQueue large_queue_{4, 100'000};
  std::atomic<bool> released_{false};
};

TEST_F(LongPromptTest, IsTokenizedElsewhere) {
  const auto call = StartLong();
  EXPECT_TRUE(large_queue_.TakeAll().requests.empty());
  EXPECT_EQ(transport_->request_id, "") << "not admitted yet";
  Release();
  const auto batch = large_queue_.TakeAll();
  ASSERT_EQ(batch.requests.size(), 1u);
  EXPECT_EQ(batch.requests[0]->prompt_tokens.size(), 10'000u);
  EXPECT_FALSE(transport_->request_id.empty());
  call->OnDone();
}

TEST_F(LongPromptTest, IsNotQueuedWhenTheClientLeftMeanwhile) {
  const auto call = StartLong();
  call->OnCancel();
  EXPECT_EQ(transport_->num_ends.load(), 1);
  Release();
  EXPECT_TRUE(large_queue_.TakeAll().requests.empty());
  call->OnDone();
}

TEST_F(LongPromptTest, AbortEndsItAtOnce) {
  const auto call = StartLong();
  call->Abort();
  EXPECT_EQ(transport_->status.code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(transport_->status.message(), "the request was aborted");
  Release();
  EXPECT_TRUE(large_queue_.TakeAll().requests.empty());
  EXPECT_EQ(transport_->num_ends.load(), 1);
  call->OnDone();
}

TEST_F(LongPromptTest, IsRefusedWhenTooManyBytesWait) {
  std::vector<std::shared_ptr<GenerationCall>> calls;
  for (int i = 0; i < 2; ++i) calls.push_back(StartLong());
  EXPECT_EQ(transport_->num_ends.load(), 0);
  EXPECT_FALSE(text_worker_.Post(80'001, [](bool) {}));
  EXPECT_TRUE(text_worker_.Post(80'000, [](bool) {}));
  calls.push_back(StartLong());
  EXPECT_EQ(ReasonOf(transport_->status), "TOKENIZER_BUSY");
  EXPECT_EQ(transport_->status.code(), absl::StatusCode::kResourceExhausted);
  Release();
  for (const auto& call : calls) call->OnDone();
}

TEST_F(LongPromptTest, StoppingTheWorkerTokenizesNothing) {
  const auto call = StartLong();
  std::atomic<int> told{0};
  text_worker_.Post(1, [&](bool stopping) { told += stopping ? 1 : 10; });
  parts_.phase = ServingPhase::kDraining;
  call->EndUnavailable();
  EXPECT_EQ(ReasonOf(transport_->status), "DRAINING");
  std::thread stop([&] { text_worker_.Stop(); });
  // It refuses jobs from when it stops on; there are places enough until then.
  for (int i = 0; i < kMaxTextJobs && text_worker_.Post(0, [](bool) {}); ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  released_ = true;
  stop.join();
  EXPECT_EQ(told, 1);
  EXPECT_TRUE(large_queue_.TakeAll().requests.empty());
  EXPECT_FALSE(text_worker_.Post(1, [](bool) {})) << "after Stop";
  call->OnDone();
}

TEST_F(GenerationCallTest, EndUnavailableSendsWhatIsPendingThenTheStatus) {
  parts_.phase = ServingPhase::kServing;
  const auto call = Start(Hello());
  const auto batch = TakeAll();
  SendToken(*batch.requests[0], 'a');
  parts_.phase = ServingPhase::kEngineFailed;
  call->EndUnavailable();
  EXPECT_EQ(transport_->text, "a");
  ASSERT_TRUE(transport_->write_in_flight.exchange(false));
  call->OnWriteDone(true);
  EXPECT_EQ(transport_->num_ends.load(), 1);
  EXPECT_EQ(ReasonOf(transport_->status), "ENGINE_FAILED");
  EXPECT_EQ(TakeAll().cancelled, std::vector<uint64_t>{batch.requests[0]->id});
  // The engine comes back.
  SendToken(*batch.requests[0], 'b');
  End(*batch.requests[0], FinishReason::kCancelled, TerminalStatus::kCancelled);
  call->WritePending();
  EXPECT_EQ(transport_->num_ends.load(), 1);
  call->OnDone();
}

TEST_F(GenerationCallTest, EndUnavailableLeavesACompleteAnswerAlone) {
  const auto call = Start(Hello(), /*streaming=*/false);
  const auto batch = TakeAll();
  SendToken(*batch.requests[0], 'a');
  End(*batch.requests[0], FinishReason::kLength);
  call->EndUnavailable();
  AwaitEnd();
  EXPECT_TRUE(transport_->status.ok());
  EXPECT_EQ(transport_->num_messages.load(), 1);
  call->OnDone();
}

// Tokens, ends, cancels and write completions in random order: one end, in every order.
TEST_F(GenerationCallTest, AnyOrderOfEventsEndsExactlyOnce) {
  std::mt19937 random(5);
  for (int round = 0; round < 3'000; ++round) {
    v1::GenerateRequest request = Hello();
    request.set_n(1 + static_cast<int32_t>(random() % 3));
    const bool streaming = random() % 4 != 0;
    const auto call = Start(request, streaming);
    auto batch = TakeAll();
    std::vector<bool> ended(batch.requests.size());
    for (int event = 0; event < 15; ++event) {
      const size_t i = random() % batch.requests.size();
      switch (random() % 7) {
        case 0:
        case 1:
          if (!ended[i]) SendToken(*batch.requests[i], 'a');
          break;
        case 2:
          if (!ended[i] && random() % 2 == 0) {
            ended[i] = true;
            End(*batch.requests[i], FinishReason::kLength,
                random() % 4 == 0 ? TerminalStatus::kUnavailable : TerminalStatus::kOk);
          }
          break;
        case 3: writer_.Flush(); break;
        case 4:
          if (random() % 8 == 0) call->OnCancel();
          break;
        case 5: call->WritePending(); break;
        case 6:
          if (random() % 8 == 0) random() % 2 == 0 ? call->EndUnavailable() : call->Abort();
          break;
      }
    }
    for (size_t i = 0; i < ended.size(); ++i) {
      if (!ended[i]) End(*batch.requests[i], FinishReason::kCancelled, TerminalStatus::kCancelled);
    }
    // Writes complete only here: what is in flight is seen by one thread at a time.
    for (int i = 0; i < 60'000 && transport_->num_ends == 0; ++i) {
      call->WritePending();
      if (transport_->write_in_flight.exchange(false)) call->OnWriteDone(random() % 4 != 0);
      if (i > 100) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    ASSERT_EQ(transport_->num_ends.load(), 1);
    call->OnDone();
  }
}

// The same with the threads of a server: clients that leave, abort and read, a loop, the writer, and somebody who ends
// everything. For ThreadSanitizer.
TEST_F(GenerationCallTest, ManyThreadsEndEachCallOnce) {
  model_.limits.max_model_len = 6000;
  model_.scheduler.max_model_len = 6000;
  model_.scheduler.num_kv_blocks = 1000;
  std::atomic<bool> stop{false};
  std::thread loop([&] {
    while (!stop) {
      for (const auto& request : TakeAll().requests) {
        for (int i = 0; i < 3; ++i) SendToken(*request, 'a');
        End(*request, FinishReason::kLength);
      }
      writer_.Flush();
      std::this_thread::yield();
    }
  });
  std::thread sweeper([&] {
    for (int round = 0; !stop; ++round) {
      for (const auto& call : open_calls_.All()) {
        call->BreakIfStalled(std::chrono::steady_clock::now(), std::chrono::seconds(60));
        if (round % 64 == 0) call->EndUnavailable();
      }
      std::this_thread::sleep_for(std::chrono::microseconds(100));
    }
  });
  std::vector<std::thread> clients;
  for (unsigned t = 0; t < 3; ++t) {
    clients.emplace_back([&, t] {
      std::mt19937 random(t);
      for (int i = 0; i < 500; ++i) {
        v1::GenerateRequest request;
        request.set_text(std::string(random() % 8 == 0 ? 5000 : 5, 'a'));  // the long ones pass through the text worker
        request.set_n(1 + static_cast<int32_t>(random() % 2));
        const auto transport = std::make_shared<FakeTransport>();
        const auto call = std::make_shared<GenerationCall>(&parts_, random() % 4 != 0, TimePoint::max());
        call->Start(transport, request, "client-" + std::to_string(t));
        while (transport->num_ends == 0) {
          if (transport->write_in_flight.exchange(false)) call->OnWriteDone(random() % 16 != 0);
          if (random() % 64 == 0) call->OnCancel();
          if (random() % 64 == 0) call->Abort();
          std::this_thread::yield();
        }
        call->OnDone();
      }
    });
  }
  for (std::thread& client : clients) client.join();
  stop = true;
  loop.join();
  sweeper.join();
  EXPECT_EQ(metrics_.open_calls(), 0);
  EXPECT_TRUE(open_calls_.All().empty());
}

}  // namespace
}  // namespace switchyard
