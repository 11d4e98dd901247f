#include "engine/model/relative_bias.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "engine/base/status_macros.h"

namespace switchyard {

int32_t RelativeBucket(int32_t distance, bool bidirectional, int32_t num_buckets, int32_t max_distance) {
  int32_t first = 0;
  if (bidirectional) {
    num_buckets /= 2;
    if (distance > 0) first = num_buckets;
    distance = std::abs(distance);
  } else {
    distance = std::max(-distance, 0);
  }
  const int32_t num_exact = num_buckets / 2;
  if (distance < num_exact) return first + distance;
  // In float32, as the reference: where a distance is just at the edge of two buckets its rounding decides.
  const float share = static_cast<float>(distance) / static_cast<float>(num_exact);
  const auto range = static_cast<float>(std::log(static_cast<double>(max_distance) / num_exact));
  const float growth = std::log(share) / range * static_cast<float>(num_buckets - num_exact);
  const int32_t bucket = num_exact + static_cast<int32_t>(growth);
  return first + std::min(bucket, num_buckets - 1);
}

absl::Status RelativeBiasReader::ReadRows(int64_t first, int64_t count, DType as, void* out) const {
  CHECK(first == 0 && count == 1);
  const int64_t num_heads = table_.cols(), bytes = DTypeBytes(as);
  std::vector<char> table(static_cast<size_t>(table_.rows() * num_heads * bytes));
  RETURN_IF_ERROR(table_.ReadRows(0, table_.rows(), as, table.data()));
  char* to = static_cast<char*>(out);
  for (int64_t head = 0; head < num_heads; ++head) {
    for (int32_t distance = -max_distance_; distance <= max_distance_; ++distance, to += bytes) {
      const int32_t bucket =
          RelativeBucket(distance, bidirectional_, static_cast<int32_t>(table_.rows()), max_distance_);
      std::memcpy(to, table.data() + (bucket * num_heads + head) * bytes, static_cast<size_t>(bytes));
    }
  }
  return absl::OkStatus();
}

}  // namespace switchyard
