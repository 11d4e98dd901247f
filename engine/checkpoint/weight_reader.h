// One weight as a view of a stored tensor: plain, one of several in a tensor, every other row, or transposed.
//
// A row of a transposed weight is a column of the tensor, and the file has no cheap way to a column: such readers
// fetch the whole source matrix once (an expert's, gate and up together) and hand out rows from memory. The last few
// matrices stay in a cache that the readers of a model share, since backends read a weight's rows in order.
#ifndef SWITCHYARD_ENGINE_CHECKPOINT_WEIGHT_READER_H_
#define SWITCHYARD_ENGINE_CHECKPOINT_WEIGHT_READER_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/base/mutex.h"
#include "engine/base/tensor_reader.h"
#include "engine/checkpoint/stored_elements.h"

namespace switchyard {

// Runs of decoded elements, newest first. Thread-safe.
class SourceCache {
 public:
  using Run = std::shared_ptr<const std::vector<char>>;

  // `count` elements from `first` on.
  absl::StatusOr<Run> Get(const StoredElements& elements, int64_t first, int64_t count, DType as);

 private:
  struct Entry {
    const StoredElements* elements = nullptr;
    int64_t first = 0;
    int64_t count = 0;
    DType as = DType::kF32;
    Run run;
  };

  Mutex mutex_;
  std::vector<Entry> entries_ ABSL_GUARDED_BY(mutex_);
};

// Element (r, c) is element offset + r * row_pitch + c * col_pitch of the tensor.
struct WeightView {
  int64_t offset = 0;
  int32_t rows = 0;
  int32_t cols = 0;
  int32_t row_pitch = 0;
  int32_t col_pitch = 1;
};

// Small: a table of a large model holds a million of them.
class WeightReader final : public TensorReader {
 public:
  WeightReader() = default;
  // Both outlive this.
  WeightReader(const StoredElements* elements, SourceCache* cache, const WeightView& view)
      : elements_(elements), cache_(cache), view_(view) {}

  int64_t rows() const override { return view_.rows; }
  int64_t cols() const override { return view_.cols; }
  absl::Status ReadRows(int64_t first, int64_t count, DType as, void* out) const override;
  // Of whole rows of a tensor: those of a transposed one have their codes in the wrong order.
  QuantizedForm quantized() const override;
  absl::Status ReadQuantized(int64_t first, int64_t count, uint8_t* codes, void* scales) const override;

 private:
  absl::Status ReadColumns(int64_t first, int64_t count, DType as, void* out) const;

  const StoredElements* elements_ = nullptr;
  SourceCache* cache_ = nullptr;
  WeightView view_;
};

}  // namespace switchyard

#endif  // SWITCHYARD_ENGINE_CHECKPOINT_WEIGHT_READER_H_
