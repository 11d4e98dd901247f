#include "engine/base/json.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <ostream>
#include <string>

namespace switchyard {
namespace {

using ::testing::HasSubstr;

std::string Repeat(const std::string& text, int count) {
  std::string out;
  for (int i = 0; i < count; ++i) out += text;
  return out;
}

TEST(JsonTest, ReadsEveryKindOfValue) {
  const std::string text = R"( {"a": [1, -2, 3.5, 1e3, true, false, null, "\u00e9\n"], "b": {"c": {}}, "": []} )";
  const auto document = ParseJson(text, {}, "file");
  ASSERT_TRUE(document.ok()) << document.status();
  EXPECT_EQ(*document, nlohmann::json::parse(text));
}

TEST(JsonTest, KeepsBigIntegers) {
  const auto document = ParseJson("[18446744073709551615, -9223372036854775808]", {}, "file");
  ASSERT_TRUE(document.ok());
  EXPECT_EQ((*document)[0].get<uint64_t>(), UINT64_MAX);
  EXPECT_EQ((*document)[1].get<int64_t>(), INT64_MIN);
}

struct BadText {
  const char* name;
  std::string text;
  std::string message;
};

void PrintTo(const BadText& text, std::ostream* out) { *out << text.name; }

class BadJsonTest : public ::testing::TestWithParam<BadText> {};

TEST_P(BadJsonTest, IsRefused) {
  const JsonLimits limits = {.max_bytes = 2 << 20, .max_depth = 8, .max_values = 1000};
  const auto document = ParseJson(GetParam().text, limits, "file.json");
  ASSERT_FALSE(document.ok());
  EXPECT_EQ(document.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(document.status().message()), HasSubstr("file.json: " + GetParam().message));
  EXPECT_LT(document.status().message().size(), 300u);
}

INSTANTIATE_TEST_SUITE_P(
    Texts, BadJsonTest,
    ::testing::Values(
        BadText{"Empty", "", "not valid JSON"}, BadText{"OnlySpace", "  \n", "not valid JSON"},
        BadText{"Unfinished", R"({"a": 1)", "not valid JSON at byte"},
        BadText{"TrailingText", "{} x", "not valid JSON at byte 4"}, BadText{"TwoDocuments", "{} {}", "not valid JSON"},
        BadText{"TrailingComma", "[1,]", "not valid JSON"}, BadText{"Comment", "{} // x", "not valid JSON"},
        BadText{"SingleQuotes", "{'a': 1}", "not valid JSON"}, BadText{"NaN", "[NaN]", "not valid JSON"},
        BadText{"Infinity", "[Infinity]", "not valid JSON"}, BadText{"LeadingZero", "[01]", "not valid JSON"},
        BadText{"Plus", "[+1]", "not valid JSON"},
        BadText{"ByteOrderMark", "\xef\xbb\xbf{}", "begins with a byte order mark"},
        BadText{"TrailingNul", std::string("{}\0", 3), "NUL at byte 2"},
        BadText{"TextBehindNul", std::string("{}\0{}", 5), "NUL at byte 2"},
        BadText{"Utf16", std::string("{\0}\0", 4), "NUL at byte 1"},
        BadText{"InvalidUtf8", "[\"\xff\"]", "not valid JSON"},
        BadText{"OverlongUtf8", "[\"\xc0\xaf\"]", "not valid JSON"},
        BadText{"SurrogateUtf8", "[\"\xed\xa0\x80\"]", "not valid JSON"},
        BadText{"LoneSurrogateEscape", "[\"\\ud800\"]", "not valid JSON"},
        BadText{"RawControlCharacter", "[\"\n\"]", "not valid JSON"},
        BadText{"DuplicateKey", R"({"a": 1, "b": 2, "a": 1})", "duplicate key \"a\""},
        BadText{"DuplicateKeyInside", R"([{"x": {"a": 1, "a": 1}}])", "duplicate key \"a\""},
        BadText{"DuplicateKeyByEscape", R"({"a": 1, "\u0061": 2})", "duplicate key \"a\""},
        BadText{"DuplicateKeyAfterObject", R"({"a": {"a": 1}, "b": [{"a": 1}], "a": 0})", "duplicate key \"a\""},
        BadText{"NumberTooLarge", "[1e400]", "number out of range"},
        BadText{"NumberTooSmall", "[-1e400]", "number out of range"},
        BadText{"MegabyteOfDigits", "[" + std::string(1 << 20, '9') + "]", "number out of range"},
        BadText{"TooManyBytes", "[\"" + std::string(2 << 20, 'x') + "\"]", "has 2097156 bytes; at most 2097152"},
        BadText{"DeepArrays", Repeat("[", 9) + Repeat("]", 9), "nested deeper than 8 levels"},
        BadText{"MegabyteOfBrackets", std::string(1 << 20, '['), "nested deeper than 8 levels"},
        BadText{"DeepObjects", Repeat("{\"a\":", 9) + "1" + Repeat("}", 9), "nested deeper than 8 levels"},
        BadText{"TooManyValues", "[" + Repeat("0,", 1000) + "0]", "more than 1000 values"}),
    [](const auto& info) { return info.param.name; });

TEST(JsonTest, AcceptsUpToItsLimits) {
  const JsonLimits limits = {.max_bytes = 17, .max_depth = 8, .max_values = 9};
  EXPECT_TRUE(ParseJson(Repeat("[", 8) + "0" + Repeat("]", 8), limits, "file").ok());
}

TEST(JsonTest, EscapesWhatMessagesShow) {
  EXPECT_EQ(Printable("a\n\xff"
                      "b"),
            "a??b");
  EXPECT_EQ(Printable("abcdef", 3), "abc...");
}

}  // namespace
}  // namespace switchyard
