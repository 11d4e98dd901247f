// Any bytes as a safetensors header: refused with a status, or tensors that tile the data exactly.
// The first 8 bytes say how much data follows the header.
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string_view>

#include "engine/base/status_macros.h"
#include "engine/checkpoint/safetensors.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t size) {
  int64_t data_bytes = 0;
  if (size < sizeof(data_bytes)) return 0;
  std::memcpy(&data_bytes, bytes, sizeof(data_bytes));
  data_bytes &= (int64_t{1} << 40) - 1;
  const std::string_view header(reinterpret_cast<const char*>(bytes) + sizeof(data_bytes), size - sizeof(data_bytes));

  const int64_t begin = 8 + static_cast<int64_t>(header.size());
  const auto tensors = switchyard::ParseSafetensorsHeader(header, "fuzz", begin, begin + data_bytes);
  if (!tensors.ok()) {
    CHECK(absl::IsInvalidArgument(tensors.status()));
    return 0;
  }
  int64_t covered = begin;
  for (const switchyard::StoredTensor& tensor : *tensors) {
    CHECK(tensor.begin == covered && tensor.end >= tensor.begin);
    int64_t bits = tensor.type->bits;
    for (const int64_t dim : tensor.shape()) bits *= dim;
    CHECK(bits == 8 * (tensor.end - tensor.begin));
    covered = tensor.end;
  }
  CHECK(covered == begin + data_bytes);
  return 0;
}
