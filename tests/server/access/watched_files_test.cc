#include "server/access/watched_files.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>

#include "tests/support/temp_folder.h"

namespace switchyard {
namespace {

using ::testing::HasSubstr;

// The value is the contents joined; "bad" anywhere is refused.
absl::StatusOr<std::string> Join(const std::vector<std::string>& texts) {
  std::string all;
  for (const std::string& text : texts) all += text;
  if (all.find("bad") != std::string::npos) return absl::InvalidArgumentError("it is bad");
  return all;
}

class WatchedFilesTest : public ::testing::Test {
 protected:
  WatchedFilesTest() {
    folder_.Write("a", "1");
    folder_.Write("b", "2");
  }

  testing::TempFolder folder_;
  WatchedFiles<std::string> files_{{{"--a", folder_.PathOf("a")}, {"--b", folder_.PathOf("b")}}, &Join};
};

TEST_F(WatchedFilesTest, OpensAtOnceAndIsSilentWhileNothingChanges) {
  ASSERT_TRUE(files_.Open().ok());
  EXPECT_EQ(*files_.current(), "12");
  for (int i = 0; i < 3; ++i) EXPECT_FALSE(files_.Look().has_value());
}

TEST_F(WatchedFilesTest, TakesAChangeThatTwoLooksSaw) {
  ASSERT_TRUE(files_.Open().ok());
  const auto before = files_.current();
  folder_.Write("a", "3");
  EXPECT_FALSE(files_.Look().has_value()) << "it may still be being written";
  folder_.Write("b", "4");
  EXPECT_FALSE(files_.Look().has_value()) << "and so it was";
  EXPECT_EQ(*files_.current(), "12");
  EXPECT_TRUE(files_.Look()->ok());
  EXPECT_EQ(*files_.current(), "34");
  EXPECT_EQ(*before, "12") << "who holds the old value keeps it";
  EXPECT_FALSE(files_.Look().has_value());
}

TEST_F(WatchedFilesTest, KeepsTheOldValueAndReportsABadChangeOnce) {
  ASSERT_TRUE(files_.Open().ok());
  folder_.Write("a", "bad");
  EXPECT_FALSE(files_.Look().has_value());
  EXPECT_EQ(files_.Look()->message(), "it is bad");
  for (int i = 0; i < 3; ++i) EXPECT_FALSE(files_.Look().has_value());
  EXPECT_EQ(*files_.current(), "12");

  folder_.Write("a", "bad too");
  EXPECT_FALSE(files_.Look().has_value());
  EXPECT_EQ(files_.Look()->message(), "it is bad") << "another change is another report";

  folder_.Write("a", "1");
  EXPECT_FALSE(files_.Look().has_value());
  EXPECT_FALSE(files_.Look().has_value()) << "what is in use already is no news";

  folder_.Write("a", "bad");
  files_.Look();
  EXPECT_FALSE(files_.Look()->ok()) << "the same mistake made again is";
}

TEST_F(WatchedFilesTest, ReportsFilesThatAreGoneAndTakesThemWhenTheyAreBack) {
  ASSERT_TRUE(files_.Open().ok());
  std::filesystem::remove(folder_.PathOf("b"));
  files_.Look();
  EXPECT_THAT(std::string(files_.Look()->message()), HasSubstr("--b " + folder_.PathOf("b") + " cannot be read"));
  EXPECT_EQ(*files_.current(), "12");
  folder_.Write("b", "5");
  files_.Look();
  EXPECT_TRUE(files_.Look()->ok());
  EXPECT_EQ(*files_.current(), "15");
}

TEST_F(WatchedFilesTest, FollowsLinksThatAreSwitched) {
  folder_.Write("v1/a", "first");
  folder_.Write("v2/a", "second");
  folder_.Link("now", "v1");
  WatchedFiles<std::string> linked({{"--a", folder_.PathOf("now/a")}}, &Join);
  ASSERT_TRUE(linked.Open().ok());
  folder_.Link("next", "v2");
  std::filesystem::rename(folder_.PathOf("next"), folder_.PathOf("now"));
  linked.Look();
  EXPECT_TRUE(linked.Look()->ok());
  EXPECT_EQ(*linked.current(), "second");
}

TEST_F(WatchedFilesTest, ReadsRegularFilesOfABoundedSizeOnly) {
  folder_.Write("large", std::string((1 << 20) + 1, 'x'));
  ASSERT_EQ(mkfifo(folder_.PathOf("fifo").c_str(), 0600), 0);
  EXPECT_THAT(ReadFiles({{"--x", folder_.PathOf("large")}}).problem, HasSubstr("1048577 bytes; at most 1048576"));
  EXPECT_THAT(ReadFiles({{"--x", folder_.PathOf("fifo")}}).problem, HasSubstr("not a regular file"));
  EXPECT_THAT(ReadFiles({{"--x", folder_.path()}}).problem, HasSubstr("not a regular file"));
  EXPECT_THAT(ReadFiles({{"--x", "/dev/zero"}}).problem, HasSubstr("not a regular file"));
}

}  // namespace
}  // namespace switchyard
