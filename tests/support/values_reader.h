// A tensor in memory, for tests that change a checkpoint's weights. Gives float32 only.
#ifndef SWITCHYARD_TESTS_SUPPORT_VALUES_READER_H_
#define SWITCHYARD_TESTS_SUPPORT_VALUES_READER_H_

#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

#include "engine/base/status_macros.h"
#include "engine/base/tensor_reader.h"

namespace switchyard::testing {

class ValuesReader final : public TensorReader {
 public:
  ValuesReader(int64_t rows, int64_t cols, std::vector<float> values)
      : rows_(rows), cols_(cols), values_(std::move(values)) {}

  // Of another tensor.
  static std::vector<float> ReadAll(const TensorReader& tensor) {
    std::vector<float> values(static_cast<size_t>(tensor.rows() * tensor.cols()));
    CHECK(tensor.ReadRows(0, tensor.rows(), DType::kF32, values.data()).ok());
    return values;
  }

  int64_t rows() const override { return rows_; }
  int64_t cols() const override { return cols_; }
  absl::Status ReadRows(int64_t first, int64_t count, DType as, void* out) const override {
    CHECK(as == DType::kF32);
    std::copy_n(values_.begin() + first * cols_, count * cols_, static_cast<float*>(out));
    return absl::OkStatus();
  }

 private:
  const int64_t rows_;
  const int64_t cols_;
  const std::vector<float> values_;
};

}  // namespace switchyard::testing

#endif  // SWITCHYARD_TESTS_SUPPORT_VALUES_READER_H_
