#include "engine/vision/pixels.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

namespace switchyard {
namespace {

TEST(PixelsToUnitRangeTest, MapsEveryByteAsTheReferenceDoes) {
  std::vector<uint8_t> pixels(256);
  for (int i = 0; i < 256; ++i) pixels[static_cast<size_t>(i)] = static_cast<uint8_t>(i);
  std::vector<float> out(256);
  PixelsToUnitRange(pixels, out);
  EXPECT_EQ(out.front(), -1.0f);
  EXPECT_EQ(out.back(), 1.0f);
  for (int i = 0; i < 256; ++i) EXPECT_NEAR(out[static_cast<size_t>(i)], -1.0 + i / 255.0 * 2.0, 1e-7) << i;
}

// Two images of 4 x 4 pixels, patches of 2 x 2: value = 1000 image + 100 y + 10 x + channel.
TEST(CutPatchesTest, PatchesGoRowByRowAfterARowOfZeros) {
  VisionConfig config;
  config.image_size = 4;
  config.patch_size = 2;
  std::vector<float> images;
  for (int image = 0; image < 2; ++image) {
    for (int pixel = 0; pixel < 16; ++pixel) {
      for (int c = 0; c < 3; ++c) {
        images.push_back(static_cast<float>(1000 * image + 100 * (pixel / 4) + 10 * (pixel % 4) + c));
      }
    }
  }
  std::vector<float> rows(2 * 5 * 12, NAN);
  CutPatches(config, images, rows);
  for (int image = 0; image < 2; ++image) {
    for (int row = 0; row < 5; ++row) {
      for (int i = 0; i < 12; ++i) {
        const int patch = row - 1, y = patch / 2 * 2 + i / 6, x = patch % 2 * 2 + i % 6 / 3;
        const float expected = row == 0 ? 0.0f : static_cast<float>(1000 * image + 100 * y + 10 * x + i % 3);
        EXPECT_EQ(rows[static_cast<size_t>((image * 5 + row) * 12 + i)], expected) << row << " " << i;
      }
    }
  }
}

}  // namespace
}  // namespace switchyard
