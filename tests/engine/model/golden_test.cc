// The decoder against golden logits of tiny random checkpoints: float64 evaluations of each family's specification
// (tests/golden). fp32 on every instruction set of the machine, in any chunking, alone and batched.

#include <algorithm>
#include <bit>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <tuple>
#include <vector>

#include "engine/checkpoint/weights.h"
#include "engine/config/model_config.h"
#include "gtest/gtest.h"
#include "tests/support/golden_checkpoints.h"
#include "tests/support/golden_run.h"
#include "tests/support/test_backends.h"

namespace switchyard {
namespace {

using testing::GoldenCheckpoint;

// Of chunk sizes every one is tried with the fixtures, every third with the many further checkpoints, and every fifth on
// the slow emulated device.
int ChunkStep() {
  if (std::string_view(SWITCHYARD_TEST_DEVICE) == "emulated") return 5;
  return testing::IsGoldenFolderGiven() ? 3 : 1;
}

using GoldenParam = std::tuple<GoldenCheckpoint, testing::Variant>;

// Every checkpoint on every variant of the device, but those that differ in bfloat16 only, and those that differ in the
// products of the experts only with one fixture.
std::vector<GoldenParam> Params() {
  std::vector<GoldenParam> params;
  for (const GoldenCheckpoint& checkpoint : testing::GoldenCheckpoints()) {
    for (const testing::Variant& variant : testing::Variants(/*expert_gemms=*/checkpoint.name == "mixtral")) {
      if (variant != "avx512_bf16" && variant != "amx") params.emplace_back(checkpoint, variant);
    }
  }
  return params;
}

std::string ParamName(const ::testing::TestParamInfo<GoldenParam>& info) {
  return std::get<0>(info.param).name + "_" + std::get<1>(info.param);
}

class GoldenTest : public ::testing::TestWithParam<GoldenParam> {
 protected:
  void SetUp() override {
    const auto& [checkpoint, variant] = GetParam();
    auto backend = testing::MakeBackend(variant, 2);
    if (backend.status().code() == absl::StatusCode::kFailedPrecondition) GTEST_SKIP() << backend.status().message();
    ASSERT_TRUE(backend.ok()) << backend.status();
    backend_ = *std::move(backend);
    const auto config = ReadModelConfig(checkpoint.folder, checkpoint.max_model_len);
    ASSERT_TRUE(config.ok()) << config.status();
    vocab_size_ = config->vocab_size;
    const auto weights = OpenWeights(*config, checkpoint.folder);
    ASSERT_TRUE(weights.ok()) << weights.status();
    auto run = testing::GoldenRun::Create(*config, **weights, checkpoint.golden_file(), DType::kF32, backend_.get());
    if (run.status().code() == absl::StatusCode::kUnimplemented) GTEST_SKIP() << run.status().message();
    ASSERT_TRUE(run.ok()) << run.status();
    run_ = *std::move(run);
  }

  void TearDown() override {
    RecordProperty("relative_logit_error", std::to_string(1e6 * worst_logit_) + "e-6");
    RecordProperty("router_weight_error", std::to_string(1e6 * worst_weight_) + "e-6");
  }

  // Logits and routing of every position, with the prompt in chunks of the given sizes.
  void ExpectGolden(const std::vector<int>& chunks) {
    const GoldenCheckpoint& checkpoint = std::get<0>(GetParam());
    const auto errors = run_->RunChunks(chunks);
    ASSERT_TRUE(errors.ok()) << errors.status();
    EXPECT_LE(errors->logits, checkpoint.logit_slack * testing::kLogitTolerance) << errors->worst_logit;
    EXPECT_EQ(errors->wrong_expert, "");
    EXPECT_LE(errors->router_weights, checkpoint.weight_slack * testing::kWeightTolerance);
    worst_logit_ = std::max(worst_logit_, errors->logits);
    worst_weight_ = std::max(worst_weight_, errors->router_weights);
  }

