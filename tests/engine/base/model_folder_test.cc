#include "engine/base/model_folder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <filesystem>
#include <functional>
#include <string>

#include "tests/support/temp_folder.h"

namespace switchyard {
namespace {

using ::testing::HasSubstr;
using testing::TempFolder;

absl::StatusOr<std::string> Read(const std::string& folder, const std::string& name, size_t max_bytes = 100) {
  auto opened = ModelFolder::Open(folder);
  if (!opened.ok()) return opened.status();
  return opened->ReadSmallFile(name, max_bytes);
}

void ExpectRefused(const absl::StatusOr<std::string>& result, absl::StatusCode code, const std::string& message) {
  EXPECT_EQ(result.status().code(), code) << result.status();
  EXPECT_THAT(std::string(result.status().message()), HasSubstr(message));
}

TEST(ModelFolderTest, ReadsAFile) {
  TempFolder folder;
  folder.Write("config.json", "{}");
  EXPECT_EQ(*Read(folder.path(), "config.json"), "{}");
  EXPECT_EQ(*Read(folder.path() + "/", "config.json"), "{}");
}

TEST(ModelFolderTest, NamesWhatIsMissing) {
  TempFolder folder;
  ExpectRefused(Read(folder.path(), "config.json"), absl::StatusCode::kNotFound,
                "config.json: not in the model folder");
  ExpectRefused(Read(folder.PathOf("none"), "x"), absl::StatusCode::kNotFound, "no model folder");
  folder.Write("file", "");
  ExpectRefused(Read(folder.PathOf("file"), "x"), absl::StatusCode::kInvalidArgument, "is not a folder");
}

TEST(ModelFolderTest, BoundsTheSize) {
  TempFolder folder;
  folder.Write("a", std::string(100, 'x'));
  folder.Write("b", std::string(101, 'x'));
  EXPECT_TRUE(Read(folder.path(), "a").ok());
  ExpectRefused(Read(folder.path(), "b"), absl::StatusCode::kInvalidArgument, "b: has 101 bytes; at most 100 are read");
}

TEST(ModelFolderTest, RefusesPaths) {
  TempFolder folder;
  folder.Write("inside/secret", "x");
  for (const std::string& name :
       {std::string("inside/secret"), std::string("/etc/passwd"), std::string(".."), std::string("."), std::string(),
        std::string("../x"), std::string("a\0b", 3), std::string("a\x1b[2J"), std::string("a\n"), std::string("a\x7f"),
        std::string(300, 'x')}) {
    ExpectRefused(Read(folder.path(), name), absl::StatusCode::kInvalidArgument, "has a path or a control character");
  }
}

TEST(ModelFolderTest, RefusesWhatIsNoRegularFileWithoutBlocking) {
  TempFolder folder;
  ASSERT_EQ(mkfifo(folder.PathOf("fifo").c_str(), 0600), 0);
  std::filesystem::create_directory(folder.PathOf("sub"));
  ExpectRefused(Read(folder.path(), "fifo"), absl::StatusCode::kInvalidArgument, "fifo: is not a regular file");
  ExpectRefused(Read(folder.path(), "sub"), absl::StatusCode::kInvalidArgument, "sub: is not a regular file");
}

TEST(ModelFolderTest, FollowsLinksInsideTheFolder) {
  TempFolder folder;
  folder.Write("data/real", "x");
  folder.Link("link", "data/real");
  EXPECT_EQ(*Read(folder.path(), "link"), "x");
}

TEST(ModelFolderTest, RefusesLinksThatLeadOut) {
  TempFolder outside;
  outside.Write("secret", "x");
  TempFolder folder;
  folder.Link("absolute", outside.PathOf("secret"));
  folder.Link("relative", "../" + std::filesystem::path(outside.path()).filename().string() + "/secret");
  folder.Link("device", "/dev/zero");
  folder.Link("process", "/proc/self/environ");
  for (const std::string name : {"absolute", "relative", "device", "process"}) {
    ExpectRefused(Read(folder.path(), name), absl::StatusCode::kInvalidArgument, name + ": is a link that leads out");
  }
  folder.Link("loop", "loop");
  ExpectRefused(Read(folder.path(), "loop"), absl::StatusCode::kInvalidArgument, "loop: cannot be opened");
  folder.Link("dangling", "nothing");
  ExpectRefused(Read(folder.path(), "dangling"), absl::StatusCode::kInvalidArgument, "dangling: is a link to nothing");
}

TEST(ModelFolderTest, FollowsTheLinksOfAHuggingFaceCache) {
  TempFolder cache;
  cache.Write("models--a--b/blobs/0123", "x");
  cache.Write("models--c--d/blobs/4567", "other model");
  const std::string snapshot = "models--a--b/snapshots/main";
  cache.Link(snapshot + "/config.json", "../../blobs/0123");
  cache.Link(snapshot + "/stolen.json", "../../../models--c--d/blobs/4567");
  cache.Write(snapshot + "/plain.json", "y");
  EXPECT_EQ(*Read(cache.PathOf(snapshot), "config.json"), "x");
  EXPECT_EQ(*Read(cache.PathOf(snapshot), "plain.json"), "y");
  ExpectRefused(Read(cache.PathOf(snapshot), "stolen.json"), absl::StatusCode::kInvalidArgument, "leads out");
}

TEST(ModelFolderTest, AFolderCalledSnapshotsIsNoCache) {
  TempFolder folder;
  folder.Write("project/secret", "x");
  folder.Write("project/snapshots/model/plain.json", "y");
  folder.Link("project/snapshots/model/stolen.json", "../../secret");
  EXPECT_EQ(*Read(folder.PathOf("project/snapshots/model"), "plain.json"), "y");
  ExpectRefused(Read(folder.PathOf("project/snapshots/model"), "stolen.json"), absl::StatusCode::kInvalidArgument,
                "leads out");
}

TEST(ModelFolderTest, TheFolderItselfMayBeALink) {
  TempFolder folder;
  folder.Write("real/a", "x");
  folder.Link("model", "real");
  EXPECT_EQ(*Read(folder.PathOf("model"), "a"), "x");
}

TEST(ModelFolderTest, AFileThatShrinksIsDataLoss) {
  TempFolder folder;
  folder.Write("a", "0123456789");
  auto opened = ModelFolder::Open(folder.path());
  ASSERT_TRUE(opened.ok());
  auto file = opened->OpenFile("a");
  ASSERT_TRUE(file.ok());
  std::filesystem::resize_file(folder.PathOf("a"), 4);
  char bytes[10];
  EXPECT_TRUE(ReadAt(file->fd, "a", 0, 4, bytes).ok());
  const absl::Status status = ReadAt(file->fd, "a", 2, 8, bytes);
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(status.message()), HasSubstr("a: ends at byte 4"));
}

// Runs `check` in a child process whose kernel seems to have no openat2, as in older sandboxes.
bool HoldsWithoutOpenat2(const std::function<bool()>& check) {
  const pid_t child = fork();
  if (child == 0) {
    sock_filter code[] = {BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
                          BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_openat2, 0, 1),
                          BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS),
                          BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)};
    const sock_fprog filter = {4, code};
    const bool installed =
        prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) == 0;
    _exit(installed && syscall(SYS_openat2, -1, nullptr, nullptr, 0) < 0 && errno == ENOSYS && check() ? 0 : 1);
  }
  int status = 1;
  waitpid(child, &status, 0);
  return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

TEST(ModelFolderTest, GuardsWithoutOpenat2Too) {
  TempFolder outside;
  outside.Write("secret", "x");
  TempFolder folder;
  folder.Write("plain", "y");
  folder.Write("data/real", "z");
  folder.Link("inside", "data/real");
  folder.Link("out", outside.PathOf("secret"));
  folder.Link("device", "/dev/zero");
  ASSERT_EQ(mkfifo(folder.PathOf("fifo").c_str(), 0600), 0);
  EXPECT_TRUE(HoldsWithoutOpenat2([&] {
    const auto refused = [&](const std::string& name) {
      return absl::IsInvalidArgument(Read(folder.path(), name).status());
    };
    return *Read(folder.path(), "plain") == "y" && *Read(folder.path(), "inside") == "z" && refused("out") &&
           refused("device") && refused("fifo") && absl::IsNotFound(Read(folder.path(), "none").status());
  }));
}

}  // namespace
}  // namespace switchyard
