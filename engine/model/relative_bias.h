// T5's relative position bias: one learned number per bucket of distances and head.
//
//   distance = key - query        ..., -3, -2, -1, 0, 1, 2, 3, ...
//   small distances have a bucket each, larger ones share buckets that grow with the logarithm of the distance, and
//   from max_distance on all share the last
//
// Source: Raffel et al. 2020, https://arxiv.org/abs/1910.10683, section 2.1.
#ifndef SWITCHYARD_ENGINE_MODEL_RELATIVE_BIAS_H_
#define SWITCHYARD_ENGINE_MODEL_RELATIVE_BIAS_H_

#include <cstdint>

#include "engine/base/tensor_reader.h"

namespace switchyard {

// Buckets [0, num_buckets). Bidirectional: the upper half is for keys behind the query. Otherwise keys behind the query
// count as distance 0. REQUIRES: num_buckets a multiple of 4, max_distance > num_buckets / 2.
int32_t RelativeBucket(int32_t distance, bool bidirectional, int32_t num_buckets, int32_t max_distance);

// A table [num_buckets, num_heads] as AttentionShape::relative_bias wants it, every distance looked up: one row
// [num_heads * (2 max_distance + 1)]. `table` outlives this.
class RelativeBiasReader final : public TensorReader {
 public:
  RelativeBiasReader(const TensorReader& table, bool bidirectional, int32_t max_distance)
      : table_(table), bidirectional_(bidirectional), max_distance_(max_distance) {}

  int64_t rows() const override { return 1; }
  int64_t cols() const override { return table_.cols() * (2 * int64_t{max_distance_} + 1); }
  absl::Status ReadRows(int64_t first, int64_t count, DType as, void* out) const override;

 private:
  const TensorReader& table_;
  const bool bidirectional_;
  const int32_t max_distance_;
};

}  // namespace switchyard

#endif  // SWITCHYARD_ENGINE_MODEL_RELATIVE_BIAS_H_
