// Weights under their stored names: values, every problem at once, dummy values.

#include "engine/checkpoint/named_tensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "tests/support/safetensors_writer.h"
#include "tests/support/temp_folder.h"

namespace switchyard {
namespace {

using testing::Bf16Tensor;
using testing::F32Tensor;
using testing::RawTensor;
using testing::SafetensorsBytes;
using testing::TempFolder;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

const std::vector<TensorSpec> kSpecs = {{"head.weight", {2, 3}, 0.1}, {"head.bias", {2}, 0.1}};

std::vector<float> ValuesOf(const TensorReader& reader) {
  std::vector<float> values(static_cast<size_t>(reader.rows() * reader.cols()));
  EXPECT_TRUE(reader.ReadRows(0, reader.rows(), DType::kF32, values.data()).ok());
  return values;
}

absl::StatusOr<std::unique_ptr<NamedTensors>> Open(const std::vector<RawTensor>& tensors) {
  const TempFolder folder;
  folder.Write("model.safetensors", SafetensorsBytes(tensors));
  return OpenNamedTensors(kSpecs, folder.path());
}

TEST(NamedTensorsTest, ReadsEachTensorByItsName) {
  const auto opened =
      Open({Bf16Tensor("head.bias", {2}, {7, 8}), F32Tensor("head.weight", {2, 3}, {1, 2, 3, 4, 5, 6})});
  ASSERT_TRUE(opened.ok()) << opened.status();
  EXPECT_THAT(ValuesOf((*opened)->Get("head.weight")), ElementsAre(1, 2, 3, 4, 5, 6));
  EXPECT_THAT(ValuesOf((*opened)->Get("head.bias")), ElementsAre(7, 8));
  EXPECT_EQ((*opened)->Get("head.bias").rows(), 1);
  EXPECT_EQ((*opened)->num_parameters(), 8);
}

TEST(NamedTensorsTest, ReportsAllProblemsAtOnce) {
  const absl::Status status =
      Open({F32Tensor("head.weight", {3, 2}, {1, 2, 3, 4, 5, 6}), F32Tensor("more", {1}, {1})}).status();
  EXPECT_TRUE(absl::IsInvalidArgument(status));
  EXPECT_THAT(std::string(status.message()),
              AllOf(HasSubstr("\"head.weight\""), HasSubstr("shape is [3, 2], but config.json calls for [2, 3]"),
                    HasSubstr("tensor \"head.bias\" is missing"), HasSubstr("\"more\""),
                    HasSubstr("is no tensor of this model")));
}

TEST(NamedTensorsTest, RefusesTypesThatAreNoWeights) {
  const absl::Status status =
      Open({F32Tensor("head.weight", {2, 3}, {1, 2, 3, 4, 5, 6}),
            RawTensor{"head.bias", "I64", {2}, std::string(16, 1)}})
          .status();
  EXPECT_TRUE(absl::IsInvalidArgument(status));
  EXPECT_THAT(std::string(status.message()), HasSubstr("type is I64; weights must be F32, F16 or BF16"));
}

TEST(NamedTensorsTest, DummyValuesFollowSeedAndName) {
  const std::vector<TensorSpec> specs = {{"a", {64, 64}, 0.5}, {"b", {64, 64}, 0.5}, {"norm", {4}, 0.0}};
  const auto one = MakeDummyTensors(specs, 1), again = MakeDummyTensors(specs, 1), other = MakeDummyTensors(specs, 2);
  const std::vector<float> a = ValuesOf(one->Get("a"));
  EXPECT_EQ(a, ValuesOf(again->Get("a")));
  EXPECT_NE(a, ValuesOf(one->Get("b")));
  EXPECT_NE(a, ValuesOf(other->Get("a")));
  EXPECT_THAT(ValuesOf(one->Get("norm")), ElementsAre(1, 1, 1, 1));
  double squares = 0.0;
  for (const float value : a) squares += double{value} * value;
  EXPECT_NEAR(std::sqrt(squares / static_cast<double>(a.size())), 0.5, 0.05);
}

}  // namespace
}  // namespace switchyard
