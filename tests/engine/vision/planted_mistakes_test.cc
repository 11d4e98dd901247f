// Does the golden test see mistakes? Those that an implementation of V-MoE could well make are planted, one at a time,
// and each has to move the logits far beyond the tolerance. Prints how far.

#include <algorithm>
#include <cstdio>
#include <functional>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "engine/base/status_macros.h"
#include "engine/vision/pixels.h"
#include "engine/vision/vision_config.h"
#include "engine/vision/vision_transformer.h"
#include "engine/vision/vision_weights.h"
#include "gtest/gtest.h"
#include "tests/engine/vision/planted/broken_vision_backend.h"
#include "tests/support/golden_answers.h"
#include "tests/support/golden_file.h"
#include "tests/support/values_reader.h"

namespace switchyard::testing {
namespace {

constexpr double kLogitTolerance = 1e-5;  // as golden_test.cc
// A mistake has to be this many times as large as that.
constexpr double kClearly = 100.0;

struct Mistake {
  std::string name;
  std::string fixture;
  // Any of these; the others stay empty.
  VisionFault fault = VisionFault::kNone;
  std::function<void(VisionConfig&)> edit_config = {};
  std::string tensor = {};  // which edit_tensor changes: [rows, cols], row-major
  std::function<void(int64_t rows, int64_t cols, std::vector<float>& values)> edit_tensor = {};
};

void PrintTo(const Mistake& mistake, std::ostream* out) { *out << mistake.name << " in " << mistake.fixture; }

class PlantedTensors final : public NamedTensors {
 public:
  PlantedTensors(const NamedTensors& exact, const Mistake& mistake) : exact_(exact), tensor_(mistake.tensor) {
    if (tensor_.empty()) return;
    const TensorReader& found = exact.Get(tensor_);
    std::vector<float> values = ValuesReader::ReadAll(found);
    mistake.edit_tensor(found.rows(), found.cols(), values);
    edited_ = std::make_unique<ValuesReader>(found.rows(), found.cols(), std::move(values));
  }

  const TensorReader& Get(const std::string& name) const override {
    return name == tensor_ ? *edited_ : exact_.Get(name);
  }
  int64_t num_parameters() const override { return exact_.num_parameters(); }

