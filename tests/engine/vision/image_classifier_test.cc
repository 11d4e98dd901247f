// Loading and calling an image classifier: what it says of itself, and what it refuses.

#include "engine/vision/image_classifier.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <numeric>
#include <string>
#include <vector>

#include "absl/strings/str_replace.h"
#include "tests/support/safetensors_writer.h"
#include "tests/support/temp_folder.h"

namespace switchyard {
namespace {

using testing::RawTensor;
using testing::TempFolder;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::string Fixture() { return std::string(SWITCHYARD_SOURCE_DIR) + "/tests/golden/fixtures/vmoe_top1"; }

ImageClassifierOptions Options() {
  ImageClassifierOptions options;
  options.backend.device = "cpu";
  options.backend.num_threads = 1;
  options.max_batch = 2;
  return options;
}

// The fixture with other tensors or another config.
absl::Status LoadSpoiled(const std::function<void(std::vector<RawTensor>&)>& spoil, const std::string& from = "",
                         const std::string& to = "") {
  const TempFolder folder;
  std::vector<RawTensor> tensors = testing::ReadRawTensors(Fixture() + "/model.safetensors");
  spoil(tensors);
  folder.Write("model.safetensors", testing::SafetensorsBytes(tensors));
  const std::string config = testing::ReadFile(Fixture() + "/config.json");
  folder.Write("config.json", from.empty() ? config : absl::StrReplaceAll(config, {{from, to}}));
  return ImageClassifier::Load(folder.path(), Options()).status();
}

RawTensor& Find(std::vector<RawTensor>& tensors, const std::string& name) {
  for (RawTensor& tensor : tensors) {
    if (tensor.name == name) return tensor;
  }
  CHECK(false);
}

TEST(ImageClassifierTest, DescribesItself) {
  const auto classifier = ImageClassifier::Load(Fixture(), Options());
  ASSERT_TRUE(classifier.ok()) << classifier.status();
  const ImageClassifierInfo& info = (*classifier)->info();
  EXPECT_THAT(info.backend, HasSubstr("cpu ("));
  EXPECT_EQ(info.dtype, DType::kF32);
  EXPECT_EQ(info.image_size, 14);
  EXPECT_EQ(info.num_channels, 3);
  EXPECT_EQ(info.num_classes, 1);
  EXPECT_EQ(info.tokens_per_image, 5);
  EXPECT_EQ(info.num_layers, 4);
  EXPECT_THAT(info.moe_layers, ElementsAre(1, 3));
  EXPECT_EQ(info.num_experts, 3);
  EXPECT_EQ(info.top_k, 1);
  EXPECT_EQ(info.expert_capacity, 0);
  EXPECT_EQ(info.max_batch, 2);
  EXPECT_EQ(info.num_nonfinite_weights, 0);
  int64_t num_parameters = 0;
  for (const RawTensor& tensor : testing::ReadRawTensors(Fixture() + "/model.safetensors")) {
    num_parameters += static_cast<int64_t>(tensor.bytes.size()) / 4;
  }
  EXPECT_EQ(info.num_parameters, num_parameters);
  const int64_t expert = 24 * 33 + 33 + 33 * 24 + 24;
  EXPECT_EQ(info.num_active_parameters, num_parameters - 2 * 2 * expert);  // two idle experts in each of two layers
}

TEST(ImageClassifierTest, DummyWeightsNeedAConfigAlone) {
  const TempFolder folder;
  folder.Write("config.json", testing::ReadFile(Fixture() + "/config.json"));
  EXPECT_TRUE(absl::IsNotFound(ImageClassifier::Load(folder.path(), Options()).status()));
  ImageClassifierOptions options = Options();
  options.dummy_weights = true;
  const auto classifier = ImageClassifier::Load(folder.path(), options);
  ASSERT_TRUE(classifier.ok()) << classifier.status();
  std::vector<float> images(2 * 14 * 14 * 3, 0.5f), logits(2);
  std::fill(images.begin() + 14 * 14 * 3, images.end(), -0.5f);
  ASSERT_TRUE((*classifier)->Classify(images, 2, logits, nullptr).ok());
  EXPECT_TRUE(std::isfinite(logits[0]));
  EXPECT_NE(logits[0], logits[1]);
}

TEST(ImageClassifierTest, CallsOfTheWrongSizeAreRefusedAndTheNextIsServed) {
  const auto loaded = ImageClassifier::Load(Fixture(), Options());
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  ImageClassifier& classifier = **loaded;
  std::vector<float> images(3 * 588), logits(3);
  const auto call = [&](size_t num_values, int32_t n, size_t num_logits) {
    return classifier.Classify(std::span(images).first(num_values), n, std::span(logits).first(num_logits), nullptr);
  };
  EXPECT_THAT(std::string(call(0, 0, 0).message()), HasSubstr("the call has 0 images, expected 1 to 2"));
  EXPECT_THAT(std::string(call(3 * 588, 3, 3).message()), HasSubstr("the call has 3 images, expected 1 to 2"));
  EXPECT_THAT(std::string(call(587, 1, 1).message()),
              HasSubstr("the call has 587 values and room for 1 logits, expected 588 and 1 for 1 images"));
  EXPECT_TRUE(absl::IsInvalidArgument(call(588, 1, 2)));
  EXPECT_TRUE(call(588, 1, 1).ok());
}

TEST(ImageClassifierTest, OptionsAreChecked) {
  const auto message = [](const std::function<void(ImageClassifierOptions&)>& change) {
    ImageClassifierOptions options = Options();
    change(options);
    return std::string(ImageClassifier::Load(Fixture(), options).status().message());
  };
  EXPECT_THAT(message([](auto& o) { o.max_batch = 0; }), HasSubstr("max_batch is 0, expected 1 to 1024"));
  EXPECT_THAT(message([](auto& o) { o.dtype = "int4"; }), HasSubstr("dtype is 'int4'"));
  EXPECT_THAT(message([](auto& o) { o.backend.cpu_isa = "mmx"; }), HasSubstr("mmx"));
}

TEST(ImageClassifierTest, ModelsThatDoNotFitAreRefusedBeforeTheyAreRead) {
  const TempFolder folder;
  const std::string config = absl::StrReplaceAll(
      testing::ReadFile(Fixture() + "/config.json"),
      {{"\"hidden_size\": 24", "\"hidden_size\": 1048576"},
       {"\"num_attention_heads\": 3", "\"num_attention_heads\": 1024"},
       {"\"intermediate_size\": 33", "\"intermediate_size\": 1048576"}});
  folder.Write("config.json", config);
  ImageClassifierOptions options = Options();
  options.dummy_weights = true;
  const absl::Status status = ImageClassifier::Load(folder.path(), options).status();
  EXPECT_TRUE(absl::IsResourceExhausted(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("lower max_batch"));
}

TEST(ImageClassifierTest, TensorsThatDoNotMatchTheConfigAreAllNamed) {
  const absl::Status status = LoadSpoiled([](std::vector<RawTensor>& tensors) {
    Find(tensors, "class_token").shape = {24, 1};
    Find(tensors, "layers.1.moe.router.weight").name = "layers.0.moe.router.weight";
    Find(tensors, "head.bias").name = "head.offset";
  });
  EXPECT_TRUE(absl::IsInvalidArgument(status));
  EXPECT_THAT(std::string(status.message()),
              AllOf(HasSubstr("\"class_token\""), HasSubstr("shape is [24, 1], but config.json calls for [24]"),
                    HasSubstr("tensor \"layers.1.moe.router.weight\" is missing"),
                    HasSubstr("\"layers.0.moe.router.weight\""), HasSubstr("tensor \"head.bias\" is missing"),
                    HasSubstr("\"head.offset\""), HasSubstr("is no tensor of this model")));
}

TEST(ImageClassifierTest, AConfigOfAnotherModelIsRefused) {
  const auto nothing = [](std::vector<RawTensor>&) {};
  EXPECT_THAT(std::string(LoadSpoiled(nothing, "\"num_experts\": 3", "\"num_experts\": 4").message()),
              HasSubstr("tensor \"layers.1.moe.experts.3.up_proj.weight\" is missing"));
  EXPECT_THAT(std::string(LoadSpoiled(nothing, "\"patch_size\": 7", "\"patch_size\": 14").message()),
              HasSubstr("config.json calls for [24, 588]"));
  EXPECT_TRUE(absl::IsUnimplemented(LoadSpoiled(nothing, "\"vmoe\"", "\"mixtral\"")));
}

TEST(ImageClassifierTest, WeightsThatAreNotFiniteAreCounted) {
  const TempFolder folder;
  std::vector<RawTensor> tensors = testing::ReadRawTensors(Fixture() + "/model.safetensors");
  Find(tensors, "head.weight").bytes.replace(0, 4, "\x00\x00\xc0\x7f", 4);  // NaN
  folder.Write("model.safetensors", testing::SafetensorsBytes(tensors));
  folder.Write("config.json", testing::ReadFile(Fixture() + "/config.json"));
  const auto classifier = ImageClassifier::Load(folder.path(), Options());
  ASSERT_TRUE(classifier.ok()) << classifier.status();
  EXPECT_EQ((*classifier)->info().num_nonfinite_weights, 1);
}

}  // namespace
}  // namespace switchyard
