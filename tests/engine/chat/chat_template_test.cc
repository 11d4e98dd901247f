// Which template a folder has, and what it gets to see.
#include "engine/chat/chat_template.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "engine/jinja/from_json.h"
#include "tests/support/temp_folder.h"

namespace switchyard {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

const char kShow[] =
    "{{ bos_token }}{% for m in messages %}[{{ m.role }}:{{ m.content }}]{% endfor %}"
    "{{ '!' if add_generation_prompt }}{{ tools }}{{ documents }}{{ eos_token }}";

jinja::Value Json(const std::string& text) { return *jinja::FromJson(text, {}, "test"); }

std::string Render(const ChatTemplate& chat_template, bool with_tools = false) {
  ChatInput input;
  input.messages = Json(R"([{"role": "user", "content": "hi"}])");
  if (with_tools) input.tools = Json(R"([{"a": 1}])");
  const auto text = chat_template.Render(input, {});
  return text.ok() ? *text : std::string(text.status().message());
}

std::string ParseError(const std::optional<std::string>& text, const std::optional<std::string>& config) {
  const auto parsed = ChatTemplate::Parse(text, config);
  EXPECT_TRUE(absl::IsInvalidArgument(parsed.status())) << parsed.status();
  return std::string(parsed.status().message());
}

TEST(ChatTemplateTest, FileWinsOverConfiguration) {
  const auto parsed = ChatTemplate::Parse("file", R"({"chat_template": "config"})");
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_EQ(Render(**parsed), "file");
}

TEST(ChatTemplateTest, SpecialTokensAreTextOrObjects) {
  const std::string config = R"({"bos_token": "<s>", "eos_token": {"content": "</s>", "lstrip": false},
                                 "unk_token": null, "additional_special_tokens": ["<a>", {"content": "<b>"}]})";
  const auto parsed = ChatTemplate::Parse(std::string(kShow) + "{{ additional_special_tokens }}", config);
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_EQ(Render(**parsed), "<s>[user:hi]!NoneNone</s>['<a>', '<b>']");
}

TEST(ChatTemplateTest, ListHasOneForTools) {
  const std::string config = R"({"chat_template": [{"name": "default", "template": "plain"},
                                                   {"name": "tool_use", "template": "with {{ tools }}"},
                                                   {"name": "rag", "template": "{{"}]})";
  const auto parsed = ChatTemplate::Parse(std::nullopt, config);
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_EQ(Render(**parsed), "plain");
  EXPECT_EQ(Render(**parsed, true), "with [{'a': 1}]");
}

TEST(ChatTemplateTest, VariablesReplaceSpecialTokensButNotTheMessages) {
  const auto parsed = ChatTemplate::Parse(kShow, R"({"bos_token": "<s>", "eos_token": "</s>"})");
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  ChatInput input;
  input.messages = Json("[]");
  input.variables = {{"bos_token", Json("\"B\"")}, {"messages", Json("[1]")}};
  input.add_generation_prompt = false;
  EXPECT_EQ(*(*parsed)->Render(input, {}), "BNoneNone</s>");
}

TEST(ChatTemplateTest, NoTemplateIsNotFound) {
  EXPECT_TRUE(absl::IsNotFound(ChatTemplate::Parse(std::nullopt, std::nullopt).status()));
  EXPECT_TRUE(absl::IsNotFound(ChatTemplate::Parse(std::nullopt, "{}").status()));
  EXPECT_TRUE(absl::IsNotFound(ChatTemplate::Parse(std::nullopt, R"({"chat_template": null})").status()));
}

TEST(ChatTemplateTest, ErrorsNameFileAndLine) {
  EXPECT_THAT(ParseError("\n{% if %}", std::nullopt), StartsWith("chat_template.jinja: line 2: "));
  EXPECT_THAT(ParseError(std::nullopt, R"({"chat_template": "{{ x|nothing }}"})"),
              "tokenizer_config.json: chat_template: line 1: no filter named 'nothing'");
  EXPECT_THAT(ParseError(std::nullopt, R"({"chat_template": 5})"), HasSubstr("neither a string nor a list"));
  EXPECT_THAT(ParseError(std::nullopt, R"({"chat_template": [{"name": "rag", "template": ""}]})"),
              HasSubstr("no \"default\""));
  EXPECT_THAT(ParseError(std::nullopt, R"({"chat_template": [{"name": "default"}]})"), HasSubstr("no template"));
  EXPECT_THAT(ParseError("x", "{"), StartsWith("tokenizer_config.json: "));
}

TEST(ChatTemplateTest, LoadsFromAFolder) {
  const testing::TempFolder folder;
  EXPECT_TRUE(absl::IsNotFound(ChatTemplate::Load(folder.path()).status()));
  std::ofstream(folder.path() + "/tokenizer_config.json")
      << R"({"bos_token": "<s>", "chat_template": "{{ bos_token }}c"})";
  EXPECT_EQ(Render(**ChatTemplate::Load(folder.path())), "<s>c");
  std::ofstream(folder.path() + "/chat_template.jinja") << "{{ bos_token }}f\n";
  EXPECT_EQ(Render(**ChatTemplate::Load(folder.path())), "<s>f");
  std::filesystem::remove(folder.path() + "/chat_template.jinja");
  std::filesystem::create_symlink("/etc/hostname", folder.path() + "/chat_template.jinja");
  EXPECT_TRUE(absl::IsInvalidArgument(ChatTemplate::Load(folder.path()).status()));
}

}  // namespace
}  // namespace switchyard
