#include "engine/tokenizer/regex.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <ctime>
#include <string>
#include <vector>

namespace switchyard {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::vector<std::string> Matches(const std::string& pattern, const std::string& text) {
  auto regex = Regex::Compile(pattern);
  EXPECT_TRUE(regex.ok()) << pattern << ": " << regex.status();
  if (!regex.ok()) return {};
  std::vector<Span> spans;
  EXPECT_TRUE(regex->FindAll(text, &spans).ok());
  std::vector<std::string> matches;
  for (const Span& span : spans) matches.push_back(text.substr(span.begin, span.end - span.begin));
  return matches;
}

TEST(RegexTest, SpacesAreTheUnicodeProperty) {
  EXPECT_THAT(Matches(R"(\s)", "a\u180Eb\u0085c\u3000d\u200B"), ElementsAre("\u0085", "\u3000"));
}

TEST(RegexTest, WordsIncludeMarks) { EXPECT_THAT(Matches(R"(\w+)", "e\u0301t_1-x"), ElementsAre("e\u0301t_1", "x")); }

TEST(RegexTest, SmallHIsAHexDigit) { EXPECT_THAT(Matches(R"(\h+)", "xBEEFy 12"), ElementsAre("BEEF", "12")); }

TEST(RegexTest, ScriptNamesMeanTheScriptAlone) {
  // U+3006 has the script Han; U+30FC only lists Han nowhere, and U+3001 has it as an extension.
  EXPECT_THAT(Matches(R"(\p{Han}+)", "漢字、漢"), ElementsAre("漢字", "漢"));
}

TEST(RegexTest, ClassesIntersectAndNest) {
  EXPECT_THAT(Matches(R"([a-z&&[^aeiou]]+)", "hello"), ElementsAre("h", "ll"));
  EXPECT_THAT(Matches(R"([^a-z&&[^aeiou]]+)", "hello 1"), ElementsAre("e", "o 1"));
  EXPECT_THAT(Matches(R"([[a-c][x-z]_]+)", "abqxy_"), ElementsAre("ab", "xy_"));
  EXPECT_THAT(Matches(R"([\p{Lu}\p{M}&&[^\p{Han}]]+)", "AB中C"), ElementsAre("AB", "C"));
  EXPECT_THAT(Matches(R"([]a]+)", "]a[b"), ElementsAre("]a"));
  EXPECT_THAT(Matches(R"([a\-z]+)", "a-z m"), ElementsAre("a-z"));
}

TEST(RegexTest, PlusBehindAnIntervalRepeatsIt) {
  EXPECT_THAT(Matches(R"(a{2}+b)", "aaaab"), ElementsAre("aaaab"));     // (?:a{2})+
  EXPECT_THAT(Matches(R"(a++a|a)", "aa"), ElementsAre("a", "a"));       // possessive
  EXPECT_THAT(Matches(R"(x{2}?y)", "y xxy"), ElementsAre("y", "xxy"));  // (?:x{2})?
  EXPECT_THAT(Matches(R"(x{,2}y)", "xxxy"), ElementsAre("xxy"));
  EXPECT_THAT(Matches(R"(a{x})", "a{x}"), ElementsAre("a{x}"));
}

TEST(RegexTest, OptionsReachToTheEndOfTheGroup) {
  EXPECT_THAT(Matches(R"(a(?i)b|c)", "aB aC c"), ElementsAre("aB", "aC"));  // a(?i:b|c)
  EXPECT_THAT(Matches(R"((?m:a.b))", "a\nb"), ElementsAre("a\nb"));
  EXPECT_THAT(Matches(R"((?i:'s|'t))", "'S 't '\u017F"), ElementsAre("'S", "'t", "'\u017F"));
}

TEST(RegexTest, DollarAndCaretAreForLines) {
  EXPECT_THAT(Matches(R"(\s+$)", "a  \nb \n c  "), ElementsAre("  ", " ", "  "));
  EXPECT_THAT(Matches(R"(^\w)", "a b\nc"), ElementsAre("a", "c"));
}

TEST(RegexTest, EmptyMatchesBehindAMatchAreSkipped) {
  EXPECT_THAT(Matches("e*", "aee"), ElementsAre("", "ee"));
  EXPECT_THAT(Matches("", "é"), ElementsAre("", ""));
}

TEST(RegexTest, RefusesWhatItDoesNotKnow) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"(", "unclosed group"},
      {")", "unmatched ')'"},
      {"a**b[", "unclosed class"},
      {"*a", "nothing to repeat"},
      {R"(\)", "backslash at the end"},
      {R"(\p{Klingon})", "unknown property"},
      {R"(\k<a>)", "unsupported escape \\k"},
      {"(?(1)a|b)", "unsupported group"},
      {"(?x: a)", "unsupported group"},
      {"[z-a]", "empty range"},
      {"[[:vowel:]]", "unknown class [:vowel:]"},
      {R"(\12)", "back-reference above 9"},
      {R"(\xff)", "bytes, not characters"},
      {R"(\u{d800})", "hexadecimal digits missing"},
      {"a{1001}", "above 1000"},
      {"(?<=a+)b", "lookbehind"},
      {"[a&&]", "empty side of &&"},
      {std::string(200, '('), "nested too deep"},
      {std::string(20, '['), "nested too deep"},
      {std::string(20000, 'a'), "20000 bytes"},
      {R"(\C)", "unsupported escape \\C"},
  };
  for (const auto& [pattern, reason] : cases) {
    const auto regex = Regex::Compile(pattern);
    ASSERT_FALSE(regex.ok()) << pattern;
    EXPECT_EQ(regex.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(regex.status().message()), HasSubstr(reason)) << pattern;
  }
}

TEST(RegexTest, EndlessBacktrackingGivesUp) {
  auto regex = Regex::Compile("(?:a+)+[bc]");
  ASSERT_TRUE(regex.ok());
  std::vector<Span> spans;
  const absl::Status status = regex->FindAll(std::string(5000, 'a'), &spans);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("gave up"));
}

// Without the guard in oniguruma.cc this takes 10^12 steps.
TEST(RegexTest, SpacesBeforeTheEndOfALineAreLinear) {
  const std::clock_t start = std::clock();
  EXPECT_TRUE(Matches(R"(\s+$)", std::string(1'000'000, ' ') + "1").empty());
  EXPECT_THAT(Matches(R"(\s+$)", std::string(10, ' ') + "\n x \n"), ElementsAre(std::string(10, ' '), " \n"));
  EXPECT_LT(static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC, 10.0);
}

}  // namespace
}  // namespace switchyard
