// The encoder-decoder against golden logits of tiny random Switch checkpoints: float64 evaluations of the family's
// specification, which the reference PyTorch class confirmed, with the experts that every token went to (or that had no
// room for it). fp32 on every instruction set of the machine, at once and token by token; and bfloat16 near fp32.
#include <algorithm>
#include <bit>
#include <cmath>
#include <memory>
#include <numeric>
#include <string>
#include <tuple>
#include <vector>

#include "engine/backend/backend.h"
#include "engine/checkpoint/weights.h"
#include "engine/config/model_config.h"
#include "engine/model/encoder_decoder.h"
#include "gtest/gtest.h"
#include "tests/support/golden_file.h"
#include "tests/support/test_backends.h"

namespace switchyard {
namespace {

constexpr double kLogitTolerance = 1e-5;   // of max |logit|
// Of router weights. Attention without 1 / sqrt(d) amplifies rounding: the specification itself, evaluated in fp32, is
// off by 1.1e-6 on switch_nodrop.
constexpr double kWeightTolerance = 2e-6;
constexpr double kBf16RelativeRms = 0.02;
constexpr int32_t kMaxTokens = 128;

using Logits = std::vector<float>;

std::string FolderOf(const std::string& fixture) {
  return std::string(SWITCHYARD_SOURCE_DIR) + "/tests/golden/fixtures/" + fixture;
}

// One model with a cache for three sequences of the fixture.
class Model {
 public:
  static constexpr int32_t kBlocks = 9;

  // Null: the device does not serve it, `skipped` says why; or a failure was recorded.
  static std::unique_ptr<Model> Load(const std::string& fixture, const std::string& variant, DType dtype,
                                     std::string* skipped) {
    auto backend = testing::MakeBackend(variant, 2);
    if (backend.status().code() == absl::StatusCode::kFailedPrecondition) {
      *skipped = std::string(backend.status().message());
      return nullptr;
    }
    EXPECT_TRUE(backend.ok()) << backend.status();
    std::unique_ptr<Model> model(new Model);
    model->backend_ = *std::move(backend);
    auto config = ReadModelConfig(FolderOf(fixture));
    EXPECT_TRUE(config.ok()) << config.status();
    model->config_ = *config;
    const absl::Status served = EncoderDecoder::CheckServed(*config, *model->backend_);
    if (!served.ok()) {
      *skipped = std::string(served.message());
      return nullptr;
    }
    auto weights = OpenWeights(*config, FolderOf(fixture));
    EXPECT_TRUE(weights.ok()) << weights.status();
    const AttentionShape& shape = config->layers[0].attention.shape;
    auto cache = model->backend_->AllocateKvCache({.num_layers = config->num_decoder_layers(),
                                                   .num_blocks = kBlocks,
                                                   .block_size = 16,
                                                   .num_kv_heads = shape.num_kv_heads,
                                                   .head_dim = shape.head_dim,
                                                   .dtype = dtype});
    EXPECT_TRUE(cache.ok()) << cache.status();
    model->cache_ = *std::move(cache);
    auto loaded = EncoderDecoder::Load(*config, **weights, dtype,
                                       {.max_tokens = kMaxTokens, .max_logit_rows = kMaxTokens},
                                       model->backend_.get());
    EXPECT_TRUE(loaded.ok()) << loaded.status();
    model->model_ = *std::move(loaded);
    return model;
  }

  const ModelConfig& config() const { return config_; }
  const EncoderDecoder& model() const { return *model_; }

  // Logits of every row of the decoder.
  Logits Run(const std::vector<int32_t>& ids, const std::vector<AttentionSlice>& slices) {
    std::vector<int32_t> rows;
    for (const AttentionSlice& slice : slices) {
      const int32_t encoded = std::max(slice.num_encoder_tokens - slice.first_position, 0);
      for (int32_t i = encoded; i < slice.num_tokens; ++i) rows.push_back(static_cast<int32_t>(slice.first_row) + i);
    }
    const Matrix out = model_->Forward(ids, slices, rows, cache_.get());
    EXPECT_TRUE(backend_->Wait().ok());
    const std::span<const float> logits = backend_->HostView(out);
    return {logits.begin(), logits.end()};
  }

