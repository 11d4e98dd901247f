// Single rules of the language, and errors. differential_test.py compares with the reference.
#include "engine/jinja/template.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "engine/jinja/from_json.h"

namespace switchyard::jinja {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

absl::StatusOr<std::string> TryRender(const std::string& source, const std::string& json = "{}",
                                      const RenderLimits& limits = {}) {
  auto parsed = Template::Parse(source);
  if (!parsed.ok()) return parsed.status();
  const auto document = FromJson(json, {}, "variables");
  EXPECT_TRUE(document.ok()) << document.status();
  Variables variables;
  for (const auto& [key, value] : document->dict().entries()) variables.emplace_back(ToUtf8(key.text()), value);
  return parsed->Render(variables, std::tm{}, limits);
}

std::string Render(const std::string& source, const std::string& json = "{}") {
  const auto text = TryRender(source, json);
  return text.ok() ? *text : "ERROR " + text.status().ToString();
}

std::string Error(const std::string& source, const std::string& json = "{}") {
  const auto text = TryRender(source, json);
  return text.ok() ? "NO ERROR: " + *text : std::string(text.status().message());
}

TEST(TemplateTest, BlocksLeaveNoLinesBehind) {
  EXPECT_EQ(Render("a\n  {% if true %}\nb\n  {% endif %}\nc\n"), "a\nb\nc");
  EXPECT_EQ(Render("a\n  {%+ if true %}\nb{%- endif +%}\nc"), "a\n  b\nc");
  EXPECT_EQ(Render("a {{- 1 -}} \n b{# gone #}\nc"), "a1bc");
  EXPECT_EQ(Render("{% raw %}{{ x }}{% endraw %}\n."), "{{ x }}.");
}

TEST(TemplateTest, SetInALoopStaysThereAndNamespacesDoNot) {
  EXPECT_EQ(Render("{% set x = 1 %}{% for i in range(3) %}{% set x = i %}{% endfor %}{{ x }}"), "1");
  EXPECT_EQ(Render("{% set n = namespace(x=1) %}{% for i in range(3) %}{% set n.x = i %}{% endfor %}{{ n.x }}"), "2");
}

TEST(TemplateTest, NamesThatAreSetLaterAreHiddenFromMacros) {
  const std::string source = "{% macro m() %}{{ x }}{% endmacro %}[{{ m() }}]{% set x = 'set' %}[{{ m() }}]";
  EXPECT_EQ(Render(source, R"({"x": "given"})"), "[][set]");
}

TEST(TemplateTest, StringsAreIndexedByCharacter) {
  EXPECT_EQ(Render("{{ s[1] }}{{ s[-1] }}{{ s[::-1] }}{{ s|length }}", R"({"s": "aé世😀"})"), "é😀😀世éa4");
}

TEST(TemplateTest, UndefinedPrintsNothingButMayNotBeUsed) {
  EXPECT_EQ(Render("[{{ a }}{{ d.a }}]", R"({"d": {}})"), "[]");
  EXPECT_EQ(Error("{{ a.b }}"), "line 1: 'a' is undefined");
  EXPECT_EQ(Error("\n\n{{ d.a + 'x' }}", R"({"d": {}})"), "line 3: 'dict object' has no attribute 'a'");
  EXPECT_EQ(Error("{{ a() }}"), "line 1: 'a' is undefined");
}

TEST(TemplateTest, ElseOfALoopRunsUnlessARoundReachedItsEnd) {
  EXPECT_EQ(Render("{% for i in [1] %}{% else %}E{% endfor %}"), "");
  EXPECT_EQ(Render("{% for i in [1] %}{% continue %}{% else %}E{% endfor %}"), "E");
}

TEST(TemplateTest, FiltersThatAnswerOneByOneAnswerOnce) {
  EXPECT_EQ(Render("{% set g = [1, 2]|map('string') %}{{ g|list }}{{ g|list }}"), "['1', '2'][]");
}

TEST(TemplateTest, ListsAndDictsCannotBeChanged) {
  EXPECT_THAT(Error("{{ l.append(1) }}", R"({"l": []})"), HasSubstr("'append' of 'list' object is unsafe"));
  EXPECT_THAT(Error("{{ d.update({}) }}", R"({"d": {}})"), HasSubstr("unsafe"));
  EXPECT_EQ(Render("{{ l.append is defined }}", R"({"l": []})"), "False");
}

TEST(TemplateTest, JsonKeepsTheOrderOfKeys) {
  const std::string json = R"({"d": {"b": 1, "a": {"z": [1.0, null, true]}, "é": "<x>"}})";
  EXPECT_EQ(Render("{{ d|tojson }}", json), R"({"b": 1, "a": {"z": [1.0, null, true]}, "é": "<x>"})");
  EXPECT_EQ(Render("{{ d|tojson(indent=1, ensure_ascii=true) }}", R"({"d": {"é": []}})"), "{\n \"\\u00e9\": []\n}");
}

TEST(TemplateTest, RaiseExceptionIsTheTemplatesOwnError) {
  const auto text = TryRender("\n{{ raise_exception('roles must ' ~ 'alternate') }}");
  EXPECT_EQ(text.status().code(), absl::StatusCode::kAborted);
  EXPECT_EQ(text.status().message(), "roles must alternate");
}

TEST(TemplateTest, GenerationBlocksAreTheirBody) {
  EXPECT_EQ(Render("{% generation %}\n{{ x }}{% set x = 2 %}{% endgeneration %}{{ x }}", R"({"x": 1})"), "11");
}

struct BadTemplate {
  const char* source;
  const char* message;
};

class BadTemplateTest : public ::testing::TestWithParam<BadTemplate> {};

TEST_P(BadTemplateTest, IsRefusedWithItsLine) {
  const auto parsed = Template::Parse(GetParam().source);
  EXPECT_EQ(parsed.status().code(), absl::StatusCode::kInvalidArgument) << GetParam().source;
  EXPECT_THAT(std::string(parsed.status().message()), StartsWith(GetParam().message));
}

INSTANTIATE_TEST_SUITE_P(
    Syntax, BadTemplateTest,
    ::testing::Values(
        BadTemplate{"{% if x %}\n", "line 1: the template ends before 'endif'"},
        BadTemplate{"\n{% endif %}", "line 2: unknown or unsupported statement 'endif'"},
        BadTemplate{"{{ x", "line 1: expected the end of the expression, got the end of the template"},
        BadTemplate{"{{ 'x }}", "line 1: unexpected char"}, BadTemplate{"{# x", "line 1: Missing end of comment tag"},
        BadTemplate{"{% raw %}\n\n", "line 1: Missing end of raw directive"},
        BadTemplate{"{{ (1] }}", "line 1: unexpected ']', expected ')'"},
        BadTemplate{"{{ x|no_such }}", "line 1: no filter named 'no_such'"},
        BadTemplate{"{{ x is no_such }}", "line 1: no test named 'no_such'"},
        BadTemplate{"{% break %}", "line 1: break or continue outside of a loop"},
        BadTemplate{"{% include 'x' %}", "line 1: unknown or unsupported statement 'include'"},
        BadTemplate{"{% for loop in x %}{% endfor %}", "line 1: cannot assign to the special variable loop"},
        BadTemplate{"{% set true = 1 %}", "line 1: cannot assign to true"},
        BadTemplate{"{{ f(a=1, a=2) }}", "line 1: keyword argument repeated: a"},
        BadTemplate{"{{ 99999999999999999999 }}", "line 1: an integer leaves the range of 64 bits"},
        BadTemplate{"{{ '\\u12' }}", "line 1: truncated"}, BadTemplate{"{{ \x01 }}", "line 1: unexpected char '\\x01'"},
        BadTemplate{"\xff", "is not valid UTF-8 (byte 0)"}));

}  // namespace
}  // namespace switchyard::jinja
