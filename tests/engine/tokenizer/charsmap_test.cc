// The character map of "Precompiled": what keys give, and blobs that are wrong on purpose.
#include "engine/tokenizer/charsmap.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>
#include <string>

namespace switchyard {
namespace {

using ::testing::HasSubstr;

std::string Word(uint32_t value) {
  std::string bytes;
  for (int i = 0; i < 4; ++i) bytes.push_back(static_cast<char>(value >> (8 * i) & 0xff));
  return bytes;
}

constexpr uint32_t kEnd = 1u << 8;
constexpr uint32_t Offset(uint32_t offset) { return offset << 10; }

// Keys "a" -> `first`, "ab" -> `second`, as places of replacements: 256 units, children of the root at 0 ^ byte, those
// of "a" (unit 0x61) at 0x80 ^ byte, those of "ab" (unit 0xe2) at 0x40 ^ byte.
std::string Blob(uint32_t first, uint32_t second, const std::string& replacements) {
  std::string blob = Word(1024);
  for (uint32_t i = 0; i < 256; ++i) {
    uint32_t unit = 0x80000000u;
    if (i == 0) unit = 0;
    if (i == 0x61) unit = Offset(0x61 ^ 0x80) | kEnd | 'a';
    if (i == 0x80) unit = 0x80000000u | first;
    if (i == (0x80 ^ 'b')) unit = Offset((0x80 ^ 'b') ^ 0x40) | kEnd | 'b';
    if (i == 0x40) unit = 0x80000000u | second;
    blob += Word(unit);
  }
  return blob + replacements;
}

std::string Reason(const std::string& blob) {
  const auto map = Charsmap::Parse(blob);
  EXPECT_EQ(map.status().code(), absl::StatusCode::kInvalidArgument);
  return std::string(map.status().message());
}

TEST(CharsmapTest, TheShortestKeyCounts) {
  const auto map = Charsmap::Parse(Blob(0, 4, std::string("\xC3\xA9x\0yy\0", 7)));
  ASSERT_TRUE(map.ok()) << map.status();
  EXPECT_EQ(map->Find("a"), "\xC3\xA9x");
  EXPECT_EQ(map->Find("ab"), "\xC3\xA9x");
  EXPECT_EQ(map->Find("b"), std::nullopt);
  EXPECT_EQ(map->Find(""), std::nullopt);
  EXPECT_EQ(map->Find(std::string(1, '\0')), std::nullopt);
  EXPECT_EQ(map->Find("\xFF"), std::nullopt);
}

TEST(CharsmapTest, AReplacementMayBeEmptyOrEndWithTheBlob) {
  const auto map = Charsmap::Parse(Blob(2, 0, "xy"));
  ASSERT_TRUE(map.ok()) << map.status();
  EXPECT_EQ(map->Find("a"), "");
  const auto open_end = Charsmap::Parse(Blob(0, 0, "xy"));
  ASSERT_TRUE(open_end.ok()) << open_end.status();
  EXPECT_EQ(open_end->Find("a"), "xy");
}

TEST(CharsmapTest, RefusesBlobsThatLeadOutOfThemselves) {
  EXPECT_THAT(Reason(""), HasSubstr("has 0 bytes"));
  EXPECT_THAT(Reason("abc"), HasSubstr("has 3 bytes"));
  EXPECT_THAT(Reason(Word(0) + Word(0)), HasSubstr("array has 0 bytes"));
  EXPECT_THAT(Reason(Word(6) + std::string(8, 'x')), HasSubstr("array has 6 bytes"));
  EXPECT_THAT(Reason(Word(12) + std::string(8, 'x')), HasSubstr("array has 12 bytes"));
  EXPECT_THAT(Reason(Word(0xfffffffc) + std::string(8, 'x')), HasSubstr("array has 4294967292 bytes"));
  EXPECT_THAT(Reason(Word((4 << 20) + 4) + std::string((4 << 20) + 4, '\0')), HasSubstr("at most 4194304"));
  EXPECT_THAT(Reason(Blob(0, 0, "a\xFF")), HasSubstr("not valid UTF-8 (byte 1)"));
  EXPECT_THAT(Reason(Blob(3, 0, "xy")), HasSubstr("key at unit 97 that leads out of it"));
  EXPECT_THAT(Reason(Blob(0, 0x7fffffff, "xy")), HasSubstr("key at unit 226 that leads out of it"));
  EXPECT_THAT(Reason(Blob(1, 0, "\xC3\xA9")), HasSubstr("key at unit 97 that leads out of it"));
}

// Whatever the units say, reading stays inside and ends: also where children are their own ancestors.
TEST(CharsmapTest, RandomUnitsAreRefusedOrRead) {
  std::mt19937 random(5);
  int num_read = 0;
  for (int trial = 0; trial < 3000; ++trial) {
    std::string blob = Word(1024);
    for (int i = 0; i < 256; ++i) {
      const uint32_t ends = random() % 40 == 0 ? kEnd : 0;
      blob += Word(Offset(random() % 256) | ends | static_cast<uint32_t>(random() % 4 == 0 ? i : random() % 256));
    }
    const auto map = Charsmap::Parse(blob + std::string(size_t{1} << random() % 24, 'r'));
    if (!map.ok()) continue;
    ++num_read;
    for (int byte = 1; byte < 256; ++byte) {
      const auto found = map->Find(std::string(5, static_cast<char>(byte)));
      EXPECT_LE(found.value_or("").size(), size_t{1} << 24);
    }
  }
  EXPECT_GT(num_read, 0);
}

}  // namespace
}  // namespace switchyard
