// What the conformance tests share: every backend of this machine as a test parameter, random operands, comparison
// with the reference under a computed tolerance, and comparison bit by bit.
#ifndef SWITCHYARD_TESTS_ENGINE_BACKEND_CONFORMANCE_H_
#define SWITCHYARD_TESTS_ENGINE_BACKEND_CONFORMANCE_H_

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <memory>
#include <numeric>
#include <ostream>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "engine/backend/backend.h"
#include "tests/engine/backend/memory_reader.h"
#include "tests/reference/operations.h"
#include "tests/support/test_backends.h"

namespace switchyard {

inline constexpr double kEpsilonF32 = 0x1p-24;
inline constexpr double kEpsilonBf16 = 0x1p-9;

// One backend of the device, times the type of the weights.
struct ConformanceParam {
  testing::Variant variant;
  DType dtype;
};

inline void PrintTo(const ConformanceParam& param, std::ostream* out) {
  *out << param.variant << " " << DTypeName(param.dtype);
}

inline std::vector<ConformanceParam> AllParams(bool expert_gemms = false) {
  std::vector<ConformanceParam> params;
  for (const testing::Variant& variant : testing::Variants(expert_gemms)) {
    if (variant != "wgmma") params.push_back({variant, DType::kF32});  // it leaves fp32 experts to native
    params.push_back({variant, DType::kBF16});
  }
  return params;
}

inline std::string ParamName(const ::testing::TestParamInfo<ConformanceParam>& info) {
  return info.param.variant + "_" + DTypeName(info.param.dtype);
}

class ConformanceTest : public ::testing::TestWithParam<ConformanceParam> {
 protected:
  static constexpr int kThreads = 3;

  void SetUp() override {
    const absl::Status status = testing::MakeBackend(GetParam().variant, 1).status();
    if (status.code() == absl::StatusCode::kFailedPrecondition) GTEST_SKIP() << status.message();
    ASSERT_TRUE(status.ok()) << status;
  }

  // What the device answers for latent attention (MLA), and for a mixture of attention heads: a test of operations that
  // only they use skips where they are not served.
  absl::Status ServesLatentAttention() const { return Serves(/*latent_dim=*/32, /*attention_experts=*/false); }
  absl::Status ServesAttentionExperts() const { return Serves(0, true); }
  absl::Status Serves(int32_t latent_dim, bool attention_experts) const {
    AttentionShape shape;
    shape.num_heads = shape.num_kv_heads = 1;
    shape.latent_dim = latent_dim;
    shape.head_dim = 48;
    LayerBlocks blocks;
    blocks.attention = &shape;
    blocks.attention_experts = attention_experts;
    return MakeBackend()->CheckServed(blocks);
  }

  DType dtype() const { return GetParam().dtype; }
  bool bf16() const { return dtype() == DType::kBF16; }

  std::unique_ptr<Backend> MakeBackend(int num_threads = kThreads) const {
    auto backend = testing::MakeBackend(GetParam().variant, num_threads);
    EXPECT_TRUE(backend.ok()) << backend.status();
    return *std::move(backend);
  }

  static std::unique_ptr<Weight> Load(Backend& backend, const MemoryReader& reader, DType dtype, WeightUse use,
                                      const TensorReader* bias = nullptr) {
    const TensorReader* const parts[] = {&reader};
    const TensorReader* const biases[] = {bias};
    auto weight = backend.LoadWeight(parts, biases, dtype, use);
    EXPECT_TRUE(weight.ok()) << weight.status();
    return *std::move(weight);
  }

  static Matrix Allocate(Backend& backend, int64_t rows, int64_t cols) {
    auto matrix = backend.AllocateMatrix(rows, cols);
    EXPECT_TRUE(matrix.ok()) << matrix.status();
    return *matrix;
  }

  static Matrix Rows(Matrix matrix, int64_t first, int64_t count) {
    return {static_cast<float*>(matrix.data) + first * matrix.cols, count, matrix.cols};
  }

  // Any device's memory can be written by looking rows up in a table.
  static void Fill(Backend& backend, Matrix matrix, const Values& values) {
    const MemoryReader rows(matrix.rows, matrix.cols, values);
    const auto table = Load(backend, rows, DType::kF32, WeightUse::kEmbedding);
    std::vector<int32_t> ids(static_cast<size_t>(matrix.rows));
    std::iota(ids.begin(), ids.end(), 0);
    backend.Embed(ids, *table, matrix);
    EXPECT_TRUE(backend.Wait().ok());
  }

  static Matrix Upload(Backend& backend, int64_t rows, int64_t cols, const Values& values) {
    const Matrix matrix = Allocate(backend, rows, cols);
    Fill(backend, matrix, values);
    return matrix;
  }

  static std::vector<float> Download(Backend& backend, Matrix matrix) {
    EXPECT_TRUE(backend.Wait().ok());
    const std::span<const float> view = backend.HostView(matrix);
    return {view.begin(), view.end()};
  }
};

// The element with the largest error as a share of its tolerance. The first NaN is the worst there can be.
struct WorstElement {
  double share = 0.0;
  size_t at = 0;
};

template <typename Tolerance>
WorstElement FindWorst(std::span<const float> actual, const Values& expected, const Tolerance& tolerance) {
  WorstElement worst;
  for (size_t i = 0; i < expected.size() && !std::isnan(worst.share); ++i) {
    const double error = std::abs(actual[i] - expected[i]);
    const double share = error == 0.0 ? 0.0 : error / tolerance(i);
    if (!(share <= worst.share)) worst = {share, i};
  }
  return worst;
}

// |actual[i] - expected[i]| <= tolerance(i) for all i; names the worst element otherwise.
template <typename Tolerance>
void ExpectWithin(std::span<const float> actual, const Values& expected, const Tolerance& tolerance,
                  const std::string& what) {
  ASSERT_EQ(actual.size(), expected.size()) << what;
  if (expected.empty()) return;
  const auto [share, at] = FindWorst(actual, expected, tolerance);
  EXPECT_LE(share, 1.0) << what << ": element " << at << " is " << actual[at] << ", expected " << expected[at]
                        << ", tolerance " << tolerance(at);
}

inline void ExpectSameBits(std::span<const float> actual, std::span<const float> expected, const std::string& what) {
  ASSERT_EQ(actual.size(), expected.size()) << what;
  for (size_t i = 0; i < expected.size(); ++i) {
    ASSERT_EQ(std::memcmp(&actual[i], &expected[i], 4), 0)
        << what << ": element " << i << " is " << actual[i] << ", expected " << expected[i];
  }
}

}  // namespace switchyard

#endif  // SWITCHYARD_TESTS_ENGINE_BACKEND_CONFORMANCE_H_
