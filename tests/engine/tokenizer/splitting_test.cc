#include "engine/tokenizer/splitting.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace switchyard {
namespace {

using ::testing::ElementsAre;

std::vector<std::string> SplitAtDashes(const std::string& text, SplitBehavior behavior, bool invert = false) {
  std::vector<Span> matches;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '-') matches.push_back({i, i + 1});
  }
  std::vector<Piece> pieces;
  SplitAt({text, 0, -1}, matches, behavior, invert, &pieces);
  std::vector<std::string> texts;
  for (const Piece& piece : pieces) texts.push_back(piece.text);
  return texts;
}

TEST(SplittingTest, EachBehavior) {
  const std::string text = "the-final--countdown";
  EXPECT_THAT(SplitAtDashes(text, SplitBehavior::kRemoved), ElementsAre("the", "final", "countdown"));
  EXPECT_THAT(SplitAtDashes(text, SplitBehavior::kIsolated), ElementsAre("the", "-", "final", "-", "-", "countdown"));
  EXPECT_THAT(SplitAtDashes(text, SplitBehavior::kMergedWithPrevious), ElementsAre("the-", "final-", "-", "countdown"));
  EXPECT_THAT(SplitAtDashes(text, SplitBehavior::kMergedWithNext), ElementsAre("the", "-final", "-", "-countdown"));
  EXPECT_THAT(SplitAtDashes(text, SplitBehavior::kContiguous), ElementsAre("the", "-", "final", "--", "countdown"));
}

TEST(SplittingTest, InvertRemovesWhatIsBetween) {
  EXPECT_THAT(SplitAtDashes("a-b--", SplitBehavior::kRemoved, /*invert=*/true), ElementsAre("-", "-", "-"));
}

TEST(SplittingTest, OnlyTheBeginningStemsFromTheStart) {
  std::vector<Piece> pieces;
  SplitAt({"ab-cd", 4, -1}, {{2, 3}}, SplitBehavior::kIsolated, false, &pieces);
  ASSERT_EQ(pieces.size(), 3u);
  EXPECT_EQ(pieces[0].at_start, 2u);
  EXPECT_EQ(pieces[1].at_start, 1u);
  EXPECT_EQ(pieces[2].at_start, 1u);
}

}  // namespace
}  // namespace switchyard
