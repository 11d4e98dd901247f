// Damage that no one designed: a shard cut at every byte of its header and at many of its body, and every single bit of
// its header flipped. Each damaged file is refused, or is a model that loads and reads completely.

#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <random>
#include <string>

#include "tests/engine/checkpoint/tiny_model.h"

namespace switchyard {
namespace {

using testing::LoadModel;
using testing::TempFolder;

constexpr char kFile[] = "model.safetensors";

// With metadata, so that some flips change nothing that counts.
std::string TinyShard() {
  std::string data;
  for (const testing::RawTensor& tensor : testing::TinyTensors()) data += tensor.bytes;
  return testing::SafetensorsBytes(SafetensorsHeader(testing::TinyTensors(), R"({"format":"pt"})"), data);
}

size_t HeaderEnd(const std::string& shard) {
  uint64_t length = 0;
  std::memcpy(&length, shard.data(), sizeof(length));
  return sizeof(length) + length;
}

class DamagedShardTest : public ::testing::Test {
 protected:
  void SetUp() override { folder_.Write("config.json", testing::TinyConfig()); }

  // In place: rewriting a file thousands of times makes the file system flush each time.
  void PutByte(size_t at, char byte) {
    std::fstream file(folder_.PathOf(kFile), std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(static_cast<std::streamoff>(at));
    file.put(byte);
    CHECK(file.good());
  }

  TempFolder folder_;
};

TEST_F(DamagedShardTest, TheUndamagedShardLoads) {
  folder_.Write(kFile, TinyShard());
  const auto model = LoadModel(folder_.path());
  ASSERT_TRUE(model.ok()) << model.status();
}

TEST_F(DamagedShardTest, EveryTruncationIsRefused) {
  const std::string shard = TinyShard();
  std::vector<size_t> sizes;
  for (size_t size = 0; size <= HeaderEnd(shard); ++size) sizes.push_back(size);
  std::mt19937_64 random(1);
  for (int i = 0; i < 500; ++i) sizes.push_back(HeaderEnd(shard) + random() % (shard.size() - HeaderEnd(shard)));
  folder_.Write(kFile, shard);
  std::sort(sizes.rbegin(), sizes.rend());
  for (const size_t size : sizes) {
    std::filesystem::resize_file(folder_.PathOf(kFile), size);
    const absl::Status status = LoadModel(folder_.path()).status();
    ASSERT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << size << ": " << status;
    ASSERT_NE(status.message().find("model.safetensors: "), std::string::npos) << status;
  }
}

TEST_F(DamagedShardTest, EveryFlippedHeaderBitIsRefusedOrHarmless) {
  const std::string shard = TinyShard();
  int num_loaded = 0;
  folder_.Write(kFile, shard);
  for (size_t bit = 0; bit < 8 * HeaderEnd(shard); ++bit) {
    const char byte = shard[bit / 8];
    PutByte(bit / 8, static_cast<char>(byte ^ (1 << (bit % 8))));
    const auto model = LoadModel(folder_.path());
    PutByte(bit / 8, byte);
    if (!model.ok()) {
      ASSERT_EQ(model.status().code(), absl::StatusCode::kInvalidArgument) << bit << ": " << model.status();
      continue;
    }
    ++num_loaded;
    const auto values = testing::ReadAll(*model->weights->Find(WeightName::kExpertDown, 0, 1));
    ASSERT_TRUE(values.ok()) << bit << ": " << values.status();
  }
  EXPECT_GT(num_loaded, 0);
  EXPECT_LT(num_loaded, 200);
}

TEST_F(DamagedShardTest, AFileThatShrinksAfterLoadingIsDataLoss) {
  const std::string shard = TinyShard();
  folder_.Write(kFile, shard);
  const auto model = LoadModel(folder_.path());
  ASSERT_TRUE(model.ok());
  const TensorReader* last = model->weights->Find(WeightName::kExpertUp, 0, 1);
  std::filesystem::resize_file(folder_.PathOf(kFile), shard.size() - 1);
  std::vector<float> values(48);
  EXPECT_TRUE(last->ReadRows(0, 5, DType::kF32, values.data()).ok());
  for (const DType as : {DType::kF32, DType::kBF16}) {
    EXPECT_EQ(last->ReadRows(0, 6, as, values.data()).code(), absl::StatusCode::kDataLoss);
  }
}

}  // namespace
}  // namespace switchyard