  std::vector<float> RunStep(const std::vector<int32_t>& ids, const std::vector<AttentionSlice>& slices) {
    const auto logits = run_->RunStep(ids, slices);
    EXPECT_TRUE(logits.ok()) << logits.status();
    return logits.value_or(std::vector<float>());
  }

  std::unique_ptr<Backend> backend_;
  std::unique_ptr<testing::GoldenRun> run_;
  int64_t vocab_size_ = 0;
  double worst_logit_ = 0.0, worst_weight_ = 0.0;
};

TEST_P(GoldenTest, PrefillAtOnceGivesTheGoldenLogits) { ExpectGolden({run_->length()}); }

TEST_P(GoldenTest, TokenByTokenGivesTheGoldenLogits) { ExpectGolden(std::vector<int>(run_->length(), 1)); }

TEST_P(GoldenTest, EverySplitInTwoGivesTheGoldenLogits) {
  const int length = run_->length();
  for (int first = 1; first < length; first += ChunkStep()) ExpectGolden({first, length - first});
}

TEST_P(GoldenTest, EveryEqualChunkSizeGivesTheGoldenLogits) {
  const int length = run_->length();
  for (int size = 2; size < length; size += ChunkStep()) {
    std::vector<int> chunks(length / size, size);
    if (length % size != 0) chunks.push_back(length % size);
    ExpectGolden(chunks);
  }
}

// A step that holds a decode of the prompt's last token, the whole prompt, and its second half: each row has the bits
// that it has in a prompt that is alone.
TEST_P(GoldenTest, BatchedRowsHaveTheBitsOfRowsAlone) {
  const std::vector<int32_t>& prompt = run_->ids();
  const int32_t length = run_->length(), half = length / 2;
  const std::vector<int32_t> tables[] = {{11, 3}, {7, 0}, {5, 9}};
  const std::vector<float> alone = RunStep(prompt, {{0, length, 0, tables[0].data()}});
  RunStep({prompt.begin(), prompt.begin() + half}, {{0, half, 0, tables[2].data()}});

  std::vector<int32_t> ids = {prompt.back()};
  ids.insert(ids.end(), prompt.begin(), prompt.end());
  ids.insert(ids.end(), prompt.begin() + half, prompt.end());
  const std::vector<float> batch = RunStep(ids, {{0, 1, length - 1, tables[0].data()},
                                                 {1, length, 0, tables[1].data()},
                                                 {1 + length, length - half, half, tables[2].data()}});
  const int64_t vocab = vocab_size_;
  std::vector<float> expected(alone.end() - vocab, alone.end());
  expected.insert(expected.end(), alone.begin(), alone.end());
  expected.insert(expected.end(), alone.begin() + half * vocab, alone.end());
  ASSERT_EQ(batch.size(), expected.size());
  for (size_t i = 0; i < batch.size(); ++i) {
    ASSERT_EQ(std::bit_cast<uint32_t>(batch[i]), std::bit_cast<uint32_t>(expected[i])) << "row " << i / vocab;
  }
}

INSTANTIATE_TEST_SUITE_P(Checkpoints, GoldenTest, ::testing::ValuesIn(Params()), ParamName);

// That the generator, if it is used, has made what it should.
TEST(GoldenCheckpointsTest, EveryFamilyHasFiveFurtherOnes) {
  if (!testing::IsGoldenFolderGiven()) GTEST_SKIP() << "these are the fixtures";
  std::map<std::string, int> counts;
  for (const GoldenCheckpoint& checkpoint : testing::GoldenCheckpoints()) ++counts[checkpoint.family];
  for (const char* family : {"arctic", "dbrx", "deepseek", "deepseek_v2", "deepseek_v3", "deepseek_v3 fp8", "glm4_moe",
                             "gpt_oss", "gpt_oss mxfp4", "granitemoe", "granitemoeshared", "jetmoe", "kimi_k2",
                             "llama4_text", "mixtral", "olmoe", "phimoe", "qwen2_moe", "qwen3_moe",
                             "switchyard_moe"}) {
    EXPECT_GE(counts[family], 5) << family;
  }
}

}  // namespace
}  // namespace switchyard
