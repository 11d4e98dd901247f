#include "engine/sampling/token_weight.h"

#include <cmath>
#include <random>

#include "gtest/gtest.h"

namespace switchyard {
namespace {

TEST(TokenWeightTest, PowersOfHalfAreRightWithinTwoUnitsInTheLastPlace) {
  double worst = 0.0;
  for (int i = 0; i <= 40 << 16; ++i) {
    const float octaves = static_cast<float>(i) * 0x1p-16f;
    const double expected = std::exp2(-static_cast<double>(octaves));
    worst = std::max(worst, std::abs(PowerOfHalf(octaves) - expected) / expected);
  }
  EXPECT_LT(worst, 2 * 0x1p-23);
  for (int whole = 0; whole <= 64; ++whole) {
    EXPECT_EQ(PowerOfHalf(static_cast<float>(whole)), std::exp2(-static_cast<float>(whole)));
  }
}

TEST(TokenWeightTest, TheLargestLogitWeighsAllUnitsAndNoOtherMore) {
  for (const float temperature : {1e-30f, 1e-6f, 0.7f, 1.0f, 1e6f, 3e38f}) {
    const TokenWeights weights(5.0f, temperature);
    EXPECT_EQ(weights.Units(5.0f), uint64_t{1} << 39);
    for (float logit = 5.0f; logit > 4.9999f; logit = std::nextafter(logit, 0.0f)) {
      EXPECT_LE(weights.Units(logit), uint64_t{1} << 39);
    }
    EXPECT_EQ(TokenWeights(3e38f, std::min(temperature, 1e6f)).Units(-3e38f), 0u);
  }
}

TEST(TokenWeightTest, LogitsFarBelowTheLargestWeighNothing) {
  const TokenWeights weights(0.0f, 1.0f);
  const float octave = std::log(2.0f);
  EXPECT_EQ(weights.Units(-38.5f * octave), 1u);
  EXPECT_EQ(weights.Units(-39.5f * octave), 0u);
  EXPECT_EQ(weights.Units(-1000.0f), 0u);
}

TEST(TokenWeightTest, DrawUnitIsTheUniformNumberTimesTheTotalRoundedDown) {
  std::mt19937_64 random(1);
  for (int i = 0; i < 10000; ++i) {
    const uint64_t seed = random(), total = (random() >> 1 >> (random() % 60)) + 1;
    const int64_t position = static_cast<int64_t>(random() >> 1);
    __extension__ using Wide = unsigned __int128;
    const Wide product = Wide{UniformBitsAt(seed, static_cast<uint64_t>(position))} * total;
    EXPECT_EQ(DrawUnit(seed, position, total), static_cast<uint64_t>(product >> 53));
    EXPECT_LT(DrawUnit(seed, position, total), total);
  }
}

TEST(TokenWeightTest, TheNucleusNeedsAtLeastOneUnitAndAtMostAll) {
  const uint64_t mass = (uint64_t{1} << 62) + 1;
  EXPECT_EQ(NucleusTarget(1.0f, mass), mass);
  EXPECT_EQ(NucleusTarget(0.5f, uint64_t{1} << 40), uint64_t{1} << 39);
  EXPECT_EQ(NucleusTarget(1e-30f, mass), 1u);
  EXPECT_LE(NucleusTarget(std::nextafter(1.0f, 0.0f), mass), mass);
}

}  // namespace
}  // namespace switchyard
