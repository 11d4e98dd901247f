// The numbers of the formats with four and eight bits, as tables: data only, so that every part may read them, files
// that are compiled for one instruction set too.
#ifndef SWITCHYARD_ENGINE_BASE_SMALL_FLOATS_H_
#define SWITCHYARD_ENGINE_BASE_SMALL_FLOATS_H_

#include <cstdint>

namespace switchyard {

struct FloatsOfBytes {
  float values[256];
};

// OCP FP8 E4M3: bias 7, no infinities, 0x7f and 0xff are NaN.
consteval FloatsOfBytes MakeF8E4m3Floats() {
  FloatsOfBytes table{};
  for (uint32_t code = 0; code < 256; ++code) {
    const uint32_t sign = (code & 0x80u) << 24, exponent = (code >> 3) & 0xfu, mantissa = code & 0x7u;
    const float denormal = static_cast<float>(mantissa) * 0x1p-9f;
    table.values[code] = exponent == 15 && mantissa == 7 ? __builtin_nanf("")
                         : exponent == 0 ? (sign != 0 ? -denormal : denormal)
                                         : __builtin_bit_cast(float, sign | ((exponent + 120u) << 23) | (mantissa << 20));
  }
  return table;
}

// OCP MX E8M0, the scales of mxfp4: 2^(code - 127); 255 is NaN.
consteval FloatsOfBytes MakeE8m0Floats() {
  FloatsOfBytes table{};
  table.values[0] = 0x1p-127f;
  for (uint32_t code = 1; code < 255; ++code) table.values[code] = __builtin_bit_cast(float, code << 23);
  table.values[255] = __builtin_nanf("");
  return table;
}

inline constexpr FloatsOfBytes kF8E4m3Floats = MakeF8E4m3Floats();
inline constexpr FloatsOfBytes kE8m0Floats = MakeE8m0Floats();
// OCP MX E2M1, the numbers of mxfp4.
inline constexpr float kE2m1Floats[16] = {0.0f,  0.5f,  1.0f,  1.5f,  2.0f,  3.0f,  4.0f,  6.0f,
                                          -0.0f, -0.5f, -1.0f, -1.5f, -2.0f, -3.0f, -4.0f, -6.0f};

}  // namespace switchyard

#endif  // SWITCHYARD_ENGINE_BASE_SMALL_FLOATS_H_
