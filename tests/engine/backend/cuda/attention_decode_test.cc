// Decode, whose rows' chunks of keys are spread over blocks, has the bits of a prefill, which walks through them:
// whichever block comes last, however many stages of keys the device has room for, and launch after launch. On the
// emulated device.
#include <gtest/gtest.h>

#include <memory>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "emulation.h"
#include "engine/backend/cuda/cuda_backend.h"
#include "tests/engine/backend/cuda/emulated_attention.h"
#include "tests/engine/backend/memory_reader.h"

namespace switchyard {
namespace {

using cuda_emulation::BlockOrder;
using cuda_emulation::ThreadOrder;

constexpr int32_t kTokens = 600, kBlockSize = 16;  // of three chunks

struct Case {
  std::string name;
  int32_t num_heads, num_kv_heads, head_dim;
  int32_t sliding_window = 0;
  bool has_sinks = false;
};

// Of blocks: one KV head alone has three, a multiprocessor for each; two have more than there are.
const Case kCases[] = {{"grouped_with_sinks", 6, 2, 32, 0, true},
                       {"three_tiles_of_heads", 36, 1, 24},
                       {"few_blocks", 3, 1, 128},
                       {"one_stage", 2, 2, 256},
                       {"window_of_two_chunks", 4, 2, 32, 300},
                       {"window_within_a_chunk", 2, 1, 64, 20, true}};

// A sequence whose keys and values lie in the cache.
class Sequence {
 public:
  explicit Sequence(const Case& c, int32_t num_tokens = kTokens) : num_tokens_(num_tokens) {
    auto backend = cuda::CreateCudaBackend({});
    EXPECT_TRUE(backend.ok()) << backend.status();
    backend_ = *std::move(backend);
    shape_.num_heads = c.num_heads;
    shape_.num_kv_heads = c.num_kv_heads;
    shape_.head_dim = c.head_dim;
    shape_.scale = 3.0f;
    shape_.sliding_window = c.sliding_window;
    shape_.has_sinks = c.has_sinks;
    if (c.has_sinks) {
      sinks_ = LoadF32(*backend_, RandomTensor(1, c.num_heads, 1, DType::kF32), WeightUse::kVector);
      shape_.sinks = sinks_.get();
    }
    const int32_t num_blocks = (num_tokens + kBlockSize - 1) / kBlockSize;
    cache_ = *backend_->AllocateKvCache({1, num_blocks, kBlockSize, c.num_kv_heads, c.head_dim, DType::kBF16});
    EXPECT_TRUE(backend_->PrepareScratch(num_tokens).ok());
    table_.resize(static_cast<size_t>(num_blocks));
    std::iota(table_.rbegin(), table_.rend(), 0);
    const MemoryReader tensor = RandomTensor(num_tokens, shape_.qkv_size(), 2, DType::kF32);
    const auto values = LoadF32(*backend_, tensor, WeightUse::kEmbedding);
    std::vector<int32_t> ids(static_cast<size_t>(num_tokens));
    std::iota(ids.begin(), ids.end(), 0);
    qkv_ = *backend_->AllocateMatrix(num_tokens, shape_.qkv_size());
    backend_->Embed(ids, *values, qkv_);
    backend_->PrepareQkv(shape_, Prefill(), nullptr, nullptr, 0, *cache_, qkv_);
    EXPECT_TRUE(backend_->Wait().ok());
  }

  // Rows [first, first + count), as part of the whole prompt in one run.
  std::vector<float> InPrefill(int32_t first, int32_t count) {
    if (prefill_.empty()) prefill_ = Attend(Prefill(), 0, num_tokens_);
    const auto begin = prefill_.begin() + first * shape_.q_size();
    return {begin, begin + count * shape_.q_size()};
  }
  // The same, as a run of their own.
  std::vector<float> InRun(int32_t first, int32_t count) {
    return Attend({{0, count, first, table_.data()}}, first, count);
  }
  // The same, as sequences of their own in one step.
  std::vector<float> InDecode(int32_t first, int32_t count) {
    std::vector<AttentionSlice> slices;
    for (int32_t i = 0; i < count; ++i) slices.push_back({i, 1, first + i, table_.data()});
    return Attend(slices, first, count);
  }

 private:
  std::vector<AttentionSlice> Prefill() const { return {{0, num_tokens_, 0, table_.data()}}; }

  std::vector<float> Attend(const std::vector<AttentionSlice>& slices, int64_t first, int64_t rows) {
    return AttendRows(*backend_, shape_, *cache_, slices, qkv_, first, rows);
  }

  const int32_t num_tokens_;
  std::unique_ptr<Backend> backend_;
  AttentionShape shape_;
  std::unique_ptr<Weight> sinks_;
  std::unique_ptr<KvCache> cache_;
  std::vector<int32_t> table_;
  Matrix qkv_;
  std::vector<float> prefill_;
};

using AttentionDecodeTest = EmulatedDeviceTest;

TEST_F(AttentionDecodeTest, SplitRowsHaveTheBitsOfAPrefillInAnyOrderAndAgain) {
  struct Device {
    int kibibytes;  // of Hopper, of an A100 and of graphics cards
    ThreadOrder threads;
    BlockOrder blocks;
  };
  for (const Case& c : kCases) {
    for (const Device& device : {Device{227, ThreadOrder::kForward, BlockOrder::kForward},
                                 {163, ThreadOrder::kForward, BlockOrder::kShuffled},
                                 {99, ThreadOrder::kReverse, BlockOrder::kReverse}}) {
      cuda_emulation::SetSharedMemory(static_cast<size_t>(device.kibibytes) << 10);
      cuda_emulation::SetThreadOrder(device.threads);
      cuda_emulation::SetBlockOrder(device.blocks);
      Sequence sequence(c);
      // Rows alone, and rows of which some have a chunk more; what one launch leaves must suit the next.
      for (const auto& [first, count] : {std::pair{599, 1}, {510, 4}, {254, 3}, {599, 1}, {511, 1}, {0, 2}}) {
        const std::vector<float> expected = sequence.InPrefill(first, count);
        const std::vector<float> actual = sequence.InDecode(first, count);
        const std::string what = c.name + ", " + std::to_string(device.kibibytes) + " KiB, " + std::to_string(count) +
                                 " rows from " + std::to_string(first);
        ASSERT_EQ(actual.size(), expected.size()) << what;
        for (size_t i = 0; i < expected.size(); ++i) ASSERT_EQ(actual[i], expected[i]) << what << ": element " << i;
      }
    }
  }
}

// More chunks than a last block merges: a launch of its own does.
TEST_F(AttentionDecodeTest, SoHaveRowsOfManyChunks) {
  constexpr int32_t kLong = 33 * 256 + 3;
  Sequence sequence({"many_chunks", 4, 2, 32, 0, true}, kLong);
  const std::vector<float> expected = sequence.InRun(kLong - 3, 3), actual = sequence.InDecode(kLong - 3, 3);
  ASSERT_EQ(actual.size(), expected.size());
  for (size_t i = 0; i < expected.size(); ++i) ASSERT_EQ(actual[i], expected[i]) << "element " << i;
}

}  // namespace
}  // namespace switchyard
