// Host data for comparing kernels with plain loops.
#ifndef SWITCHYARD_TESTS_BENCH_GPU_CHECK_H_
#define SWITCHYARD_TESTS_BENCH_GPU_CHECK_H_

#include <cmath>
#include <cstdint>
#include <vector>

#include "engine/base/bf16.h"
#include "tests/bench/gpu/bench.h"
#include "tests/bench/gpu/device.h"
#include "tests/bench/gpu/routing.h"

namespace switchyard::bench {

inline constexpr double kF32Limit = 1e-5;  // of rel-L2: sums of a few hundred products, in another order
inline constexpr double kBf16Limit = 1e-2;

// Normal values that bfloat16 holds exactly.
inline std::vector<float> NormalValues(int64_t count, uint64_t seed) {
  Random random(seed);
  std::vector<float> values;
  for (int64_t i = 0; i < count; ++i) {
    const double radius = std::sqrt(-2.0 * std::log(1.0 - random.Uniform()));
    values.push_back(Bf16ToFloat(FloatToBf16(static_cast<float>(radius * std::cos(6.283185307 * random.Uniform())))));
  }
  return values;
}

inline std::vector<uint16_t> ToBf16(const std::vector<float>& values) {
  std::vector<uint16_t> bits;
  for (const float value : values) bits.push_back(FloatToBf16(value));
  return bits;
}
inline std::vector<float> ToFloat(const std::vector<uint16_t>& bits) {
  std::vector<float> values;
  for (const uint16_t value : bits) values.push_back(Bf16ToFloat(value));
  return values;
}

// [rows][cols] as rows of `stride`, zeros beyond.
inline std::vector<float> Padded(const std::vector<float>& values, int64_t cols, int64_t stride) {
  std::vector<float> padded;
  for (size_t i = 0; i < values.size(); i += static_cast<size_t>(cols)) {
    for (int64_t c = 0; c < stride; ++c) padded.push_back(c < cols ? values[i + static_cast<size_t>(c)] : 0.0f);
  }
  return padded;
}

template <typename T>
Array<T> Poisoned(int64_t count) {
  Array<T> array(count);
  Poison(array.get(), array.bytes());
  return array;
}

void CheckRowKernels(Bench* bench);  // check_rows.cc

}  // namespace switchyard::bench

#endif  // SWITCHYARD_TESTS_BENCH_GPU_CHECK_H_
