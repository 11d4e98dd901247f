// A quantized matrix in memory: codes and scales as checkpoints store them.
#ifndef SWITCHYARD_TESTS_SUPPORT_QUANTIZED_READER_H_
#define SWITCHYARD_TESTS_SUPPORT_QUANTIZED_READER_H_

#include <cstdint>
#include <cstring>
#include <random>
#include <vector>

#include "engine/base/bf16.h"
#include "engine/base/tensor_reader.h"
#include "tests/reference/quantized.h"

namespace switchyard::testing {

class QuantizedReader final : public TensorReader {
 public:
  // Random codes without NaN, and scales that make numbers of about 1 / sqrt(cols).
  QuantizedReader(int64_t rows, int64_t cols, const QuantizedForm& form, uint64_t seed)
      : rows_(rows), cols_(cols), form_(form), codes_(static_cast<size_t>(rows * form.CodeBytes(cols))) {
    std::mt19937_64 random(seed);
    for (uint8_t& code : codes_) {
      code = static_cast<uint8_t>(random());
      if (form.format == QuantizedFormat::kFp8 && (code & 0x7f) == 0x7f) code ^= 1;
    }
    for (int64_t i = 0; i < rows * form.ScalesPerRow(cols); ++i) {
      exponents_.push_back(static_cast<uint8_t>(118 + random() % 6));
      scales_.push_back(0.001f + 0.0001f * static_cast<float>(random() % 16));
    }
  }

  int64_t rows() const override { return rows_; }
  int64_t cols() const override { return cols_; }
  QuantizedForm quantized() const override { return form_; }

  std::vector<uint8_t>& codes() { return codes_; }
  std::vector<uint8_t>& exponents() { return exponents_; }  // scales of mxfp4
  std::vector<float>& scales() { return scales_; }          // of fp8

  absl::Status ReadRows(int64_t first, int64_t count, DType as, void* out) const override {
    for (int64_t i = 0; i < count * cols_; ++i) {
      const uint16_t number = NumberAt(first + i / cols_, i % cols_);
      if (as == DType::kF32) {
        static_cast<float*>(out)[i] = Bf16ToFloat(number);  // tests compare in bfloat16 only
      } else {
        static_cast<uint16_t*>(out)[i] = number;
      }
    }
    return absl::OkStatus();
  }

  absl::Status ReadQuantized(int64_t first, int64_t count, uint8_t* codes, void* scales) const override {
    const int64_t row_codes = form_.CodeBytes(cols_), row_scales = form_.ScalesPerRow(cols_);
    const void* const from = form_.format == QuantizedFormat::kMxfp4
                                 ? static_cast<const void*>(exponents_.data() + first * row_scales)
                                 : scales_.data() + first * row_scales;
    std::memcpy(codes, codes_.data() + first * row_codes, static_cast<size_t>(count * row_codes));
    std::memcpy(scales, from, static_cast<size_t>(count * row_scales * form_.ScaleBytes()));
    return absl::OkStatus();
  }

 private:
  uint16_t NumberAt(int64_t row, int64_t col) const {
    const size_t scale = static_cast<size_t>(row * form_.ScalesPerRow(cols_) + col / form_.block_cols);
    if (form_.format == QuantizedFormat::kFp8) {
      return reference::Fp8AsBf16(codes_[static_cast<size_t>(row * cols_ + col)], scales_[scale]);
    }
    const uint8_t pair = codes_[static_cast<size_t>((row * cols_ + col) / 2)];
    return reference::Mxfp4AsBf16(col % 2 == 0 ? pair & 15 : pair >> 4, exponents_[scale]);
  }

  const int64_t rows_;
  const int64_t cols_;
  const QuantizedForm form_;
  std::vector<uint8_t> codes_;
  std::vector<uint8_t> exponents_;
  std::vector<float> scales_;
};

}  // namespace switchyard::testing

#endif  // SWITCHYARD_TESTS_SUPPORT_QUANTIZED_READER_H_
