// A device draws the very token that Sampler draws: from logits of every kind, for every combination of temperature,
// top-k, top-p and min-p, at uniform numbers in the middle and at the edges.
#include <algorithm>
#include <limits>
#include <random>
#include <vector>

#include "engine/sampling/philox.h"
#include "engine/sampling/sampler.h"
#include "tests/engine/backend/conformance.h"

namespace switchyard {
namespace {

using Random = std::mt19937_64;

template <typename T>
T Choose(Random* random, const std::vector<T>& values) {
  return values[(*random)() % values.size()];
}

double Normal(Random* random, double deviation) { return std::normal_distribution<double>(0.0, deviation)(*random); }

constexpr int kNumKinds = 9;

// [num_ids] logits of one of the kinds.
Values DrawLogits(Random* random, int kind, int64_t num_ids) {
  Values logits(static_cast<size_t>(num_ids));
  const auto any = [&]() -> double& { return logits[(*random)() % logits.size()]; };
  for (double& logit : logits) {
    switch (kind) {
      case 0: logit = Normal(random, 2.5); break;
      case 1: logit = 7.0 + Normal(random, 1e-3); break;                              // nearly flat
      case 2: logit = 3.0; break;                                                     // flat
      case 3: logit = static_cast<double>((*random)() % 7) * 0.5; break;              // many ties
      case 4: logit = Normal(random, 20.0); break;
      case 5: logit = -12.0 + Normal(random, 0.5); break;                             // a peak follows
      case 6: logit = Normal(random, 3.0); break;                                     // two maxima follow
      case 7: logit = Choose<double>(random, {3e38, -3e38, 1.0, 0.0, 2.0, 1e-40}); break;
      default: logit = Choose<double>(random, {0.0, -0.0, -1e-30, 1e-30, -0.25}); break;
    }
  }
  if (kind == 5) any() = 9.0;
  if (kind == 6) any() = any() = 11.0;
  for (double& logit : logits) logit = static_cast<float>(logit);
  return logits;
}

// Seeds whose uniform numbers at position 0 are the smallest and the largest of a quarter million.
std::vector<uint64_t> EdgeSeeds() {
  std::vector<uint64_t> seeds(1 << 18);
  std::iota(seeds.begin(), seeds.end(), 0);
  std::sort(seeds.begin(), seeds.end(),
            [](uint64_t a, uint64_t b) { return UniformBitsAt(a, 0) < UniformBitsAt(b, 0); });
  seeds.erase(seeds.begin() + 4, seeds.end() - 4);
  return seeds;
}

RowSampling DrawSampling(Random* random, int64_t num_ids, const std::vector<uint64_t>& edge_seeds) {
  RowSampling sampling;
  const bool edge = (*random)() % 4 == 0;
  sampling.seed = edge ? Choose(random, edge_seeds) : (*random)();
  sampling.position = edge ? 0 : static_cast<int64_t>((*random)() % 1000000);
  sampling.temperature = Choose<float>(random, {0.0f, 1e-30f, 1e-4f, 0.1f, 0.7f, 0.7f, 1.0f, 1.0f, 1.5f, 10.0f, 1e6f});
  sampling.top_p = Choose<float>(random, {0.01f, 0.1f, 0.5f, 0.9f, 0.95f, 0.999f, 0.9999999f, 1.0f, 1.0f, 1.0f});
  sampling.min_p = Choose<float>(random, {0.0f, 0.0f, 0.0f, 1e-6f, 0.05f, 0.5f, 1.0f});
  const int32_t half = static_cast<int32_t>(num_ids / 2);
  sampling.top_k = Choose<int32_t>(random, {0, 0, 0, 1, 2, 5, 40, 1000, half, 2 * half - 1, 2 * half + 1});
  return sampling;
}

std::string Describe(const RowSampling& sampling, int kind, int64_t num_ids) {
  return "logits of kind " + std::to_string(kind) + ", " + std::to_string(num_ids) + " ids, temperature " +
         std::to_string(sampling.temperature) + ", top_k " + std::to_string(sampling.top_k) + ", top_p " +
         std::to_string(sampling.top_p) + ", min_p " + std::to_string(sampling.min_p) + ", seed " +
         std::to_string(sampling.seed) + ", position " + std::to_string(sampling.position);
}

class SamplingTest : public ConformanceTest {
 protected:
  // One call with `num_rows` rows of `num_ids` ids, and some columns more that are no ids.
  void ExpectTokensOfSampler(Random* random, int64_t num_rows, int64_t num_ids) {
    auto backend = MakeBackend();
    auto allocated = backend->AllocateSampledTokens(num_rows);
    ASSERT_TRUE(allocated.ok()) << allocated.status();
    if (*allocated == nullptr) GTEST_SKIP() << backend->description() << " leaves sampling to the host";
    ASSERT_TRUE(backend->PrepareScratch(static_cast<int32_t>(num_rows)).ok());
    const int64_t cols = num_ids + static_cast<int64_t>((*random)() % 5);
    Values logits;
    std::vector<RowSampling> rows;
    for (int64_t r = 0; r < num_rows; ++r) {
      const Values row = DrawLogits(random, static_cast<int>(r % kNumKinds), num_ids);
      logits.insert(logits.end(), row.begin(), row.end());
      logits.resize(static_cast<size_t>((r + 1) * cols), std::numeric_limits<double>::quiet_NaN());
      rows.push_back(DrawSampling(random, num_ids, edge_seeds_));
    }
    backend->SampleTokens(Upload(*backend, num_rows, cols, logits), num_ids, rows);
    ASSERT_TRUE(backend->Wait().ok());
    Sampler sampler(static_cast<int32_t>(num_ids));
    const std::vector<float> floats(logits.begin(), logits.end());
    for (int64_t r = 0; r < num_rows; ++r) {
      const RowSampling& row = rows[static_cast<size_t>(r)];
      SamplingParams params;
      params.temperature = row.temperature;
      params.top_k = row.top_k;
      params.top_p = row.top_p;
      params.min_p = row.min_p;
      params.seed = row.seed;
      SampledToken expected;
      const auto row_logits = std::span(floats).subspan(static_cast<size_t>(r * cols), static_cast<size_t>(cols));
      sampler.Sample(row_logits, params, {}, {}, row.position, &expected);
      ASSERT_EQ((*allocated)[r], expected.token) << Describe(row, static_cast<int>(r % kNumKinds), num_ids);
    }
  }

  const std::vector<uint64_t> edge_seeds_ = EdgeSeeds();
};

TEST_P(SamplingTest, DrawsTheTokenOfSampler) {
  Random random(1);
  for (const int64_t num_ids : {17, 31, 33, 64, 97, 130, 251, 997, 1024, 1500}) {
    for (int batch = 0; batch < 3; ++batch) ExpectTokensOfSampler(&random, 700, num_ids);
  }
}

TEST_P(SamplingTest, DrawsTheTokenOfSamplerFromLargeVocabularies) {
  Random random(2);
  for (const int64_t num_ids : {5000, 32000, 50257}) ExpectTokensOfSampler(&random, 5 * kNumKinds, num_ids);
  ExpectTokensOfSampler(&random, 2 * kNumKinds, 152064);
}

INSTANTIATE_TEST_SUITE_P(Backends, SamplingTest,
                         ::testing::Values(ConformanceParam{testing::Variants().front(), DType::kF32}), ParamName);

}  // namespace
}  // namespace switchyard
