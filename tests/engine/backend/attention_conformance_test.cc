// Paged attention equals the reference and does not depend on chunks, batches or where the blocks lie.
#include "tests/engine/backend/conformance.h"

#include <algorithm>
#include <cstdlib>
#include <limits>
#include <numeric>

namespace switchyard {
namespace {

struct Case {
  std::string name;
  AttentionShape shape;
  int32_t block_size = 16;
  int32_t num_tokens = 0;
};

Case MakeCase(const std::string& name, int32_t num_heads, int32_t num_kv_heads, int32_t head_dim, int32_t num_tokens) {
  Case c;
  c.name = name;
  c.num_tokens = num_tokens;
  c.shape.num_heads = num_heads;
  c.shape.num_kv_heads = num_kv_heads;
  c.shape.head_dim = head_dim;
  c.shape.scale = 1.0f / std::sqrt(static_cast<float>(head_dim));
  for (int32_t m = 0; m < head_dim / 2; ++m) {
    c.shape.rope_inv_freq.push_back(std::pow(10000.0f, -2.0f * static_cast<float>(m) / static_cast<float>(head_dim)));
  }
  return c;
}

std::vector<Case> AllCases() {
  std::vector<Case> cases = {MakeCase("plain", 2, 2, 32, 150), MakeCase("grouped", 6, 2, 64, 90),
                             MakeCase("one_kv_head", 5, 1, 128, 70), MakeCase("odd_size", 3, 3, 24, 40)};
  Case window = MakeCase("window", 4, 2, 32, 200);
  window.shape.sliding_window = 37;
  cases.push_back(window);
  Case head_norm = MakeCase("head_norm", 4, 2, 32, 50);
  head_norm.shape.qk_norm = QkNorm::kHead;
  head_norm.shape.qk_norm_eps = 1e-6f;
  cases.push_back(head_norm);
  Case full_norm = MakeCase("full_norm_and_clip", 4, 2, 32, 50);
  full_norm.shape.qk_norm = QkNorm::kFull;
  full_norm.shape.qk_norm_eps = 1e-5f;
  full_norm.shape.clip_qkv = 1.25f;
  cases.push_back(full_norm);
  Case partial = MakeCase("partial_rope", 2, 2, 64, 50);
  partial.shape.rope_inv_freq.resize(8);
  partial.shape.rope_attention_factor = 1.1f;
  cases.push_back(partial);
  Case chunk = MakeCase("chunk", 4, 2, 32, 200);
  chunk.shape.chunk_size = 37;
  cases.push_back(chunk);
  Case interleaved = MakeCase("interleaved_rope", 2, 1, 32, 50);
  interleaved.shape.rope_interleaved = true;
  cases.push_back(interleaved);
  Case l2_norm = MakeCase("l2_norm_after_rope", 4, 2, 32, 50);
  l2_norm.shape.qk_norm = QkNorm::kL2AfterRope;
  l2_norm.shape.qk_norm_eps = 1e-5f;
  l2_norm.shape.rope_interleaved = true;
  cases.push_back(l2_norm);
  Case temperature = MakeCase("no_rope_and_temperature", 4, 2, 32, 50);
  temperature.shape.rope_inv_freq.clear();
  temperature.shape.temperature_scale = 0.1f;
  temperature.shape.temperature_floor = 4.0f;
  cases.push_back(temperature);
  Case sinks = MakeCase("sinks", 6, 2, 32, 150);
  sinks.shape.has_sinks = true;
  cases.push_back(sinks);
  sinks.name = "sinks_and_window";
  sinks.shape.sliding_window = 5;
  cases.push_back(sinks);
  for (const int32_t block_size : {48, 64}) {
    Case blocks = MakeCase("block_size_" + std::to_string(block_size), 2, 1, 32, 100);
    blocks.block_size = block_size;
    cases.push_back(blocks);
  }
  return cases;
}

// Set where sanitizers run on emulated threads: there fewer chunk sizes walk the same code, and all builds without
// sanitizers compare the bits of all of them.
bool IsSlowBuild() { return std::getenv("SWITCHYARD_SLOW_BUILD") != nullptr; }

class AttentionTest : public ConformanceTest {
 protected:
  static constexpr int32_t kLayer = 1;  // of two: the other must not be touched
  static constexpr int32_t kSequences = 3;

