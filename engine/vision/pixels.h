// Pixels as the model reads them.
#ifndef SWITCHYARD_ENGINE_VISION_PIXELS_H_
#define SWITCHYARD_ENGINE_VISION_PIXELS_H_

#include <cstdint>
#include <span>

#include "engine/vision/vision_config.h"

namespace switchyard {

// out[i] = pixels[i] / 127.5 - 1: 0 -> -1, 255 -> 1, in between as vmoe's `value_range(-1, 1)` within 1e-7.
// REQUIRES: as many of both.
void PixelsToUnitRange(std::span<const uint8_t> pixels, std::span<float> out);

// Cuts images into the rows that the patch embedding multiplies.
//
//   images [n, image_size, image_size, 3]  ->  rows [n * tokens_per_image, patch_size * patch_size * 3]
//
// Row 0 of each image is zeros: the class token's. The others are its patches, left to right, then down; a patch is
// its pixels in the same order, each with its channels. REQUIRES: sizes as these.
void CutPatches(const VisionConfig& config, std::span<const float> images, std::span<float> rows);

}  // namespace switchyard

#endif  // SWITCHYARD_ENGINE_VISION_PIXELS_H_
