// What a template sees of a request's conversation, and what is refused before and after it ran.
#include "server/frontend/chat_prompt.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

namespace switchyard {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr int64_t kManyBytes = 1 << 20;

v1::ChatPrompt OneMessage(const std::string& role, const std::string& content) {
  v1::ChatPrompt chat;
  v1::ChatMessage* message = chat.add_messages();
  message->set_role(role);
  message->set_content(content);
  return chat;
}

absl::StatusOr<std::string> Render(const std::string& source, const v1::ChatPrompt& chat,
                                   int64_t max_bytes = kManyBytes) {
  const auto chat_template = ChatTemplate::Parse(source, R"({"bos_token": "<s>"})");
  EXPECT_TRUE(chat_template.ok()) << chat_template.status();
  return RenderChatPrompt(**chat_template, chat, std::tm{}, max_bytes);
}

std::string Text(const std::string& source, const v1::ChatPrompt& chat) {
  const auto text = Render(source, chat);
  return text.ok() ? *text : "ERROR " + std::string(text.status().message());
}

std::string Error(const std::string& source, const v1::ChatPrompt& chat) {
  const auto text = Render(source, chat);
  EXPECT_TRUE(absl::IsInvalidArgument(text.status())) << text.status();
  return std::string(text.status().message());
}

TEST(ChatPromptTest, MessagesAreDictsInTheOrderOfTheirFields) {
  v1::ChatPrompt chat = OneMessage("tool", "21 °C");
  chat.mutable_messages(0)->set_name("weather");
  chat.mutable_messages(0)->set_tool_call_id("c1");
  chat.mutable_messages(0)->set_extra_fields(R"({"z": 1, "role": "observation"})");
  EXPECT_EQ(Text("{{ messages|tojson }}", chat),
            R"([{"role": "observation", "content": "21 °C", "name": "weather", "tool_call_id": "c1", "z": 1}])");
}

TEST(ChatPromptTest, AbsentContentIsNone) {
  v1::ChatPrompt chat = OneMessage("assistant", "");
  EXPECT_EQ(Text("{{ messages[0].content is none }}", chat), "False");
  chat.mutable_messages(0)->clear_content();
  EXPECT_EQ(Text("{{ messages[0].content is none }}{{ messages[0].name is defined }}", chat), "TrueFalse");
}

TEST(ChatPromptTest, ToolCallsHaveArgumentsAsObjectOrText) {
  v1::ChatPrompt chat = OneMessage("assistant", "");
  v1::ToolCall* call = chat.mutable_messages(0)->add_tool_calls();
  call->set_id("c1");
  call->set_name("f");
  call->set_arguments_json(R"({"b": 1, "a": [1.50]})");
  call = chat.mutable_messages(0)->add_tool_calls();
  call->set_name("g");
  call->set_arguments_text(R"({"b":  1})");
  chat.mutable_messages(0)->add_tool_calls()->set_name("h");
  EXPECT_EQ(Text("{% for c in messages[0].tool_calls %}{{ c|tojson }}\n{% endfor %}", chat),
            R"({"id": "c1", "type": "function", "function": {"name": "f", "arguments": {"b": 1, "a": [1.5]}}}
{"type": "function", "function": {"name": "g", "arguments": "{\"b\":  1}"}}
{"type": "function", "function": {"name": "h", "arguments": {}}}
)");
}

TEST(ChatPromptTest, ToolsDocumentsAndVariables) {
  v1::ChatPrompt chat = OneMessage("user", "x");
  EXPECT_EQ(Text("{{ tools is none and documents is none and add_generation_prompt }}", chat), "True");
  chat.add_tools(R"({"type": "function", "function": {"name": "f", "description": "ü"}})");
  chat.add_documents(R"({"title": "t"})");
  chat.set_add_generation_prompt(false);
  chat.set_template_kwargs(R"({"enable_thinking": false, "bos_token": "B"})");
  EXPECT_EQ(Text("{{ tools[0].function.description }}{{ documents[0].title }}{{ add_generation_prompt }}"
                 "{{ enable_thinking }}{{ bos_token }}",
                 chat),
            "ütFalseFalseB");
}

TEST(ChatPromptTest, TemplatesOwnErrorIsToldInOneBoundedLine) {
  const v1::ChatPrompt chat = OneMessage("user", "x");
  EXPECT_EQ(Error("{{ raise_exception('roles must\nalternate') }}", chat),
            "the chat template refuses the messages: roles must alternate");
  EXPECT_EQ(Error("\n{{ messages[1].role }}", chat),
            "the chat template cannot render the messages: line 2: list object has no element 1");
  const std::string long_error = Error("{{ raise_exception('ü' * 1000) }}", chat);
  EXPECT_LT(long_error.size(), 600u);
  EXPECT_THAT(long_error, HasSubstr("ü..."));
}

TEST(ChatPromptTest, TextIsBounded) {
  const auto text = Render("{{ messages[0].content * 100 }}", OneMessage("user", "0123456789"), 999);
  EXPECT_TRUE(absl::IsInvalidArgument(text.status()));
  EXPECT_THAT(std::string(text.status().message()), HasSubstr("has 1000 bytes; at most 999"));
}

TEST(ChatPromptTest, BadJsonNamesItsField) {
  v1::ChatPrompt chat = OneMessage("user", "x");
  chat.add_tools("{}");
  chat.add_tools("[1]");
  EXPECT_EQ(Error("", chat), "chat.tools[1] is no JSON object");
  chat = OneMessage("user", "x");
  chat.set_template_kwargs(R"({"a": 1, "a": 2})");
  EXPECT_EQ(Error("", chat), "chat.template_kwargs: duplicate key \"a\"");
  chat.set_template_kwargs(R"({"messages": []})");
  EXPECT_EQ(Error("", chat), "chat.template_kwargs has \"messages\", which is a field of its own");
  chat = OneMessage("user", "x");
  chat.mutable_messages(0)->set_extra_fields("{");
  EXPECT_THAT(Error("", chat), HasSubstr("chat.messages[0].extra_fields: not valid JSON"));
  chat = OneMessage("user", "x");
  chat.mutable_messages(0)->add_tool_calls()->set_arguments_json(std::string(100, '['));
  EXPECT_THAT(Error("", chat), HasSubstr("chat.messages[0].tool_calls[0].arguments_json: nested deeper than 32"));
  chat = OneMessage("user", "x");
  chat.add_documents("{\"n\": 99999999999999999999}");
  EXPECT_TRUE(Render("", chat).ok());  // as a float
  chat.set_documents(0, "{\"n\": 9999999999999999999}");
  EXPECT_THAT(Error("", chat), HasSubstr("beyond 64 bits"));
}

TEST(ChatPromptTest, CountsAndSizesAreChecked) {
  EXPECT_THAT(CheckChatPrompt(OneMessage("user", "x"), kManyBytes), IsEmpty());
  const auto field_of = [](const v1::ChatPrompt& chat, int64_t max_bytes = kManyBytes) {
    const auto violations = CheckChatPrompt(chat, max_bytes);
    return violations.empty() ? "none" : violations[0].field;
  };
  EXPECT_EQ(field_of(v1::ChatPrompt()), "chat.messages");
  EXPECT_EQ(field_of(OneMessage("", "x")), "chat.messages[0].role");
  EXPECT_EQ(field_of(OneMessage(std::string(65, 'r'), "x")), "chat.messages[0].role");
  EXPECT_EQ(field_of(OneMessage("user", std::string(100, 'x')), 100), "chat");
  v1::ChatPrompt chat;
  for (int i = 0; i < kMaxChatMessages; ++i) chat.add_messages()->set_role("user");
  EXPECT_EQ(field_of(chat), "none");
  chat.add_messages()->set_role("user");
  EXPECT_EQ(field_of(chat), "chat.messages");
  chat = OneMessage("user", "x");
  for (int i = 0; i <= kMaxChatTools; ++i) chat.add_tools("{}");
  EXPECT_EQ(field_of(chat), "chat.tools");
  chat = OneMessage("user", "x");
  for (int i = 0; i <= kMaxToolCalls; ++i) chat.mutable_messages(0)->add_tool_calls();
  EXPECT_EQ(field_of(chat), "chat.messages[0].tool_calls");
}

}  // namespace
}  // namespace switchyard
