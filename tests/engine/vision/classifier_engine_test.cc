// A classifier behind the engine's interface: what it says of itself, what a step gives, and what it refuses.
#include "engine/vision/classifier_engine.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "tests/support/temp_folder.h"

namespace switchyard {
namespace {

std::string Folder() { return std::string(SWITCHYARD_SOURCE_DIR) + "/tests/golden/fixtures/vmoe_plain"; }

ImageClassifierOptions Options() {
  ImageClassifierOptions options;
  options.backend.device = "cpu";
  options.backend.num_threads = 1;
  options.max_batch = 2;
  return options;
}

class ClassifierEngineTest : public ::testing::Test {
 protected:
  // Slices of the same image.
  StepBatch Images(size_t count) {
    StepBatch batch;
    for (size_t i = 0; i < count; ++i) {
      SequenceSlice slice;
      slice.sequence_id = 10 + i;
      slice.tokens = tokens_;
      slice.sample = true;
      slice.image = image_;
      batch.slices.push_back(slice);
    }
    return batch;
  }

  std::unique_ptr<Engine> engine_ = *CreateClassifierEngine(Folder(), Options());
  std::vector<int32_t> tokens_ = std::vector<int32_t>(17);
  std::vector<float> image_ = std::vector<float>(16 * 16 * 3, 0.5f);
};

TEST_F(ClassifierEngineTest, FactsDescribePlacesOfWholeImages) {
  const ModelFacts& facts = engine_->facts();
  EXPECT_TRUE(facts.is_classifier());
  EXPECT_EQ(facts.num_classes, 7);
  EXPECT_EQ(facts.tokens_per_image, 17);
  EXPECT_EQ(facts.max_model_len, 18);
  EXPECT_EQ(facts.block_size, facts.max_model_len);
  EXPECT_EQ(facts.num_kv_blocks, 2);
  EXPECT_FALSE(ModelFacts().is_classifier());
}

TEST_F(ClassifierEngineTest, AStepGivesClassLogitsAndWhatExpertsDid) {
  const StepBatch batch = Images(2);
  ASSERT_TRUE(engine_->Launch(batch).ok());
  const StepOutput* output = *engine_->Collect();
  ASSERT_EQ(output->tokens.size(), 2u);
  EXPECT_EQ(output->tokens[1].sequence_id, 11u);
  const std::vector<float>& logits = output->tokens[0].logits;
  ASSERT_EQ(logits.size(), 7u);
  EXPECT_EQ(logits, output->tokens[1].logits);
  EXPECT_EQ(output->tokens[0].token, std::max_element(logits.begin(), logits.end()) - logits.begin());
  EXPECT_TRUE(output->tokens[0].finite);
  EXPECT_EQ(output->stats.num_tokens, 2 * 17);
  EXPECT_EQ(output->stats.moe_layers.size(), 2u);
}

TEST_F(ClassifierEngineTest, StepsOfAnythingElseAreRefused) {
  EXPECT_TRUE(absl::IsInternal(engine_->Launch(Images(3))));
  StepBatch batch = Images(1);
  batch.slices[0].image = std::span(image_).first(100);
  EXPECT_TRUE(absl::IsInternal(engine_->Launch(batch)));
  batch = Images(1);
  batch.slices[0].sample = false;
  EXPECT_TRUE(absl::IsInternal(engine_->Launch(batch)));
  EXPECT_TRUE(engine_->Launch(Images(1)).ok()) << "the next step may follow";
}

TEST(HoldsImageClassifierTest, LooksAtTheModelTypeAlone) {
  EXPECT_TRUE(HoldsImageClassifier(Folder()));
  EXPECT_FALSE(HoldsImageClassifier(Folder() + "/missing"));
  const testing::TempFolder folder;
  for (const auto& [config, holds] : std::vector<std::pair<std::string, bool>>{{R"({"model_type": "vmoe"})", true},
                                                                               {R"({"model_type": "mixtral"})", false},
                                                                               {R"({"model_type": 7})", false},
                                                                               {"[]", false},
                                                                               {"{", false}}) {
    folder.Write("config.json", config);
    EXPECT_EQ(HoldsImageClassifier(folder.path()), holds) << config;
  }
}

}  // namespace
}  // namespace switchyard
