#include "client/switchyard_client.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <fstream>
#include <string>
#include <thread>

#include "tests/client/fake_server.h"

namespace switchyard {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::Pair;

std::string MessageOf(const absl::Status& status) {
  return std::string(status.message().data(), status.message().size());
}

class ClientTest : public testing::Test {
 protected:
  void SetUp() override { client_ = Connect({.address = server_.address()}); }

  static std::unique_ptr<Client> Connect(const ClientOptions& options) {
    auto client = Client::Create(options);
    EXPECT_TRUE(client.ok()) << client.status();
    return *std::move(client);
  }

  static v1::GenerateRequest Request(int max_tokens) {
    v1::GenerateRequest request;
    request.set_text("prompt");
    request.set_max_tokens(max_tokens);
    return request;
  }

  // Streams until the client goes away.
  void ServeForever() {
    server_.on_generate = [this](const auto&, grpc::ServerContext* context, auto* writer) {
      for (int token = 0; !context->IsCancelled(); ++token) {
        writer->Write(TokenMessage(token));
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
      }
      saw_cancel_.store(true);
      return grpc::Status::CANCELLED;
    };
  }

  void WaitForCancel() const {
    for (int i = 0; i < 60'000 && !saw_cancel_.load(); ++i) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    EXPECT_TRUE(saw_cancel_.load());
  }

  std::atomic<bool> saw_cancel_{false};
  FakeServer server_;
  std::unique_ptr<Client> client_;
};

TEST_F(ClientTest, StreamsMessagesInOrderAndEndsWithOk) {
  std::string text;
  int num_usages = 0;
  const absl::Status status = client_->GenerateStream(Request(50), {}, [&](const v1::GenerateStreamResponse& message) {
    text += message.choices(0).text();
    num_usages += message.has_usage() ? 1 : 0;
    return true;
  });
  EXPECT_TRUE(status.ok()) << status;
  std::string expected;
  for (int token = 0; token < 50; ++token) expected += " t" + std::to_string(token);
  EXPECT_EQ(text, expected);
  EXPECT_EQ(num_usages, 1);
}

TEST_F(ClientTest, UnaryCallsAnswer) {
  v1::GenerateRequest request = Request(1);
  const auto answer = client_->Generate(request);
  ASSERT_TRUE(answer.ok()) << answer.status();
  EXPECT_EQ(answer->choices(0).text(), "echo: prompt");
  v1::TokenizeRequest text;
  text.set_text("AB");
  EXPECT_THAT(client_->Tokenize(text)->token_ids(), ElementsAre(65, 66));
  v1::DetokenizeRequest tokens;
  tokens.add_token_ids(4);
  EXPECT_EQ(client_->Detokenize(tokens)->text(), " t4");
  EXPECT_EQ(client_->GetModel()->name(), "fake");
  EXPECT_EQ(client_->GetServer()->version(), "1.2.3");
  EXPECT_EQ(client_->GetLoad()->running_requests(), 5);
}

TEST_F(ClientTest, ErrorCarriesMessageAndDetails) {
  server_.on_generate = [](const auto&, auto*, auto*) {
    return ErrorWithDetails(grpc::StatusCode::RESOURCE_EXHAUSTED, "the queue is full", "QUEUE_FULL", 2, "", "");
  };
  const absl::Status status = client_->GenerateStream(Request(1), {}, [](const auto&) { return true; });
  EXPECT_TRUE(absl::IsResourceExhausted(status));
  EXPECT_EQ(MessageOf(status), "the queue is full");
  EXPECT_EQ(DetailsOf(status).reason, "QUEUE_FULL");
  EXPECT_EQ(DetailsOf(status).retry_delay, absl::Seconds(2));
  EXPECT_EQ(Describe(status), "RESOURCE_EXHAUSTED: the queue is full (QUEUE_FULL; retry after 2s)");
}

TEST_F(ClientTest, ErrorNamesTheWrongFieldOnce) {
  server_.error = ErrorWithDetails(grpc::StatusCode::INVALID_ARGUMENT, "max_tokens is 0; at least 1", "", 0,
                                   "max_tokens", "max_tokens is 0; at least 1");
  const absl::Status status = client_->Generate(Request(0)).status();
  EXPECT_THAT(DetailsOf(status).field_violations, ElementsAre(Pair("max_tokens", "max_tokens is 0; at least 1")));
  EXPECT_EQ(Describe(status), "INVALID_ARGUMENT: max_tokens is 0; at least 1");
}

TEST_F(ClientTest, ErrorAfterSomeMessagesKeepsThem) {
  server_.on_generate = [](const auto&, auto*, auto* writer) {
    writer->Write(TokenMessage(0));
    return grpc::Status(grpc::StatusCode::DATA_LOSS, "not finite");
  };
  int num_messages = 0;
  const absl::Status status = client_->GenerateStream(Request(1), {}, [&](const auto&) { return ++num_messages > 0; });
  EXPECT_EQ(num_messages, 1);
  EXPECT_TRUE(absl::IsDataLoss(status)) << status;
}

TEST_F(ClientTest, DeadlineReachesServerAndEndsTheCall) {
  ServeForever();
  // On a busy machine the deadline may pass before the server has the call; then the next one is later.
  for (absl::Duration timeout = absl::Milliseconds(200); server_.num_generate_calls() == 0; timeout *= 2) {
    const absl::Time start = absl::Now();
    const absl::Status status =
        client_->GenerateStream(Request(1), {.timeout = timeout}, [](const auto&) { return true; });
    EXPECT_TRUE(absl::IsDeadlineExceeded(status)) << status;
    EXPECT_GE(absl::Now() - start, 0.95 * timeout);
  }
  WaitForCancel();
}

TEST_F(ClientTest, CallbackThatReturnsFalseCancelsTheCall) {
  ServeForever();
  const absl::Status status = client_->GenerateStream(Request(1), {}, [](const auto&) { return false; });
  EXPECT_TRUE(absl::IsCancelled(status)) << status;
  WaitForCancel();
}

TEST_F(ClientTest, CancelFromAnotherThreadEndsNext) {
  ServeForever();
  const auto stream = client_->GenerateStream(Request(1));
  v1::GenerateStreamResponse message;
  ASSERT_TRUE(stream->Next(&message));
  std::thread canceller([&] { stream->Cancel(); });
  while (stream->Next(&message)) {
  }
  canceller.join();
  EXPECT_TRUE(absl::IsCancelled(stream->Finish()));
  WaitForCancel();
}

TEST_F(ClientTest, DroppedStreamIsCancelled) {
  ServeForever();
  { const auto stream = client_->GenerateStream(Request(1)); }
  // The call may have ended before it reached the server; then there is nothing to cancel.
  if (server_.num_generate_calls() > 0) WaitForCancel();
}

TEST_F(ClientTest, RetriesAFullQueueWhenAskedTo) {
  std::atomic<int> num_refusals{2};
  server_.on_generate = [&](const auto&, grpc::ServerContext* context, auto* writer) {
    if (num_refusals.fetch_sub(1) > 0) {
      context->AddTrailingMetadata("grpc-retry-pushback-ms", "20");
      return grpc::Status(grpc::StatusCode::RESOURCE_EXHAUSTED, "the queue is full");
    }
    writer->Write(TokenMessage(0));
    return grpc::Status::OK;
  };
  EXPECT_TRUE(absl::IsResourceExhausted(client_->GenerateStream(Request(1), {}, [](const auto&) { return true; })));
  num_refusals.store(2);
  const auto patient = Connect({.address = server_.address(), .max_attempts = 3});
  int num_messages = 0;
  const absl::Status status = patient->GenerateStream(Request(1), {}, [&](const auto&) { return ++num_messages > 0; });
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_EQ(num_messages, 1);
}

TEST_F(ClientTest, SendsTheApiKey) {
  std::string seen;
  server_.on_generate = [&](const auto&, grpc::ServerContext* context, auto*) {
    const auto entry = context->client_metadata().find("authorization");
    if (entry != context->client_metadata().end()) seen.assign(entry->second.data(), entry->second.size());
    return grpc::Status::OK;
  };
  const auto client = Connect({.address = server_.address(), .api_key = "secret"});
  EXPECT_TRUE(client->GenerateStream(Request(1), {}, [](const auto&) { return true; }).ok());
  EXPECT_EQ(seen, "Bearer secret");
}

TEST_F(ClientTest, HealthFollowsTheServer) {
  EXPECT_EQ(*client_->CheckHealth(""), Health::kServing);
  EXPECT_TRUE(absl::IsNotFound(client_->CheckHealth("no.such.Service").status()));
  const auto stream = client_->WatchHealth("");
  Health health = Health::kUnknown;
  ASSERT_TRUE(stream->Next(&health));
  EXPECT_EQ(health, Health::kServing);
  server_.SetServing(false);
  ASSERT_TRUE(stream->Next(&health));
  EXPECT_EQ(health, Health::kNotServing);
}

TEST_F(ClientTest, WaitUntilServingWaitsAndSaysWhatItSaw) {
  server_.SetServing(false);
  // On a busy machine the first answer may come after the first of these times.
  absl::Status status;
  for (const int milliseconds : {250, 2'500, 25'000}) {
    status = client_->WaitUntilServing("", absl::Milliseconds(milliseconds));
    EXPECT_TRUE(absl::IsDeadlineExceeded(status));
    if (MessageOf(status).find("NOT_SERVING") != std::string::npos) break;
  }
  EXPECT_THAT(MessageOf(status), HasSubstr("NOT_SERVING"));
  std::thread later([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(150));
    server_.SetServing(true);
  });
  EXPECT_TRUE(client_->WaitUntilServing("", absl::Seconds(20)).ok());
  later.join();
}

TEST(ClientCreateTest, RejectsWhatCannotWork) {
  EXPECT_TRUE(absl::IsInvalidArgument(Client::Create({.address = ""}).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(Client::Create({.max_attempts = 6}).status()));
  const absl::Status status = Client::Create({.ca_file = "/nowhere/ca.pem"}).status();
  EXPECT_THAT(MessageOf(status), HasSubstr("/nowhere/ca.pem"));
}

TEST(ClientCreateTest, NobodyListeningIsUnavailable) {
  const auto client = Client::Create({.address = "127.0.0.1:1"});
  EXPECT_TRUE(absl::IsUnavailable((*client)->GetModel({.timeout = absl::Seconds(60)}).status()));
}

}  // namespace
}  // namespace switchyard
