// V-MoE against the golden logits of tests/golden/vmoe, on every instruction set; and that an image alone has the bits
// that it has in a batch.

#include <algorithm>
#include <bit>
#include <cmath>
#include <memory>
#include <string>
#include <tuple>
#include <vector>

#include "engine/vision/image_classifier.h"
#include "gtest/gtest.h"
#include "tests/support/golden_file.h"
#include "tests/support/test_backends.h"

namespace switchyard {
namespace {

constexpr double kLogitTolerance = 1e-5;   // of max |logit|
constexpr double kWeightTolerance = 1e-6;  // of router weights
constexpr double kBf16RelativeRms = 0.02;  // as of the decoders


struct Fixture {
  const char* name;
  int32_t num_dropped;  // choices, in all layers and images
};
constexpr Fixture kFixtures[] = {{"vmoe_all_experts", 0}, {"vmoe_batch_priority", 68}, {"vmoe_capacity", 38},
                                 {"vmoe_plain", 0},       {"vmoe_top1", 0},            {"vmoe_top3", 113}};

void PrintTo(const Fixture& fixture, std::ostream* out) { *out << fixture.name; }

using GoldenParam = std::tuple<Fixture, testing::Variant>;

std::string ParamName(const ::testing::TestParamInfo<GoldenParam>& info) {
  return std::string(std::get<0>(info.param).name) + "_" + std::get<1>(info.param);
}

std::vector<float> Floats(const std::vector<double>& values) { return {values.begin(), values.end()}; }

class VisionGoldenTest : public ::testing::TestWithParam<GoldenParam> {
 protected:
  static std::string Folder() {
    return std::string(SWITCHYARD_SOURCE_DIR) + "/tests/golden/fixtures/" + std::get<0>(GetParam()).name;
  }

  void SetUp() override {
    const testing::GoldenFile golden(Folder() + "/golden.safetensors");
    images_ = Floats(golden.Get("images").values);
    logits_ = golden.Get("logits");
    num_images_ = static_cast<int32_t>(logits_.shape[0]);
  }

  // Null where this machine lacks the instruction set: the test is skipped then.
  std::unique_ptr<ImageClassifier> Load(const std::string& dtype) {
    ImageClassifierOptions options;
    options.dtype = dtype;
    options.backend.device = "cpu";
    options.backend.cpu_isa = std::get<1>(GetParam());
    options.backend.num_threads = 2;
    options.max_batch = num_images_ + 1;
    auto classifier = ImageClassifier::Load(Folder(), options);
    if (absl::IsFailedPrecondition(classifier.status())) return nullptr;
    EXPECT_TRUE(classifier.ok()) << classifier.status();
    return classifier.ok() ? *std::move(classifier) : nullptr;
  }

  std::vector<float> Classify(ImageClassifier& classifier, std::span<const float> images, StepStats* stats = nullptr) {
    const int64_t per_image = int64_t{3} * classifier.info().image_size * classifier.info().image_size;
    const int32_t n = static_cast<int32_t>(static_cast<int64_t>(images.size()) / per_image);
    std::vector<float> logits(static_cast<size_t>(n) * classifier.info().num_classes);
    const absl::Status status = classifier.Classify(images, n, logits, stats);
    EXPECT_TRUE(status.ok()) << status;
    return logits;
  }

  std::span<const float> Image(int32_t i) const {
    const size_t per_image = images_.size() / static_cast<size_t>(num_images_);
    return std::span(images_).subspan(static_cast<size_t>(i) * per_image, per_image);
  }

  void ExpectRouting(const ImageClassifier& classifier) {
    const testing::GoldenFile golden(Folder() + "/golden.safetensors");
    for (size_t i = 0; i < classifier.moe_layers().size(); ++i) {
      const std::string name = "layers." + std::to_string(classifier.info().moe_layers[i]) + ".router.";
      const std::vector<int32_t> ids = golden.GetIds(name + "ids");
      const testing::GoldenTensor weights = golden.Get(name + "weights");
      const Routing& routing = classifier.moe_layers()[i]->routing();
      ASSERT_EQ(static_cast<size_t>(routing.num_tokens) * routing.top_k, ids.size());
      for (size_t choice = 0; choice < ids.size(); ++choice) {
        ASSERT_EQ(routing.expert_ids[choice], ids[choice]) << name << ", choice " << choice;
        ASSERT_NEAR(routing.expert_weights[choice], weights.values[choice], kWeightTolerance) << name;
      }
    }
  }

  // For each image: whether the last call sent all its tokens to the golden experts.
  std::vector<bool> SameExperts(const ImageClassifier& classifier) {
    const testing::GoldenFile golden(Folder() + "/golden.safetensors");
    std::vector<bool> same(static_cast<size_t>(num_images_), true);
    for (size_t l = 0; l < classifier.moe_layers().size(); ++l) {
      const std::vector<int32_t> ids =
          golden.GetIds("layers." + std::to_string(classifier.info().moe_layers[l]) + ".router.ids");
      const Routing& routing = classifier.moe_layers()[l]->routing();
      const size_t per_image = ids.size() / same.size();
      for (size_t i = 0; i < ids.size(); ++i) {
        if (routing.expert_ids[i] != ids[i]) same[i / per_image] = false;
      }
    }
    return same;
  }

