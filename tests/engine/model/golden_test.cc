// The decoder against golden logits of tiny random checkpoints: float64 evaluations of each family's specification,
// which the reference PyTorch classes confirmed. fp32, every instruction set of the machine, any chunking.

#include <algorithm>
#include <cmath>
#include <memory>
#include <numeric>
#include <string>
#include <tuple>
#include <vector>

#include "engine/backend/backend.h"
#include "engine/checkpoint/weights.h"
#include "engine/config/model_config.h"
#include "engine/model/transformer.h"
#include "gtest/gtest.h"
#include "tests/support/golden_file.h"

namespace switchyard {
namespace {

constexpr int32_t kBlockSize = 16;
constexpr double kLogitTolerance = 1e-5;   // of max |logit|
// Of router weights, absolute. Scalar and AVX2 sum a dot product in fewer, longer chains of fp32 additions than
// AVX-512; the largest error seen there is 1.3e-6.
double WeightTolerance(const std::string& isa) { return isa == "avx512" ? 1e-6 : 2e-6; }


class GoldenTest : public ::testing::TestWithParam<std::tuple<std::string, std::string>> {
 protected:
  void SetUp() override {
    const auto& [fixture, isa] = GetParam();
    const std::string folder = std::string(SWITCHYARD_SOURCE_DIR) + "/tests/golden/fixtures/" + fixture;
    auto backend = CreateBackend({.device = "cpu", .cpu_isa = isa, .num_threads = 2});
    if (backend.status().code() == absl::StatusCode::kFailedPrecondition) {
      GTEST_SKIP() << "this machine lacks " << isa << ": " << backend.status();
    }
    ASSERT_TRUE(backend.ok()) << backend.status();
    backend_ = *std::move(backend);
    auto config = ReadModelConfig(folder);
    ASSERT_TRUE(config.ok()) << config.status();
    config_ = *config;
    auto weights = OpenWeights(config_, folder);
    ASSERT_TRUE(weights.ok()) << weights.status();
    golden_ = std::make_unique<testing::GoldenFile>(folder + "/golden.safetensors");
    ids_ = golden_->GetIds("input_ids");
    logits_ = golden_->Get("logits");
    const AttentionShape& attention = config_.layers[0].attention.shape;
    auto cache = backend_->AllocateKvCache({.num_layers = config_.num_layers(),
                                            .num_blocks = 16,
                                            .block_size = kBlockSize,
                                            .num_kv_heads = attention.num_kv_heads,
                                            .head_dim = attention.head_dim,
                                            .dtype = DType::kF32});
    ASSERT_TRUE(cache.ok()) << cache.status();
    cache_ = *std::move(cache);
    auto model = Transformer::Load(config_, **weights, DType::kF32, {.max_tokens = 64, .max_logit_rows = 64},
                                   backend_.get());
    ASSERT_TRUE(model.ok()) << model.status();
    model_ = *std::move(model);
    // Blocks in no order, so that a mistake in paging shows.
    block_table_ = {11, 3, 7, 0};
  }

  // Runs the prompt in chunks of the given sizes and compares logits and routing of every position.
  void RunChunks(const std::vector<int>& chunks) {
    double largest = 0.0;
    for (const double value : logits_.values) largest = std::max(largest, std::fabs(value));
    int32_t position = 0;
    for (const int size : chunks) {
      const AttentionSlice slice = {
          .first_row = 0, .num_tokens = size, .first_position = position, .block_table = block_table_.data()};
      std::vector<int32_t> rows(size);
      std::iota(rows.begin(), rows.end(), 0);
      const Matrix out = model_->Forward(std::span(ids_).subspan(position, size), {&slice, 1}, rows, cache_.get());
      ASSERT_TRUE(backend_->Wait().ok());
      ExpectLogits(backend_->HostView(out), position, size, kLogitTolerance * largest);
      ExpectRouting(position, size);
      position += size;
    }
    ASSERT_EQ(position, static_cast<int32_t>(ids_.size()));
  }

  void ExpectLogits(std::span<const float> actual, int32_t position, int32_t size, double tolerance) {
    const int64_t vocab = config_.vocab_size;
    double worst = 0.0;
    int64_t worst_at = 0;
    for (int64_t i = 0; i < size * vocab; ++i) {
      const double error = std::fabs(actual[i] - logits_.values[position * vocab + i]);
      if (!(error <= worst)) std::tie(worst, worst_at) = std::make_pair(error, i);
    }
    EXPECT_LE(worst, tolerance) << "position " << position + worst_at / vocab << ", token " << worst_at % vocab;
  }

  void ExpectRouting(int32_t position, int32_t size) {
    size_t moe_index = 0;
    for (int32_t l = 0; l < config_.num_layers(); ++l) {
      if (!config_.layers[l].is_moe) continue;
      const Routing& routing = model_->moe_layers()[moe_index++]->routing();
      const std::string name = "layers." + std::to_string(l) + ".router.";
      const std::vector<int32_t> expert_ids = golden_->GetIds(name + "ids");
      const testing::GoldenTensor weights = golden_->Get(name + "weights");
      ASSERT_EQ(routing.num_tokens, size);
      for (int32_t i = 0; i < size * routing.top_k; ++i) {
        const int32_t g = position * routing.top_k + i;
        ASSERT_EQ(routing.expert_ids[i], expert_ids[g]) << "layer " << l << ", choice " << g;
        ASSERT_NEAR(routing.expert_weights[i], weights.values[g], WeightTolerance(std::get<1>(GetParam()))) << "layer " << l;
      }
    }
    ASSERT_EQ(moe_index, model_->moe_layers().size());
  }

  std::unique_ptr<Backend> backend_;
  ModelConfig config_;
  std::unique_ptr<testing::GoldenFile> golden_;
  std::vector<int32_t> ids_;
  testing::GoldenTensor logits_;
  std::unique_ptr<Transformer> model_;
  std::unique_ptr<KvCache> cache_;
  std::vector<int32_t> block_table_;
};

TEST_P(GoldenTest, PrefillAtOnceGivesTheGoldenLogits) { RunChunks({static_cast<int>(ids_.size())}); }

TEST_P(GoldenTest, TokenByTokenGivesTheGoldenLogits) { RunChunks(std::vector<int>(ids_.size(), 1)); }

TEST_P(GoldenTest, EverySplitInTwoGivesTheGoldenLogits) {
  const int length = static_cast<int>(ids_.size());
  for (int first = 1; first < length; ++first) RunChunks({first, length - first});
}

TEST_P(GoldenTest, EveryEqualChunkSizeGivesTheGoldenLogits) {
  const int length = static_cast<int>(ids_.size());
  for (int size = 2; size < length; ++size) {
    std::vector<int> chunks(length / size, size);
    if (length % size != 0) chunks.push_back(length % size);
    RunChunks(chunks);
  }
}

INSTANTIATE_TEST_SUITE_P(
    CoreFamilies, GoldenTest,
    ::testing::Combine(::testing::Values("mixtral", "olmoe", "qwen2_moe", "qwen3_moe", "deepseek_v1"),
                       ::testing::Values("scalar", "avx2", "avx512")),
    [](const auto& info) { return std::get<0>(info.param) + "_" + std::get<1>(info.param); });

}  // namespace
}  // namespace switchyard
