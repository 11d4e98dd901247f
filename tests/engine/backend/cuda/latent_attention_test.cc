// Latent attention with DeepSeek's sizes has the same bits on devices with less shared memory, whose tiles are smaller,
// in any order of threads and blocks, and whether a row's chunks of keys are split over blocks or not. On the emulated
// device.
#include <gtest/gtest.h>

#include <cmath>
#include <memory>
#include <numeric>
#include <string>
#include <vector>

#include "emulation.h"
#include "engine/backend/cuda/cuda_backend.h"
#include "tests/engine/backend/cuda/emulated_attention.h"
#include "tests/engine/backend/memory_reader.h"

namespace switchyard {
namespace {

constexpr int32_t kTokens = 290, kLast = 3, kNope = 4, kRope = 64, kLatent = 512;  // more keys than a chunk has

class LatentRun {
 public:
  explicit LatentRun(int32_t num_heads, int32_t num_tokens = kTokens) : num_tokens_(num_tokens) {
    auto backend = cuda::CreateCudaBackend({});
    EXPECT_TRUE(backend.ok()) << backend.status();
    backend_ = *std::move(backend);
    shape_.num_heads = num_heads;
    shape_.num_kv_heads = 1;
    shape_.latent_dim = kLatent;
    shape_.head_dim = kLatent + kRope;
    shape_.scale = 0.1f;
    shape_.qk_norm_eps = 1e-6f;
    shape_.rope_interleaved = true;
    for (int32_t m = 0; m < kRope / 2; ++m) shape_.rope_inv_freq.push_back(std::pow(0.8f, static_cast<float>(m)));
    const int32_t num_blocks = (num_tokens + 15) / 16;
    cache_ = *backend_->AllocateKvCache({1, num_blocks, 16, 1, shape_.head_dim, DType::kBF16, kLatent});
    EXPECT_TRUE(backend_->PrepareScratch(num_tokens_).ok());
    norm_ = LoadF32(*backend_, RandomTensor(1, kLatent, 1, DType::kF32), WeightUse::kVector);
    table_.resize(static_cast<size_t>(num_blocks));
    std::iota(table_.rbegin(), table_.rend(), 0);
    Prepare({{0, num_tokens_, 0, table_.data()}}, Matrix(num_tokens_, shape_.head_dim, 2));
    queries_ = Matrix(kLast, shape_.q_size(), 3);
  }

  // The last rows of the sequence in one run, or each on its own in one step or in steps of their own.
  std::vector<float> Run() { return Attend({{0, kLast, num_tokens_ - kLast, table_.data()}}, 0, kLast); }
  std::vector<float> Together() {
    std::vector<AttentionSlice> slices;
    for (int32_t i = 0; i < kLast; ++i) slices.push_back({i, 1, num_tokens_ - kLast + i, table_.data()});
    return Attend(slices, 0, kLast);
  }
  std::vector<float> Alone() {
    std::vector<float> all;
    for (int32_t i = 0; i < kLast; ++i) {
      const std::vector<float> row = Attend({{0, 1, num_tokens_ - kLast + i, table_.data()}}, i, 1);
      all.insert(all.end(), row.begin(), row.end());
    }
    return all;
  }

 private:
  // Random, uploaded by looking rows up in a table.
  switchyard::Matrix Matrix(int64_t rows, int64_t cols, uint64_t seed) {
    const auto table = LoadF32(*backend_, RandomTensor(rows, cols, seed, DType::kF32), WeightUse::kEmbedding);
    std::vector<int32_t> ids(static_cast<size_t>(rows));
    std::iota(ids.begin(), ids.end(), 0);
    const switchyard::Matrix matrix = *backend_->AllocateMatrix(rows, cols);
    backend_->Embed(ids, *table, matrix);
    EXPECT_TRUE(backend_->Wait().ok());
    return matrix;
  }

  void Prepare(const std::vector<AttentionSlice>& slices, switchyard::Matrix latents) {
    backend_->PrepareLatent(shape_, slices, *norm_, 0, *cache_,
                            Matrix(latents.rows, int64_t{shape_.num_heads} * (kNope + kRope), 4), latents,
                            *backend_->AllocateMatrix(latents.rows, shape_.q_size()));
  }

  std::vector<float> Attend(const std::vector<AttentionSlice>& slices, int64_t first, int64_t rows) {
    return AttendRows(*backend_, shape_, *cache_, slices, queries_, first, rows);
  }

  const int32_t num_tokens_;
  std::unique_ptr<Backend> backend_;
  AttentionShape shape_;
  std::unique_ptr<KvCache> cache_;
  std::unique_ptr<Weight> norm_;
  std::vector<int32_t> table_;
  switchyard::Matrix queries_;
};

using LatentAttentionOnDeviceTest = EmulatedDeviceTest;

void ExpectSame(const std::vector<float>& actual, const std::vector<float>& expected, const std::string& what) {
  ASSERT_EQ(actual.size(), expected.size()) << what;
  for (size_t i = 0; i < expected.size(); ++i) ASSERT_EQ(actual[i], expected[i]) << what << ": element " << i;
}

TEST_F(LatentAttentionOnDeviceTest, BitsDoNotDependOnSharedMemoryThreadsOrSplitting) {
  for (const int32_t num_heads : {3, 36}) {
    std::vector<float> expected;
    // Of Hopper, of an A100 and of graphics cards.
    for (const size_t kibibytes : {227, 163, 99}) {
      cuda_emulation::SetSharedMemory(kibibytes << 10);
      cuda_emulation::SetThreadOrder(kibibytes == 163 ? cuda_emulation::ThreadOrder::kReverse
                                                      : cuda_emulation::ThreadOrder::kForward);
      cuda_emulation::SetBlockOrder(kibibytes == 163  ? cuda_emulation::BlockOrder::kReverse
                                    : kibibytes == 99 ? cuda_emulation::BlockOrder::kShuffled
                                                      : cuda_emulation::BlockOrder::kForward);
      LatentRun run(num_heads);
      if (expected.empty()) expected = run.Run();
      const std::string what = std::to_string(num_heads) + " heads, " + std::to_string(kibibytes) + " KiB, ";
      ExpectSame(run.Run(), expected, what + "in one run");
      ExpectSame(run.Together(), expected, what + "together");
      ExpectSame(run.Alone(), expected, what + "alone");
      ExpectSame(run.Alone(), expected, what + "alone again");
    }
  }
}

// More chunks than a last block merges: a launch of its own does.
TEST_F(LatentAttentionOnDeviceTest, NorOnWhoMergesManyChunks) {
  LatentRun run(3, 8 * 256 + 20);
  const std::vector<float> expected = run.Run();
  ExpectSame(run.Together(), expected, "together");
  ExpectSame(run.Alone(), expected, "alone");
}

}  // namespace
}  // namespace switchyard
