// Attention of encoder-decoders equals the reference, and a row's bits do not depend on its batch mates: bidirectional
// attention without a cache, cross attention over an encoder's cached output, and causal attention behind it; each with
// and without a relative position bias.
#include <algorithm>
#include <numeric>

#include "tests/engine/backend/conformance.h"

namespace switchyard {
namespace {

struct Case {
  std::string name;
  int32_t num_heads;
  int32_t num_kv_heads;
  int32_t head_dim;
  int32_t num_tokens;
  int32_t max_distance;  // 0: no relative bias
};

const Case kCases[] = {{"plain", 4, 4, 32, 70, 0},         {"biased", 4, 4, 8, 90, 16},
                       {"grouped", 6, 2, 64, 50, 0},       {"one_token", 2, 2, 32, 1, 4},
                       {"near_bias", 3, 3, 24, 130, 1},    {"whole_groups", 2, 1, 32, 64, 200}};

class EncoderAttentionTest : public ConformanceTest {
 protected:
  static constexpr int32_t kSlices = 3;
  static constexpr int32_t kEncoderTokens = 37;  // ends within a block, and within a group of 64 keys

  void SetUp() override {
    ConformanceTest::SetUp();
    if (IsSkipped()) return;
    AttentionShape shape;
    LayerBlocks blocks;
    blocks.attention = &shape;
    blocks.bidirectional = blocks.cross_attention = true;
    const absl::Status served = MakeBackend()->CheckServed(blocks);
    if (!served.ok()) GTEST_SKIP() << served.message();
  }

  void SetUpCase(const Case& c) {
    backend_ = MakeBackend();
    shape_ = AttentionShape{};
    shape_.num_heads = c.num_heads;
    shape_.num_kv_heads = c.num_kv_heads;
    shape_.head_dim = c.head_dim;
    shape_.scale = c.max_distance > 0 ? 1.0f : 0.25f;
    shape_.relative_max_distance = c.max_distance;
    num_tokens_ = c.num_tokens;
    const int32_t num_rows = kSlices * (num_tokens_ + kEncoderTokens);
    ASSERT_TRUE(backend_->PrepareBidirectional(shape_, num_rows, kSlices, dtype()).ok());
    num_blocks_ = (kEncoderTokens + num_tokens_ + 15) / 16;
    auto cache = backend_->AllocateKvCache(
        {.num_layers = 2, .num_blocks = kSlices * num_blocks_, .block_size = 16, .num_kv_heads = c.num_kv_heads,
         .head_dim = c.head_dim, .dtype = dtype()});
    ASSERT_TRUE(cache.ok()) << cache.status();
    cache_ = *std::move(cache);
    ASSERT_TRUE(backend_->PrepareScratch(num_rows).ok());
    bias_values_.clear();
    bias_ = nullptr;
    if (c.max_distance > 0) {
      bias_values_ = RandomValues(int64_t{c.num_heads} * (2 * c.max_distance + 1), 1.5, 21);
      bias_ = Load(*backend_, MemoryReader(1, static_cast<int64_t>(bias_values_.size()), bias_values_), DType::kF32,
                   WeightUse::kVector);
    }
    shape_.relative_bias = bias_.get();
    // Queries small enough that no key takes all the weight.
    qkv_ = RandomValues(num_tokens_ * shape_.qkv_size(), 0.5, 5);
    encoder_kv_ = RandomValues(kEncoderTokens * 2 * shape_.kv_size(), 0.5, 6);
  }

  Values Slice(const Values& all, int64_t width, int64_t first, int64_t count) const {
    return Values(all.begin() + first * width, all.begin() + (first + count) * width);
  }
  Values Queries() const {
    Values q;
    for (int64_t t = 0; t < num_tokens_; ++t) {
      const Values row = Slice(qkv_, shape_.qkv_size(), t, 1);
      q.insert(q.end(), row.begin(), row.begin() + shape_.q_size());
    }
    return q;
  }
  Values KeysAndValues() const {
    Values kv;
    for (int64_t t = 0; t < num_tokens_; ++t) {
      const Values row = Slice(qkv_, shape_.qkv_size(), t, 1);
      kv.insert(kv.end(), row.begin() + shape_.q_size(), row.end());
    }
    return kv;
  }
  Values Rounded(Values values) const { return bf16() ? reference::RoundToBf16(values) : values; }

