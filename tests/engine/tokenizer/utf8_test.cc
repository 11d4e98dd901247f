#include "engine/tokenizer/utf8.h"

#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

namespace switchyard {
namespace {

TEST(Utf8Test, FindsTheFirstBadByte) {
  const std::vector<std::pair<std::string, size_t>> cases = {
      {"", std::string::npos},
      {std::string("\0a", 2), std::string::npos},
      {"aé中😀\xEF\xBF\xBF", std::string::npos},  // a noncharacter is a character
      {"12345678901234567\x80", 17},             // a continuation byte alone
      {"a\xC0\x80", 1},                          // overlong NUL
      {"a\xC1\xBF", 1},                          // overlong
      {"a\xE0\x9F\xBF", 1},                      // overlong
      {"a\xF0\x8F\xBF\xBF", 1},                  // overlong
      {"a\xED\xA0\x80", 1},                      // surrogate
      {"a\xF4\x90\x80\x80", 1},                  // above U+10FFFF
      {"a\xF5\x80\x80\x80", 1},
      {"ab\xE4\xB8", 2},  // cut off
      {"ab\xE4"
       "b",
       2},
      {"\xFF", 0},
  };
  for (const auto& [text, expected] : cases) EXPECT_EQ(FindInvalidUtf8(text), expected) << text;
}

TEST(Utf8Test, EveryCodePointReadsBackAsWritten) {
  for (char32_t c = 0; c <= 0x10FFFF; ++c) {
    if (c >= 0xD800 && c < 0xE000) continue;
    std::string text;
    AppendUtf8(c, &text);
    ASSERT_EQ(FindInvalidUtf8(text), std::string::npos) << static_cast<uint32_t>(c);
    ASSERT_EQ(Utf8Length(text[0]), text.size());
    size_t pos = 0;
    ASSERT_EQ(NextCodePoint(text, &pos), c);
    ASSERT_EQ(pos, text.size());
  }
}

TEST(LossyUtf8Test, ReplacesEachMaximalIllFormedPartOnce) {
  // The example of the Unicode standard, table 3-8, and a few more.
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"\xC0\xAF\xE0\x80\xBF\xF0\x81\x82\x41", "\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\uFFFDA"},
      {"\xE1\x80\xE2\xF0\x91\x92\xF1\xBF\x41", "\uFFFD\uFFFD\uFFFD\uFFFDA"},
      {"\xED\xA0\x80", "\uFFFD\uFFFD\uFFFD"},
      {"\xF0\x9F\x98", "\uFFFD"},
      {"é\x80z", "é\uFFFDz"},
  };
  for (const auto& [bytes, expected] : cases) {
    LossyUtf8 at_once;
    std::string text;
    at_once.Push(bytes, &text);
    at_once.Flush(&text);
    EXPECT_EQ(text, expected);

    LossyUtf8 byte_by_byte;
    std::string joined;
    for (const char byte : bytes) byte_by_byte.Push(std::string(1, byte), &joined);
    byte_by_byte.Flush(&joined);
    EXPECT_EQ(joined, expected);
  }
}

}  // namespace
}  // namespace switchyard
