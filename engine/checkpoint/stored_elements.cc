#include "engine/checkpoint/stored_elements.h"

#include <algorithm>
#include <vector>

#include "engine/base/status_macros.h"
#include "engine/checkpoint/convert.h"
#include "engine/checkpoint/dequantize.h"

namespace switchyard {
namespace {

constexpr int64_t kBufferBytes = 128 << 10;  // stays in the core's own cache
constexpr int64_t kRunElements = 16 << 10;   // that are decoded at a time

}  // namespace

StoredElements StoredElements::Plain(const SafetensorsFile* file, const StoredTensor& tensor) {
  StoredElements elements;
  elements.dtype_ = tensor.type->dtype;
  elements.file_ = file;
  elements.begin_ = tensor.begin;
  return elements;
}

StoredElements StoredElements::Fp8Blocks(const SafetensorsFile* file, const StoredTensor& tensor,
                                         const SafetensorsFile* scales_file, const StoredTensor& scales,
                                         int64_t block_rows, int64_t block_cols) {
  StoredElements elements;
  elements.format_ = QuantizedFormat::kFp8;
  elements.file_ = file;
  elements.begin_ = tensor.begin;
  elements.scales_file_ = scales_file;
  elements.scales_begin_ = scales.begin;
  elements.scales_dtype_ = scales.type->dtype;
  elements.cols_ = tensor.dims[1];
  elements.block_rows_ = block_rows;
  elements.block_cols_ = block_cols;
  return elements;
}

StoredElements StoredElements::Mxfp4(const SafetensorsFile* file, const StoredTensor& blocks,
                                     const SafetensorsFile* scales_file, const StoredTensor& scales) {
  StoredElements elements;
  elements.format_ = QuantizedFormat::kMxfp4;
  elements.file_ = file;
  elements.begin_ = blocks.begin;
  elements.scales_file_ = scales_file;
  elements.scales_begin_ = scales.begin;
  return elements;
}

absl::Status StoredElements::Read(int64_t first, int64_t count, DType as, void* out) const {
  char* const to = static_cast<char*>(out);
  if (format_ == QuantizedFormat::kFp8) return ReadFp8Blocks(first, count, as, to);
  if (format_ == QuantizedFormat::kMxfp4) return ReadMxfp4(first, count, as, to);
  return ReadPlain(first, count, as, to);
}

absl::Status StoredElements::ReadPlain(int64_t first, int64_t count, DType as, char* out) const {
  int64_t offset = begin_ + first * DTypeBytes(dtype_);
  if (as == dtype_) return file_->Read(offset, count * DTypeBytes(dtype_), out);
  alignas(64) char buffer[kBufferBytes];
  const int64_t max_elements = kBufferBytes / DTypeBytes(dtype_);
  while (count > 0) {
    const int64_t elements = std::min(count, max_elements);
    const int64_t bytes = elements * DTypeBytes(dtype_);
    RETURN_IF_ERROR(file_->Read(offset, bytes, buffer));
    ConvertElements(dtype_, buffer, as, out, elements);
    offset += bytes;
    out += elements * DTypeBytes(as);
    count -= elements;
  }
  return absl::OkStatus();
}

QuantizedForm StoredElements::form() const {
  if (format_ == QuantizedFormat::kNone) return {};
  return {format_, format_ == QuantizedFormat::kMxfp4 ? kMxfp4Block : block_cols_};
}

absl::Status StoredElements::ReadQuantized(int64_t first, int64_t count, uint8_t* codes, void* scales) const {
  if (format_ == QuantizedFormat::kMxfp4) {
    CHECK(first % kMxfp4Block == 0 && count % kMxfp4Block == 0);
    RETURN_IF_ERROR(file_->Read(begin_ + first / 2, count / 2, codes));
    return scales_file_->Read(scales_begin_ + first / kMxfp4Block, count / kMxfp4Block, scales);
  }
  CHECK(format_ == QuantizedFormat::kFp8 && first % cols_ == 0 && count % cols_ == 0);
  const int64_t scales_per_row = form().ScalesPerRow(cols_);
  float* to = static_cast<float*>(scales);
  for (int64_t row = first / cols_; row < (first + count) / cols_; ++row, to += scales_per_row) {
    if (row > first / cols_ && row % block_rows_ != 0) {
      std::copy_n(to - scales_per_row, scales_per_row, to);
    } else {
      RETURN_IF_ERROR(ReadScales(row / block_rows_, to));
    }
  }
  return file_->Read(begin_ + first, count, codes);
}

absl::Status StoredElements::ReadScales(int64_t block_row, float* scales) const {
  const int64_t count = form().ScalesPerRow(cols_);
  const int64_t bytes = count * DTypeBytes(scales_dtype_);
  std::vector<char> stored(static_cast<size_t>(bytes));
  RETURN_IF_ERROR(scales_file_->Read(scales_begin_ + block_row * bytes, bytes, stored.data()));
  ConvertElements(scales_dtype_, stored.data(), DType::kF32, scales, count);
  return absl::OkStatus();
}

absl::Status StoredElements::ReadFp8Blocks(int64_t first, int64_t count, DType as, char* out) const {
  std::vector<float> scales(static_cast<size_t>(form().ScalesPerRow(cols_)));
  int64_t scales_row = -1;  // which of the rows of scales was read
  alignas(64) uint8_t codes[kRunElements];
  alignas(64) float values[kRunElements];
  while (count > 0) {
    const int64_t row = first / cols_, col = first % cols_;
    const int64_t run = std::min({count, cols_ - col, kRunElements});
    if (row / block_rows_ != scales_row) {
      scales_row = row / block_rows_;
      RETURN_IF_ERROR(ReadScales(scales_row, scales.data()));
    }
    RETURN_IF_ERROR(file_->Read(begin_ + first, run, codes));
    DequantizeFp8(codes, scales.data(), col, run, block_cols_, values);
    ConvertElements(DType::kF32, values, as, out, run);
    first += run;
    count -= run;
    out += run * DTypeBytes(as);
  }
  return absl::OkStatus();
}

absl::Status StoredElements::ReadMxfp4(int64_t first, int64_t count, DType as, char* out) const {
  alignas(64) uint8_t codes[kRunElements / 2];
  alignas(64) uint8_t scales[kRunElements / kMxfp4Block];
  alignas(64) float values[kRunElements];
  while (count > 0) {
    const int64_t run = std::min(count, kRunElements);
    RETURN_IF_ERROR(ReadQuantized(first, run, codes, scales));
    DequantizeMxfp4(codes, scales, run, values);
    ConvertElements(DType::kF32, values, as, out, run);
    first += run;
    count -= run;
    out += run * DTypeBytes(as);
  }
  return absl::OkStatus();
}

}  // namespace switchyard
