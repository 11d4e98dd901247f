#include "server/frontend/token_stream.h"

#include <gtest/gtest.h>

#include <random>

#include "server/byte_tokenizer.h"

namespace switchyard {
namespace {

class CountingListener : public StreamListener {
 public:
  void OnPending() override { ++pending; }
  void OnEnded() override { ++ended; }
  int pending = 0;
  int ended = 0;
};

class TokenStreamTest : public testing::Test {
 protected:
  std::shared_ptr<TokenStream> Make(TokenStreamOptions options) {
    return std::make_shared<TokenStream>(tokenizer_.get(), std::move(options), listener_, nullptr);
  }

  // Pours `text` in byte by byte until the sink has enough; what came out, taking a message when `take` says so.
  template <typename Take>
  std::string Generate(TokenStream* stream, TokenSink* sink, const std::string& text, Take take) {
    std::string out;
    FinishReason reason = FinishReason::kLength;
    for (char c : text) {
      SampledToken token;
      token.token = static_cast<unsigned char>(c);
      const SinkVerdict verdict = sink->OnToken(token, false);
      if (take()) out += Text(stream->TakeMessage());
      if (verdict == SinkVerdict::kStop) {
        reason = FinishReason::kStop;
        break;
      }
    }
    FinishedEvent event;
    event.reason = reason;
    sink->OnFinished(event);
    return out + Text(stream->TakeMessage());
  }

  static std::string Text(const v1::GenerateStreamResponse& message) {
    std::string text;
    for (const auto& choice : message.choices()) text += choice.text();
    return text;
  }

