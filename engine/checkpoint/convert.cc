#include "engine/checkpoint/convert.h"

#include <cstring>

#include "engine/base/bf16.h"
#include "engine/base/status_macros.h"

namespace switchyard {
namespace {

float Widen(float value) { return value; }

struct Bf16 {
  uint16_t bits;
};
struct F16 {
  uint16_t bits;
};
float Widen(Bf16 value) { return Bf16ToFloat(value.bits); }
float Widen(F16 value) { return F16ToFloat(value.bits); }

void Narrow(float value, float* out) { *out = value; }
void Narrow(float value, Bf16* out) { out->bits = FloatToBf16(value); }

// memcpy, because nothing promises alignment; compilers turn it into plain vector loads and stores.
template <typename From, typename To>
void ConvertRun(const void* in, void* out, int64_t count) {
  const char* from = static_cast<const char*>(in);
  char* to = static_cast<char*>(out);
  for (int64_t i = 0; i < count; ++i) {
    From source;
    std::memcpy(&source, from + i * static_cast<int64_t>(sizeof(From)), sizeof(From));
    To target;
    Narrow(Widen(source), &target);
    std::memcpy(to + i * static_cast<int64_t>(sizeof(To)), &target, sizeof(To));
  }
}

template <typename To>
void ConvertTo(DType from, const void* in, void* out, int64_t count) {
  switch (from) {
    case DType::kF32:
      return ConvertRun<float, To>(in, out, count);
    case DType::kF16:
      return ConvertRun<F16, To>(in, out, count);
    case DType::kBF16:
      return ConvertRun<Bf16, To>(in, out, count);
  }
}

}  // namespace

void ConvertElements(DType from, const void* in, DType to, void* out, int64_t count) {
  CHECK(to == DType::kF32 || to == DType::kBF16);
  if (from == to) {
    std::memcpy(out, in, static_cast<size_t>(count * DTypeBytes(to)));
  } else if (to == DType::kF32) {
    ConvertTo<float>(from, in, out, count);
  } else {
    ConvertTo<Bf16>(from, in, out, count);
  }
}

}  // namespace switchyard
