// The encoder-decoder against golden logits of tiny random Switch checkpoints: float64 evaluations of the family's
// specification, which the reference PyTorch class confirmed, with the experts that every token went to (or that had no
// room for it). fp32 on every instruction set of the machine, at once and token by token; and bfloat16 near fp32.
#include <algorithm>
#include <bit>
#include <cmath>
#include <memory>
#include <string>
#include <tuple>
#include <vector>

#include "engine/backend/backend.h"
#include "engine/checkpoint/weights.h"
#include "engine/config/model_config.h"
#include "gtest/gtest.h"
#include "tests/support/encoder_decoder_run.h"
#include "tests/support/golden_checkpoints.h"
#include "tests/support/golden_file.h"
#include "tests/support/test_backends.h"

namespace switchyard {
namespace {

using testing::EncoderDecoderRun;
using testing::GoldenCheckpoint;
using testing::GoldenErrors;

constexpr double kBf16RelativeRms = 0.02;

using Logits = std::vector<float>;
using Param = std::tuple<GoldenCheckpoint, testing::Variant>;

std::vector<Param> Params() {
  std::vector<Param> params;
  for (const GoldenCheckpoint& checkpoint : testing::EncoderDecoderCheckpoints()) {
    for (const testing::Variant& variant : testing::Variants()) {
      if (variant != "avx512_bf16" && variant != "amx") params.emplace_back(checkpoint, variant);  // as in bf16 only
    }
  }
  return params;
}

// Where nothing is dropped: with a capacity, one expert flipped by rounding moves the tokens behind it, too.
std::vector<Param> Bf16Params() {
  std::vector<Param> params;
  for (const testing::Variant& variant : testing::Variants()) {
    params.emplace_back(testing::GoldenFixture("switch_nodrop"), variant);
  }
  return params;
}

std::string ParamName(const ::testing::TestParamInfo<Param>& info) {
  return std::get<0>(info.param).name + "_" + std::get<1>(info.param);
}

class EncoderDecoderTest : public ::testing::TestWithParam<Param> {
 protected:
  // Skips where the device, or this model on it, is not served.
  void Load(DType dtype) {
    const auto& [checkpoint, variant] = GetParam();
    auto backend = testing::MakeBackend(variant, 2);
    if (backend.status().code() == absl::StatusCode::kFailedPrecondition) GTEST_SKIP() << backend.status().message();
    ASSERT_TRUE(backend.ok()) << backend.status();
    backend_ = *std::move(backend);
    const auto config = ReadModelConfig(checkpoint.folder);
    ASSERT_TRUE(config.ok()) << config.status();
    const auto weights = OpenWeights(*config, checkpoint.folder);
    ASSERT_TRUE(weights.ok()) << weights.status();
    auto run = EncoderDecoderRun::Create(*config, **weights, checkpoint.golden_file(), dtype, backend_.get());
    if (run.status().code() == absl::StatusCode::kUnimplemented) GTEST_SKIP() << run.status().message();
    ASSERT_TRUE(run.ok()) << run.status();
    run_ = *std::move(run);
  }

  Logits Run(const std::vector<int32_t>& ids, const std::vector<AttentionSlice>& slices) {
    const auto logits = run_->RunStep(ids, slices);
    EXPECT_TRUE(logits.ok()) << logits.status();
    return logits.value_or(Logits());
  }
  Logits RunWhole(int32_t prompt) { return Run(run_->ids(), {run_->Slice(0, 0, run_->length(), 0, prompt)}); }

  std::unique_ptr<Backend> backend_;
  std::unique_ptr<EncoderDecoderRun> run_;
};

class EncoderDecoderGoldenTest : public EncoderDecoderTest {
 protected:
  void SetUp() override { Load(DType::kF32); }

  void TearDown() override {
    RecordProperty("relative_logit_error", std::to_string(1e6 * worst_logit_) + "e-6");
    RecordProperty("router_weight_error", std::to_string(1e6 * worst_weight_) + "e-6");
  }

  void ExpectGolden(const absl::StatusOr<GoldenErrors>& errors) {
    const GoldenCheckpoint& checkpoint = std::get<0>(GetParam());
    ASSERT_TRUE(errors.ok()) << errors.status();
    EXPECT_LE(errors->logits, checkpoint.logit_slack * testing::kLogitTolerance) << errors->worst_logit;
    EXPECT_EQ(errors->wrong_expert, "");
    EXPECT_LE(errors->router_weights, checkpoint.weight_slack * testing::kWeightTolerance);
    worst_logit_ = std::max(worst_logit_, errors->logits);
    worst_weight_ = std::max(worst_weight_, errors->router_weights);
  }

