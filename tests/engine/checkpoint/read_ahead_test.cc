// Reading ahead keeps its distance and ends whenever its owner does.
#include "engine/checkpoint/read_ahead.h"

#include <gtest/gtest.h>
#include <sys/mman.h>

#include <chrono>
#include <filesystem>
#include <functional>
#include <thread>
#include <vector>

#include "tests/support/temp_folder.h"

namespace switchyard {
namespace {

using testing::TempFolder;

constexpr int64_t kTensorBytes = int64_t{600} << 20;  // more than the distance; a hole that takes no space

std::unique_ptr<SafetensorsFile> MakeFile(const TempFolder& folder) {
  std::string header = R"({"a": {"dtype": "U8", "shape": [)" + std::to_string(kTensorBytes) +
                       R"(], "data_offsets": [0, )" + std::to_string(kTensorBytes) + "]}}";
  header.resize((header.size() + 7) / 8 * 8, ' ');
  const uint64_t size = header.size();
  folder.Write("a.safetensors", std::string(reinterpret_cast<const char*>(&size), 8) + header);
  std::filesystem::resize_file(folder.PathOf("a.safetensors"), 8 + size + kTensorBytes);
  auto opened = ModelFolder::Open(folder.path());
  EXPECT_TRUE(opened.ok());
  auto file = SafetensorsFile::Open(*opened, "a.safetensors");
  EXPECT_TRUE(file.ok()) << file.status();
  return *std::move(file);
}

std::vector<FileRange> All(const SafetensorsFile& file) {
  return {{&file, file.tensors()[0].begin, file.tensors()[0].end}};
}

// Bytes of the file that are in memory.
int64_t CachedBytes(const std::string& path) {
  const int64_t size = static_cast<int64_t>(std::filesystem::file_size(path));
  FILE* const file = fopen(path.c_str(), "rb");
  void* const mapped = mmap(nullptr, static_cast<size_t>(size), PROT_READ, MAP_SHARED, fileno(file), 0);
  std::vector<unsigned char> pages(static_cast<size_t>((size + 4095) / 4096));
  EXPECT_EQ(mincore(mapped, static_cast<size_t>(size), pages.data()), 0);
  munmap(mapped, static_cast<size_t>(size));
  fclose(file);
  int64_t cached = 0;
  for (const unsigned char page : pages) cached += (page & 1) * 4096;
  return cached;
}

// Polls, because the kernel fetches in its own time.
bool Becomes(const std::function<bool()>& condition) {
  for (int i = 0; i < 1000; ++i) {
    if (condition()) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  return false;
}

TEST(ReadAheadTest, KeepsItsDistanceFromWhatWasRead) {
  TempFolder folder;
  const auto file = MakeFile(folder);
  const std::string path = folder.PathOf("a.safetensors");
  constexpr int64_t kMiB = int64_t{1} << 20;
  file->WillRead(file->tensors()[0].begin, kMiB);
  if (!Becomes([&] { return CachedBytes(path) > 0; })) GTEST_SKIP() << "this file system does not read ahead";
  ReadAhead read_ahead(All(*file));
  read_ahead.Start();
  ASSERT_TRUE(Becomes([&] { return CachedBytes(path) >= 200 * kMiB; })) << CachedBytes(path);
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  EXPECT_LE(CachedBytes(path), 300 * kMiB);

  std::vector<char> part(static_cast<size_t>(100 * kMiB));
  ASSERT_TRUE(file->Read(file->tensors()[0].begin, 100 * kMiB, part.data()).ok());
  EXPECT_TRUE(Becomes([&] { return CachedBytes(path) >= 300 * kMiB; })) << CachedBytes(path);
}

TEST(ReadAheadTest, EndsWhileItWaits) {
  TempFolder folder;
  const auto file = MakeFile(folder);
  const auto start = std::chrono::steady_clock::now();
  for (int i = 0; i < 3; ++i) {
    ReadAhead read_ahead(All(*file));
    read_ahead.Start();
    read_ahead.Start();  // does nothing
  }
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(20));
}

TEST(ReadAheadTest, UnstartedDoesNothing) {
  TempFolder folder;
  const auto file = MakeFile(folder);
  { ReadAhead read_ahead(All(*file)); }
  EXPECT_EQ(file->bytes_read(), 0);
}

}  // namespace
}  // namespace switchyard
