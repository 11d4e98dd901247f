#include "server/frontend/stop_matcher.h"

#include <gtest/gtest.h>

#include <ctime>
#include <random>

namespace switchyard {
namespace {

struct Result {
  std::string text;
  std::string matched;
  bool operator==(const Result&) const = default;
};

Result Match(const std::vector<std::string>& stops, bool include_stop, const std::vector<std::string>& pieces) {
  StopMatcher matcher(stops, include_stop);
  Result result;
  for (const std::string& piece : pieces) {
    if (matcher.Push(piece, &result.text)) return {result.text, matcher.matched()};
  }
  matcher.Flush(&result.text);
  return result;
}

// The rule, spelled out: the match that ends first, and among these the longest.
Result Expected(const std::vector<std::string>& stops, bool include_stop, const std::string& text) {
  for (size_t end = 1; end <= text.size(); ++end) {
    std::string longest;
    for (const std::string& stop : stops) {
      if (stop.size() <= end && text.compare(end - stop.size(), stop.size(), stop) == 0 &&
          stop.size() > longest.size()) {
        longest = stop;
      }
    }
    if (!longest.empty()) return {text.substr(0, include_stop ? end : end - longest.size()), longest};
  }
  return {text, ""};
}

std::vector<std::string> SplitAtRandom(const std::string& text, std::mt19937* random) {
  std::vector<std::string> pieces;
  for (size_t at = 0; at < text.size();) {
    const size_t length = (*random)() % 4;  // empty pieces too
    pieces.push_back(text.substr(at, length));
    at += length;
  }
  return pieces;
}

TEST(StopMatcherTest, WithoutStopsTextPassesAtOnce) {
  StopMatcher matcher({}, false);
  std::string out;
  EXPECT_FALSE(matcher.Push("abc", &out));
  EXPECT_EQ(out, "abc");
}

TEST(StopMatcherTest, HoldsBackOnlyWhatMayBecomeAStopString) {
  StopMatcher matcher({"\n\n", "END"}, false);
  std::string out;
  EXPECT_FALSE(matcher.Push("line\n", &out));
  EXPECT_EQ(out, "line");
  EXPECT_FALSE(matcher.Push("next E", &out));
  EXPECT_EQ(out, "line\nnext ");
  EXPECT_TRUE(matcher.Push("ND more", &out));
  EXPECT_EQ(out, "line\nnext ");
  EXPECT_EQ(matcher.matched(), "END");
}

TEST(StopMatcherTest, FlushGivesBackWhatWasHeld) {
  EXPECT_EQ(Match({"END"}, false, {"the E", "N"}), (Result{"the EN", ""}));
}

TEST(StopMatcherTest, FindsOverlappingBeginnings) {
  EXPECT_EQ(Match({"aab"}, false, {"a", "a", "a", "b"}), (Result{"a", "aab"}));
  EXPECT_EQ(Match({"abcabd"}, true, {"abcabcabd!"}), (Result{"abcabcabd", "abcabd"}));
}

TEST(StopMatcherTest, LongestOfThoseThatEndTogetherWins) {
  EXPECT_EQ(Match({"b", "ab", "xab"}, false, {"zzab"}), (Result{"zz", "ab"}));
}

TEST(StopMatcherTest, SplitCharactersAreFoundByteByByte) {
  EXPECT_EQ(Match({"\xE2\x82\xAC"}, false, {"5 \xE2", "\x82", "\xAC!"}), (Result{"5 ", "\xE2\x82\xAC"}));
}

TEST(StopMatcherTest, AnySplitGivesTheRulesResult) {
  std::mt19937 random(7);
  for (int round = 0; round < 20'000; ++round) {
    const auto random_text = [&](size_t max_length) {
      std::string text;
      for (size_t i = 1 + random() % max_length; i > 0; --i) text += static_cast<char>('a' + random() % 2);
      return text;
    };
    std::vector<std::string> stops;
    for (size_t i = 1 + random() % 4; i > 0; --i) stops.push_back(random_text(5));
    const std::string text = random_text(20);
    const bool include_stop = random() % 2 == 0;
    const Result expected = Expected(stops, include_stop, text);
    ASSERT_EQ(Match(stops, include_stop, {text}), expected) << text;
    ASSERT_EQ(Match(stops, include_stop, SplitAtRandom(text, &random)), expected) << text;
  }
}

// 16 stop strings of 256 bytes that all nearly match everywhere. A quadratic matcher needs minutes.
TEST(StopMatcherTest, AdversarialTextStaysLinear) {
  std::vector<std::string> stops;
  for (int i = 0; i < 16; ++i) stops.push_back(std::string(240 + static_cast<size_t>(i), 'a') + "b");
  StopMatcher matcher(stops, false);
  std::string out;
  const std::clock_t start = std::clock();  // of the process: the machine may be busy with other tests
  for (int i = 0; i < 10'000; ++i) ASSERT_FALSE(matcher.Push("aaaaaaaa", &out));
  EXPECT_LT(static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC, 5.0);
  EXPECT_EQ(out.size() + 255, 80'000u);
}

}  // namespace
}  // namespace switchyard