 private:
  const NamedTensors& exact_;
  const std::string tensor_;
  std::unique_ptr<ValuesReader> edited_;
};

// ---- changed tensors ----

void Clear(int64_t, int64_t, std::vector<float>& values) { std::fill(values.begin(), values.end(), 0.0f); }

// Row r of the result is row from(r).
template <typename From>
void TakeRows(int64_t rows, int64_t cols, std::vector<float>& values, const From& from) {
  const std::vector<float> exact = values;
  for (int64_t r = 0; r < rows; ++r) std::copy_n(exact.begin() + from(r) * cols, cols, values.begin() + r * cols);
}

// The class token's after the patches'.
void PutClassTokenLast(int64_t rows, int64_t cols, std::vector<float>& values) {
  TakeRows(rows, cols, values, [&](int64_t r) { return (r + rows - 1) % rows; });
}

constexpr int64_t kPatchesOfASide = 4, kPatchSize = 4, kChannels = 3;  // of vmoe_plain

// Patches numbered down, then right.
void NumberPatchesDown(int64_t rows, int64_t cols, std::vector<float>& values) {
  CHECK(rows == 1 + kPatchesOfASide * kPatchesOfASide);
  TakeRows(rows, cols, values, [](int64_t r) {
    return r == 0 ? 0 : 1 + (r - 1) % kPatchesOfASide * kPatchesOfASide + (r - 1) / kPatchesOfASide;
  });
}

// Column c of the result is column from(pixel, channel).
template <typename From>
void TakePixels(int64_t rows, int64_t cols, std::vector<float>& values, const From& from) {
  CHECK(cols == kPatchSize * kPatchSize * kChannels);
  const std::vector<float> exact = values;
  for (int64_t i = 0; i < rows * cols; ++i) {
    const int64_t col = i % cols;
    values[i] = exact[i - col + from(col / kChannels, col % kChannels)];
  }
}

void PutChannelsFirst(int64_t rows, int64_t cols, std::vector<float>& values) {
  TakePixels(rows, cols, values,
             [](int64_t pixel, int64_t channel) { return channel * kPatchSize * kPatchSize + pixel; });
}

void ReverseChannels(int64_t rows, int64_t cols, std::vector<float>& values) {
  TakePixels(rows, cols, values,
             [](int64_t pixel, int64_t channel) { return pixel * kChannels + kChannels - 1 - channel; });
}

// ---- changed configs ----

std::function<void(VisionConfig&)> WithCapacity(int32_t capacity) {
  return [capacity](VisionConfig& config) { config.router.capacity = capacity; };
}
std::function<void(VisionConfig&)> InOrder(CapacityOrder order) {
  return [order](VisionConfig& config) { config.router.capacity_order = order; };
}
void Renormalise(VisionConfig& config) { config.router.normalize = true; }

std::vector<Mistake> AllMistakes() {
  const std::string plain = "vmoe_plain", capacity = "vmoe_capacity", priority = "vmoe_batch_priority";
  return {
      {.name = "NoPositions", .fixture = plain, .tensor = "position_embedding", .edit_tensor = Clear},
      {.name = "ClassTokenAtTheLastPosition",
       .fixture = plain,
       .tensor = "position_embedding",
       .edit_tensor = PutClassTokenLast},
      {.name = "PatchesNumberedDown",
       .fixture = plain,
       .tensor = "position_embedding",
       .edit_tensor = NumberPatchesDown},
      {.name = "NoClassToken", .fixture = plain, .tensor = "class_token", .edit_tensor = Clear},
      {.name = "NoPatchBias", .fixture = plain, .tensor = "patch_embedding.bias", .edit_tensor = Clear},
      {.name = "ChannelsFirst", .fixture = plain, .tensor = "patch_embedding.weight", .edit_tensor = PutChannelsFirst},
      {.name = "ChannelsReversed",
       .fixture = plain,
       .tensor = "patch_embedding.weight",
       .edit_tensor = ReverseChannels},
      {.name = "NormsKeepTheMean", .fixture = plain, .fault = VisionFault::kNormsKeepTheMean},
      {.name = "BlocksReadUnnormed", .fixture = plain, .fault = VisionFault::kBlocksReadUnnormed},
      {.name = "NoFinalNorm", .fixture = plain, .fault = VisionFault::kNoFinalNorm},
      {.name = "ScoresNotScaled", .fixture = plain, .fault = VisionFault::kScoresNotScaled},
      {.name = "MeanForClassToken", .fixture = plain, .fault = VisionFault::kMeanForClassToken},
      {.name = "NoTanhBeforeTheHead", .fixture = plain, .fault = VisionFault::kNoTanh},
      {.name = "ReluInDenseLayers", .fixture = plain, .fault = VisionFault::kReluInDenseLayers},
      {.name = "WeightsMadeToSumToOne", .fixture = plain, .edit_config = Renormalise},
      {.name = "WeightsMadeToSumToOne", .fixture = "vmoe_top1", .edit_config = Renormalise},
      {.name = "WeightsLeftOut", .fixture = "vmoe_all_experts", .fault = VisionFault::kWeightsAreOne},

      // 17 tokens * 2 * 1.05 / 8 experts is 4.46: 5, and 8 as a multiple of 4.
      {.name = "NoCapacity", .fixture = capacity, .edit_config = WithCapacity(0)},
      {.name = "CapacityNotAMultipleOfFour", .fixture = capacity, .edit_config = WithCapacity(5)},
      {.name = "CapacityRoundedDown", .fixture = capacity, .edit_config = WithCapacity(4)},
      {.name = "RanksCompete", .fixture = capacity, .fault = VisionFault::kRanksCompete},
      {.name = "ImagesShareCapacity", .fixture = capacity, .fault = VisionFault::kImagesShareCapacity},
      {.name = "LikeliestFirst", .fixture = capacity, .edit_config = InOrder(CapacityOrder::kBestGateFirst)},
      {.name = "TokensInTheirOrder", .fixture = priority, .edit_config = InOrder(CapacityOrder::kFirstCome)},
      {.name = "WeightiestForTheExpertFirst",
       .fixture = priority,
       .edit_config = InOrder(CapacityOrder::kExpertChoice)},
      {.name = "TokensInTheirOrder", .fixture = "vmoe_top3", .edit_config = InOrder(CapacityOrder::kFirstCome)},
  };
}

// What the golden test would measure of the logits of all images.
absl::StatusOr<GoldenErrors> Measure(const Mistake& mistake) {
  const std::string folder = std::string(SWITCHYARD_SOURCE_DIR) + "/tests/golden/fixtures/" + mistake.fixture;
  ASSIGN_OR_RETURN(VisionConfig config, ReadVisionConfig(folder));
  ASSIGN_OR_RETURN(const std::unique_ptr<NamedTensors> exact, OpenNamedTensors(VisionTensors(config), folder));
  const PlantedTensors tensors(*exact, mistake);
  if (mistake.edit_config) mistake.edit_config(config);

  const GoldenTensor golden = GoldenFile(folder + "/golden.safetensors").Get("images");
  const std::vector<float> images(golden.values.begin(), golden.values.end());
  const int32_t num_images = static_cast<int32_t>(golden.shape[0]);
  std::vector<float> patches(static_cast<size_t>(num_images) * config.tokens_per_image() * config.patch_pixels());
  CutPatches(config, images, patches);

  ASSIGN_OR_RETURN(const CreatedBackend created,
                   CreateBackend({.device = "cpu", .cpu_isa = "scalar", .num_threads = 1, .expert_gemm_table = {}}));
  const std::unique_ptr<Backend> backend = MakeBrokenVisionBackend(created.backend.get(), mistake.fault);
  ASSIGN_OR_RETURN(const std::unique_ptr<VisionTransformer> model,
                   VisionTransformer::Load(config, tensors, DType::kF32, num_images, backend.get()));
  const Matrix logits = model->Forward(patches);
  RETURN_IF_ERROR(backend->Wait());
  GoldenErrors errors;
  GoldenAnswers(folder + "/golden.safetensors").CompareLogits("logits", backend->HostView(logits), 0, &errors);
  return errors;
}

class VisionPlantedMistakesTest : public ::testing::TestWithParam<Mistake> {};

TEST_P(VisionPlantedMistakesTest, MovesTheLogitsFarBeyondTheTolerance) {
  const Mistake& mistake = GetParam();
  const auto errors = Measure(mistake);
  ASSERT_TRUE(errors.ok()) << errors.status();
  std::printf("%-22s %-34s %7.3f of the largest logit\n", mistake.fixture.c_str(), mistake.name.c_str(),
              errors->logits);
  EXPECT_GT(errors->logits, kClearly * kLogitTolerance);
}

INSTANTIATE_TEST_SUITE_P(All, VisionPlantedMistakesTest, ::testing::ValuesIn(AllMistakes()),
                         [](const auto& info) { return info.param.fixture + "_" + info.param.name; });

// Without a mistake the same machinery gives the golden answers; and no fixture is without one.
TEST(VisionPlantedMistakesMachineryTest, WithoutOneEveryFixturePasses) {
  std::set<std::string> fixtures;
  for (const Mistake& mistake : AllMistakes()) fixtures.insert(mistake.fixture);
  EXPECT_EQ(fixtures.size(), 6u);
  for (const std::string& fixture : fixtures) {
    const auto errors = Measure({.name = "none",
                                 .fixture = fixture,
                                 .tensor = "class_token",
                                 .edit_tensor = [](int64_t, int64_t, std::vector<float>&) {}});
    ASSERT_TRUE(errors.ok()) << errors.status();
    EXPECT_LE(errors->logits, kLogitTolerance) << fixture << ": " << errors->worst_logit;
  }
}

}  // namespace
}  // namespace switchyard::testing
