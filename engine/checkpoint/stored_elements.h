// The elements of one stored tensor as numbers, whatever encodes them.
//
//   plain   F32, F16, BF16
//   fp8     F8_E4M3 [rows, cols] with one scale per block of block_rows x block_cols (the last ones may be partial):
//           number = f8 * scale. The checkpoint calls the scales weight_scale_inv, and they multiply all the same.
//   mxfp4   U8, 16 bytes for 32 numbers with one U8 scale s: byte b holds number 2b in its low four bits and 2b + 1 in
//           the high ones; number = code * 2^(s - 127), codes 0 .5 1 1.5 2 3 4 6 and their negatives (OCP MX v1.0)
#ifndef SWITCHYARD_ENGINE_CHECKPOINT_STORED_ELEMENTS_H_
#define SWITCHYARD_ENGINE_CHECKPOINT_STORED_ELEMENTS_H_

#include <cstdint>

#include "absl/status/status.h"
#include "engine/base/dtype.h"
#include "engine/base/quantized.h"
#include "engine/checkpoint/safetensors.h"

namespace switchyard {

// A view; thread-safe.
class StoredElements {
 public:
  StoredElements() = default;

  // REQUIRES: the tensor's type is readable.
  static StoredElements Plain(const SafetensorsFile* file, const StoredTensor& tensor);
  // REQUIRES: tensor F8_E4M3 [rows, cols], readable scales [ceil(rows / block_rows), ceil(cols / block_cols)].
  static StoredElements Fp8Blocks(const SafetensorsFile* file, const StoredTensor& tensor,
                                  const SafetensorsFile* scales_file, const StoredTensor& scales, int64_t block_rows,
                                  int64_t block_cols);
  // REQUIRES: blocks U8 [..., 16], scales U8 [...].
  static StoredElements Mxfp4(const SafetensorsFile* file, const StoredTensor& blocks,
                              const SafetensorsFile* scales_file, const StoredTensor& scales);

  // Writes `count` elements from element `first` on to `out` as `as`, kF32 or kBF16 (rounded to nearest even).
  // REQUIRES: for mxfp4, first and count are multiples of 32. DATA_LOSS as SafetensorsFile::Read.
  absl::Status Read(int64_t first, int64_t count, DType as, void* out) const;

  QuantizedForm form() const;
  int64_t cols() const { return cols_; }  // of fp8
  // As TensorReader::ReadQuantized, elements instead of rows.
  // REQUIRES: quantized. mxfp4: first and count are multiples of 32; fp8: of cols().
  absl::Status ReadQuantized(int64_t first, int64_t count, uint8_t* codes, void* scales) const;

 private:
  absl::Status ReadPlain(int64_t first, int64_t count, DType as, char* out) const;
  absl::Status ReadFp8Blocks(int64_t first, int64_t count, DType as, char* out) const;
  absl::Status ReadMxfp4(int64_t first, int64_t count, DType as, char* out) const;
  absl::Status ReadScales(int64_t block_row, float* scales) const;  // of fp8

  QuantizedFormat format_ = QuantizedFormat::kNone;
  DType dtype_ = DType::kF32;  // plain
  const SafetensorsFile* file_ = nullptr;
  int64_t begin_ = 0;
  const SafetensorsFile* scales_file_ = nullptr;
  int64_t scales_begin_ = 0;
  DType scales_dtype_ = DType::kF32;
  int64_t cols_ = 0;  // fp8
  int64_t block_rows_ = 0;
  int64_t block_cols_ = 0;
};

}  // namespace switchyard

#endif  // SWITCHYARD_ENGINE_CHECKPOINT_STORED_ELEMENTS_H_
