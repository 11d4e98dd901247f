// A ModelStreamInfer call driven by events in any order and from many threads, without gRPC: the transport, the serving
// loop and the client are played here.
#include "server/frontend/kserve/infer_stream.h"

#include <gtest/gtest.h>

#include <atomic>
#include <map>
#include <random>
#include <thread>

#include "server/byte_tokenizer.h"
#include "server/frontend/generation_call.h"
#include "server/frontend/open_calls.h"
#include "tests/server/frontend/kserve/infer_requests.h"

namespace switchyard::kserve {
namespace {

// Remembers what it was told; fails a test in which two actions overlap that may not.
class FakeTransport : public InferStream::Transport {
 public:
  void Read() override {
    EXPECT_FALSE(read_in_flight.exchange(true)) << "two reads at once";
    EXPECT_EQ(num_ends.load(), 0) << "a read after the end";
    ++num_reads;
  }
  void Write(const inference::ModelStreamInferResponse& message) override {
    EXPECT_FALSE(write_in_flight.load()) << "two writes at once";
    EXPECT_EQ(num_ends.load(), 0) << "a write after the end";
    last = message;
    if (!message.error_message().empty()) {
      ++num_errors;
    } else if (message.infer_response().outputs().empty()) {
      ++num_without_outputs;
    }
    const auto& parameters = message.infer_response().parameters();
    EXPECT_EQ(parameters.count("status_code"), message.error_message().empty() ? 0u : 1u);
    if (parameters.at("triton_final_response").bool_param()) ++finals[message.infer_response().id()];
    ++num_writes;
    write_in_flight = true;
  }
  void Finish(const absl::Status& final_status) override {
    EXPECT_FALSE(write_in_flight.load()) << "an end during a write";
    status = final_status;
    EXPECT_EQ(num_ends.fetch_add(1), 0) << "two ends";
  }
  void Break() override { ++num_breaks; }