  static void ExpectSameBits(const Logits& actual, const Logits& expected, const char* what) {
    ASSERT_EQ(actual.size(), expected.size()) << what;
    for (size_t i = 0; i < expected.size(); ++i) {
      ASSERT_EQ(std::bit_cast<uint32_t>(actual[i]), std::bit_cast<uint32_t>(expected[i])) << what << ", " << i;
    }
  }

  double worst_logit_ = 0.0, worst_weight_ = 0.0;
};

TEST_P(EncoderDecoderGoldenTest, OneStepGivesTheGoldenLogitsAndExperts) { ExpectGolden(run_->RunAtOnce()); }

TEST_P(EncoderDecoderGoldenTest, TokenByTokenGivesTheGoldenLogits) {
  ExpectGolden(run_->RunGenerated(std::vector<int>(run_->num_decoded(), 1)));
}

TEST_P(EncoderDecoderGoldenTest, EverySplitInTwoGivesTheGoldenLogits) {
  for (int first = 1; first < run_->num_decoded(); ++first) {
    ExpectGolden(run_->RunGenerated({first, run_->num_decoded() - first}));
  }
}

TEST_P(EncoderDecoderGoldenTest, EveryEqualChunkSizeGivesTheGoldenLogits) {
  for (int size = 2; size < run_->num_decoded(); ++size) {
    std::vector<int> chunks(run_->num_decoded() / size, size);
    if (run_->num_decoded() % size != 0) chunks.push_back(run_->num_decoded() % size);
    ExpectGolden(run_->RunGenerated(chunks));
  }
}

TEST_P(EncoderDecoderGoldenTest, WithoutAPromptCapacityOnlyTheEncoderDrops) {
  RunWhole(/*prompt=*/0);
  for (const MoeLayer* layer : run_->model().decoder_moe_layers()) {
    const Routing& routing = layer->routing();
    EXPECT_EQ(std::count(routing.expert_ids, routing.expert_ids + routing.num_tokens, kDropped), 0);
  }
}

// Tokens that were generated one by one, run again at once as after a preemption.
TEST_P(EncoderDecoderGoldenTest, DecodingTokenByTokenEqualsRunningThemAgainAtOnce) {
  const int32_t encoded = run_->num_encoded(), decoded = run_->num_decoded();
  const Logits whole = RunWhole(/*prompt=*/1);
  Logits steps = Run(run_->Part(0, encoded + 1), {run_->Slice(0, 0, encoded + 1, 1, 1)});
  for (int32_t position = encoded + 1; position < run_->length(); ++position) {
    const Logits row = Run(run_->Part(position, 1), {run_->Slice(0, position, 1, 1, 1)});
    for (const MoeLayer* layer : run_->model().moe_layers()) {
      MoeLayerStats stats;
      layer->FillStats(&stats);
      EXPECT_EQ(stats.num_dropped, 0);
    }
    steps.insert(steps.end(), row.begin(), row.end());
  }
  ExpectSameBits(steps, whole, "token by token");

  // The encoder alone, then the decoder in two pieces.
  EXPECT_TRUE(Run(run_->Part(0, encoded), {run_->Slice(0, 0, encoded, 2, 1)}).empty());
  const int32_t half = decoded / 2;
  Logits pieces = Run(run_->Part(encoded, half), {run_->Slice(0, encoded, half, 2, 1)});
  const Logits rest =
      Run(run_->Part(encoded + half, decoded - half), {run_->Slice(0, encoded + half, decoded - half, 2, 1)});
  pieces.insert(pieces.end(), rest.begin(), rest.end());
  ExpectSameBits(pieces, whole, "in pieces");
}

// A step with a decode, a whole sequence and another one's second half: each row has the bits that it has alone.
TEST_P(EncoderDecoderGoldenTest, BatchedRowsHaveTheBitsOfRowsAlone) {
  const int32_t encoded = run_->num_encoded(), all = run_->num_decoded(), half = all / 2, length = run_->length();
  const Logits alone = RunWhole(/*prompt=*/1);
  Run(run_->Part(0, encoded + half), {run_->Slice(0, 0, encoded + half, 2, 1)});
  std::vector<int32_t> ids = {run_->ids().back()};
  ids.insert(ids.end(), run_->ids().begin(), run_->ids().end());
  ids.insert(ids.end(), run_->ids().begin() + encoded + half, run_->ids().end());
  const Logits batch = Run(ids, {run_->Slice(0, length - 1, 1, 0, 1), run_->Slice(1, 0, length, 1, 1),
                                 run_->Slice(1 + length, encoded + half, all - half, 2, 1)});
  const std::ptrdiff_t vocab = run_->vocab_size();
  Logits expected(alone.end() - vocab, alone.end());
  expected.insert(expected.end(), alone.begin(), alone.end());
  expected.insert(expected.end(), alone.begin() + half * vocab, alone.end());
  ExpectSameBits(batch, expected, "batched");
}

// Each with a capacity of its own, so that one's tokens never take the other's places.
TEST_P(EncoderDecoderGoldenTest, EncodersInOneBatchDoNotShareTheExpertsCapacity) {
  const int32_t length = run_->length(), prompt = run_->num_decoded();
  const Logits alone = RunWhole(prompt);
  std::vector<int32_t> ids = run_->ids();
  ids.insert(ids.end(), run_->ids().begin(), run_->ids().end());
  const Logits batch = Run(ids, {run_->Slice(0, 0, length, 1, prompt), run_->Slice(length, 0, length, 2, prompt)});
  Logits expected = alone;
  expected.insert(expected.end(), alone.begin(), alone.end());
  ExpectSameBits(batch, expected, "twice");
}

INSTANTIATE_TEST_SUITE_P(Switch, EncoderDecoderGoldenTest, ::testing::ValuesIn(Params()), ParamName);

class Bf16EncoderDecoderTest : public EncoderDecoderTest {};

TEST_P(Bf16EncoderDecoderTest, LogitsStayNearTheGoldenOnes) {
  Load(DType::kBF16);
  if (run_ == nullptr) return;
  const Logits logits = RunWhole(run_->num_decoded());
  const testing::GoldenTensor expected = testing::GoldenFile(std::get<0>(GetParam()).golden_file()).Get("logits");
  ASSERT_EQ(logits.size(), expected.values.size());
  double squares = 0.0, errors = 0.0;
  for (size_t i = 0; i < logits.size(); ++i) {
    squares += expected.values[i] * expected.values[i];
    errors += (logits[i] - expected.values[i]) * (logits[i] - expected.values[i]);
  }
  EXPECT_LE(std::sqrt(errors / squares), kBf16RelativeRms);
  RecordProperty("relative_rms", std::to_string(std::sqrt(errors / squares)));
}

INSTANTIATE_TEST_SUITE_P(Switch, Bf16EncoderDecoderTest, ::testing::ValuesIn(Bf16Params()), ParamName);

// That the generator, if it is used, has made what it should: with tokens dropped in either stack, too.
TEST(EncoderDecoderCheckpointsTest, ThereAreEnoughFurtherOnes) {
  if (!testing::IsGoldenFolderGiven()) GTEST_SKIP() << "these are the fixtures";
  int dropping_encoders = 0, dropping_decoders = 0;
  const std::vector<GoldenCheckpoint> checkpoints = testing::EncoderDecoderCheckpoints();
  for (const GoldenCheckpoint& checkpoint : checkpoints) {
    const testing::GoldenFile golden(checkpoint.golden_file());
    const auto config = ReadModelConfig(checkpoint.folder);
    ASSERT_TRUE(config.ok()) << config.status();
    bool encoder_drops = false, decoder_drops = false;
    for (int32_t l = 0; l < config->num_layers(); ++l) {
      if (!config->layers[static_cast<size_t>(l)].is_moe) continue;
      const std::vector<int32_t> ids = golden.GetIds("layers." + std::to_string(l) + ".router.ids");
      const bool drops = std::count(ids.begin(), ids.end(), kDropped) > 0;
      (l < config->num_encoder_layers ? encoder_drops : decoder_drops) |= drops;
    }
    dropping_encoders += encoder_drops;
    dropping_decoders += decoder_drops;
  }
  EXPECT_GE(checkpoints.size(), 13u);
  EXPECT_GE(dropping_encoders, 3);
  EXPECT_GE(dropping_decoders, 3);
}

}  // namespace
}  // namespace switchyard
