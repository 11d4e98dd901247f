#include "engine/checkpoint/safetensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "tests/support/safetensors_writer.h"
#include "tests/support/temp_folder.h"

namespace switchyard {
namespace {

using testing::Bf16Tensor;
using ::testing::ElementsAre;
using testing::F32Tensor;
using testing::SafetensorsBytes;
using testing::TempFolder;

absl::StatusOr<std::unique_ptr<SafetensorsFile>> Open(const TempFolder& folder) {
  auto opened = ModelFolder::Open(folder.path());
  if (!opened.ok()) return opened.status();
  return SafetensorsFile::Open(*opened, "a.safetensors");
}

absl::StatusOr<std::vector<StoredTensor>> Parse(const std::string& header, int64_t data_bytes) {
  return ParseSafetensorsHeader(header, "file", 0, data_bytes);
}

TEST(SafetensorsTest, ReadsWhatTheWriterWrote) {
  TempFolder folder;
  folder.Write("a.safetensors",
               SafetensorsBytes({F32Tensor("b", {2, 3}, {1, 2, 3, 4, 5, 6}), Bf16Tensor("a", {1}, {7})}));
  const auto file = Open(folder);
  ASSERT_TRUE(file.ok()) << file.status();
  ASSERT_EQ((*file)->tensors().size(), 2u);
  const StoredTensor& first = (*file)->tensors()[0];
  EXPECT_EQ(first.name, "b");
  EXPECT_STREQ(first.type->name, "F32");
  EXPECT_THAT(first.shape(), ElementsAre(2, 3));
  EXPECT_EQ(first.end - first.begin, 24);
  float values[6];
  ASSERT_TRUE((*file)->Read(first.begin, 24, values).ok());
  EXPECT_THAT(values, ElementsAre(1, 2, 3, 4, 5, 6));
  EXPECT_EQ((*file)->tensors()[1].begin, first.end);
}

TEST(SafetensorsTest, OrderInTheHeaderNeedNotBeTheOrderOfTheBytes) {
  const auto tensors = Parse(R"({"late":{"dtype":"U8","shape":[1],"data_offsets":[1,2]},
                                 "early":{"data_offsets":[0,1],"shape":[1],"dtype":"U8"}}   )",
                             2);
  ASSERT_TRUE(tensors.ok()) << tensors.status();
  EXPECT_EQ((*tensors)[0].name, "early");
  EXPECT_EQ((*tensors)[1].name, "late");
}

TEST(SafetensorsTest, EmptyFilesScalarsAndEmptyTensorsAreFine) {
  EXPECT_TRUE(Parse("{}", 0).ok());
  EXPECT_TRUE(Parse(R"({"__metadata__":{}})", 0).ok());
  const auto tensors = Parse(R"({"__metadata__":{"format":"pt","x":""},
      "scalar":{"dtype":"F64","shape":[],"data_offsets":[0,8]},
      "empty":{"dtype":"F32","shape":[0,7],"data_offsets":[8,8]},
      "four":{"dtype":"F4","shape":[4],"data_offsets":[8,10]}})",
                             10);
  ASSERT_TRUE(tensors.ok()) << tensors.status();
  EXPECT_EQ(tensors->size(), 3u);
}

TEST(SafetensorsTest, KnowsTheSizeOfEveryType) {
  const std::pair<const char*, int> types[] = {
      {"F32", 32},    {"F16", 16},    {"BF16", 16}, {"F64", 64}, {"F8_E4M3", 8}, {"F8_E5M2", 8}, {"F8_E8M0", 8},
      {"F6_E2M3", 6}, {"F6_E3M2", 6}, {"F4", 4},    {"I64", 64}, {"U64", 64},    {"I32", 32},    {"U32", 32},
      {"I16", 16},    {"U16", 16},    {"I8", 8},    {"U8", 8},   {"BOOL", 8},    {"C64", 64}};
  for (const auto& [name, bits] : types) {
    const std::string header = std::string(R"({"t":{"dtype":")") + name + R"(","shape":[4],"data_offsets":[0,)" +
                               std::to_string(bits / 2) + "]}}";
    EXPECT_TRUE(Parse(header, bits / 2).ok()) << header;
    EXPECT_FALSE(Parse(header, bits / 2 + 1).ok()) << header;
  }
}

TEST(SafetensorsTest, NamesMayHoldAnyUnicode) {
  const auto tensors = Parse(R"({"\u00e9\u0000\ud83d\ude00":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})", 1);
  ASSERT_TRUE(tensors.ok()) << tensors.status();
  EXPECT_EQ((*tensors)[0].name, std::string("\xc3\xa9\0\xf0\x9f\x98\x80", 7));
}

TEST(SafetensorsTest, AFileThatShrinksAfterOpeningIsDataLoss) {
  TempFolder folder;
  folder.Write("a.safetensors", SafetensorsBytes({F32Tensor("t", {1000}, std::vector<float>(1000, 1.0f))}));
  const auto file = Open(folder);
  ASSERT_TRUE(file.ok());
  const StoredTensor& tensor = (*file)->tensors()[0];
  std::filesystem::resize_file(folder.PathOf("a.safetensors"), static_cast<uintmax_t>(tensor.begin + 2000));
  std::vector<float> values(1000);
  EXPECT_TRUE((*file)->Read(tensor.begin, 2000, values.data()).ok());
  const absl::Status status = (*file)->Read(tensor.begin, 4000, values.data());
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(status.message()), ::testing::HasSubstr("a.safetensors: ends at byte"));
}

}  // namespace
}  // namespace switchyard
