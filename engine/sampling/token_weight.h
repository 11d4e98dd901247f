// What a logit weighs in a draw: a whole number of units. Sums of integers are exact in any order, so that a device
// that adds in parallel draws the very token that the host draws.
//
//   octaves = (max - logit) / (temperature * ln 2), in fp32
//   weight  = floor(2^39 * 2^-octaves) units; the largest logit weighs 2^39, whatever is 39 octaves below it nothing
//
// 2^24 ids, the most that a vocabulary has, sum to 2^63. Truncation takes less than num_ids * 2^-39 from the total,
// 3e-7 of it with 150,000 ids. fp32 rounds a weight by less than 2^-17 of itself, the largest ones by 2^-23.
//
// For the host and for kernels, with the same bits: only +, -, *, comparisons and conversions, which IEEE 754 defines.
// REQUIRES: compiled without contraction (-ffp-contract=off, --fmad=false).
#ifndef SWITCHYARD_ENGINE_SAMPLING_TOKEN_WEIGHT_H_
#define SWITCHYARD_ENGINE_SAMPLING_TOKEN_WEIGHT_H_

#include <cstdint>
#include <cstring>

#include "engine/base/host_device.h"
#include "engine/sampling/philox.h"

namespace switchyard {

inline constexpr float kUnitsOfLargest = 0x1p39f;

// 2^-octaves in fp32, off by less than 2 units in the last place. REQUIRES: 0 <= octaves <= 64.
SWITCHYARD_HOST_DEVICE inline float PowerOfHalf(float octaves) {
  const int32_t whole = static_cast<int32_t>(octaves);
  const float f = octaves - static_cast<float>(whole);
  // Minimax polynomial of 2^-f on [0, 1), 1 at 0; relative error 1.4e-8 before rounding.
  float power = 0x1.c946bap-14f;
  power = power * f - 0x1.4e2ae6p-10f;
  power = power * f + 0x1.39e3fcp-7f;
  power = power * f - 0x1.c6948ep-5f;
  power = power * f + 0x1.ebfac0p-3f;
  power = power * f - 0x1.62e42cp-1f;
  power = power * f + 1.0f;
  const uint32_t scale_bits = static_cast<uint32_t>(127 - whole) << 23;
  float scale;
  memcpy(&scale, &scale_bits, sizeof(scale));
  return power * scale;
}

// The weights of one row.
struct TokenWeights {
  float largest = 0.0f;            // logit of the row
  float octaves_per_logit = 0.0f;

  // REQUIRES: temperature > 0. Below 1e-6 it cannot be told from greedy, and its inverse stays finite.
  SWITCHYARD_HOST_DEVICE TokenWeights(float largest_logit, float temperature) : largest(largest_logit) {
    constexpr double kLog2E = 1.4426950408889634;
    const double divisor = temperature > 1e-6f ? static_cast<double>(temperature) : 1e-6;
    octaves_per_logit = static_cast<float>(kLog2E / divisor);
  }

  // Of logits up to `largest`.
  SWITCHYARD_HOST_DEVICE float Octaves(float logit) const {
    const float octaves = (largest - logit) * octaves_per_logit;
    return octaves < 64.0f ? octaves : 64.0f;
  }
  SWITCHYARD_HOST_DEVICE uint64_t Units(float logit) const {
    return static_cast<uint64_t>(static_cast<int64_t>(PowerOfHalf(Octaves(logit)) * kUnitsOfLargest));
  }
};

// min-p as the least weight that stays.
SWITCHYARD_HOST_DEVICE inline uint64_t LeastUnits(float min_p) {
  return static_cast<uint64_t>(static_cast<int64_t>(min_p * kUnitsOfLargest));
}

// top-p as the weight that the most likely tokens have to reach, of `mass` > 0; at least one unit.
SWITCHYARD_HOST_DEVICE inline uint64_t NucleusTarget(float top_p, uint64_t mass) {
  if (top_p >= 1.0f) return mass;
  const uint64_t target = static_cast<uint64_t>(static_cast<double>(top_p) * static_cast<double>(mass));
  return target < 1 ? 1 : target < mass ? target : mass;
}

// The uniform number of (seed, position) times `total`, rounded down: the token whose weight holds this unit is drawn.
SWITCHYARD_HOST_DEVICE inline uint64_t DrawUnit(uint64_t seed, int64_t position, uint64_t total) {
  const uint64_t uniform = UniformBitsAt(seed, static_cast<uint64_t>(position)) << 11;  // of 2^64
  const uint64_t high = uniform >> 32, low = uniform & 0xffffffffu;
  const uint64_t total_high = total >> 32, total_low = total & 0xffffffffu;
  const uint64_t middle = high * total_low + (low * total_low >> 32);
  return high * total_high + (middle >> 32) + ((low * total_high + (middle & 0xffffffffu)) >> 32);
}

}  // namespace switchyard

#endif  // SWITCHYARD_ENGINE_SAMPLING_TOKEN_WEIGHT_H_
