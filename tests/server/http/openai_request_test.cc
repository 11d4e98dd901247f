// JSON to requests: every field arrives where it belongs, and whatever is wrong is refused by name.
#include "server/http/openai_request.h"

#include <gtest/gtest.h>

#include "server/frontend/errors.h"
#include "server/frontend/request_validation.h"

namespace switchyard::http {
namespace {

OpenAiRequest Read(Endpoint endpoint, const std::string& body) {
  auto request = ReadOpenAiRequest(endpoint, body);
  EXPECT_TRUE(request.ok()) << request.status() << " of " << body;
  return request.ok() ? *std::move(request) : OpenAiRequest{{v1::GenerateRequest()}, {}};
}

std::string FieldOf(const absl::Status& status) {
  const auto violations = ViolationsOf(status);
  return violations.empty() ? "" : violations.front().field;
}

TEST(OpenAiRequestTest, EverySamplingFieldArrives) {
  const OpenAiRequest request = Read(Endpoint::kCompletions, R"({
    "model": "m", "prompt": "text", "max_tokens": 9, "min_tokens": 2, "temperature": 0.5, "top_p": 0.25, "top_k": 7,
    "min_p": 0.125, "repetition_penalty": 1.5, "presence_penalty": -1, "frequency_penalty": 1, "seed": 18446744073709551615,
    "stop": ["a", "b"], "stop_token_ids": [3, 4], "ignore_eos": true, "include_stop_str_in_output": true, "n": 2,
    "skip_special_tokens": false, "add_special_tokens": false, "logit_bias": {"5": -100, "6": 1.5}, "logprobs": 4,
    "priority": -3, "stream": true, "stream_options": {"include_usage": true}, "user": "someone", "echo": false,
    "best_of": 1, "suffix": null, "metadata": {"a": "b"}})");
  const v1::GenerateRequest& got = request.prompts.at(0);
  v1::GenerateRequest want;
  want.set_model("m");
  want.set_text("text");
  want.set_max_tokens(9);
  want.set_min_tokens(2);
  want.set_temperature(0.5f);
  want.set_top_p(0.25f);
  want.set_top_k(7);
  want.set_min_p(0.125f);
  want.set_repetition_penalty(1.5f);
  want.set_presence_penalty(-1.0f);
  want.set_frequency_penalty(1.0f);
  want.set_seed(~uint64_t{0});
  want.add_stop("a");
  want.add_stop("b");
  want.add_stop_token_ids(3);
  want.add_stop_token_ids(4);
  want.set_ignore_eos(true);
  want.set_include_stop(true);
  want.set_n(2);
  want.set_skip_special_tokens(false);
  want.set_add_special_tokens(false);
  (*want.mutable_logit_bias())[5] = -100.0f;
  (*want.mutable_logit_bias())[6] = 1.5f;
  want.set_logprobs(4);
  want.set_priority(-3);
  EXPECT_EQ(got.DebugString(), want.DebugString());
  EXPECT_TRUE(request.shape.stream && request.shape.include_usage && request.shape.logprobs);
  EXPECT_EQ(request.shape.n, 2);
}

TEST(OpenAiRequestTest, PromptsComeInFourForms) {
  EXPECT_EQ(Read(Endpoint::kCompletions, R"({"prompt": "a"})").prompts.at(0).text(), "a");
  EXPECT_EQ(Read(Endpoint::kCompletions, R"({"prompt": [1, 2]})").prompts.at(0).token_ids().ids_size(), 2);
  const auto texts = Read(Endpoint::kCompletions, R"({"prompt": ["a", "b"], "seed": 5})").prompts;
  ASSERT_EQ(texts.size(), 2u);
  EXPECT_EQ(texts[1].text(), "b");
  EXPECT_EQ(texts[1].seed(), 5u);
  const auto ids = Read(Endpoint::kCompletions, R"({"prompt": [[1], [2, 3]]})").prompts;
  ASSERT_EQ(ids.size(), 2u);
  EXPECT_EQ(ids[1].token_ids().ids(1), 3);
  EXPECT_EQ(ids[1].max_tokens(), kDefaultCompletionTokens);
}

TEST(OpenAiRequestTest, ChatArrivesWithItsOrder) {
  const OpenAiRequest request = Read(Endpoint::kChat, R"({
    "messages": [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], "name": "x"},
                 {"role": "assistant", "content": null, "zeta": 1, "alpha": [true],
                  "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{\"q\": 1}"}}]},
                 {"role": "tool", "tool_call_id": "c", "content": ""}],
    "tools": [{"type": "function", "function": {"name": "f", "description": "d", "a": 1.5}}],
    "chat_template_kwargs": {"z": 1, "b": false}, "logprobs": true, "top_logprobs": 3, "max_completion_tokens": 8,
    "response_format": {"type": "text"}, "tool_choice": "auto"})");
  const v1::ChatPrompt& chat = request.prompts.at(0).chat();
  EXPECT_EQ(chat.messages(0).content(), "a\nb");
  EXPECT_EQ(chat.messages(0).name(), "x");
  EXPECT_FALSE(chat.messages(1).has_content());
  EXPECT_EQ(chat.messages(1).extra_fields(), R"({"zeta":1,"alpha":[true]})");
  EXPECT_EQ(chat.messages(1).tool_calls(0).arguments_json(), R"({"q": 1})");
  EXPECT_TRUE(chat.messages(2).has_content());
  EXPECT_EQ(chat.tools(0), R"({"type":"function","function":{"name":"f","description":"d","a":1.5}})");
  EXPECT_EQ(chat.template_kwargs(), R"({"z":1,"b":false})");
  EXPECT_EQ(request.prompts[0].logprobs(), 3);
  EXPECT_EQ(request.prompts[0].max_tokens(), 8);
  const auto none = Read(Endpoint::kChat, R"({"messages": [], "tools": [{}], "tool_choice": "none"})");
  EXPECT_EQ(none.prompts.at(0).chat().tools_size(), 0) << "with \"none\" the template sees no tools";
}

