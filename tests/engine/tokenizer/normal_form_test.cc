#include "engine/tokenizer/normal_form.h"

#include <gtest/gtest.h>

#include <ctime>
#include <string>

namespace switchyard {
namespace {

constexpr NormalForm kNfc{.compose = true, .compatible = false};
constexpr NormalForm kNfd{.compose = false, .compatible = false};
constexpr NormalForm kNfkc{.compose = true, .compatible = true};
constexpr NormalForm kNfkd{.compose = false, .compatible = true};

TEST(NormalFormTest, FourForms) {
  EXPECT_EQ(Normalize("e\u0301", kNfc), "\u00e9");
  EXPECT_EQ(Normalize("\u00e9", kNfd), "e\u0301");
  EXPECT_EQ(Normalize("\uFB01\u00b2", kNfkc), "fi2");
  EXPECT_EQ(Normalize("\u1E9B\u0323", kNfkd), "s\u0323\u0307");
  EXPECT_EQ(Normalize("\u1112\u1161\u11ab", kNfc), "\ud55c");
  EXPECT_EQ(Normalize("\u212B", kNfc), "\u00c5");  // a singleton composes to another character
}

TEST(NormalFormTest, MarksAreSortedByClassAndStableWithin) {
  EXPECT_EQ(Normalize("a\u0301\u0323\u0300", kNfd), "a\u0323\u0301\u0300");
}

TEST(NormalFormTest, LeavesAloneWhatUnicodeNineDidNotHave) {
  EXPECT_EQ(Normalize("\u32FF", kNfkc), "\u32FF");               // the square era name of 2019
  EXPECT_EQ(Normalize("a\u0301\u1DFA", kNfd), "a\u0301\u1DFA");  // a mark of Unicode 14 does not move
}

TEST(NormalFormTest, AMegabyteOfMarksTakesNoTime) {
  std::string marks = "a";
  for (int i = 0; i < 250'000; ++i) marks += i % 2 == 0 ? "\u0301" : "\u0323";
  const std::clock_t start = std::clock();
  const std::string sorted = Normalize(marks, kNfd);
  EXPECT_EQ(sorted.size(), marks.size());
  EXPECT_EQ(sorted.substr(1, 4), "\u0323\u0323");
  EXPECT_LT(static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC, 10.0);
}

}  // namespace
}  // namespace switchyard
