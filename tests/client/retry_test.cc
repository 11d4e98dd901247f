// The client's retries against the real server: they work only as long as a refusal has no headers.
#include <gtest/gtest.h>

#include <thread>

#include "client/switchyard_client.h"
#include "tests/server/frontend/test_server.h"

namespace switchyard {
namespace {

using std::chrono::milliseconds;

v1::GenerateRequest Prompt(int32_t max_tokens) {
  v1::GenerateRequest request;
  request.set_text("abc");
  request.set_max_tokens(max_tokens);
  return request;
}

// One sequence runs, another waits: there is no room for a third.
class RetryTest : public testing::Test {
 protected:
  RetryTest() : server_(FullWithTwo()) {
    server_.engine.set_step_time(kSlowStep);
    for (auto& context : contexts_) {
      readers_.push_back(server_.stub->GenerateStream(&context, Prompt(900)));
      readers_.back()->WaitForInitialMetadata();
      for (int i = 0; i < 6000 && server_.metrics.counts().running == 0; ++i)
        std::this_thread::sleep_for(milliseconds(10));
    }
  }
  ~RetryTest() override {
    for (auto& context : contexts_) context.TryCancel();
    v1::GenerateStreamResponse message;
    for (auto& reader : readers_) {
      while (reader->Read(&message)) {
      }
      reader->Finish();
    }
  }

  static TestServerOptions FullWithTwo() {
    TestServerOptions options;
    options.scheduling.max_num_seqs = 1;
    options.scheduling.max_num_queued_reqs = 1;
    return options;
  }

  std::unique_ptr<Client> NewClient(int max_attempts) {
    ClientOptions options;
    options.address = "127.0.0.1:" + std::to_string(server_.frontend->port());
    options.max_attempts = max_attempts;
    return *Client::Create(options);
  }

  bool Saw(const std::string& line) { return server_.metrics.Scrape().find(line) != std::string::npos; }

  // Until the queue has refused a call once.
  void AwaitRefusal() {
    for (int i = 0; i < 500 && !Saw("rejected_total{model_name=\"toy\",reason=\"queue_full\"} 1\n"); ++i)
      std::this_thread::sleep_for(milliseconds(10));
  }

  TestServer server_;
  grpc::ClientContext contexts_[2];
  std::vector<std::unique_ptr<grpc::ClientReader<v1::GenerateStreamResponse>>> readers_;
};

TEST_F(RetryTest, WithoutAttemptsTheRefusalIsTheAnswer) {
  const auto refused = NewClient(1)->Generate(Prompt(1));
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kResourceExhausted) << refused.status();
}

TEST_F(RetryTest, UnaryCallIsTriedAgainWhenTheQueueWasFull) {
  std::thread make_room([this] {
    AwaitRefusal();
    for (auto& context : contexts_) context.TryCancel();
  });
  const auto answer = NewClient(5)->Generate(Prompt(2));
  make_room.join();
  ASSERT_TRUE(answer.ok()) << answer.status();
  EXPECT_EQ(answer->choices(0).text(), "ab");
}

TEST_F(RetryTest, StreamIsTriedAgainWhenTheQueueWasFull) {
  std::thread make_room([this] {
    AwaitRefusal();
    for (auto& context : contexts_) context.TryCancel();
  });
  const auto client = NewClient(5);
  const auto stream = client->GenerateStream(Prompt(2));
  std::string text;
  v1::GenerateStreamResponse message;
  while (stream->Next(&message)) {
    for (const auto& choice : message.choices()) text += choice.text();
  }
  const absl::Status status = stream->Finish();
  make_room.join();
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_EQ(text, "ab");
}

}  // namespace
}  // namespace switchyard
