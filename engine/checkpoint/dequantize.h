// Stored codes and scales as numbers, in fp32 as the formats define them.
#ifndef SWITCHYARD_ENGINE_CHECKPOINT_DEQUANTIZE_H_
#define SWITCHYARD_ENGINE_CHECKPOINT_DEQUANTIZE_H_

#include <cstdint>

#include "engine/base/quantized.h"
#include "engine/base/small_floats.h"

namespace switchyard {

// `count` numbers, a multiple of 32: byte b holds number 2b in its low four bits.
inline void DequantizeMxfp4(const uint8_t* codes, const uint8_t* scales, int64_t count, float* values) {
  for (int64_t i = 0; i < count; i += 2) {
    const float scale = kE8m0Floats.values[scales[i / kMxfp4Block]];
    values[i] = kE2m1Floats[codes[i / 2] & 0xfu] * scale;
    values[i + 1] = kE2m1Floats[codes[i / 2] >> 4] * scale;
  }
}

// `count` numbers of a row, from column `first_col` on; `scales` are the row's, one per `block_cols`.
inline void DequantizeFp8(const uint8_t* codes, const float* scales, int64_t first_col, int64_t count,
                          int64_t block_cols, float* values) {
  for (int64_t i = 0; i < count;) {
    const int64_t block = (first_col + i) / block_cols;
    const int64_t block_end = (block + 1) * block_cols - first_col, end = block_end < count ? block_end : count;
    for (; i < end; ++i) values[i] = kF8E4m3Floats.values[codes[i]] * scales[block];
  }
}

}  // namespace switchyard

#endif  // SWITCHYARD_ENGINE_CHECKPOINT_DEQUANTIZE_H_