  std::vector<float> images_;
  testing::GoldenTensor logits_;
  int32_t num_images_ = 0;
};

TEST_P(VisionGoldenTest, GivesTheGoldenLogitsAndRouting) {
  const auto classifier = Load("float32");
  if (classifier == nullptr) GTEST_SKIP() << "not on this machine";
  const std::vector<float> logits = Classify(*classifier, images_);
  double largest = 0.0, worst = 0.0;
  for (const double logit : logits_.values) largest = std::max(largest, std::fabs(logit));
  ASSERT_EQ(logits.size(), logits_.values.size());
  for (size_t i = 0; i < logits.size() && !std::isnan(worst); ++i) {  // nothing after a NaN may replace it
    const double error = std::fabs(logits[i] - logits_.values[i]);
    if (!(error <= worst)) worst = error;
  }
  EXPECT_LE(worst, kLogitTolerance * largest);
  RecordProperty("relative_logit_error", std::to_string(1e6 * worst / largest) + "e-6");
  ExpectRouting(*classifier);
}

// Of the images whose tokens rounding sends to no other expert.
TEST_P(VisionGoldenTest, Bfloat16IsNearTheGoldenLogits) {
  const auto classifier = Load("bfloat16");
  if (classifier == nullptr) GTEST_SKIP() << "not on this machine";
  const std::vector<float> logits = Classify(*classifier, images_);
  const std::vector<bool> same = SameExperts(*classifier);
  ASSERT_GT(std::count(same.begin(), same.end(), true), 0) << "of " << num_images_ << " images";
  double squares = 0.0, error_squares = 0.0;
  for (size_t i = 0; i < logits.size(); ++i) {
    if (!same[i / static_cast<size_t>(classifier->info().num_classes)]) continue;
    squares += logits_.values[i] * logits_.values[i];
    error_squares += (logits[i] - logits_.values[i]) * (logits[i] - logits_.values[i]);
  }
  EXPECT_LE(std::sqrt(error_squares / squares), kBf16RelativeRms);
  RecordProperty("relative_rms", std::to_string(std::sqrt(error_squares / squares)));
  RecordProperty("compared_images", static_cast<int>(std::count(same.begin(), same.end(), true)));
}

TEST_P(VisionGoldenTest, StatsCountEveryChoiceOnce) {
  const auto classifier = Load("float32");
  if (classifier == nullptr) GTEST_SKIP() << "not on this machine";
  StepStats stats;
  Classify(*classifier, images_, &stats);
  const ImageClassifierInfo& info = classifier->info();
  EXPECT_EQ(stats.num_tokens, num_images_ * info.tokens_per_image);
  EXPECT_GT(stats.seconds, 0.0f);
  ASSERT_EQ(stats.moe_layers.size(), info.moe_layers.size());
  int32_t num_dropped = 0;
  for (const MoeLayerStats& layer : stats.moe_layers) {
    int32_t num_choices = layer.num_dropped;
    for (const int32_t tokens : layer.tokens_per_expert) num_choices += tokens;
    EXPECT_EQ(num_choices, stats.num_tokens * info.top_k);
    num_dropped += layer.num_dropped;
  }
  EXPECT_EQ(num_dropped, std::get<0>(GetParam()).num_dropped);
}

TEST_P(VisionGoldenTest, AnImageAloneHasTheBitsThatItHasInABatch) {
  for (const char* dtype : {"float32", "bfloat16"}) {
    const auto classifier = Load(dtype);
    if (classifier == nullptr) GTEST_SKIP() << "not on this machine";
    std::vector<float> reversed;
    for (int32_t i = num_images_ - 1; i >= 0; --i) reversed.insert(reversed.end(), Image(i).begin(), Image(i).end());
    const std::vector<float> batch = Classify(*classifier, images_), backwards = Classify(*classifier, reversed);
    const size_t classes = static_cast<size_t>(classifier->info().num_classes);
    for (int32_t i = 0; i < num_images_; ++i) {
      const std::vector<float> alone = Classify(*classifier, Image(i));
      for (size_t c = 0; c < classes; ++c) {
        const uint32_t bits = std::bit_cast<uint32_t>(alone[c]);
        ASSERT_EQ(bits, std::bit_cast<uint32_t>(batch[static_cast<size_t>(i) * classes + c])) << "image " << i;
        ASSERT_EQ(bits, std::bit_cast<uint32_t>(backwards[static_cast<size_t>(num_images_ - 1 - i) * classes + c]));
      }
    }
  }
}

TEST_P(VisionGoldenTest, AnImageThatIsNotFiniteChangesNoOther) {
  const auto classifier = Load("float32");
  if (classifier == nullptr) GTEST_SKIP() << "not on this machine";
  const size_t classes = static_cast<size_t>(classifier->info().num_classes);
  const std::vector<float> expected = Classify(*classifier, images_);
  std::vector<float> images = images_;
  images[0] = NAN;
  images[1] = INFINITY;
  const std::vector<float> logits = Classify(*classifier, images);
  EXPECT_TRUE(std::isnan(logits[0])) << logits[0];
  for (size_t i = classes; i < logits.size(); ++i) {
    ASSERT_EQ(std::bit_cast<uint32_t>(logits[i]), std::bit_cast<uint32_t>(expected[i]));
  }
  EXPECT_EQ(Classify(*classifier, images_), expected);  // nothing of it stays behind
}

INSTANTIATE_TEST_SUITE_P(Fixtures, VisionGoldenTest,
                         ::testing::Combine(::testing::ValuesIn(kFixtures), ::testing::ValuesIn(testing::Variants())),
                         ParamName);

}  // namespace
}  // namespace switchyard
