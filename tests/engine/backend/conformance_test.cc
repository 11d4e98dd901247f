// Every operation on single matrices equals the reference, and a row's bits depend on that row alone.
#include "tests/engine/backend/conformance.h"

#include <limits>

namespace switchyard {
namespace {

constexpr int64_t kMaxRows = 70;
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

struct LinearShape {
  int64_t out;
  int64_t in;
};

const LinearShape kShapes[] = {{24, 32}, {97, 33}, {1, 64}, {64, 1}, {33, 100}, {130, 257}, {32, 32}};

using LinearTest = ConformanceTest;

TEST_P(LinearTest, EqualsReferenceForEveryShapeAndRowCount) {
  for (const LinearShape& shape : kShapes) {
    auto backend = MakeBackend();
    const MemoryReader tensor = RandomTensor(shape.out, shape.in, 1, dtype());
    const MemoryReader bias(1, shape.out, RandomValues(shape.out, 1.0, 2));
    auto weight = Load(*backend, tensor, dtype(), WeightUse::kLinear, &bias);
    ASSERT_TRUE(backend->PrepareScratch(kMaxRows).ok());
    const Values x = RandomValues(kMaxRows * shape.in, 1.0, 3, bf16());
    const Matrix in = Upload(*backend, kMaxRows, shape.in, x);
    const Matrix out = Allocate(*backend, kMaxRows, shape.out);
    const auto expected = reference::Linear(x, tensor.values(), bias.values(), kMaxRows, shape.out, shape.in);
    for (int64_t rows = 1; rows <= kMaxRows; ++rows) {
      backend->Linear(Rows(in, 0, rows), *weight, OutputMode::kAssign, Rows(out, 0, rows));
      const size_t size = static_cast<size_t>(rows * shape.out);
      ExpectWithin(Download(*backend, Rows(out, 0, rows)),
                   Values(expected.values.begin(), expected.values.begin() + size),
                   [&](size_t i) { return kEpsilonF32 * (2.0 + shape.in) * expected.magnitudes[i]; },
                   "Linear " + std::to_string(shape.out) + " x " + std::to_string(shape.in) + ", " +
                       std::to_string(rows) + " rows");
    }
  }
}

TEST_P(LinearTest, RoundsActivationsToTheWeightsTypeAtTheEntrance) {
  auto backend = MakeBackend();
  const MemoryReader tensor = RandomTensor(40, 48, 1, dtype());
  auto weight = Load(*backend, tensor, dtype(), WeightUse::kLinear);
  ASSERT_TRUE(backend->PrepareScratch(4).ok());
  const Values x = RandomValues(4 * 48, 1.0, 3);
  const Matrix in = Upload(*backend, 4, 48, x);
  const Matrix out = Allocate(*backend, 4, 40);
  backend->Linear(in, *weight, OutputMode::kAssign, out);
  const auto expected =
      reference::Linear(bf16() ? reference::RoundToBf16(x) : x, tensor.values(), {}, 4, 40, 48);
  ExpectWithin(Download(*backend, out), expected.values,
               [&](size_t i) { return kEpsilonF32 * 50 * expected.magnitudes[i]; }, "Linear");
}

TEST_P(LinearTest, AddsToTheOutputWhenAsked) {
  auto backend = MakeBackend();
  const MemoryReader tensor = RandomTensor(40, 48, 1, dtype());
  auto weight = Load(*backend, tensor, dtype(), WeightUse::kLinear);
  ASSERT_TRUE(backend->PrepareScratch(5).ok());
  const Matrix in = Upload(*backend, 5, 48, RandomValues(5 * 48, 1.0, 3));
  const Matrix assigned = Allocate(*backend, 5, 40);
  const Values before = RandomValues(5 * 40, 1.0, 4);
  const Matrix added = Upload(*backend, 5, 40, before);
  backend->Linear(in, *weight, OutputMode::kAssign, assigned);
  backend->Linear(in, *weight, OutputMode::kAdd, added);
  const std::vector<float> product = Download(*backend, assigned);
  std::vector<float> expected;
  for (size_t i = 0; i < product.size(); ++i) expected.push_back(static_cast<float>(before[i]) + product[i]);
  ExpectSameBits(Download(*backend, added), expected, "added");
}

TEST_P(LinearTest, StacksPartsAndTheirBiases) {
  auto backend = MakeBackend();
  const MemoryReader q = RandomTensor(20, 32, 1, dtype());
  const MemoryReader k = RandomTensor(7, 32, 2, dtype());
  const MemoryReader bias(1, 7, RandomValues(7, 1.0, 3));
  const TensorReader* const parts[] = {&q, &k, &q};
  const TensorReader* const biases[] = {nullptr, &bias, nullptr};
  auto stacked = backend->LoadWeight(parts, biases, dtype(), WeightUse::kLinear);
  ASSERT_TRUE(stacked.ok()) << stacked.status();
  ASSERT_EQ((*stacked)->out_features(), 47);
  auto alone = Load(*backend, k, dtype(), WeightUse::kLinear, &bias);
  auto first = Load(*backend, q, dtype(), WeightUse::kLinear);
  ASSERT_TRUE(backend->PrepareScratch(1).ok());
  const Matrix in = Upload(*backend, 1, 32, RandomValues(32, 1.0, 4));
  const Matrix out = Allocate(*backend, 1, 47);
  const Matrix out_k = Allocate(*backend, 1, 7);
  const Matrix out_q = Allocate(*backend, 1, 20);
  backend->Linear(in, **stacked, OutputMode::kAssign, out);
  backend->Linear(in, *alone, OutputMode::kAssign, out_k);
  backend->Linear(in, *first, OutputMode::kAssign, out_q);
  const std::vector<float> all = Download(*backend, out);
  ExpectSameBits({all.data(), 20}, Download(*backend, out_q), "first part");
  ExpectSameBits({all.data() + 20, 7}, Download(*backend, out_k), "second part");
  ExpectSameBits({all.data() + 27, 20}, Download(*backend, out_q), "third part");
}

TEST_P(LinearTest, RejectsPartsAndBiasesThatDoNotFit) {
  auto backend = MakeBackend();
  const MemoryReader a = RandomTensor(4, 32, 1, dtype());
  const MemoryReader b = RandomTensor(4, 31, 1, dtype());
  const TensorReader* const parts[] = {&a, &b};
  EXPECT_EQ(backend->LoadWeight(parts, {}, dtype(), WeightUse::kLinear).status().code(),
            absl::StatusCode::kInvalidArgument);
  const TensorReader* const part[] = {&a};
  const TensorReader* const bias[] = {&b};
  EXPECT_EQ(backend->LoadWeight(part, bias, dtype(), WeightUse::kLinear).status().code(),
            absl::StatusCode::kInvalidArgument);
}

// More rows than one pass takes, so that the row stands in every place of tiles, blocks and passes.
TEST_P(LinearTest, RowAloneEqualsRowInAnyBatch) {
  constexpr int64_t kRows = 300;
  for (const LinearShape& shape : {LinearShape{97, 100}, LinearShape{24, 64}, LinearShape{400, 33}}) {
    auto backend = MakeBackend();
    auto single = MakeBackend(1);
    const MemoryReader tensor = RandomTensor(shape.out, shape.in, 1, dtype());
    auto weight = Load(*backend, tensor, dtype(), WeightUse::kLinear);
    auto same_weight = Load(*single, tensor, dtype(), WeightUse::kLinear);
    ASSERT_TRUE(backend->PrepareScratch(kRows).ok() && single->PrepareScratch(kRows).ok());
    const Values x = RandomValues(kRows * shape.in, 1.0, 3);
    const Matrix in = Upload(*backend, kRows, shape.in, x);
    const Matrix same_in = Upload(*single, kRows, shape.in, x);
    const Matrix alone = Allocate(*single, kRows, shape.out);
    const Matrix batch = Allocate(*backend, kRows, shape.out);
    for (int64_t r = 0; r < kRows; ++r) {
      single->Linear(Rows(same_in, r, 1), *same_weight, OutputMode::kAssign, Rows(alone, r, 1));
    }
    const std::vector<float> expected = Download(*single, alone);
    for (const int64_t rows : {1, 2, 3, 5, 8, 15, 16, 17, 31, 33, 47, 64, 70, 256, 257, 300}) {
      for (const int64_t first : {int64_t{0}, (kRows - rows) / 2, kRows - rows}) {
        backend->Linear(Rows(in, first, rows), *weight, OutputMode::kAssign, Rows(batch, first, rows));
        ExpectSameBits(Download(*backend, Rows(batch, first, rows)),
                       {expected.data() + first * shape.out, static_cast<size_t>(rows * shape.out)},
                       std::to_string(rows) + " rows from " + std::to_string(first));
      }
    }
  }
}

TEST_P(LinearTest, BadRowLeavesOtherRowsAlone) {
  constexpr int64_t kRows = 20;
  auto backend = MakeBackend();
  const MemoryReader tensor = RandomTensor(40, 64, 1, dtype());
  auto weight = Load(*backend, tensor, dtype(), WeightUse::kLinear);
  ASSERT_TRUE(backend->PrepareScratch(kRows).ok());
  Values x = RandomValues(kRows * 64, 1.0, 3);
  const Matrix in = Upload(*backend, kRows, 64, x);
  const Matrix out = Allocate(*backend, kRows, 40);
  backend->Linear(in, *weight, OutputMode::kAssign, out);
  const std::vector<float> good = Download(*backend, out);
  x[7 * 64 + 3] = std::numeric_limits<double>::quiet_NaN();
  x[9 * 64 + 5] = std::numeric_limits<double>::infinity();
  Fill(*backend, in, x);
  backend->Linear(in, *weight, OutputMode::kAssign, out);
  const std::vector<float> mixed = Download(*backend, out);
  for (size_t r = 0; r < kRows; ++r) {
    if (r == 7 || r == 9) {
      EXPECT_FALSE(std::isfinite(mixed[r * 40])) << "row " << r;
    } else {
      ExpectSameBits({&mixed[r * 40], 40}, {&good[r * 40], 40}, "row " + std::to_string(r));
    }
  }
}

struct PerHeadShape {
  int64_t num_heads, in_part, in, out_part, out;
};

// The parts of a row that no head reads or writes hold what must not matter, and stay.
TEST_P(LinearTest, PerHeadEqualsReferenceAndLeavesTheRestAlone) {
  const absl::Status served = ServesLatentAttention();
  if (!served.ok()) GTEST_SKIP() << served.message();
  constexpr int64_t kRows = 300;
  for (const PerHeadShape& s : {PerHeadShape{5, 40, 24, 48, 33}, {1, 32, 32, 16, 16}, {20, 192, 128, 70, 64}}) {
    auto backend = MakeBackend();
    std::vector<std::unique_ptr<Weight>> heads;
    std::vector<Values> values;
    for (int64_t n = 0; n < s.num_heads; ++n) {
      const MemoryReader tensor = RandomTensor(s.out, s.in, 10 + n, dtype());
      values.push_back(tensor.values());
      heads.push_back(Load(*backend, tensor, dtype(), WeightUse::kLinear));
    }
    ASSERT_TRUE(backend->PrepareScratch(kRows).ok());
    const int64_t in_width = s.num_heads * s.in_part, out_width = s.num_heads * s.out_part;
    const Values x = RandomValues(kRows * in_width, 1.0, 3, bf16());
    const Matrix in = Upload(*backend, kRows, in_width, x);
    const Matrix out = Upload(*backend, kRows, out_width, Values(kRows * out_width, 7.0));
    backend->LinearPerHead(in, heads, out);
    const std::vector<float> actual = Download(*backend, out);
    for (int64_t n = 0; n < s.num_heads; ++n) {
      Values part;
      for (int64_t r = 0; r < kRows; ++r) {
        const auto from = x.begin() + r * in_width + n * s.in_part;
        part.insert(part.end(), from, from + s.in);
      }
      const auto expected = reference::Linear(part, values[n], {}, kRows, s.out, s.in);
      for (int64_t r = 0; r < kRows; ++r) {
        for (int64_t o = 0; o < s.out_part; ++o) {
          const float got = actual[r * out_width + n * s.out_part + o];
          if (o >= s.out) {
            ASSERT_EQ(got, 7.0f);
          } else {
            const size_t i = static_cast<size_t>(r * s.out + o);
            ASSERT_NEAR(got, expected.values[i], kEpsilonF32 * (2.0 + s.in) * expected.magnitudes[i]) << n << " " << r;
          }
        }
      }
    }
    for (const int64_t rows : {1, 3, 17, 257}) {
      for (const int64_t first : {int64_t{0}, kRows - rows}) {
        const Matrix again = Upload(*backend, rows, out_width, Values(rows * out_width, 7.0));
        backend->LinearPerHead(Rows(in, first, rows), heads, again);
        ExpectSameBits(Download(*backend, again),
                       {actual.data() + first * out_width, static_cast<size_t>(rows * out_width)},
                       std::to_string(rows) + " rows from " + std::to_string(first));
      }
    }
  }
}

// The comparison that all of these tests trust.
TEST(ExpectWithinTest, NothingHidesANaN) {
  const auto tolerance = [](size_t i) { return i == 3 ? 0.0 : 0.5; };
  const Values expected = {1.0, 2.0, 3.0, 4.0};
  const float nan = std::nanf("");
  EXPECT_LE(FindWorst(std::vector<float>{1.0f, 2.25f, 3.0f, 4.0f}, expected, tolerance).share, 1.0);
  EXPECT_EQ(FindWorst(std::vector<float>{1.0f, 2.25f, 3.4f, 4.0f}, expected, tolerance).at, 2u);
  EXPECT_GT(FindWorst(std::vector<float>{1.0f, 2.0f, 3.0f, 4.001f}, expected, tolerance).share, 1.0);
  for (size_t bad = 0; bad < 4; ++bad) {
    std::vector<float> actual = {1.1f, 2.0f, 9.0f, 4.0f};
    actual[bad] = nan;
    EXPECT_FALSE(FindWorst(actual, expected, tolerance).share <= 1.0) << bad;
    EXPECT_EQ(FindWorst(actual, expected, tolerance).at, bad);
  }
  EXPECT_FALSE(FindWorst(std::vector<float>{nan, nan, nan, nan}, expected, tolerance).share <= 1.0);
}

INSTANTIATE_TEST_SUITE_P(Backends, LinearTest, ::testing::ValuesIn(AllParams()), ParamName);

using RowwiseTest = ConformanceTest;

TEST_P(RowwiseTest, EmbedCopiesRowsOfTheTable) {
  auto backend = MakeBackend();
  const MemoryReader tensor = RandomTensor(97, 33, 1, dtype());
  auto table = Load(*backend, tensor, dtype(), WeightUse::kEmbedding);
  const Matrix out = Allocate(*backend, 3, 33);
  const int32_t ids[] = {96, 0, 42};
  backend->Embed(ids, *table, out);
  const std::vector<float> rows = Download(*backend, out);
  for (size_t i = 0; i < rows.size(); ++i) EXPECT_EQ(rows[i], tensor.values()[ids[i / 33] * 33 + i % 33]);
}

TEST_P(RowwiseTest, RmsNormEqualsReferenceAlsoInPlace) {
  for (const int64_t size : {1, 7, 32, 33, 100, 2048}) {
    constexpr int64_t kRows = 20;
    auto backend = MakeBackend();
    const MemoryReader tensor(1, size, RandomValues(size, 1.0, 1));
    auto weight = Load(*backend, tensor, dtype(), WeightUse::kVector);
    const Values x = RandomValues(kRows * size, 3.0, 2);
    const Matrix in = Upload(*backend, kRows, size, x);
    const Matrix out = Allocate(*backend, kRows, size);
    backend->RmsNorm(in, *weight, 1e-6f, out);
    const Values expected = reference::RmsNorm(x, tensor.values(), size, 1e-6);
    const std::vector<float> apart = Download(*backend, out);
    ExpectWithin(apart, expected, [&](size_t i) { return kEpsilonF32 * (8.0 + size) * std::abs(expected[i]) + 1e-30; },
                 "RmsNorm of " + std::to_string(size));
    backend->RmsNorm(in, *weight, 1e-6f, in);
    ExpectSameBits(Download(*backend, in), apart, "in place");
  }
}

TEST_P(RowwiseTest, LayerNormEqualsReferenceAlsoInPlace) {
  for (const int64_t size : {1, 7, 32, 33, 100, 2048}) {
    constexpr int64_t kRows = 20;
    auto backend = MakeBackend();
    const MemoryReader weight_tensor(1, size, RandomValues(size, 1.0, 1)),
        bias_tensor(1, size, RandomValues(size, 1.0, 2));
    auto weight = Load(*backend, weight_tensor, dtype(), WeightUse::kVector);
    auto bias = Load(*backend, bias_tensor, dtype(), WeightUse::kVector);
    Values x = RandomValues(kRows * size, 3.0, 3);
    for (double& value : x) value = static_cast<float>(value + 5.0);  // a mean that has to be taken off
    for (const Weight* shift : {static_cast<const Weight*>(nullptr), static_cast<const Weight*>(bias.get())}) {
      const Matrix in = Upload(*backend, kRows, size, x);
      const Matrix out = Allocate(*backend, kRows, size);
      backend->LayerNorm(in, *weight, shift, 1e-5f, out);
      const Values expected = reference::LayerNorm(x, weight_tensor.values(),
                                                   shift == nullptr ? Values() : bias_tensor.values(), size, 1e-5);
      const std::vector<float> apart = Download(*backend, out);
      // The mean errs by `size` roundings of values up to 20; its share of a row's deviation is what shows. A single
      // element has no deviation, and sqrt(eps) in its place.
      const double spread = size == 1 ? 3e-3 : 1.0;
      ExpectWithin(apart, expected,
                   [&](size_t i) {
                     return kEpsilonF32 * (8.0 + size) * (std::abs(expected[i]) + 20.0 / spread *
                            std::abs(weight_tensor.values()[i % size]) + 1.0);
                   },
                   "LayerNorm of " + std::to_string(size));
      backend->LayerNorm(in, *weight, shift, 1e-5f, in);
      ExpectSameBits(Download(*backend, in), apart, "in place");
    }
  }
}

TEST_P(RowwiseTest, ScaleMultipliesEveryElement) {
  auto backend = MakeBackend();
  const Values x = RandomValues(7 * 37, 1.0, 1);
  const Matrix matrix = Upload(*backend, 7, 37, x);
  backend->Scale(0.3f, matrix);
  const std::vector<float> scaled = Download(*backend, matrix);
  for (size_t i = 0; i < x.size(); ++i) EXPECT_EQ(scaled[i], static_cast<float>(x[i]) * 0.3f);
}

TEST_P(RowwiseTest, AddBiasAddsToEveryRow) {
  auto backend = MakeBackend();
  const MemoryReader tensor(1, 37, RandomValues(37, 1.0, 1));
  auto bias = Load(*backend, tensor, dtype(), WeightUse::kVector);
  const Values x = RandomValues(7 * 37, 1.0, 2);
  const Matrix matrix = Upload(*backend, 7, 37, x);
  backend->AddBias(*bias, matrix);
  const std::vector<float> sums = Download(*backend, matrix);
  for (size_t i = 0; i < x.size(); ++i) {
    EXPECT_EQ(sums[i], static_cast<float>(x[i]) + static_cast<float>(tensor.values()[i % 37]));
  }
}

TEST_P(RowwiseTest, SiluMulEqualsReferenceOverTheWholeRange) {
  constexpr int64_t kCols = 403;
  auto backend = MakeBackend();
  Values x;
  for (int64_t i = 0; i < kCols; ++i) x.push_back(static_cast<float>(-100.0 + 0.5 * static_cast<double>(i)));
  x.resize(2 * kCols, 1.5);
  const Matrix in = Upload(*backend, 1, 2 * kCols, x);
  const Matrix out = Allocate(*backend, 1, kCols);
  backend->SiluMul(in, out);
  Values expected;
  for (int64_t i = 0; i < kCols; ++i) expected.push_back(reference::Silu(x[i]) * 1.5);
  ExpectWithin(Download(*backend, out), expected,
               [&](size_t i) { return 8 * kEpsilonF32 * std::abs(expected[i]) + 1e-36; }, "SiluMul");
}

TEST_P(RowwiseTest, AddGatedEqualsReference) {
  constexpr int64_t kRows = 5, kIn = 50, kOut = 37;
  auto backend = MakeBackend();
  const MemoryReader gate = RandomTensor(1, kIn, 1, DType::kF32);
  auto weight = Load(*backend, gate, dtype(), WeightUse::kVector);
  const Values x = RandomValues(kRows * kIn, 1.0, 2), values = RandomValues(kRows * kOut, 1.0, 3),
               before = RandomValues(kRows * kOut, 1.0, 4);
  const Matrix out = Upload(*backend, kRows, kOut, before);
  backend->AddGated(Upload(*backend, kRows, kIn, x), *weight, Upload(*backend, kRows, kOut, values), out);
  const auto scores = reference::Linear(x, gate.values(), {}, kRows, 1, kIn);
  Values expected = before;
  for (size_t i = 0; i < expected.size(); ++i) {
    expected[i] += values[i] / (1.0 + std::exp(-scores.values[i / kOut]));
  }
  ExpectWithin(Download(*backend, out), expected,
               [&](size_t i) {
                 const double gate_error = kEpsilonF32 * (kIn * scores.magnitudes[i / kOut] + 8.0);
                 return gate_error * std::abs(values[i]) + 2 * kEpsilonF32 * std::abs(expected[i]);
               },
               "AddGated");
}

TEST_P(RowwiseTest, GreedyTokensAreTheLargestAndLowestAndTellWhatIsNotFinite) {
  constexpr int64_t kRows = 7, kCols = 3000, kIds = 2990;
  auto backend = MakeBackend();
  auto allocated = backend->AllocateSampledTokens(kRows);
  ASSERT_TRUE(allocated.ok()) << allocated.status();
  const int32_t* const best = *allocated;
  if (best == nullptr) GTEST_SKIP() << backend->description() << " leaves sampling to the host";
  ASSERT_TRUE(backend->PrepareScratch(kRows).ok());
  Values x = RandomValues(kRows * kCols, 1.0, 1);
  const auto at = [&](int64_t row, int64_t col) -> double& { return x[static_cast<size_t>(row * kCols + col)]; };
  at(0, 2989) = 9.0;
  at(1, 0) = 9.0;
  at(2, 1500) = at(2, 700) = at(2, 2900) = 9.0;           // the lowest of equals
  at(3, 2990) = at(3, 2999) = kNaN;                       // beyond the valid ids: no matter
  at(3, 77) = 9.0;
  at(4, 2000) = kNaN;
  at(5, 5) = std::numeric_limits<double>::infinity();
  for (int64_t c = 0; c < kCols; ++c) at(6, c) = -std::numeric_limits<float>::max();
  const std::vector<RowSampling> greedy(kRows);
  backend->SampleTokens(Upload(*backend, kRows, kCols, x), kIds, greedy);
  ASSERT_TRUE(backend->Wait().ok());
  EXPECT_EQ(std::vector<int32_t>(best, best + kRows), (std::vector<int32_t>{2989, 0, 700, 77, -1, -1, 0}));
}

TEST_P(RowwiseTest, SelectRowsCopies) {
  auto backend = MakeBackend();
  const Values x = RandomValues(6 * 10, 1.0, 1);
  const Matrix out = Allocate(*backend, 2, 10);
  const int32_t rows[] = {5, 2};
  backend->SelectRows(Upload(*backend, 6, 10, x), rows, out);
  const std::vector<float> selected = Download(*backend, out);
  for (size_t i = 0; i < 20; ++i) EXPECT_EQ(selected[i], x[rows[i / 10] * 10 + i % 10]);
}

TEST_P(RowwiseTest, UploadPutsEveryValueInItsPlace) {
  auto backend = MakeBackend();
  LayerBlocks blocks;
  const AttentionShape attention;
  blocks.attention = &attention;
  blocks.bidirectional = true;
  if (!backend->CheckServed(blocks).ok()) GTEST_SKIP() << backend->description() << " serves no encoders";
  const Matrix out = Allocate(*backend, 3, 7);
  std::vector<float> values(21);
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i);
  backend->Upload(values, out);
  EXPECT_EQ(Download(*backend, out), values);
}

INSTANTIATE_TEST_SUITE_P(Backends, RowwiseTest, ::testing::ValuesIn(AllParams()), ParamName);

}  // namespace
}  // namespace switchyard
