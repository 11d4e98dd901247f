// One tensor that can be read by rows, whatever it is stored in: a safetensors shard, or random numbers.
//
// A tensor of rank 1 reads as one column per element of a single row ([n] -> 1 x n); rank 2 is [rows, cols]. Backends
// pull weights through this while they pack them, so the stored bytes pass memory once and no second copy of the
// whole model ever exists. All methods are const and thread-safe.
#ifndef SWITCHYARD_ENGINE_BASE_TENSOR_READER_H_
#define SWITCHYARD_ENGINE_BASE_TENSOR_READER_H_

#include <cstdint>

#include "absl/status/status.h"
#include "engine/base/dtype.h"
#include "engine/base/quantized.h"

namespace switchyard {

class TensorReader {
 public:
  virtual ~TensorReader() = default;

  virtual int64_t rows() const = 0;
  virtual int64_t cols() const = 0;

  // Writes `count` rows from row `first` on to `out` (count * cols() elements, no padding), converted to `as`, which
  // is kF32 or kBF16 (rounded to nearest even).
  // REQUIRES: 0 <= first, first + count <= rows().
  // DATA_LOSS: the file is shorter than it was when it was opened, or the read failed.
  virtual absl::Status ReadRows(int64_t first, int64_t count, DType as, void* out) const = 0;

  // How the numbers are stored, where ReadQuantized gives them so: ReadRows rounds what these codes and scales multiply
  // to, in fp32.
  virtual QuantizedForm quantized() const { return {}; }

  // Rows as they are stored. codes: quantized().CodeBytes(cols()) bytes a row; of mxfp4 the even column stands in the
  // low four bits. scales: ScalesPerRow(cols()) for each row, uint8_t (mxfp4) or float (fp8).
  // REQUIRES: quantized().format is not kNone; rows and errors as ReadRows.
  virtual absl::Status ReadQuantized(int64_t /*first*/, int64_t /*count*/, uint8_t* /*codes*/,
                                     void* /*scales*/) const {
    return absl::InternalError("a tensor that is not quantized has no codes");
  }
};

}  // namespace switchyard

#endif  // SWITCHYARD_ENGINE_BASE_TENSOR_READER_H_