  void SetUpCase(Backend& backend, const Case& c) {
    const KvCacheShape cache_shape = {2,           kSequences * NumBlocks(c), c.block_size, c.shape.num_kv_heads,
                                      c.shape.head_dim, dtype()};
    auto cache = backend.AllocateKvCache(cache_shape);
    ASSERT_TRUE(cache.ok()) << cache.status();
    cache_ = *std::move(cache);
    ASSERT_TRUE(backend.PrepareScratch(kSequences * c.num_tokens).ok());
    q_norm_values_ = RandomValues(c.shape.q_size(), 1.0, 11);
    k_norm_values_ = RandomValues(c.shape.kv_size(), 1.0, 12);
    q_norm_ = nullptr;
    k_norm_ = nullptr;
    sinks_ = nullptr;
    sink_values_.clear();
    if (c.shape.has_sinks) {
      sink_values_ = RandomValues(c.shape.num_heads, 2.0, 13);
      sinks_ = Load(backend, MemoryReader(1, c.shape.num_heads, sink_values_), DType::kF32, WeightUse::kVector);
    }
    if (c.shape.qk_norm != QkNorm::kFull && c.shape.qk_norm != QkNorm::kHead) return;
    const bool full = c.shape.qk_norm == QkNorm::kFull;
    const auto load = [&](Values& values, int64_t size) {
      values.resize(full ? size : c.shape.head_dim);
      return Load(backend, MemoryReader(1, static_cast<int64_t>(values.size()), values), DType::kF32,
                  WeightUse::kVector);
    };
    q_norm_ = load(q_norm_values_, c.shape.q_size());
    k_norm_ = load(k_norm_values_, c.shape.kv_size());
  }

  static int32_t NumBlocks(const Case& c) { return (c.num_tokens + c.block_size - 1) / c.block_size; }

  // Runs `slices` through the layer; rows of `qkv` are consumed.
  std::vector<float> RunSlices(Backend& backend, const Case& c, const std::vector<AttentionSlice>& slices, Matrix qkv) {
    AttentionShape shape = c.shape;
    shape.sinks = sinks_.get();
    const Matrix out = Allocate(backend, qkv.rows, shape.q_size());
    backend.PrepareQkv(shape, slices, q_norm_.get(), k_norm_.get(), kLayer, *cache_, qkv);
    backend.Attention(shape, slices, kLayer, *cache_, qkv, out);
    return Download(backend, out);
  }

  // The whole sequence in chunks of the given sizes (the last repeats), with blocks taken from `table`.
  std::vector<float> RunChunks(Backend& backend, const Case& c, const Values& qkv, const std::vector<int32_t>& chunks,
                               const std::vector<int32_t>& table) {
    std::vector<float> all;
    size_t next = 0;
    for (int32_t done = 0; done < c.num_tokens;) {
      const int32_t size = std::min(chunks[std::min(next++, chunks.size() - 1)], c.num_tokens - done);
      const Values part(qkv.begin() + done * c.shape.qkv_size(), qkv.begin() + (done + size) * c.shape.qkv_size());
      const Matrix rows = Upload(backend, size, c.shape.qkv_size(), part);
      const std::vector<float> out = RunSlices(backend, c, {{0, size, done, table.data()}}, rows);
      all.insert(all.end(), out.begin(), out.end());
      done += size;
    }
    return all;
  }

  static std::vector<int32_t> Table(const Case& c, int32_t first_block = 0) {
    std::vector<int32_t> table(NumBlocks(c));
    std::iota(table.begin(), table.end(), first_block);
    return table;
  }

