// Reading ahead keeps its distance and ends whenever its owner does.
#include "engine/checkpoint/read_ahead.h"

#include <gtest/gtest.h>

#include <chrono>
#include <filesystem>
#include <thread>
#include <vector>

#include "tests/support/temp_folder.h"

namespace switchyard {
namespace {

using testing::TempFolder;

constexpr int64_t kMiB = int64_t{1} << 20;
constexpr int64_t kDistance = 256 * kMiB;     // as in read_ahead.cc
constexpr int64_t kTensorBytes = 600 * kMiB;  // more than the distance; a hole that takes no space

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

// Waits until so much, and a little longer for what should not come; returns how much it was.
int64_t AskedInTheEnd(const ReadAhead& read_ahead, int64_t expected) {
  for (int i = 0; i < 6000 && read_ahead.bytes_asked() < expected; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  std::this_thread::sleep_for(std::chrono::milliseconds(200));
  return read_ahead.bytes_asked();
}

TEST(ReadAheadTest, KeepsItsDistanceFromWhatWasRead) {
  TempFolder folder;
  const auto file = MakeFile(folder);
  ReadAhead read_ahead(All(*file));
  read_ahead.Start();
  EXPECT_EQ(AskedInTheEnd(read_ahead, kDistance), kDistance);

  std::vector<char> part(static_cast<size_t>(100 * kMiB));
  ASSERT_TRUE(file->Read(file->tensors()[0].begin, 100 * kMiB, part.data()).ok());
  EXPECT_EQ(AskedInTheEnd(read_ahead, kDistance + 100 * kMiB), kDistance + 100 * kMiB);
  for (int64_t read = 100; read * kMiB < kTensorBytes; read += 100) {
    ASSERT_TRUE(file->Read(file->tensors()[0].begin, 100 * kMiB, part.data()).ok());
  }
  EXPECT_EQ(AskedInTheEnd(read_ahead, kTensorBytes), kTensorBytes);
}

TEST(ReadAheadTest, EndsWhileItWaits) {
  TempFolder folder;
  const auto file = MakeFile(folder);
  ReadAhead read_ahead(All(*file));
  read_ahead.Start();
  read_ahead.Start();  // does nothing
  EXPECT_LT(AskedInTheEnd(read_ahead, kDistance), kTensorBytes);  // and here it waits for readers, which never come
}

TEST(ReadAheadTest, UnstartedDoesNothing) {
  TempFolder folder;
  const auto file = MakeFile(folder);
  ReadAhead read_ahead(All(*file));
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  EXPECT_EQ(read_ahead.bytes_asked(), 0);
}

}  // namespace
}  // namespace switchyard
