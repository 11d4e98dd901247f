#include "server/access/credential_files.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <thread>

#include "tests/support/temp_folder.h"

namespace switchyard {
namespace {

using ::testing::HasSubstr;

constexpr char kHashOfTest[] = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
constexpr std::chrono::seconds kPatience{20};  // for a thread that looks once a second

class CredentialFilesTest : public ::testing::Test {
 protected:
  CredentialFilesTest() { options_.api_key_file = folder_.PathOf("tokens"); }

  static void WaitFor(const std::atomic<int>& count) {
    const auto end = std::chrono::steady_clock::now() + kPatience;
    while (count == 0 && std::chrono::steady_clock::now() < end) {
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
  }

  testing::TempFolder folder_;
  AccessOptions options_;
};

TEST_F(CredentialFilesTest, WithoutFilesNothingIsAskedFor) {
  const auto files = CredentialFiles::Open(AccessOptions());
  ASSERT_TRUE(files.ok());
  EXPECT_EQ((*files)->identity(), nullptr);
  EXPECT_EQ((*files)->tokens(), nullptr);
  (*files)->Watch([](CredentialKind, const absl::Status&) { FAIL() << "there is nothing that could change"; });
}

TEST_F(CredentialFilesTest, RefusesAtTheStartWhatItWouldKeepOutLater) {
  const auto refusal = [this] { return std::string(CredentialFiles::Open(options_).status().message()); };
  EXPECT_THAT(refusal(), HasSubstr("--api-key-file " + options_.api_key_file + " cannot be read"));
  folder_.Write("tokens", "# nobody yet\n");
  EXPECT_THAT(refusal(), HasSubstr("has no token"));
  folder_.Write("tokens", "secret");
  EXPECT_THAT(refusal(), AllOf(HasSubstr("--api-key-file: line 1"), Not(HasSubstr("secret"))));
  folder_.Write("tokens", kHashOfTest);
  options_.ssl_certfile = options_.ssl_keyfile = folder_.PathOf("tokens");
  EXPECT_THAT(refusal(), HasSubstr("--ssl-certfile has no PEM certificate"));
}

TEST_F(CredentialFilesTest, TakesAndRefusesChangesWhileOthersAsk) {
  folder_.Write("tokens", kHashOfTest);
  const auto files = *CredentialFiles::Open(options_);
  std::atomic<int> taken{0}, refused{0};
  files->Watch([&](CredentialKind kind, const absl::Status& result) {
    EXPECT_EQ(kind, CredentialKind::kTokens);
    ++(result.ok() ? taken : refused);
  });
  std::atomic<bool> stop{false};
  std::thread asking([&] {
    while (!stop) files->tokens()->Admits({"Bearer test"});
  });
  EXPECT_TRUE(files->tokens()->Admits({"Bearer test"}));
  folder_.Write("tokens", "no hash");
  WaitFor(refused);
  EXPECT_TRUE(files->tokens()->Admits({"Bearer test"})) << "a mistake changes nothing";
  folder_.Write("tokens", "");
  WaitFor(taken);
  EXPECT_EQ(taken, 1);
  EXPECT_EQ(refused, 1);
  EXPECT_FALSE(files->tokens()->Admits({"Bearer test"})) << "nobody is left in the file";
  stop = true;
  asking.join();
}

}  // namespace
}  // namespace switchyard