 private:
  std::unique_ptr<Backend> backend_;
  ModelConfig config_;
  std::unique_ptr<KvCache> cache_;
  std::unique_ptr<EncoderDecoder> model_;
};

using Param = std::tuple<std::string, testing::Variant>;

class EncoderDecoderGoldenTest : public ::testing::TestWithParam<Param> {
 protected:
  void SetUp() override {
    const auto& [fixture, variant] = GetParam();
    std::string skipped;
    model_ = Model::Load(fixture, variant, DType::kF32, &skipped);
    if (!skipped.empty()) GTEST_SKIP() << skipped;
    ASSERT_NE(model_, nullptr);
    const testing::GoldenFile golden(FolderOf(fixture) + "/golden.safetensors");
    encoder_ids_ = golden.GetIds("input_ids");
    decoder_ids_ = golden.GetIds("decoder_input_ids");
    golden_ = std::make_unique<testing::GoldenFile>(golden);
    logits_ = golden.Get("logits");
    ids_ = encoder_ids_;
    ids_.insert(ids_.end(), decoder_ids_.begin(), decoder_ids_.end());
  }

  int32_t num_encoded() const { return static_cast<int32_t>(encoder_ids_.size()); }
  int32_t num_decoded() const { return static_cast<int32_t>(decoder_ids_.size()); }
  int32_t length() const { return static_cast<int32_t>(ids_.size()); }

  // Positions [first, first + count) of the sequence with these blocks; the first `prompt` of the decoder's tokens are
  // the prompt's.
  AttentionSlice Slice(int64_t first_row, int32_t first, int32_t count, const std::vector<int32_t>& table,
                       int32_t prompt) const {
    return {.first_row = first_row, .num_tokens = count, .first_position = first, .block_table = table.data(),
            .num_encoder_tokens = num_encoded(), .prompt_end = num_encoded() + prompt};
  }
  std::vector<int32_t> Part(int32_t first, int32_t count) const {
    return {ids_.begin() + first, ids_.begin() + first + count};
  }

  void ExpectGolden(const Logits& actual, int32_t first) const {
    double largest = 0.0, worst = 0.0;
    for (const double value : logits_.values) largest = std::max(largest, std::fabs(value));
    const size_t offset = static_cast<size_t>(first) * static_cast<size_t>(model_->config().vocab_size);
    ASSERT_LE(offset + actual.size(), logits_.values.size());
    for (size_t i = 0; i < actual.size(); ++i) {
      const double error = std::fabs(actual[i] - logits_.values[offset + i]);
      if (!(error <= worst)) worst = error;
    }
    EXPECT_LE(worst, kLogitTolerance * largest);
  }

  void ExpectGoldenRouting() const {
    size_t index = 0;
    for (int32_t l = 0; l < model_->config().num_layers(); ++l) {
      if (!model_->config().layers[static_cast<size_t>(l)].is_moe) continue;
      const Routing& routing = model_->model().moe_layers()[index++]->routing();
      const std::string name = "layers." + std::to_string(l) + ".router.";
      const std::vector<int32_t> ids = golden_->GetIds(name + "ids");
      const testing::GoldenTensor weights = golden_->Get(name + "weights");
      ASSERT_EQ(routing.num_tokens, static_cast<int32_t>(ids.size())) << name;
      for (size_t i = 0; i < ids.size(); ++i) {
        EXPECT_EQ(routing.expert_ids[i], ids[i]) << name << ", token " << i;
        EXPECT_NEAR(routing.expert_weights[i], weights.values[i], kWeightTolerance) << name << ", token " << i;
      }
    }
    EXPECT_EQ(index, model_->model().moe_layers().size());
  }

  static void ExpectSameBits(std::span<const float> actual, std::span<const float> expected, const char* what) {
    ASSERT_EQ(actual.size(), expected.size()) << what;
    for (size_t i = 0; i < expected.size(); ++i) {
      ASSERT_EQ(std::bit_cast<uint32_t>(actual[i]), std::bit_cast<uint32_t>(expected[i])) << what << ", " << i;
    }
  }