  // Of the thread that writes; to be read by another after the end.
  inference::ModelStreamInferResponse last;
  std::map<std::string, int> finals;  // by request id
  int num_errors = 0;
  int num_without_outputs = 0;  // and without an error
  absl::Status status;
  std::atomic<bool> read_in_flight{false};
  std::atomic<bool> write_in_flight{false};
  std::atomic<int> num_reads{0};
  std::atomic<int> num_writes{0};
  std::atomic<int> num_ends{0};
  std::atomic<int> num_breaks{0};
};

constexpr std::chrono::seconds kStalled{60};
constexpr std::chrono::seconds kIdle{600};

class InferStreamTest : public testing::Test {
 protected:
  InferStreamTest() {
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

  std::shared_ptr<InferStream> Start(InferStream::Options options = {}) {
    auto stream = std::make_shared<InferStream>(&parts_, std::move(options));
    transport_ = std::make_shared<FakeTransport>();
    stream->Start(transport_);
    return stream;
  }

  void Send(InferStream* stream, const inference::ModelInferRequest& request) {
    ASSERT_TRUE(transport_->read_in_flight.exchange(false));
    stream->OnRequest(request);
  }

  void WriteDone(InferStream* stream, bool ok = true) {
    ASSERT_TRUE(transport_->write_in_flight.exchange(false));
    stream->OnWriteDone(ok);
  }

  RequestQueue::Batch TakeAll() {
    RequestQueue::Batch batch = queue_.TakeAll();
    queue_.SetWaiting(0, 0);
    return batch;
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

  void AwaitWrite() {
    writer_.Flush();
    for (int i = 0; i < 60'000 && !transport_->write_in_flight; ++i)
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    ASSERT_TRUE(transport_->write_in_flight);
  }

  void ExpectEnd(InferStream* stream, absl::StatusCode code) {
    EXPECT_EQ(transport_->num_ends, 1);
    EXPECT_EQ(transport_->status.code(), code);
    stream->OnDone();
    EXPECT_EQ(metrics_.open_calls(), 0);
    EXPECT_TRUE(open_calls_.All().empty());
  }

  static inference::ModelInferRequest Streaming() {
    inference::ModelInferRequest request = Hello(50);
    AddRaw("stream", "BOOL", {1}, "\x01", &request);
    return request;
  }

  std::unique_ptr<Tokenizer> tokenizer_ = *Tokenizer::Parse(ByteTokenizerJson());
  ServingMetrics metrics_{"toy", "1"};
  RequestQueue queue_{1000, 100'000};
  OpenCalls open_calls_{1000};
  TextWorker text_worker_{4, 100'000};
  ServedModel model_;
  FrontendParts parts_;
  std::shared_ptr<FakeTransport> transport_;
  StreamWriter writer_;  // last: stops first
};

TEST_F(InferStreamTest, AnswersAndEndsWhenTheClientHasNoMore) {
  const auto stream = Start();
  Send(stream.get(), Streaming());
  const auto batch = TakeAll();
  ASSERT_EQ(batch.requests.size(), 1u);
  SendToken(*batch.requests[0], 'h');
  AwaitWrite();
  EXPECT_EQ(OutputTexts(transport_->last.infer_response(), "text_output")[0], "h");
  EXPECT_FALSE(transport_->last.infer_response().parameters().at("triton_final_response").bool_param());
  transport_->read_in_flight = false;
  stream->OnRequestsEnd();
  WriteDone(stream.get());
  EXPECT_EQ(transport_->num_ends, 0) << "a request still runs";
  End(*batch.requests[0], FinishReason::kLength);
  AwaitWrite();
  EXPECT_TRUE(transport_->last.infer_response().parameters().at("triton_final_response").bool_param());
  EXPECT_EQ(transport_->num_ends, 0) << "the last answer is not written yet";
  WriteDone(stream.get());
  ExpectEnd(stream.get(), absl::StatusCode::kOk);
}

// The writer may take the end along in a message that it sends as one of many; an empty answer is the last then.
TEST_F(InferStreamTest, AnEndAtAnyMomentIsOneFinalAnswer) {
  for (int i = 0; i < 500; ++i) {
    const auto stream = Start({.deadline = TimePoint::max(), .metadata_id = "", .errors_end_stream = i % 2 == 0});
    Send(stream.get(), Streaming());
    const auto batch = TakeAll();
    transport_->read_in_flight = false;
    stream->OnRequestsEnd();
    SendToken(*batch.requests[0], 'h');
    writer_.Flush();
    for (std::atomic<int> wait = i % 50 * 20; wait > 0;) --wait;
    End(*batch.requests[0], FinishReason::kLength);
    writer_.Flush();
    while (transport_->num_ends == 0) {
      if (transport_->write_in_flight) WriteDone(stream.get());
      std::this_thread::yield();
    }
    EXPECT_EQ(transport_->finals, (std::map<std::string, int>{{"r1", 1}}));
    EXPECT_EQ(transport_->num_errors + transport_->num_without_outputs, 0);
    ExpectEnd(stream.get(), absl::StatusCode::kOk);
  }
}

TEST_F(InferStreamTest, ReadsNoMoreThanRunAtATime) {
  const auto stream = Start();
  for (size_t i = 0; i < InferStream::kMaxRequests; ++i) Send(stream.get(), Hello());
  EXPECT_FALSE(transport_->read_in_flight);
  const auto batch = TakeAll();
  ASSERT_EQ(batch.requests.size(), InferStream::kMaxRequests);
  End(*batch.requests[7], FinishReason::kLength);
  AwaitWrite();
  EXPECT_FALSE(transport_->read_in_flight) << "its answer is still being written";
  WriteDone(stream.get());
  EXPECT_TRUE(transport_->read_in_flight);
  stream->OnCancel();
  transport_->read_in_flight = false;
  stream->OnRequestsEnd();
  ExpectEnd(stream.get(), absl::StatusCode::kCancelled);
  EXPECT_EQ(TakeAll().cancelled.size(), InferStream::kMaxRequests - 1);
}

TEST_F(InferStreamTest, ACancelDropsWhatWaitsAndWaitsForTheWriteInFlight) {
  const auto stream = Start();
  Send(stream.get(), Streaming());
  Send(stream.get(), Streaming());
  const auto batch = TakeAll();
  SendToken(*batch.requests[0], 'a');
  AwaitWrite();
  SendToken(*batch.requests[1], 'b');
  End(*batch.requests[1], FinishReason::kLength);  // its answer waits behind the write
  writer_.Flush();
  stream->OnCancel();
  EXPECT_EQ(transport_->num_ends, 0) << "an end during a write";
  WriteDone(stream.get(), /*ok=*/false);
  for (int i = 0; i < 60'000 && transport_->num_ends == 0; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  EXPECT_EQ(transport_->num_writes, 1);
  ExpectEnd(stream.get(), absl::StatusCode::kCancelled);
}

TEST_F(InferStreamTest, ShutdownLetsAnswersLeaveAndReadsNoMore) {
  const auto stream = Start();
  Send(stream.get(), Hello());
  const auto batch = TakeAll();
  parts_.phase.store(ServingPhase::kDraining);
  for (const auto& call : open_calls_.All()) call->EndUnavailable();
  stream->End(absl::UnavailableError("down"));
  ASSERT_TRUE(transport_->write_in_flight);
  EXPECT_EQ(transport_->last.infer_response().parameters().at("status_code").string_param(), "UNAVAILABLE");
  WriteDone(stream.get());
  EXPECT_EQ(transport_->num_reads, 2) << "the one that is in flight is the last";
  ExpectEnd(stream.get(), absl::StatusCode::kUnavailable);
  End(*batch.requests[0], FinishReason::kCancelled, TerminalStatus::kCancelled);
}

TEST_F(InferStreamTest, AMessageThatArrivesAfterTheEndIsLeftAlone) {
  const auto stream = Start();
  stream->End(absl::UnavailableError("down"));
  Send(stream.get(), Hello());
  EXPECT_TRUE(TakeAll().requests.empty());
  EXPECT_EQ(transport_->num_writes, 0);
  ExpectEnd(stream.get(), absl::StatusCode::kUnavailable);
}

TEST_F(InferStreamTest, AStalledClientIsBrokenOff) {
  const auto stream = Start();
  Send(stream.get(), Streaming());
  const auto batch = TakeAll();
  const auto before = std::chrono::steady_clock::now();
  SendToken(*batch.requests[0], 'a');
  AwaitWrite();
  const auto now = std::chrono::steady_clock::now();
  for (const auto& call : open_calls_.All()) call->BreakIfStalled(now + std::chrono::hours(1), kStalled);
  stream->Sweep(before + std::chrono::seconds(59), kStalled, kIdle);
  EXPECT_EQ(transport_->num_breaks, 0) << "a request waits for others: only the write in flight counts";
  stream->Sweep(now + std::chrono::seconds(61), kStalled, kIdle);
  EXPECT_EQ(transport_->num_breaks, 1);
  stream->OnCancel();
  WriteDone(stream.get(), /*ok=*/false);
  ExpectEnd(stream.get(), absl::StatusCode::kCancelled);
}

TEST_F(InferStreamTest, AClientThatReadsNoRefusalsIsBrokenOff) {
  const auto stream = Start();
  Send(stream.get(), inference::ModelInferRequest());
  ASSERT_TRUE(transport_->write_in_flight);
  EXPECT_TRUE(open_calls_.All().empty()) << "refused before it was a call";
  stream->Sweep(std::chrono::steady_clock::now() + std::chrono::seconds(61), kStalled, kIdle);
  EXPECT_EQ(transport_->num_breaks, 1);
  stream->OnCancel();
  WriteDone(stream.get(), /*ok=*/false);
  ExpectEnd(stream.get(), absl::StatusCode::kCancelled);
}

TEST_F(InferStreamTest, AStreamWithoutRequestsEnds) {
  const auto stream = Start();
  const auto begin = std::chrono::steady_clock::now();
  Send(stream.get(), inference::ModelInferRequest());
  stream->Sweep(begin + std::chrono::seconds(3600), std::chrono::hours(10), kIdle);
  EXPECT_EQ(transport_->num_ends, 0) << "its request is not answered yet";
  WriteDone(stream.get());
  stream->Sweep(begin + std::chrono::seconds(599), kStalled, kIdle);
  EXPECT_EQ(transport_->num_ends, 0);
  stream->Sweep(std::chrono::steady_clock::now() + std::chrono::seconds(601), kStalled, kIdle);
  EXPECT_EQ(transport_->status.message(), "the stream had no request for 600 s; open another one");
  EXPECT_EQ(transport_->num_breaks, 0);
  ExpectEnd(stream.get(), absl::StatusCode::kUnavailable);
}

TEST_F(InferStreamTest, ShutdownLeavesAStreamAloneWhoseClientHasSentAll) {
  const auto stream = Start();
  Send(stream.get(), Streaming());
  const auto batch = TakeAll();
  transport_->read_in_flight = false;
  stream->OnRequestsEnd();
  SendToken(*batch.requests[0], 'h');
  End(*batch.requests[0], FinishReason::kLength);
  AwaitWrite();
  stream->End(absl::UnavailableError("down"));
  while (transport_->num_ends == 0) {
    if (transport_->write_in_flight) WriteDone(stream.get());
    writer_.Flush();
  }
  ExpectEnd(stream.get(), absl::StatusCode::kOk);
}

TEST_F(InferStreamTest, AnErrorHidesOurInsides) {
  const auto stream = Start();
  transport_->read_in_flight = false;
  stream->OnRequest(absl::InternalError("pool at 0x7f00 is broken"));
  ASSERT_TRUE(transport_->write_in_flight);
  EXPECT_EQ(transport_->last.error_message().rfind("internal error, id ", 0), 0u) << transport_->last.error_message();
  WriteDone(stream.get());
  stream->OnCancel();
  ExpectEnd(stream.get(), absl::StatusCode::kCancelled);
}

TEST_F(InferStreamTest, MessagesThatAreNoRequestsAreAnsweredToo) {
  const auto stream = Start();
  transport_->read_in_flight = false;
  stream->OnRequest(absl::InvalidArgumentError("noise"));
  ASSERT_TRUE(transport_->write_in_flight);
  EXPECT_EQ(transport_->last.error_message(), "noise");
  WriteDone(stream.get());
  transport_->read_in_flight = false;
  stream->OnRequestsEnd();
  ExpectEnd(stream.get(), absl::StatusCode::kOk);
}

// A client thread, a transport thread, a serving loop and a canceller, in whatever order they come.
TEST_F(InferStreamTest, AnyOrderOfEventsEndsOnceAndLeavesNothing) {
  constexpr int kNumRequests = 40;
  for (uint32_t seed = 0; seed < 60; ++seed) {
    SCOPED_TRACE(seed);
    InferStream::Options options;
    options.errors_end_stream = seed % 5 == 4;
    const auto stream = Start(options);
    std::atomic<bool> done{false};
    std::thread loop([&] {
      std::mt19937 random(seed);
      std::map<uint64_t, std::unique_ptr<Request>> running;
      while (!done || !running.empty()) {
        RequestQueue::Batch batch = TakeAll();
        for (auto& request : batch.requests) running[request->id] = std::move(request);
        for (const uint64_t id : batch.cancelled) {
          if (running.count(id) == 0) continue;
          End(*running[id], FinishReason::kCancelled, TerminalStatus::kCancelled);
          running.erase(id);
        }
        for (auto it = running.begin(); it != running.end();) {
          SendToken(*it->second, 'x');
          const bool ends = random() % 4 == 0 || done;
          if (ends) End(*it->second, FinishReason::kLength);
          it = ends ? running.erase(it) : std::next(it);
        }
        writer_.Flush();
      }
    });
    std::thread writes([&] {
      while (transport_->num_ends == 0) {
        if (transport_->write_in_flight.exchange(false)) stream->OnWriteDone(true);
        std::this_thread::yield();
      }
    });
    std::thread canceller([&] {
      std::this_thread::sleep_for(std::chrono::microseconds(200 * (seed % 12)));
      if (seed % 3 == 0) stream->OnCancel();
      if (seed % 3 == 1) stream->End(absl::UnavailableError("down"));
    });
    int to_send = kNumRequests;
    while (transport_->num_ends == 0) {
      if (transport_->read_in_flight.exchange(false)) {
        if (to_send-- == 0) {
          stream->OnRequestsEnd();
        } else {
          inference::ModelInferRequest request = to_send % 6 == 0 ? inference::ModelInferRequest() : Streaming();
          request.set_id("r" + std::to_string(to_send));
          stream->OnRequest(request);
        }
      }
      std::this_thread::yield();
    }
    writes.join();
    canceller.join();
    done = true;
    loop.join();
    EXPECT_EQ(transport_->num_ends, 1);
    EXPECT_EQ(transport_->num_without_outputs, 0);
    for (const auto& [id, num] : transport_->finals) EXPECT_EQ(num, 1) << id;
    if (seed % 3 == 2 && !options.errors_end_stream) {  // nothing cut it short
      EXPECT_EQ(transport_->finals.size(), static_cast<size_t>(kNumRequests));
      EXPECT_EQ(transport_->num_errors, kNumRequests / 6 + 1);
    }
    stream->OnDone();
    EXPECT_EQ(metrics_.open_calls(), 0);
    EXPECT_TRUE(open_calls_.All().empty());
  }
}

}  // namespace
}  // namespace switchyard::kserve