  std::unique_ptr<Tokenizer> tokenizer_ = *Tokenizer::Parse(ByteTokenizerJson());
  std::shared_ptr<CountingListener> listener_ = std::make_shared<CountingListener>();
};

TEST_F(TokenStreamTest, TokensSinceTheLastMessageGoIntoOne) {
  auto stream = Make({});
  auto sink = TokenStream::Sink(stream, 0);
  for (int32_t token : {'h', 'i'}) {
    SampledToken sampled;
    sampled.token = token;
    EXPECT_EQ(sink->OnToken(sampled, false), SinkVerdict::kContinue);
  }
  EXPECT_EQ(listener_->pending, 1) << "one announcement until the message is taken";
  const auto message = stream->TakeMessage();
  ASSERT_EQ(message.choices_size(), 1);
  EXPECT_EQ(message.choices(0).text(), "hi");
  EXPECT_EQ(message.choices(0).token_ids_size(), 2);
  EXPECT_TRUE(message.has_prompt());
  EXPECT_FALSE(message.has_usage());
  EXPECT_FALSE(stream->has_pending());
}

TEST_F(TokenStreamTest, LastMessageCarriesReasonAndUsage) {
  TokenStreamOptions options;
  options.prompt.set_prompt_tokens(7);
  auto stream = Make(std::move(options));
  auto sink = TokenStream::Sink(stream, 0);
  FinishedEvent event;
  event.reason = FinishReason::kEos;
  event.num_output_tokens = 3;
  event.num_cached_prompt_tokens = 2;
  sink->OnFinished(event);
  EXPECT_TRUE(stream->ended());
  EXPECT_EQ(listener_->ended, 1);
  const auto message = stream->TakeMessage();
  EXPECT_EQ(message.choices(0).finish_reason(), v1::FINISH_REASON_EOS);
  EXPECT_EQ(message.usage().prompt_tokens(), 7);
  EXPECT_EQ(message.usage().completion_tokens(), 3);
  EXPECT_EQ(message.usage().cached_prompt_tokens(), 2);
}

TEST_F(TokenStreamTest, StopTokensCountAsTokensButNotAsText) {
  for (bool include_stop : {false, true}) {
    TokenStreamOptions options;
    options.include_stop = include_stop;
    auto stream = Make(std::move(options));
    auto sink = TokenStream::Sink(stream, 0);
    SampledToken token;
    token.token = 'x';
    sink->OnToken(token, /*is_stop_token=*/true);
    sink->OnFinished({});
    const auto message = stream->TakeMessage();
    EXPECT_EQ(message.choices(0).text(), include_stop ? "x" : "");
    EXPECT_EQ(message.choices(0).token_ids_size(), 1);
  }
}

TEST_F(TokenStreamTest, NeverSplitsACharacter) {
  auto stream = Make({});
  auto sink = TokenStream::Sink(stream, 0);
  const std::string euro = "\xE2\x82\xAC";
  std::vector<std::string> texts;
  for (char c : euro) {
    SampledToken token;
    token.token = static_cast<unsigned char>(c);
    sink->OnToken(token, false);
    texts.push_back(Text(stream->TakeMessage()));
  }
  EXPECT_EQ(texts, (std::vector<std::string>{"", "", euro}));
}

TEST_F(TokenStreamTest, IncompleteCharacterAtTheEndIsReplaced) {
  auto stream = Make({});
  auto sink = TokenStream::Sink(stream, 0);
  EXPECT_EQ(Generate(stream.get(), sink.get(), "a\xE2\x82", [] { return false; }), "a\xEF\xBF\xBD");
}

TEST_F(TokenStreamTest, TextDoesNotDependOnWhenMessagesAreTaken) {
  std::mt19937 random(3);
  for (int round = 0; round < 2'000; ++round) {
    std::string text;
    for (int i = 0; i < 24; ++i) text += static_cast<char>('a' + random() % 3);
    TokenStreamOptions options;
    options.stop = {"abc", "ca"};
    options.include_stop = random() % 2 == 0;
    auto at_once = Make(options);
    auto in_pieces = Make(options);
    const std::string expected =
        Generate(at_once.get(), TokenStream::Sink(at_once, 0).get(), text, [] { return false; });
    ASSERT_EQ(Generate(in_pieces.get(), TokenStream::Sink(in_pieces, 0).get(), text, [&] { return random() % 2 == 0; }),
              expected);
  }
}

TEST_F(TokenStreamTest, StopStringNamesItselfAndEndsTheChoice) {
  TokenStreamOptions options;
  options.stop = {"##"};
  auto stream = Make(std::move(options));
  auto sink = TokenStream::Sink(stream, 0);
  SampledToken token;
  for (char c : std::string("ab##")) {
    token.token = c;
    const SinkVerdict verdict = sink->OnToken(token, false);
    EXPECT_EQ(verdict, stream->num_tokens() == 4 ? SinkVerdict::kStop : SinkVerdict::kContinue);
  }
  FinishedEvent event;
  event.reason = FinishReason::kStop;
  sink->OnFinished(event);
  const auto message = stream->TakeMessage();
  EXPECT_EQ(Text(message), "ab");
  EXPECT_EQ(message.choices(0).matched_stop(), "##");
  EXPECT_EQ(message.choices(0).finish_reason(), v1::FINISH_REASON_STOP);
}

TEST_F(TokenStreamTest, StopStringsDoNotCountBeforeMinTokens) {
  TokenStreamOptions options;
  options.stop = {"##"};
  options.min_tokens = 4;
  auto stream = Make(std::move(options));
  auto sink = TokenStream::Sink(stream, 0);
  EXPECT_EQ(Generate(stream.get(), sink.get(), "ab##cd##ef", [] { return false; }), "ab##cd");
}

TEST_F(TokenStreamTest, FullBufferAsksForTheEnd) {
  TokenStreamOptions options;
  options.max_pending_bytes = 100;
  auto stream = Make(std::move(options));
  auto sink = TokenStream::Sink(stream, 0);
  SampledToken token;
  token.token = 'a';
  int taken = 0;
  while (sink->OnToken(token, false) == SinkVerdict::kContinue && taken < 1000) ++taken;
  EXPECT_GT(taken, 5);
  EXPECT_LT(taken, 100);
  EXPECT_EQ(stream->num_tokens(), taken);
  EXPECT_EQ(stream->TakeMessage().choices(0).token_ids_size(), taken) << "the refused token is not sent";
  EXPECT_EQ(sink->OnToken(token, false), SinkVerdict::kContinue) << "room again";
}

TEST_F(TokenStreamTest, ChoicesShareMessagesAndEndTogether) {
  TokenStreamOptions options;
  options.n = 3;
  auto stream = Make(std::move(options));
  std::vector<std::shared_ptr<TokenSink>> sinks;
  for (int32_t i = 0; i < 3; ++i) sinks.push_back(TokenStream::Sink(stream, i));
  SampledToken token;
  for (int32_t i : {2, 0, 1}) {
    token.token = 'a' + i;
    sinks[static_cast<size_t>(i)]->OnToken(token, false);
    EXPECT_FALSE(stream->ended());
  }
  for (int32_t i : {1, 2, 0}) sinks[static_cast<size_t>(i)]->OnFinished({});
  EXPECT_TRUE(stream->ended());
  EXPECT_EQ(listener_->ended, 1);
  const auto response = stream->TakeResponse();
  ASSERT_EQ(response.choices_size(), 3);
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(response.choices(i).index(), i);
    EXPECT_EQ(response.choices(i).text(), std::string(1, static_cast<char>('a' + i)));
  }
}

TEST_F(TokenStreamTest, FirstFailureOfTheChoicesIsTheStatus) {
  TokenStreamOptions options;
  options.n = 2;
  auto stream = Make(std::move(options));
  FinishedEvent failed;
  failed.reason = FinishReason::kError;
  failed.status = TerminalStatus::kDataLoss;
  TokenStream::Sink(stream, 0)->OnFinished(failed);
  TokenStream::Sink(stream, 1)->OnFinished({});
  EXPECT_EQ(stream->terminal_status(), TerminalStatus::kDataLoss);
}

TEST_F(TokenStreamTest, DetailsShowLogprobsAndTheAskedForLayers) {
  TokenStreamOptions options;
  options.details = true;
  options.logprobs = true;
  options.explain_layers = {1};
  options.moe_layers = {3, 5};
  auto stream = Make(std::move(options));
  SampledToken token;
  token.token = 'a';
  token.logprob = -1.5f;
  token.top_logprobs = {{'a', -1.5f}, {0xE2, -2.0f}};
  token.routing.expert_ids = {0, 1, 6, 4};
  token.routing.expert_weights = {0.9f, 0.1f, 0.7f, 0.3f};
  token.routing.margins = {0.5f, 0.25f};
  TokenStream::Sink(stream, 0)->OnToken(token, false);
  const auto message = stream->TakeMessage();
  ASSERT_EQ(message.choices(0).details_size(), 1);
  const v1::TokenDetail& detail = message.choices(0).details(0);
  EXPECT_EQ(detail.logprob(), -1.5f);
  EXPECT_EQ(detail.top_logprobs(0).text(), "a");
  EXPECT_EQ(detail.top_logprobs(1).text(), "\xEF\xBF\xBD");
  ASSERT_EQ(detail.routing_size(), 1);
  EXPECT_EQ(detail.routing(0).layer(), 5);
  EXPECT_EQ(detail.routing(0).expert_ids(0), 6);
  EXPECT_EQ(detail.routing(0).expert_weights(1), 0.3f);
  EXPECT_EQ(detail.routing(0).margin(), 0.25f);
}

TEST_F(TokenStreamTest, OutlivesItsListener) {
  auto stream = Make({});
  auto sink = TokenStream::Sink(stream, 0);
  listener_.reset();
  SampledToken token;
  token.token = 'a';
  EXPECT_EQ(sink->OnToken(token, false), SinkVerdict::kContinue);
  sink->OnFinished({});
  EXPECT_TRUE(stream->ended());
}

}  // namespace
}  // namespace switchyard
