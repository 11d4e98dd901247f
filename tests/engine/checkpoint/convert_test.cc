#include "engine/checkpoint/convert.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "engine/base/bf16.h"

namespace switchyard {
namespace {

// What IEEE 754 says a half-precision pattern means, from its parts.
double HalfValue(uint16_t bits) {
  const int exponent = (bits >> 10) & 31, mantissa = bits & 1023;
  const double sign = (bits & 0x8000) != 0 ? -1.0 : 1.0;
  if (exponent == 31) return mantissa == 0 ? sign * HUGE_VAL : NAN;
  if (exponent == 0) return sign * std::ldexp(mantissa, -24);
  return sign * std::ldexp(1024 + mantissa, exponent - 25);
}

TEST(ConvertTest, EveryHalfBecomesItsFloat) {
  std::vector<uint16_t> halves(65536);
  for (size_t i = 0; i < halves.size(); ++i) halves[i] = static_cast<uint16_t>(i);
  std::vector<float> floats(halves.size());
  ConvertElements(DType::kF16, halves.data(), DType::kF32, floats.data(), 65536);
  for (size_t i = 0; i < halves.size(); ++i) {
    const double expected = HalfValue(halves[i]);
    if (std::isnan(expected)) {
      EXPECT_TRUE(std::isnan(floats[i])) << i;
    } else {
      EXPECT_EQ(floats[i], expected) << i;
      EXPECT_EQ(std::signbit(floats[i]), std::signbit(expected)) << i;
    }
  }
}

TEST(ConvertTest, EveryBf16SurvivesTheWayToFloatAndBack) {
  std::vector<uint16_t> values(65536), back(65536);
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<uint16_t>(i);
  std::vector<float> floats(values.size());
  ConvertElements(DType::kBF16, values.data(), DType::kF32, floats.data(), 65536);
  ConvertElements(DType::kF32, floats.data(), DType::kBF16, back.data(), 65536);
  for (size_t i = 0; i < values.size(); ++i) {
    if (std::isnan(floats[i])) {
      EXPECT_TRUE(std::isnan(Bf16ToFloat(back[i]))) << i;
    } else {
      EXPECT_EQ(values[i], back[i]);
    }
  }
}

TEST(ConvertTest, FloatsRoundToNearestEven) {
  const float one_ulp = 1.0f / 128;
  const std::vector<float> in = {1.0f + one_ulp / 2,
                                 1.0f + 3 * one_ulp / 2,
                                 1.0f + one_ulp / 2 + 1e-6f,
                                 -0.0f,
                                 std::numeric_limits<float>::max(),
                                 std::numeric_limits<float>::infinity()};
  const std::vector<uint16_t> expected = {0x3f80, 0x3f82, 0x3f81, 0x8000, 0x7f80, 0x7f80};
  std::vector<uint16_t> out(in.size());
  ConvertElements(DType::kF32, in.data(), DType::kBF16, out.data(), static_cast<int64_t>(in.size()));
  EXPECT_EQ(out, expected);
}

TEST(ConvertTest, WorksAtAnyAlignmentAndLength) {
  std::vector<float> values;
  for (int i = 0; i < 100; ++i) values.push_back(static_cast<float>(i) * 0.37f - 5);
  std::vector<char> in(401), out(201);
  std::memcpy(in.data() + 1, values.data(), 400);
  for (int count = 0; count <= 100; ++count) {
    ConvertElements(DType::kF32, in.data() + 1, DType::kBF16, out.data() + 1, count);
    for (int i = 0; i < count; ++i) {
      uint16_t actual;
      std::memcpy(&actual, out.data() + 1 + 2 * i, 2);
      ASSERT_EQ(actual, FloatToBf16(values[static_cast<size_t>(i)]));
    }
  }
}

}  // namespace
}  // namespace switchyard
