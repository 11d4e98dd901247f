#include "engine/vision/pixels.h"

#include <algorithm>

#include "engine/base/status_macros.h"

namespace switchyard {

void PixelsToUnitRange(std::span<const uint8_t> pixels, std::span<float> out) {
  CHECK(pixels.size() == out.size());
  for (size_t i = 0; i < pixels.size(); ++i) out[i] = (static_cast<float>(pixels[i]) - 127.5f) / 127.5f;
}

void CutPatches(const VisionConfig& config, std::span<const float> images, std::span<float> rows) {
  const int64_t side = config.image_size, patch = config.patch_size, grid = side / patch;
  const int64_t line = patch * VisionConfig::kNumChannels;  // of a patch
  const int64_t num_images = static_cast<int64_t>(images.size()) / config.image_values();
  CHECK(static_cast<int64_t>(images.size()) == num_images * config.image_values());
  CHECK(static_cast<int64_t>(rows.size()) == num_images * config.tokens_per_image() * config.patch_pixels());
  float* to = rows.data();
  for (int64_t image = 0; image < num_images; ++image) {
    const float* const pixels = images.data() + image * config.image_values();
    to = std::fill_n(to, config.patch_pixels(), 0.0f);
    for (int64_t p = 0; p < grid * grid; ++p) {
      for (int64_t y = 0; y < patch; ++y) {
        const int64_t first_pixel = (p / grid * patch + y) * side + p % grid * patch;
        to = std::copy_n(pixels + first_pixel * VisionConfig::kNumChannels, line, to);
      }
    }
  }
}

}  // namespace switchyard
