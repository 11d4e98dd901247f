#include "engine/checkpoint/stored_elements.h"

#include <algorithm>
#include <array>
#include <bit>
#include <limits>
#include <vector>

#include "engine/base/status_macros.h"
#include "engine/checkpoint/convert.h"

namespace switchyard {
namespace {

constexpr int64_t kBufferBytes = 128 << 10;  // stays in the core's own cache
constexpr int64_t kRunElements = 16 << 10;   // that are decoded at a time

constexpr float DecodeF8E4m3(uint8_t bits) {
  const uint32_t sign = static_cast<uint32_t>(bits & 0x80u) << 24;
  const uint32_t exponent = (bits >> 3) & 0xfu, mantissa = bits & 0x7u;
  if (exponent == 15 && mantissa == 7) return std::numeric_limits<float>::quiet_NaN();
  if (exponent == 0) {
    const float magnitude = static_cast<float>(mantissa) * 0x1p-9f;
    return sign != 0 ? -magnitude : magnitude;
  }
  return std::bit_cast<float>(sign | ((exponent + 120u) << 23) | (mantissa << 20));
}

constexpr std::array<float, 256> MakeF8Table() {
  std::array<float, 256> table{};
  for (int i = 0; i < 256; ++i) table[static_cast<size_t>(i)] = DecodeF8E4m3(static_cast<uint8_t>(i));
  return table;
}
constexpr std::array<float, 256> kF8 = MakeF8Table();
constexpr std::array<float, 16> kMxfp4 = {0.0f,  0.5f,  1.0f,  1.5f,  2.0f,  3.0f,  4.0f,  6.0f,
                                          -0.0f, -0.5f, -1.0f, -1.5f, -2.0f, -3.0f, -4.0f, -6.0f};

}  // namespace

float F8E4m3ToFloat(uint8_t bits) { return kF8[bits]; }
float Mxfp4CodeToFloat(uint8_t code) { return kMxfp4[code & 0xfu]; }

float E8m0ToFloat(uint8_t exponent) {
  if (exponent == 255) return std::numeric_limits<float>::quiet_NaN();
  return exponent == 0 ? 0x1p-127f : std::bit_cast<float>(static_cast<uint32_t>(exponent) << 23);
}

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
  elements.encoding_ = Encoding::kFp8Blocks;
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
  elements.encoding_ = Encoding::kMxfp4;
  elements.file_ = file;
  elements.begin_ = blocks.begin;
  elements.scales_file_ = scales_file;
  elements.scales_begin_ = scales.begin;
  return elements;
}

absl::Status StoredElements::Read(int64_t first, int64_t count, DType as, void* out) const {
  char* const to = static_cast<char*>(out);
  if (encoding_ == Encoding::kFp8Blocks) return ReadFp8Blocks(first, count, as, to);
  if (encoding_ == Encoding::kMxfp4) return ReadMxfp4(first, count, as, to);
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

absl::Status StoredElements::ReadFp8Blocks(int64_t first, int64_t count, DType as, char* out) const {
  const int64_t scales_per_row = (cols_ + block_cols_ - 1) / block_cols_;
  std::vector<char> stored(static_cast<size_t>(scales_per_row * DTypeBytes(scales_dtype_)));
  std::vector<float> scales(static_cast<size_t>(scales_per_row));
  int64_t scales_row = -1;  // which of the rows of scales was read
  alignas(64) uint8_t codes[kRunElements];
  alignas(64) float values[kRunElements];
  while (count > 0) {
    const int64_t row = first / cols_, col = first % cols_;
    const int64_t run = std::min({count, cols_ - col, kRunElements});
    if (row / block_rows_ != scales_row) {
      scales_row = row / block_rows_;
      const int64_t bytes = static_cast<int64_t>(stored.size());
      RETURN_IF_ERROR(scales_file_->Read(scales_begin_ + scales_row * bytes, bytes, stored.data()));
      ConvertElements(scales_dtype_, stored.data(), DType::kF32, scales.data(), scales_per_row);
    }
    RETURN_IF_ERROR(file_->Read(begin_ + first, run, codes));
    for (int64_t i = 0; i < run;) {
      const int64_t block = (col + i) / block_cols_;
      const int64_t end = std::min(run, (block + 1) * block_cols_ - col);
      const float scale = scales[static_cast<size_t>(block)];
      for (; i < end; ++i) values[i] = kF8[codes[i]] * scale;
    }
    ConvertElements(DType::kF32, values, as, out, run);
    first += run;
    count -= run;
    out += run * DTypeBytes(as);
  }
  return absl::OkStatus();
}

absl::Status StoredElements::ReadMxfp4(int64_t first, int64_t count, DType as, char* out) const {
  CHECK(first % kMxfp4Block == 0 && count % kMxfp4Block == 0);
  alignas(64) uint8_t codes[kRunElements / 2];
  alignas(64) uint8_t scales[kRunElements / kMxfp4Block];
  alignas(64) float values[kRunElements];
  while (count > 0) {
    const int64_t run = std::min(count, kRunElements);
    RETURN_IF_ERROR(file_->Read(begin_ + first / 2, run / 2, codes));
    RETURN_IF_ERROR(scales_file_->Read(scales_begin_ + first / kMxfp4Block, run / kMxfp4Block, scales));
    for (int64_t i = 0; i < run; i += 2) {
      const float scale = E8m0ToFloat(scales[i / kMxfp4Block]);
      values[i] = kMxfp4[codes[i / 2] & 0xfu] * scale;
      values[i + 1] = kMxfp4[codes[i / 2] >> 4] * scale;
    }
    ConvertElements(DType::kF32, values, as, out, run);
    first += run;
    count -= run;
    out += run * DTypeBytes(as);
  }
  return absl::OkStatus();
}

}  // namespace switchyard
