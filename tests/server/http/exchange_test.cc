// One HTTP answer out of several calls: its status, its bytes, and what is refused.
#include <limits>

#include "tests/server/http/exchange_fixture.h"

namespace switchyard::http {
namespace {

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
  EXPECT_EQ(sink_->text(), "") << "until there is output a failure can have its own status";
  Generate(*requests[0], "x");
  EXPECT_TRUE(AwaitText("\"text\":\"x\""));
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

// A retry would never find more room.
TEST_F(ExchangeTest, MoreChoicesThanMayEverWaitAreRefusedForGood) {
  server_.parts.limits.max_num_queued_reqs = 8;
  Begin(R"({"prompt": ["a", "b", "c"], "n": 3, "stream": true})");
  EXPECT_TRUE(Queued().empty());
  StepToEnd();
  EXPECT_EQ(sink_->status(), 400);
  EXPECT_EQ(sink_->json()["error"]["param"], "prompt");
  const std::string message = sink_->json()["error"]["message"];
  EXPECT_EQ(message.find("prompt has 3 prompts for 3 choices each, but only 8 requests may wait"), 0u) << message;
  sink_ = std::make_shared<FakeSink>();
  Begin(R"({"prompt": ["a", "b"], "n": 4})");
  for (const auto& request : Queued()) End(*request);
  StepToEnd();
  EXPECT_EQ(sink_->status(), 200) << "as many as may wait are served";
}

// Each prompt's choices are small enough, but not all together: an entry of "choices" takes 72 bytes.
TEST_F(ExchangeTest, AnAnswerThatIsTooLargeIsRefused) {
  for (const int max_bytes : {143, 144}) {
    server_.parts.limits.max_message_bytes = max_bytes;
    sink_ = std::make_shared<FakeSink>();
    Begin(R"({"prompt": ["a", "b"]})");
    const auto requests = Queued();
    ASSERT_EQ(requests.size(), 2u);
    for (const auto& request : requests) {
      Generate(*request, "0123456789");
      End(*request, TerminalStatus::kOk, 10);
    }
    StepToEnd();
    if (max_bytes == 144) {
      EXPECT_EQ(sink_->status(), 200);
      EXPECT_EQ(sink_->json()["choices"][1]["text"], "0123456789");
      continue;
    }
    EXPECT_EQ(sink_->status(), 400);
    EXPECT_EQ(sink_->json()["error"]["code"], "answer_too_large");
    EXPECT_NE(sink_->text().find("larger than 143 bytes"), std::string::npos) << sink_->text();
  }
}

TEST_F(ExchangeTest, WhileTheServerStartsNobodyIsServed) {
  server_.parts.model.store(nullptr);
  server_.parts.phase.store(ServingPhase::kStarting);
  Begin(R"({"prompt": "a", "logprobs": 1})");
  StepToEnd();
  EXPECT_EQ(sink_->status(), 503);
  EXPECT_EQ(sink_->json()["error"]["code"], "starting");
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
  EXPECT_TRUE(AwaitText("\"text\":\"x\""));
  End(*requests[1], TerminalStatus::kDataLoss);
  StepToEnd();
  EXPECT_EQ(sink_->status(), 200);
  EXPECT_NE(sink_->text().find("data: {\"error\":{\"message\":\"the model produced"), std::string::npos);
  Queued();
  EXPECT_FALSE(cancelled_.empty()) << "the other prompt was ended";
}

TEST_F(ExchangeTest, ALongBodyIsParsedByTheTextWorker) {
  Begin(R"({"prompt": "a", "user": ")" + std::string(100'000, 'x') + "\"}");
  const auto requests = AwaitQueued();
  ASSERT_EQ(requests.size(), 1u);
  End(*requests[0]);
  StepToEnd();
  EXPECT_EQ(sink_->status(), 200);
}

TEST_F(ExchangeTest, ChatLogprobsHaveTheBytesOfEachToken) {
  Begin(R"({"messages": [{"role": "user", "content": "a"}], "logprobs": true, "top_logprobs": 1})", Endpoint::kChat);
  const auto requests = AwaitQueued();
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

}  // namespace
}  // namespace switchyard::http
