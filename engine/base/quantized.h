// Matrices of numbers of few bits with scales, as some checkpoints store them.
//
//   mxfp4   four-bit numbers, one scale per 32 columns of a row (OCP MX v1.0): code * 2^(scale - 127)
//   fp8     eight-bit numbers (E4M3), one fp32 scale per block of columns (and rows): code * scale
#ifndef SWITCHYARD_ENGINE_BASE_QUANTIZED_H_
#define SWITCHYARD_ENGINE_BASE_QUANTIZED_H_

#include <cstdint>

namespace switchyard {

enum class QuantizedFormat : uint8_t { kNone, kMxfp4, kFp8 };

inline constexpr int64_t kMxfp4Block = 32;

struct QuantizedForm {
  QuantizedFormat format = QuantizedFormat::kNone;
  int64_t block_cols = 0;  // that share a scale

  // Of one row, the last block may be partial.
  int64_t ScalesPerRow(int64_t cols) const { return (cols + block_cols - 1) / block_cols; }
  int64_t ScaleBytes() const { return format == QuantizedFormat::kMxfp4 ? 1 : 4; }
  int64_t CodeBytes(int64_t count) const { return format == QuantizedFormat::kMxfp4 ? count / 2 : count; }

  bool operator==(const QuantizedForm&) const = default;
};

inline const char* QuantizedFormatName(QuantizedFormat format) {
  switch (format) {
    case QuantizedFormat::kNone:
      return "none";
    case QuantizedFormat::kMxfp4:
      return "mxfp4";
    case QuantizedFormat::kFp8:
      return "fp8";
  }
  return "unknown";
}

}  // namespace switchyard

#endif  // SWITCHYARD_ENGINE_BASE_QUANTIZED_H_