  std::unique_ptr<Model> model_;
  std::unique_ptr<testing::GoldenFile> golden_;
  std::vector<int32_t> encoder_ids_, decoder_ids_, ids_;
  testing::GoldenTensor logits_;
  const std::vector<int32_t> tables_[3] = {{8, 1, 4}, {0, 7, 2}, {5, 3, 6}};  // blocks in no order
};

TEST_P(EncoderDecoderGoldenTest, OneStepGivesTheGoldenLogitsAndExperts) {
  ExpectGolden(model_->Run(ids_, {Slice(0, 0, length(), tables_[0], num_decoded())}), 0);
  ExpectGoldenRouting();
}

TEST_P(EncoderDecoderGoldenTest, WithoutAPromptCapacityOnlyTheEncoderDrops) {
  model_->Run(ids_, {Slice(0, 0, length(), tables_[0], 0)});
  int32_t dropped = 0;
  for (const MoeLayer* layer : model_->model().decoder_moe_layers()) {
    const Routing& routing = layer->routing();
    dropped += static_cast<int32_t>(
        std::count(routing.expert_ids, routing.expert_ids + routing.num_tokens, kDropped));
  }
  EXPECT_EQ(dropped, 0);
}

// Tokens that were generated one by one, run again at once as after a preemption.
TEST_P(EncoderDecoderGoldenTest, DecodingTokenByTokenEqualsRunningThemAgainAtOnce) {
  const Logits whole = model_->Run(ids_, {Slice(0, 0, length(), tables_[0], 1)});
  Logits steps = model_->Run(Part(0, num_encoded() + 1), {Slice(0, 0, num_encoded() + 1, tables_[1], 1)});
  for (int32_t position = num_encoded() + 1; position < length(); ++position) {
    const Logits row = model_->Run(Part(position, 1), {Slice(0, position, 1, tables_[1], 1)});
    for (const MoeLayer* layer : model_->model().moe_layers()) {
      MoeLayerStats stats;
      layer->FillStats(&stats);
      EXPECT_EQ(stats.num_dropped, 0);
    }
    steps.insert(steps.end(), row.begin(), row.end());
  }
  ExpectSameBits(steps, whole, "token by token");
  if (std::get<0>(GetParam()) == "switch_nodrop") ExpectGolden(steps, 0);

  // The encoder alone, then the decoder in two pieces.
  EXPECT_TRUE(model_->Run(encoder_ids_, {Slice(0, 0, num_encoded(), tables_[2], 1)}).empty());
  const int32_t half = num_decoded() / 2;
  Logits pieces = model_->Run(Part(num_encoded(), half), {Slice(0, num_encoded(), half, tables_[2], 1)});
  const Logits rest = model_->Run(Part(num_encoded() + half, num_decoded() - half),
                                  {Slice(0, num_encoded() + half, num_decoded() - half, tables_[2], 1)});
  pieces.insert(pieces.end(), rest.begin(), rest.end());
  ExpectSameBits(pieces, whole, "in pieces");
}

// A step with a decode, a whole sequence and another one's second half: each row has the bits that it has alone.
TEST_P(EncoderDecoderGoldenTest, BatchedRowsHaveTheBitsOfRowsAlone) {
  const int32_t all = num_decoded(), half = all / 2;
  const Logits alone = model_->Run(ids_, {Slice(0, 0, length(), tables_[0], 1)});
  model_->Run(Part(0, num_encoded() + half), {Slice(0, 0, num_encoded() + half, tables_[2], 1)});
  std::vector<int32_t> ids = {ids_.back()};
  ids.insert(ids.end(), ids_.begin(), ids_.end());
  ids.insert(ids.end(), ids_.begin() + num_encoded() + half, ids_.end());
  const Logits batch = model_->Run(ids, {Slice(0, length() - 1, 1, tables_[0], 1),
                                         Slice(1, 0, length(), tables_[1], 1),
                                         Slice(1 + length(), num_encoded() + half, all - half, tables_[2], 1)});
  const size_t vocab = static_cast<size_t>(model_->config().vocab_size);
  Logits expected(alone.end() - static_cast<std::ptrdiff_t>(vocab), alone.end());
  expected.insert(expected.end(), alone.begin(), alone.end());
  expected.insert(expected.end(), alone.begin() + static_cast<std::ptrdiff_t>(half * vocab), alone.end());
  ExpectSameBits(batch, expected, "batched");
}

// Each with a capacity of its own, so that one's tokens never take the other's places.
TEST_P(EncoderDecoderGoldenTest, EncodersInOneBatchDoNotShareTheExpertsCapacity) {
  const Logits alone = model_->Run(ids_, {Slice(0, 0, length(), tables_[0], num_decoded())});
  std::vector<int32_t> ids = ids_;
  ids.insert(ids.end(), ids_.begin(), ids_.end());
  const Logits batch = model_->Run(ids, {Slice(0, 0, length(), tables_[1], num_decoded()),
                                         Slice(length(), 0, length(), tables_[2], num_decoded())});
  Logits expected = alone;
  expected.insert(expected.end(), alone.begin(), alone.end());
  ExpectSameBits(batch, expected, "twice");
}

std::vector<Param> Params(bool fp32) {
  std::vector<Param> params;
  for (const std::string fixture : {"switch_nodrop", "switch_drop"}) {
    if (!fp32 && fixture == "switch_drop") continue;
    for (const testing::Variant& variant : testing::Variants()) {
      if (fp32 && (variant == "avx512_bf16" || variant == "amx")) continue;
      params.emplace_back(fixture, variant);
    }
  }
  return params;
}

std::string ParamName(const ::testing::TestParamInfo<Param>& info) {
  return std::get<0>(info.param) + "_" + std::get<1>(info.param);
}

INSTANTIATE_TEST_SUITE_P(Switch, EncoderDecoderGoldenTest, ::testing::ValuesIn(Params(/*fp32=*/true)), ParamName);

class Bf16EncoderDecoderTest : public ::testing::TestWithParam<Param> {};

// Where nothing is dropped: with a capacity, one expert flipped by rounding moves the tokens behind it, too.
TEST_P(Bf16EncoderDecoderTest, LogitsStayNearTheGoldenOnes) {
  const auto& [fixture, variant] = GetParam();
  std::string skipped;
  const auto model = Model::Load(fixture, variant, DType::kBF16, &skipped);
  if (!skipped.empty()) GTEST_SKIP() << skipped;
  ASSERT_NE(model, nullptr);
  const testing::GoldenFile golden(FolderOf(fixture) + "/golden.safetensors");
  std::vector<int32_t> ids = golden.GetIds("input_ids");
  const int32_t num_encoded = static_cast<int32_t>(ids.size());
  for (const int32_t id : golden.GetIds("decoder_input_ids")) ids.push_back(id);
  const std::vector<int32_t> table = {8, 1, 4};
  const int32_t length = static_cast<int32_t>(ids.size());
  const Logits logits = model->Run(ids, {{.first_row = 0, .num_tokens = length, .first_position = 0,
                                          .block_table = table.data(), .num_encoder_tokens = num_encoded,
                                          .prompt_end = length}});
  const testing::GoldenTensor expected = golden.Get("logits");
  ASSERT_EQ(logits.size(), expected.values.size());
  double squares = 0.0, errors = 0.0;
  for (size_t i = 0; i < logits.size(); ++i) {
    squares += expected.values[i] * expected.values[i];
    errors += (logits[i] - expected.values[i]) * (logits[i] - expected.values[i]);
  }
  EXPECT_LE(std::sqrt(errors / squares), kBf16RelativeRms);
  RecordProperty("relative_rms", std::to_string(std::sqrt(errors / squares)));
}

INSTANTIATE_TEST_SUITE_P(Switch, Bf16EncoderDecoderTest, ::testing::ValuesIn(Params(/*fp32=*/false)), ParamName);

}  // namespace
}  // namespace switchyard