  std::unique_ptr<KvCache> cache_;
  std::unique_ptr<Weight> q_norm_, k_norm_, sinks_;
  Values q_norm_values_, k_norm_values_, sink_values_;
};

TEST_P(AttentionTest, EqualsReference) {
  for (const Case& c : AllCases()) {
    auto backend = MakeBackend();
    SetUpCase(*backend, c);
    Values qkv = RandomValues(c.num_tokens * c.shape.qkv_size(), 1.0, 5);
    const std::vector<float> actual = RunChunks(*backend, c, qkv, {c.num_tokens}, Table(c));
    reference::PrepareQkv(c.shape, q_norm_values_, k_norm_values_, &qkv);
    if (bf16()) qkv = reference::RoundToBf16(qkv);
    Values scores;
    const auto expected = reference::Attention(c.shape, qkv, sink_values_, &scores);
    // q, k, v carry a rounding of one unit (fp32 of the norm and RoPE sums, or bfloat16) each, scores accumulate
    // head_dim of them in fp32, and the weights may be rounded to bfloat16. A score error e changes a weight by
    // a factor of about exp(2 e), once in the weight and once in the sum.
    ExpectWithin(actual, expected.values,
                 [&](size_t i) {
                   const double unit = bf16() ? 2 * kEpsilonBf16 : 64 * kEpsilonF32;
                   const double score_error =
                       scores[i / c.shape.head_dim] * (2 * unit + c.shape.head_dim * kEpsilonF32);
                   return expected.magnitudes[i] * (std::expm1(2 * score_error) + 2 * unit + 200 * kEpsilonF32) + unit;
                 },
                 c.name);
  }
}

TEST_P(AttentionTest, ChunksAndDecodeEqualTheWholePromptAtOnce) {
  for (const Case& c : AllCases()) {
    auto backend = MakeBackend();
    SetUpCase(*backend, c);
    const Values qkv = RandomValues(c.num_tokens * c.shape.qkv_size(), 1.0, 5);
    const std::vector<float> whole = RunChunks(*backend, c, qkv, {c.num_tokens}, Table(c));
    std::vector<std::vector<int32_t>> sizes = {{33, 7}, {c.num_tokens - 1, 1}};
    if (!IsSlowBuild()) sizes = {{1}, {7}, {16}, {33, 1}, {c.num_tokens - 1, 1}};
    for (const std::vector<int32_t>& chunks : sizes) {
      ExpectSameBits(RunChunks(*backend, c, qkv, chunks, Table(c)), whole,
                     c.name + " in chunks of " + std::to_string(chunks[0]));
    }
  }
}

TEST_P(AttentionTest, BlocksMayLieAnywhere) {
  for (const Case& c : AllCases()) {
    auto backend = MakeBackend();
    SetUpCase(*backend, c);
    const Values qkv = RandomValues(c.num_tokens * c.shape.qkv_size(), 1.0, 5);
    const std::vector<float> in_order = RunChunks(*backend, c, qkv, {c.num_tokens}, Table(c));
    std::vector<int32_t> table = Table(c, NumBlocks(c));
    std::shuffle(table.begin(), table.end(), std::mt19937(3));
    ExpectSameBits(RunChunks(*backend, c, qkv, {20}, table), in_order, c.name);
  }
}

TEST_P(AttentionTest, SequencesOfABatchDoNotSeeEachOther) {
  for (const Case& c : AllCases()) {
    auto backend = MakeBackend();
    SetUpCase(*backend, c);
    const int64_t size = c.shape.qkv_size();
    const Values qkv = RandomValues(c.num_tokens * size, 1.0, 5);
    const std::vector<float> alone = RunChunks(*backend, c, qkv, {c.num_tokens}, Table(c));
    // One sequence decodes its last token, one prefills everything, one its second half after the first was done.
    const int32_t half = c.num_tokens / 2;
    const std::vector<int32_t> tables[kSequences] = {Table(c), Table(c, NumBlocks(c)), Table(c, 2 * NumBlocks(c))};
    const Values first_half(qkv.begin(), qkv.begin() + half * size);
    RunSlices(*backend, c, {{0, half, 0, tables[2].data()}}, Upload(*backend, half, size, first_half));
    Values rows(qkv.end() - size, qkv.end());
    rows.insert(rows.end(), qkv.begin(), qkv.end());
    rows.insert(rows.end(), qkv.begin() + half * size, qkv.end());
    const int32_t rest = c.num_tokens - half;
    const std::vector<float> batch = RunSlices(*backend, c,
                                               {{0, 1, c.num_tokens - 1, tables[0].data()},
                                                {1, c.num_tokens, 0, tables[1].data()},
                                                {1 + c.num_tokens, rest, half, tables[2].data()}},
                                               Upload(*backend, 1 + c.num_tokens + rest, size, rows));
    const size_t q_size = static_cast<size_t>(c.shape.q_size());
    const size_t tokens = static_cast<size_t>(c.num_tokens);
    ExpectSameBits({batch.data(), q_size}, {alone.data() + (tokens - 1) * q_size, q_size}, c.name + " decode");
    ExpectSameBits({batch.data() + q_size, tokens * q_size}, alone, c.name + " prefill");
    ExpectSameBits({batch.data() + (1 + tokens) * q_size, static_cast<size_t>(rest) * q_size},
                   {alone.data() + static_cast<size_t>(half) * q_size, static_cast<size_t>(rest) * q_size},
                   c.name + " second half");
  }
}

// A bad token spoils itself and whoever looks back at it, but not the tokens before it, nor a later owner of its block.
TEST_P(AttentionTest, BadTokenSpoilsOnlyWhoSeesIt) {
  for (const Case& c : AllCases()) {
    if (c.shape.sliding_window > 0 || c.shape.chunk_size > 0) continue;
    auto backend = MakeBackend();
    SetUpCase(*backend, c);
    const Values qkv = RandomValues(c.num_tokens * c.shape.qkv_size(), 1.0, 5);
    const std::vector<float> good = RunChunks(*backend, c, qkv, {c.num_tokens}, Table(c));
    const size_t q_size = static_cast<size_t>(c.shape.q_size());
    const size_t bad_token = static_cast<size_t>(c.num_tokens) / 2;
    for (const double poison : {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity()}) {
      Values bad = qkv;
      std::fill_n(bad.begin() + bad_token * c.shape.qkv_size(), c.shape.qkv_size(), poison);
      const std::vector<float> mixed = RunChunks(*backend, c, bad, {c.num_tokens}, Table(c));
      ExpectSameBits({mixed.data(), bad_token * q_size}, {good.data(), bad_token * q_size}, c.name + " before");
      if (c.shape.clip_qkv == 0.0f) {
        EXPECT_TRUE(std::isnan(mixed.back())) << c.name;
      }
      // The blocks now hold the bad keys; a shorter sequence writes over some of them only.
      Case shorter = c;
      shorter.num_tokens = static_cast<int32_t>(bad_token) - 1;
      const Values start(qkv.begin(), qkv.begin() + shorter.num_tokens * c.shape.qkv_size());
      const std::vector<float> reused = RunChunks(*backend, shorter, start, {shorter.num_tokens}, Table(c));
      ExpectSameBits(reused, {good.data(), reused.size()}, c.name + " reused block");
    }
  }
}

TEST_P(AttentionTest, RopeIsExactAtLongPositions) {
  Case c = MakeCase("long", 1, 1, 32, 1);
  auto backend = MakeBackend();
  const int32_t position = 131071;
  const KvCacheShape cache_shape = {1, 1, position + 1, 1, 32, dtype()};
  auto cache = backend->AllocateKvCache(cache_shape);
  ASSERT_TRUE(cache.ok()) << cache.status();
  ASSERT_TRUE(backend->PrepareScratch(1).ok());
  const Values qkv = RandomValues(c.shape.qkv_size(), 1.0, 5);
  const Matrix rows = Upload(*backend, 1, c.shape.qkv_size(), qkv);
  const int32_t block = 0;
  const std::vector<AttentionSlice> slices = {{0, 1, position, &block}};
  backend->PrepareQkv(c.shape, slices, nullptr, nullptr, 0, **cache, rows);
  const std::vector<float> rotated = Download(*backend, rows);
  for (int32_t m = 0; m < 16; ++m) {
    const double angle = static_cast<double>(position) * c.shape.rope_inv_freq[m];
    EXPECT_NEAR(rotated[m], qkv[m] * std::cos(angle) - qkv[m + 16] * std::sin(angle), 1e-6);
    EXPECT_NEAR(rotated[m + 16], qkv[m + 16] * std::cos(angle) + qkv[m] * std::sin(angle), 1e-6);
  }
}

TEST_P(AttentionTest, BlockBytesCountWhatTheLayoutAdds) {
  auto backend = MakeBackend();
  for (const int32_t head_dim : {2, 24, 32, 80, 128}) {
    const KvCacheShape shape = {3, 5, 48, 2, head_dim, dtype()};
    const int64_t padded = (head_dim + 31) / 32 * 32;
    EXPECT_EQ(backend->KvBlockBytes(shape), int64_t{2} * 3 * 48 * 2 * padded * DTypeBytes(dtype()));
  }
}

TEST_P(AttentionTest, CacheRejectsImpossibleShapes) {
  auto backend = MakeBackend();
  EXPECT_EQ(backend->AllocateKvCache({1, 1, 16, 1, 33, dtype()}).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(backend->AllocateKvCache({1, 0, 16, 1, 32, dtype()}).status().code(), absl::StatusCode::kInvalidArgument);
  for (const int32_t block_size : {-16, 0, 1, 8, 24}) {
    EXPECT_EQ(backend->AllocateKvCache({1, 1, block_size, 1, 32, dtype()}).status().code(),
              absl::StatusCode::kInvalidArgument);
  }
  EXPECT_EQ(backend->AllocateKvCache({64, 1 << 24, 64, 64, 256, dtype()}).status().code(),
            absl::StatusCode::kResourceExhausted);
}

// ------------------------------------------------------------------------------------------------- latent attention

struct LatentCase {
  std::string name;
  int32_t num_heads;
  int32_t latent_dim;
  int32_t rope_dim;
  int32_t num_tokens;
};

const LatentCase kLatentCases[] = {
    {"small", 4, 12, 8, 90},       {"odd_sizes", 3, 70, 2, 40},
    {"many_heads", 40, 24, 8, 80}, {"several_chunks", 5, 24, 8, 530},
    {"as_deepseek", 20, 512, 64, 70}};

class LatentAttentionTest : public ConformanceTest {
 protected:
  void SetUp() override {
    ConformanceTest::SetUp();
    if (IsSkipped()) return;
    const absl::Status served = ServesLatentAttention();
    if (!served.ok()) GTEST_SKIP() << served.message();
  }

  static constexpr int32_t kLayer = 1;
  static constexpr int32_t kQueryDim = 10;  // what is projected of a head, beside the part that turns

  void SetUpCase(Backend& backend, const LatentCase& c) {
    shape_ = AttentionShape{};
    shape_.num_heads = c.num_heads;
    shape_.num_kv_heads = 1;
    shape_.latent_dim = c.latent_dim;
    shape_.head_dim = c.latent_dim + c.rope_dim;
    shape_.scale = 0.3f;
    shape_.qk_norm_eps = 1e-6f;
    shape_.rope_interleaved = true;
    for (int32_t m = 0; m < c.rope_dim / 2; ++m) shape_.rope_inv_freq.push_back(std::pow(0.1f, static_cast<float>(m)));
    num_blocks_ = (c.num_tokens + 15) / 16;
    auto cache = backend.AllocateKvCache({2, 3 * num_blocks_, 16, 1, shape_.head_dim, dtype(), c.latent_dim});
    ASSERT_TRUE(cache.ok()) << cache.status();
    cache_ = *std::move(cache);
    ASSERT_TRUE(backend.PrepareScratch(3 * c.num_tokens).ok());
    norm_values_ = RandomValues(c.latent_dim, 1.0, 11);
    norm_ = Load(backend, MemoryReader(1, c.latent_dim, norm_values_), DType::kF32, WeightUse::kVector);
    q_width_ = int64_t{c.num_heads} * (kQueryDim + c.rope_dim);
    q_ = RandomValues(c.num_tokens * q_width_, 1.0, 5);
    latents_ = RandomValues(c.num_tokens * shape_.head_dim, 1.0, 6);
    queries_ = RandomValues(c.num_tokens * shape_.q_size(), 1.0 / std::sqrt(shape_.head_dim), 7);
  }

  std::vector<int32_t> Table(int32_t first = 0) const {
    std::vector<int32_t> table(num_blocks_);
    std::iota(table.begin(), table.end(), first);
    return table;
  }

  // `tokens`: which token of the sequence each row of the slices is. Returns the queries.
  Matrix Prepare(Backend& backend, const std::vector<AttentionSlice>& slices, const std::vector<int32_t>& tokens) {
    const auto upload = [&](const Values& all, int64_t width) {
      Values part;
      for (const int32_t t : tokens) part.insert(part.end(), all.begin() + t * width, all.begin() + (t + 1) * width);
      return Upload(backend, static_cast<int64_t>(tokens.size()), width, part);
    };
    const Matrix queries = upload(queries_, shape_.q_size());
    backend.PrepareLatent(shape_, slices, *norm_, kLayer, *cache_, upload(q_, q_width_),
                          upload(latents_, shape_.head_dim), queries);
    return queries;
  }

  std::vector<float> Run(Backend& backend, const std::vector<AttentionSlice>& slices,
                         const std::vector<int32_t>& tokens) {
    const Matrix queries = Prepare(backend, slices, tokens);
    const Matrix out = Allocate(backend, queries.rows, shape_.out_size());
    backend.Attention(shape_, slices, kLayer, *cache_, queries, out);
    return Download(backend, out);
  }

  std::vector<float> RunChunks(Backend& backend, int32_t num_tokens, int32_t size, const std::vector<int32_t>& table) {
    std::vector<float> all;
    for (int32_t done = 0; done < num_tokens; done += size) {
      const int32_t here = std::min(size, num_tokens - done);
      std::vector<int32_t> tokens(here);
      std::iota(tokens.begin(), tokens.end(), done);
      const std::vector<float> out = Run(backend, {{0, here, done, table.data()}}, tokens);
      all.insert(all.end(), out.begin(), out.end());
    }
    return all;
  }

  // The same as an attention whose values are written out, for the reference.
  Values PlainQkv(int32_t num_tokens) const {
    Values qkv;
    const int64_t rotated = shape_.head_dim - shape_.latent_dim, q_head = q_width_ / shape_.num_heads;
    for (int64_t t = 0; t < num_tokens; ++t) {
      Values row(queries_.begin() + t * shape_.q_size(), queries_.begin() + (t + 1) * shape_.q_size());
      for (int64_t h = 0; h < shape_.num_heads; ++h) {
        double* const end = row.data() + (h + 1) * shape_.head_dim - rotated;
        std::copy_n(q_.begin() + t * q_width_ + (h + 1) * q_head - rotated, rotated, end);
        reference::Rotate(shape_, t, end);
      }
      Values key(latents_.begin() + t * shape_.head_dim, latents_.begin() + (t + 1) * shape_.head_dim);
      const Values normed = reference::RmsNorm(Values(key.begin(), key.begin() + shape_.latent_dim), norm_values_,
                                               shape_.latent_dim, shape_.qk_norm_eps);
      std::copy(normed.begin(), normed.end(), key.begin());
      reference::Rotate(shape_, t, key.data() + shape_.latent_dim);
      if (bf16()) key = reference::RoundToBf16(key);
      row.insert(row.end(), key.begin(), key.end());
      row.insert(row.end(), key.begin(), key.end());
      qkv.insert(qkv.end(), row.begin(), row.end());
    }
    return qkv;
  }

  AttentionShape shape_;
  int32_t num_blocks_ = 0;
  int64_t q_width_ = 0;
  std::unique_ptr<KvCache> cache_;
  std::unique_ptr<Weight> norm_;
  Values norm_values_, q_, latents_, queries_;
};

TEST_P(LatentAttentionTest, EqualsReference) {
  for (const LatentCase& c : kLatentCases) {
    auto backend = MakeBackend();
    SetUpCase(*backend, c);
    const std::vector<float> actual = RunChunks(*backend, c.num_tokens, c.num_tokens, Table());
    AttentionShape plain = shape_;
    plain.latent_dim = 0;
    Values scores;
    const auto full = reference::Attention(plain, PlainQkv(c.num_tokens), {}, &scores);
    Values expected, magnitudes;
    for (size_t i = 0; i < full.values.size(); ++i) {
      if (static_cast<int64_t>(i) % shape_.head_dim >= shape_.latent_dim) continue;
      expected.push_back(full.values[i]);
      magnitudes.push_back(full.magnitudes[i]);
    }
    // As for attention above; a rounded latent errs in its key and in its value.
    ExpectWithin(actual, expected,
                 [&](size_t i) {
                   const double unit = bf16() ? 2 * kEpsilonBf16 : 64 * kEpsilonF32;
                   const double score_error =
                       scores[i / c.latent_dim] * (2 * unit + shape_.head_dim * kEpsilonF32);
                   return magnitudes[i] * (std::expm1(2 * score_error) + 2 * unit + 200 * kEpsilonF32) + unit;
                 },
                 c.name);
  }
}

TEST_P(LatentAttentionTest, ChunksDecodeAndBlocksAnywhereEqualTheWholePromptAtOnce) {
  for (const LatentCase& c : kLatentCases) {
    auto backend = MakeBackend();
    SetUpCase(*backend, c);
    const std::vector<float> whole = RunChunks(*backend, c.num_tokens, c.num_tokens, Table());
    std::vector<int32_t> shuffled = Table(num_blocks_);
    std::shuffle(shuffled.begin(), shuffled.end(), std::mt19937(3));
    const std::vector<int32_t> sizes = IsSlowBuild() ? std::vector<int32_t>{33} : std::vector<int32_t>{1, 7, 16, 33};
    for (const int32_t size : sizes) {
      ExpectSameBits(RunChunks(*backend, c.num_tokens, size, shuffled), whole, c.name + " " + std::to_string(size));
    }
  }
}

TEST_P(LatentAttentionTest, SequencesOfABatchDoNotSeeEachOther) {
  for (const LatentCase& c : kLatentCases) {
    auto backend = MakeBackend();
    SetUpCase(*backend, c);
    const std::vector<int32_t> first = Table(), second = Table(num_blocks_);
    const std::vector<float> alone = RunChunks(*backend, c.num_tokens, c.num_tokens, first);
    std::vector<int32_t> tokens = {c.num_tokens - 1};
    for (int32_t t = 0; t < c.num_tokens; ++t) tokens.push_back(t);
    const std::vector<float> batch =
        Run(*backend, {{0, 1, c.num_tokens - 1, first.data()}, {1, c.num_tokens, 0, second.data()}}, tokens);
    const size_t size = static_cast<size_t>(shape_.out_size());
    ExpectSameBits({batch.data(), size}, {alone.data() + alone.size() - size, size}, c.name + " decode");
    ExpectSameBits({batch.data() + size, alone.size()}, alone, c.name + " prefill");
  }
}

// The sizes of DeepSeek over more than one chunk of keys: the last rows by themselves, in one run, and in a batch that
// is large enough for a device to take another way.
TEST_P(LatentAttentionTest, LongRowsOfManyHeadsAreTheSameAloneInRunsAndInBatches) {
  if (IsSlowBuild()) GTEST_SKIP() << "too much for sanitizers";
  const LatentCase c = {"long", 36, 512, 64, 300};
  auto backend = MakeBackend();
  SetUpCase(*backend, c);
  const std::vector<int32_t> table = Table();
  std::vector<int32_t> tokens(c.num_tokens - 3);
  std::iota(tokens.begin(), tokens.end(), 0);
  Prepare(*backend, {{0, c.num_tokens - 3, 0, table.data()}}, tokens);
  const std::vector<int32_t> last = {c.num_tokens - 3, c.num_tokens - 2, c.num_tokens - 1};
  const std::vector<float> run = Run(*backend, {{0, 3, last[0], table.data()}}, last);
  const size_t size = static_cast<size_t>(shape_.out_size());
  // Fewer where threads are emulated one after the other.
  const int32_t num_copies = SWITCHYARD_TEST_DEVICE == std::string("emulated") ? 4 : 80;
  std::vector<AttentionSlice> slices;
  std::vector<int32_t> copies;
  for (int32_t i = 0; i < num_copies; ++i) {
    copies.push_back(last[i % 3]);
    slices.push_back({i, 1, copies.back(), table.data()});
  }
  const std::vector<float> batch = Run(*backend, slices, copies);
  for (size_t i = 0; i < 3; ++i) {
    const std::vector<float> alone = Run(*backend, {{0, 1, last[i], table.data()}}, {last[i]});
    ExpectSameBits(alone, {run.data() + i * size, size}, "run " + std::to_string(i));
    ExpectSameBits(alone, {batch.data() + i * size, size}, "batch " + std::to_string(i));
  }
  // Against the fp32 of the same operands, one row.
  const Values qkv = PlainQkv(c.num_tokens);
  const int64_t row_size = shape_.q_size() + 2 * shape_.head_dim;
  for (int64_t h = 0; h < shape_.num_heads; h += 7) {
    const double* const q = qkv.data() + (c.num_tokens - 1) * row_size + h * shape_.head_dim;
    Values scores, expected(c.latent_dim), magnitudes(c.latent_dim);
    double sum = 0.0, largest_score = 0.0;
    for (int64_t t = 0; t < c.num_tokens; ++t) {
      const double* const key = qkv.data() + t * row_size + shape_.q_size();
      double dot = 0.0, magnitude = 0.0;
      for (int64_t d = 0; d < shape_.head_dim; ++d) {
        dot += q[d] * key[d];
        magnitude += std::abs(q[d] * key[d]);
      }
      largest_score = std::max(largest_score, magnitude * shape_.scale);
      scores.push_back(std::exp(dot * shape_.scale));
      sum += scores.back();
    }
    for (int64_t t = 0; t < c.num_tokens; ++t) {
      const double* const key = qkv.data() + t * row_size + shape_.q_size();
      for (int64_t d = 0; d < c.latent_dim; ++d) {
        expected[d] += scores[t] / sum * key[d];
        magnitudes[d] += scores[t] / sum * std::abs(key[d]);
      }
    }
    ExpectWithin({run.data() + 2 * size + h * c.latent_dim, static_cast<size_t>(c.latent_dim)}, expected,
                 [&](size_t i) {
                   const double unit = bf16() ? 2 * kEpsilonBf16 : 64 * kEpsilonF32;
                   const double score_error = largest_score * (2 * unit + shape_.head_dim * kEpsilonF32);
                   return magnitudes[i] * (std::expm1(2 * score_error) + 2 * unit + 300 * kEpsilonF32) + unit;
                 },
                 "head " + std::to_string(h));
  }
}

TEST_P(LatentAttentionTest, BadTokenSpoilsOnlyWhoSeesIt) {
  for (const LatentCase& c : kLatentCases) {
    auto backend = MakeBackend();
    SetUpCase(*backend, c);
    const std::vector<float> good = RunChunks(*backend, c.num_tokens, c.num_tokens, Table());
    const Values latents = latents_;
    const size_t bad_token = static_cast<size_t>(c.num_tokens) / 2, size = static_cast<size_t>(shape_.out_size());
    for (const int64_t element : {int64_t{0}, int64_t{shape_.head_dim} - 1}) {
      latents_ = latents;
      latents_[bad_token * shape_.head_dim + element] = std::numeric_limits<double>::quiet_NaN();
      const std::vector<float> mixed = RunChunks(*backend, c.num_tokens, c.num_tokens, Table());
      ExpectSameBits({mixed.data(), bad_token * size}, {good.data(), bad_token * size}, c.name + " before");
      EXPECT_TRUE(std::isnan(mixed[bad_token * size]) && std::isnan(mixed.back())) << c.name;
      latents_ = latents;
      const int32_t shorter = static_cast<int32_t>(bad_token) - 1;
      const std::vector<float> reused = RunChunks(*backend, shorter, shorter, Table());
      ExpectSameBits(reused, {good.data(), reused.size()}, c.name + " reused block");
    }
  }
}

TEST_P(LatentAttentionTest, CacheHoldsOneVectorPerTokenAndRejectsImpossibleShapes) {
  auto backend = MakeBackend();
  EXPECT_EQ(backend->KvBlockBytes({3, 5, 48, 1, 576, dtype(), 512}), int64_t{3} * 48 * 576 * DTypeBytes(dtype()));
  for (const auto& [heads, latent] : {std::pair{2, 16}, {1, 32}, {1, 40}, {1, -2}}) {
    EXPECT_EQ(backend->AllocateKvCache({1, 1, 16, heads, 32, dtype(), latent}).status().code(),
              absl::StatusCode::kInvalidArgument);
  }
}

INSTANTIATE_TEST_SUITE_P(Backends, LatentAttentionTest, ::testing::ValuesIn(AllParams()), ParamName);
INSTANTIATE_TEST_SUITE_P(Backends, AttentionTest, ::testing::ValuesIn(AllParams()), ParamName);

}  // namespace
}  // namespace switchyard