struct Refused {
  Endpoint endpoint;
  std::string body;
  std::string field;
  std::string words;
};

class RefusedTest : public testing::TestWithParam<Refused> {};

TEST_P(RefusedTest, NamesTheField) {
  const auto request = ReadOpenAiRequest(GetParam().endpoint, GetParam().body);
  ASSERT_EQ(request.status().code(), absl::StatusCode::kInvalidArgument) << GetParam().body.substr(0, 200);
  EXPECT_EQ(FieldOf(request.status()), GetParam().field);
  EXPECT_NE(std::string(request.status().message()).find(GetParam().words), std::string::npos) << request.status();
}

constexpr Endpoint kText = Endpoint::kCompletions;
std::string Deep(size_t levels) { return R"({"prompt":)" + std::string(levels, '[') + std::string(levels, ']') + "}"; }
std::string Many(const std::string& value, size_t count) {
  std::string list = "[";
  for (size_t i = 0; i < count; ++i) list += (i == 0 ? "" : ",") + value;
  return list + "]";
}
std::string With(const std::string& field) { return R"({"prompt": "a", )" + field + "}"; }
std::string Message(const std::string& fields) { return R"({"messages": [{)" + fields + "}]}"; }

INSTANTIATE_TEST_SUITE_P(
    Hostile, RefusedTest,
    testing::Values(
        Refused{kText, "", "body", "not valid JSON"}, Refused{kText, "{", "body", "not valid JSON"},
        Refused{kText, "[]", "body", "no JSON object"}, Refused{kText, "null", "body", "no JSON object"},
        Refused{kText, "{} {}", "body", "not valid JSON"}, Refused{kText, "\xef\xbb\xbf{}", "body", "byte order mark"},
        Refused{kText, std::string("{}\0", 3), "body", "NUL"},
        Refused{kText, R"({"prompt": "a", "prompt": "b"})", "body", "duplicate key"},
        Refused{kText, With(R"("metadata": {"a": {"b": 1, "b": 2}})"), "body", "duplicate key"},
        Refused{kText, With(R"("temperature": NaN)"), "body", "not valid JSON"},
        Refused{kText, With(R"("temperature": 1e999)"), "body", "out of range"},
        Refused{kText, With(R"("temperature": Infinity)"), "body", "not valid JSON"},
        Refused{kText, "{\"prompt\": \"\xff\"}", "body", "not valid JSON"},
        Refused{kText, R"({"prompt": "\ud800"})", "body", "not valid JSON"},
        Refused{kText, Deep(41), "body", "nested deeper than 40"},
        Refused{kText, Deep(100'000), "body", "nested deeper than 40"},
        Refused{kText, R"({"prompt": )" + Many("1", 1'100'000) + "}", "body", "more than 1048576 values"},
        Refused{kText, Deep(3), "prompt[0][0]", "no token id"},
        Refused{kText, R"({"prompt": {}})", "prompt", "neither"},
        Refused{kText, R"({"prompt": 5})", "prompt", "neither"},
        Refused{kText, R"({"prompt": null})", "prompt", "missing"},
        Refused{kText, R"({"prompt": [1.5]})", "prompt[0]", "no token id"},
        Refused{kText, R"({"prompt": [1, "a"]})", "prompt[1]", "no token id"},
        Refused{kText, R"({"prompt": ["a", 1]})", "prompt[1]", "neither"},
        Refused{kText, R"({"prompt": [-1]})", "prompt[0]", "no token of this model"},
        Refused{kText, R"({"prompt": [18446744073709551615]})", "prompt[0]", "no token of this model"},
        Refused{kText, R"({"prompt": )" + Many("\"a\"", 65) + "}", "prompt", "at most 64"},
        Refused{kText, With(R"("model": 1)"), "model", "no text"},
        Refused{kText, With(R"("n": 1.5)"), "n", "whole number"},
        Refused{kText, With(R"("n": 99999999999)"), "n", "whole number"},
        Refused{kText, With(R"("seed": -1)"), "seed", "2^64"},
        Refused{kText, With(R"("stop": [1])"), "stop[0]", "no text"},
        Refused{kText, With(R"("logit_bias": [])"), "logit_bias", "no object"},
        Refused{kText, With(R"("logit_bias": {"a": 1})"), "logit_bias[a]", "no token id"},
        Refused{kText, With(R"("stream": 2)"), "stream", "neither true nor false"},
        Refused{kText, With(R"("stream_options": {"x": 1})"), "stream_options.x", "include_usage"},
        Refused{kText, With(R"("stream_options": {"include_usage": true})"), "stream_options", "stream is not true"},
        Refused{kText, With(R"("echo": true)"), "echo", "not supported"},
        Refused{kText, With(R"("best_of": 2)"), "best_of", "not supported"},
        Refused{kText, With(R"("messages": [])"), "messages", "no field"},
        Refused{kText, With(R"("unknown\u0000field": 1)"), "unknown?field", "no field"},
        Refused{Endpoint::kChat, "{}", "messages", "missing"},
        Refused{Endpoint::kChat, R"({"messages": {}})", "messages", "no list"},
        Refused{Endpoint::kChat, R"({"messages": )" + Many("{}", 1025) + "}", "messages", "at most 1,024"},
        Refused{Endpoint::kChat, R"({"messages": [1]})", "messages[0]", "no object"},
        Refused{Endpoint::kChat, Message(R"("content": "a")"), "messages[0].role", "missing"},
        Refused{Endpoint::kChat, Message(R"("role": 1)"), "messages[0].role", "no text"},
        Refused{Endpoint::kChat, Message(R"("role": "user", "content": 1)"), "messages[0].content", "neither"},
        Refused{Endpoint::kChat, Message(R"("role": "user", "content": [{"type": "image_url"}])"),
                "messages[0].content[0].type", "image_url"},
        Refused{Endpoint::kChat, Message(R"("role": "user", "content": [{"type": "text"}])"),
                "messages[0].content[0].text", "missing"},
        Refused{Endpoint::kChat, Message(R"("role": "a", "tool_calls": [{}])"), "messages[0].tool_calls[0]",
                "function"},
        Refused{Endpoint::kChat, Message(R"("role": "a", "tool_calls": )" + Many("{}", 65)), "messages[0].tool_calls",
                "at most 64"},
        Refused{Endpoint::kChat, R"({"messages": [], "tools": [1]})", "tools[0]", "no object"},
        Refused{Endpoint::kChat, R"({"messages": [], "tool_choice": "required"})", "tool_choice", "certain call"},
        Refused{Endpoint::kChat, R"({"messages": [], "top_logprobs": 2})", "top_logprobs", "logprobs is not true"},
        Refused{Endpoint::kChat, R"({"messages": [], "max_tokens": 1, "max_completion_tokens": 2})",
                "max_completion_tokens", "differ"},
        Refused{Endpoint::kChat, R"({"messages": [], "response_format": {"type": "json_object"}})", "response_format",
                "not supported"}));

// Many keys and many small containers must not take more than linear time: this would be minutes.
TEST(OpenAiRequestTest, ManyKeysAreReadInLinearTime) {
  std::string body = R"({"messages": [{"role": "user")";
  for (int i = 0; i < 500'000; ++i) body += ",\"k" + std::to_string(i) + "\": 1";
  const auto request = ReadOpenAiRequest(Endpoint::kChat, body + "}]}");
  ASSERT_TRUE(request.ok()) << request.status();
  EXPECT_GT(request->prompts[0].chat().messages(0).extra_fields().size(), 5'000'000u);
}

// The answer has a place per choice, made before anything else has looked at the request.
TEST(OpenAiRequestTest, OnlySensibleNumbersOfChoicesAreRead) {
  for (const Endpoint endpoint : {Endpoint::kCompletions, Endpoint::kChat}) {
    const std::string start = endpoint == Endpoint::kChat ? R"({"messages": [], "n": )" : R"({"prompt": "a", "n": )";
    for (const char* n : {"-1", "0", "17", "2147483647", "-2147483648", "\"-1\""}) {
      const auto request = ReadOpenAiRequest(endpoint, start + n + "}");
      ASSERT_EQ(request.status().code(), absl::StatusCode::kInvalidArgument) << n;
      EXPECT_EQ(FieldOf(request.status()), "n");
      EXPECT_NE(std::string(request.status().message()).find("use a whole number from 1 to 16"), std::string::npos)
          << request.status();
    }
    EXPECT_EQ(Read(endpoint, start + "1}").shape.n, 1);
    EXPECT_EQ(Read(endpoint, start + "16}").shape.n, 16);
  }
}

TEST(OpenAiRequestTest, EveryPrefixIsRefused) {
  const std::string body = R"({"messages": [{"role": "user", "content": "a\u00e4"}], "temperature": -1.5e-1, "n": 2})";
  ASSERT_TRUE(ReadOpenAiRequest(Endpoint::kChat, body).ok());
  for (size_t size = 0; size < body.size(); ++size) {
    EXPECT_FALSE(ReadOpenAiRequest(Endpoint::kChat, body.substr(0, size)).ok()) << size;
  }
}

TEST(OpenAiRequestTest, WhatPromptsShareIsNotCopiedWhereItIsLarge) {
  const std::string stop = R"({"stop": ")" + std::string(1 << 20, 'x') + R"(", "prompt": )";
  const auto refused = ReadOpenAiRequest(Endpoint::kCompletions, stop + R"(["a", "b"]})");
  EXPECT_EQ(FieldOf(refused.status()), "prompt") << refused.status();
  EXPECT_TRUE(ReadOpenAiRequest(Endpoint::kCompletions, stop + R"(["a"]})").ok()) << "is refused for its stop later";
  // The most that a valid request may have.
  std::string most = R"({"prompt": ["a", "b"], "stop": [)";
  for (int i = 0; i < kMaxStopStrings; ++i) most += (i == 0 ? "\"" : ",\"") + std::string(kMaxStopBytes, 'x') + "\"";
  most += R"(], "stop_token_ids": [2147483647)";
  for (int i = 1; i < kMaxStopTokenIds; ++i) most += "," + std::to_string(2147483647 - i);
  most += R"(], "logit_bias": {"2147483647": 1)";
  for (int i = 1; i < kMaxLogitBias; ++i) most += ",\"" + std::to_string(2147483647 - i) + "\": 1";
  EXPECT_EQ(Read(Endpoint::kCompletions, most + "}}").prompts.size(), 2u);
}

}  // namespace
}  // namespace switchyard::http
