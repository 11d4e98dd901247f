// Tensors in memory, with random values, for tests of backends.
#ifndef SWITCHYARD_TESTS_ENGINE_BACKEND_MEMORY_READER_H_
#define SWITCHYARD_TESTS_ENGINE_BACKEND_MEMORY_READER_H_

#include <cmath>
#include <cstdint>
#include <random>
#include <utility>

#include "engine/base/bf16.h"
#include "engine/base/tensor_reader.h"
#include "tests/reference/operations.h"

namespace switchyard {

using reference::Values;

// A tensor in memory.
class MemoryReader final : public TensorReader {
 public:
  MemoryReader(int64_t rows, int64_t cols, Values values) : rows_(rows), cols_(cols), values_(std::move(values)) {}

  int64_t rows() const override { return rows_; }
  int64_t cols() const override { return cols_; }
  const Values& values() const { return values_; }
  absl::Status ReadRows(int64_t first, int64_t count, DType as, void* out) const override {
    for (int64_t i = 0; i < count * cols_; ++i) {
      const float value = static_cast<float>(values_[first * cols_ + i]);
      if (as == DType::kF32) {
        static_cast<float*>(out)[i] = value;
      } else {
        static_cast<uint16_t*>(out)[i] = FloatToBf16(value);
      }
    }
    return absl::OkStatus();
  }

 private:
  const int64_t rows_;
  const int64_t cols_;
  const Values values_;
};

// Normally distributed values that floats (or bfloat16, if asked) hold exactly.
inline Values RandomValues(int64_t count, double deviation, uint64_t seed, bool bf16 = false) {
  std::mt19937_64 generator(seed);
  std::normal_distribution<float> normal(0.0f, static_cast<float>(deviation));
  Values values;
  for (int64_t i = 0; i < count; ++i) {
    const float value = normal(generator);
    values.push_back(bf16 ? reference::RoundToBf16(value) : value);
  }
  return values;
}

inline MemoryReader RandomTensor(int64_t rows, int64_t cols, uint64_t seed, DType dtype) {
  const double deviation = 1.0 / std::sqrt(static_cast<double>(cols));
  return MemoryReader(rows, cols, RandomValues(rows * cols, deviation, seed, dtype == DType::kBF16));
}

}  // namespace switchyard

#endif  // SWITCHYARD_TESTS_ENGINE_BACKEND_MEMORY_READER_H_