  std::vector<int32_t> Table(int32_t sequence) const {
    std::vector<int32_t> table(num_blocks_);
    std::iota(table.begin(), table.end(), sequence * num_blocks_);
    std::reverse(table.begin(), table.end());
    return table;
  }

  std::vector<float> RunBidirectional(const std::vector<AttentionSlice>& slices, int64_t rows, const Values& qkv) {
    const Matrix out = Allocate(*backend_, rows, shape_.q_size());
    backend_->BidirectionalAttention(shape_, slices, Upload(*backend_, rows, shape_.qkv_size(), qkv), out);
    return Download(*backend_, out);
  }

  void StoreEncoder(int32_t sequence) {
    const std::vector<int32_t> table = Table(sequence);
    const AttentionSlice slice = {0, kEncoderTokens, 0, table.data(), kEncoderTokens};
    backend_->StoreEncoderKv(shape_, {&slice, 1}, /*layer=*/1, *cache_,
                             Upload(*backend_, kEncoderTokens, 2 * shape_.kv_size(), encoder_kv_));
  }

  // Tokens [first, first + count) of the decoder.
  std::vector<float> RunDecoder(int32_t sequence, int32_t first, int32_t count, bool cross) {
    const std::vector<int32_t> table = Table(sequence);
    const AttentionSlice slice = {0, count, kEncoderTokens + first, table.data(), kEncoderTokens};
    return RunDecoder({slice}, {{first, count}}, cross);
  }

  std::vector<float> RunDecoder(const std::vector<AttentionSlice>& slices,
                                const std::vector<std::pair<int32_t, int32_t>>& tokens, bool cross) {
    const int64_t width = cross ? shape_.q_size() : shape_.qkv_size();
    const Values all = cross ? Queries() : qkv_;
    Values rows;
    for (const auto& [first, count] : tokens) {
      const Values part = Slice(all, width, first, count);
      rows.insert(rows.end(), part.begin(), part.end());
    }
    const int64_t num_rows = static_cast<int64_t>(rows.size()) / width;
    const Matrix in = Upload(*backend_, num_rows, width, rows);
    const Matrix out = Allocate(*backend_, num_rows, shape_.q_size());
    if (cross) {
      backend_->CrossAttention(shape_, slices, /*layer=*/1, *cache_, in, out);
    } else {
      backend_->PrepareQkv(shape_, slices, nullptr, nullptr, /*layer=*/1, *cache_, in);
      backend_->Attention(shape_, slices, /*layer=*/1, *cache_, in, out);
    }
    return Download(*backend_, out);
  }

  // Tolerances as in attention_conformance_test.cc.
  void ExpectReference(std::span<const float> actual, const reference::AttentionOperands& operands,
                       const std::string& name) {
    Values scores;
    const reference::Result expected = reference::AttentionOver(shape_, operands, &scores);
    ExpectWithin(actual, expected.values,
                 [&](size_t i) {
                   const double unit = bf16() ? 2 * kEpsilonBf16 : 64 * kEpsilonF32;
                   const double error = scores[i / shape_.head_dim] * (2 * unit + shape_.head_dim * kEpsilonF32);
                   return expected.magnitudes[i] * (std::expm1(2 * error) + 2 * unit + 200 * kEpsilonF32) + unit;
                 },
                 name);
  }

