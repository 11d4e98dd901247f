#include "tests/reference/quantized.h"

#include <cmath>
#include <cstring>
#include <limits>

#include "engine/base/bf16.h"

namespace switchyard::reference {

double E4m3(uint8_t code) {
  const int exponent = (code >> 3) & 15, mantissa = code & 7;
  const double sign = (code & 0x80) != 0 ? -1.0 : 1.0;
  if (exponent == 15 && mantissa == 7) return std::numeric_limits<double>::quiet_NaN();
  return sign * (exponent == 0 ? std::ldexp(mantissa, -9) : std::ldexp(8 + mantissa, exponent - 10));
}

double E2m1(uint8_t code) {
  const int exponent = (code >> 1) & 3, mantissa = code & 1;
  const double sign = (code & 8) != 0 ? -1.0 : 1.0;
  return sign * (exponent == 0 ? mantissa / 2.0 : std::ldexp(2 + mantissa, exponent - 2));
}

double E8m0(uint8_t code) {
  return code == 255 ? std::numeric_limits<double>::quiet_NaN() : std::ldexp(1.0, code - 127);
}

// Products of at most 28 bits are exact in double, so the conversion is the one rounding to fp32.
uint16_t Fp8AsBf16(uint8_t code, float scale) { return FloatToBf16(static_cast<float>(E4m3(code) * scale)); }

uint16_t Mxfp4AsBf16(uint8_t code, uint8_t scale) { return FloatToBf16(static_cast<float>(E2m1(code) * E8m0(scale))); }

std::vector<uint16_t> ExpandChunk(QuantizedFormat format, const std::vector<uint8_t>& chunk, int64_t steps) {
  std::vector<uint16_t> panel;
  const uint8_t* const codes = chunk.data() + 128;
  for (int64_t tile = 0; tile < 2; ++tile) {
    for (int64_t step = 0; step < steps; ++step) {
      for (int64_t row = 0; row < 16; ++row) {
        for (int64_t lane = 0; lane < 32; ++lane) {
          const int64_t col = lane / 2, place = step * 2 + tile;
          if (format == QuantizedFormat::kMxfp4) {
            const uint8_t* const word = codes + ((place * 4 + row / 4) * 32 + lane) * 2;
            const int bits = word[0] | word[1] << 8;
            panel.push_back(Mxfp4AsBf16(static_cast<uint8_t>(bits >> (4 * (row % 4)) & 15), chunk[place * 16 + col]));
          } else {
            const uint8_t* const word = codes + ((place * 8 + row / 2) * 32 + lane) * 2;
            float scale;
            std::memcpy(&scale, chunk.data() + (tile * 16 + col) * 4, 4);
            panel.push_back(Fp8AsBf16(word[row % 2], scale));
          }
        }
      }
    }
  }
  return panel;
}

}  // namespace switchyard::reference
