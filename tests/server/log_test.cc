#include "server/log.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <chrono>
#include <limits>
#include <nlohmann/json.hpp>

namespace switchyard {
namespace {

class LogTest : public testing::Test {
 protected:
  LogTest() {
    EXPECT_EQ(pipe(pipe_), 0);
    SetLogFileDescriptor(pipe_[1]);
  }
  ~LogTest() override {
    SetLogFileDescriptor(2);
    SetLogLevel(LogLevel::kInfo);
    close(pipe_[0]);
    close(pipe_[1]);
  }

  std::string ReadAll() {
    fcntl(pipe_[0], F_SETFL, O_NONBLOCK);
    std::string text(1 << 17, '\0');
    const ssize_t size = read(pipe_[0], text.data(), text.size());
    text.resize(size > 0 ? static_cast<size_t>(size) : 0);
    return text;
  }

  int pipe_[2];
};

TEST_F(LogTest, LinesAreJson) {
  Log(LogLevel::kInfo, "listening", {{"port", 50051}, {"host", "::"}, {"ready", true}, {"seconds", 0.25}});
  const auto line = nlohmann::json::parse(ReadAll());
  EXPECT_EQ(line["level"], "info");
  EXPECT_EQ(line["event"], "listening");
  EXPECT_EQ(line["port"], 50051);
  EXPECT_EQ(line["host"], "::");
  EXPECT_EQ(line["ready"], true);
  EXPECT_EQ(line["seconds"], 0.25);
}

TEST_F(LogTest, HostileTextStaysInItsLine) {
  Log(LogLevel::kInfo, "x", {{"name", std::string("a\r\n{\"level\":\"error\"}\x1b[31m\0\xff\"\\", 30)}});
  const std::string text = ReadAll();
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 1);
  for (char c : text) EXPECT_TRUE(c == '\n' || (c >= 0x20 && c < 0x7f));
  EXPECT_TRUE(nlohmann::json::accept(text));
}

TEST_F(LogTest, LongTextIsCutAndStaysJson) {
  const std::string huge(1 << 20, '\x01');
  Log(LogLevel::kInfo, "x", {{"a", huge}, {"b", huge}, {"c", huge}});
  const std::string text = ReadAll();
  EXPECT_LE(text.size(), 4096u);
  EXPECT_TRUE(nlohmann::json::accept(text));
}

TEST_F(LogTest, NumbersThatJsonLacksAreNull) {
  Log(LogLevel::kInfo, "x", {{"a", std::numeric_limits<double>::infinity()}});
  EXPECT_TRUE(nlohmann::json::parse(ReadAll())["a"].is_null());
}

TEST_F(LogTest, LevelsBelowTheLeastAreSilent) {
  SetLogLevel(LogLevel::kWarning);
  Log(LogLevel::kInfo, "quiet", {});
  EXPECT_EQ(ReadAll(), "");
}

TEST_F(LogTest, FullPipeDropsAndCountsInsteadOfBlocking) {
  const uint64_t before = DroppedLogLines();
  const auto start = std::chrono::steady_clock::now();
  for (int i = 0; i < 10'000; ++i) Log(LogLevel::kInfo, "flood", {{"number", i}});
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(10));
  EXPECT_GT(DroppedLogLines(), before + 5'000);
  for (const std::string text = ReadAll(); char c : text) EXPECT_NE(c, '\0');
}

TEST_F(LogTest, FullDiskDropsAndCounts) {
  const int full = open("/dev/full", O_WRONLY);
  ASSERT_GE(full, 0);
  SetLogFileDescriptor(full);
  const uint64_t before = DroppedLogLines();
  Log(LogLevel::kInfo, "x", {});
  EXPECT_EQ(DroppedLogLines(), before + 1);
  SetLogFileDescriptor(pipe_[1]);
  close(full);
}

}  // namespace
}  // namespace switchyard