  std::unique_ptr<Backend> backend_;
  AttentionShape shape_;
  int32_t num_tokens_ = 0;
  int32_t num_blocks_ = 0;
  std::unique_ptr<KvCache> cache_;
  std::unique_ptr<Weight> bias_;
  Values bias_values_, qkv_, encoder_kv_;
};

constexpr auto kFirst = [](int64_t) { return int64_t{0}; };

TEST_P(EncoderAttentionTest, BidirectionalEqualsReference) {
  for (const Case& c : kCases) {
    SetUpCase(c);
    const std::vector<float> actual = RunBidirectional({{0, num_tokens_, 0, nullptr}}, num_tokens_, qkv_);
    const int64_t last = num_tokens_ - 1;
    ExpectReference(actual,
                    {.q = Rounded(Queries()), .kv = Rounded(KeysAndValues()), .first_key = kFirst,
                     .last_key = [last](int64_t) { return last; }, .relative_bias = bias_values_},
                    c.name);
  }
}

TEST_P(EncoderAttentionTest, BidirectionalSlicesDoNotSeeEachOther) {
  for (const Case& c : kCases) {
    SetUpCase(c);
    const int32_t half = (num_tokens_ + 1) / 2;
    const std::vector<float> alone = RunBidirectional({{0, num_tokens_, 0, nullptr}}, num_tokens_, qkv_);
    const Values start = Slice(qkv_, shape_.qkv_size(), 0, half);
    const std::vector<float> start_alone = RunBidirectional({{0, half, 0, nullptr}}, half, start);
    Values rows = start;
    rows.insert(rows.end(), qkv_.begin(), qkv_.end());
    rows.insert(rows.end(), start.begin(), start.end());
    const std::vector<float> batch = RunBidirectional(
        {{0, half, 0, nullptr}, {half, num_tokens_, 0, nullptr}, {half + num_tokens_, half, 0, nullptr}},
        2 * half + num_tokens_, rows);
    ExpectSameBits({batch.data(), start_alone.size()}, start_alone, c.name + " first");
    ExpectSameBits({batch.data() + start_alone.size(), alone.size()}, alone, c.name + " second");
    ExpectSameBits({batch.data() + start_alone.size() + alone.size(), start_alone.size()}, start_alone,
                   c.name + " third");
  }
}

TEST_P(EncoderAttentionTest, CrossAttentionSeesAllOfTheEncoderAndNothingElse) {
  for (const Case& c : kCases) {
    SetUpCase(c);
    StoreEncoder(1);
    RunDecoder(1, 0, num_tokens_, /*cross=*/false);  // fills the positions behind
    ExpectReference(RunDecoder(1, 0, num_tokens_, /*cross=*/true),
                    {.q = Rounded(Queries()), .kv = Rounded(encoder_kv_), .first_position = kEncoderTokens,
                     .first_key = kFirst, .last_key = [](int64_t) { return int64_t{kEncoderTokens - 1}; },
                     .relative_bias = bias_values_},
                    c.name);
  }
}

TEST_P(EncoderAttentionTest, CausalAttentionDoesNotSeeTheEncoder) {
  for (const Case& c : kCases) {
    SetUpCase(c);
    StoreEncoder(2);
    ExpectReference(RunDecoder(2, 0, num_tokens_, /*cross=*/false),
                    {.q = Rounded(Queries()), .kv = Rounded(KeysAndValues()), .first_key = kFirst,
                     .last_key = [](int64_t t) { return t; }, .relative_bias = bias_values_},
                    c.name);
  }
}

TEST_P(EncoderAttentionTest, DecodersInAnyBatchAndChunksGetTheSameBits) {
  for (const Case& c : kCases) {
    SetUpCase(c);
    for (int32_t sequence = 0; sequence < kSlices; ++sequence) StoreEncoder(sequence);
    const size_t width = static_cast<size_t>(shape_.q_size());
    for (const bool cross : {false, true}) {
      const std::vector<float> whole = RunDecoder(0, 0, num_tokens_, cross);
      std::vector<float> steps;
      for (int32_t t = 0; t < num_tokens_; ++t) {
        const std::vector<float> row = RunDecoder(1, t, 1, cross);
        steps.insert(steps.end(), row.begin(), row.end());
      }
      ExpectSameBits(steps, whole, c.name + " token by token");
      const std::vector<int32_t> tables[] = {Table(1), Table(2)};
      const std::vector<float> batch = RunDecoder(
          {{0, 1, kEncoderTokens + num_tokens_ - 1, tables[0].data(), kEncoderTokens},
           {1, num_tokens_, kEncoderTokens, tables[1].data(), kEncoderTokens}},
          {{num_tokens_ - 1, 1}, {0, num_tokens_}}, cross);
      ExpectSameBits({batch.data(), width}, {whole.data() + whole.size() - width, width}, c.name + " decode");
      ExpectSameBits({batch.data() + width, whole.size()}, whole, c.name + " prefill");
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Backends, EncoderAttentionTest, ::testing::ValuesIn(AllParams()), ParamName);

}  // namespace
}  // namespace switchyard
