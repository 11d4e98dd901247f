// Encodings of weights against their formats' definitions, and every range of them.
#include "engine/checkpoint/stored_elements.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <string>
#include <vector>

#include "engine/base/bf16.h"
#include "engine/base/small_floats.h"
#include "engine/base/status_macros.h"
#include "tests/support/safetensors_writer.h"
#include "tests/support/temp_folder.h"

namespace switchyard {
namespace {

using testing::RawTensor;

// OCP 8-bit floating point, E4M3: bias 7, no infinities.
double E4m3Value(int bits) {
  const int exponent = (bits >> 3) & 15, mantissa = bits & 7;
  const double sign = (bits & 0x80) != 0 ? -1.0 : 1.0;
  if (exponent == 15 && mantissa == 7) return NAN;
  return exponent == 0 ? sign * std::ldexp(mantissa, -9) : sign * std::ldexp(8 + mantissa, exponent - 10);
}

// OCP microscaling, E2M1: bias 1.
double E2m1Value(int bits) {
  const int exponent = (bits >> 1) & 3, mantissa = bits & 1;
  const double sign = (bits & 8) != 0 ? -1.0 : 1.0;
  return exponent == 0 ? sign * mantissa / 2.0 : sign * std::ldexp(2 + mantissa, exponent - 2);
}

TEST(EncodingTest, EveryCodeIsWhatItsFormatSays) {
  for (int bits = 0; bits < 256; ++bits) {
    const float actual = kF8E4m3Floats.values[bits];
    if (std::isnan(E4m3Value(bits))) {
      EXPECT_TRUE(std::isnan(actual)) << bits;
    } else {
      EXPECT_EQ(actual, E4m3Value(bits)) << bits;
    }
    EXPECT_EQ(kE2m1Floats[bits & 15], E2m1Value(bits & 15)) << bits;
    if (bits < 255) {
      EXPECT_EQ(kE8m0Floats.values[bits], std::ldexp(1.0, bits - 127)) << bits;
    }
  }
  EXPECT_TRUE(std::isnan(kE8m0Floats.values[255]));
}

std::string RandomBytes(int64_t count, uint64_t seed) {
  std::mt19937_64 generator(seed);
  std::string bytes;
  for (int64_t i = 0; i < count; ++i) bytes.push_back(static_cast<char>(generator() & 0xff));
  return bytes;
}

class StoredElementsTest : public ::testing::Test {
 protected:
  const SafetensorsFile* Write(const std::vector<RawTensor>& tensors) {
    folder_.Write("model.safetensors", testing::SafetensorsBytes(tensors));
    auto folder = ModelFolder::Open(folder_.path());
    CHECK(folder.ok());
    auto file = SafetensorsFile::Open(*folder, "model.safetensors");
    CHECK(file.ok());
    file_ = *std::move(file);
    return file_.get();
  }
  const StoredTensor& Named(const std::string& name) const {
    for (const StoredTensor& tensor : file_->tensors()) {
      if (tensor.name == name) return tensor;
    }
    CHECK(false);
  }

  // Ranges around the borders of rows, blocks and buffers, as both types.
  static void ExpectElements(const StoredElements& elements, const std::vector<float>& expected, int64_t unit) {
    const int64_t size = static_cast<int64_t>(expected.size());
    std::mt19937_64 generator(7);
    for (int i = 0; i < 40; ++i) {
      int64_t first = 0, count = size;
      if (i > 0) {
        first = static_cast<int64_t>(generator() % static_cast<uint64_t>(size)) / unit * unit;
        count = static_cast<int64_t>(generator() % static_cast<uint64_t>(size - first + 1)) / unit * unit;
      }
      std::vector<float> values(static_cast<size_t>(count));
      std::vector<uint16_t> rounded(static_cast<size_t>(count));
      ASSERT_TRUE(elements.Read(first, count, DType::kF32, values.data()).ok());
      ASSERT_TRUE(elements.Read(first, count, DType::kBF16, rounded.data()).ok());
      for (int64_t j = 0; j < count; ++j) {
        const float want = expected[static_cast<size_t>(first + j)], have = values[static_cast<size_t>(j)];
        if (std::isnan(want)) {
          ASSERT_TRUE(std::isnan(have)) << first + j;
          continue;
        }
        ASSERT_EQ(have, want) << first + j;
        ASSERT_EQ(rounded[static_cast<size_t>(j)], FloatToBf16(want)) << first + j;
      }
    }
  }

  testing::TempFolder folder_;
  std::unique_ptr<SafetensorsFile> file_;
};

TEST_F(StoredElementsTest, Fp8BlocksMayBePartialAndOfAnySize) {
  struct Shape {
    int64_t rows, cols, block_rows, block_cols;
  };
  for (const Shape& s : {Shape{136, 150, 128, 128}, {5, 7, 2, 3}, {3, 40'000, 128, 128}, {300, 130, 1, 64}}) {
    const int64_t scale_rows = (s.rows + s.block_rows - 1) / s.block_rows;
    const int64_t scale_cols = (s.cols + s.block_cols - 1) / s.block_cols;
    std::vector<float> scales;
    for (int64_t i = 0; i < scale_rows * scale_cols; ++i) scales.push_back(0.01f * static_cast<float>(i + 1));
    const std::string codes = RandomBytes(s.rows * s.cols, 3);
    const SafetensorsFile* file =
        Write({{"w", "F8_E4M3", {s.rows, s.cols}, codes}, testing::F32Tensor("s", {scale_rows, scale_cols}, scales)});
    std::vector<float> expected;
    for (int64_t r = 0; r < s.rows; ++r) {
      for (int64_t c = 0; c < s.cols; ++c) {
        const uint8_t code = static_cast<uint8_t>(codes[static_cast<size_t>(r * s.cols + c)]);
        const size_t block = static_cast<size_t>(r / s.block_rows * scale_cols + c / s.block_cols);
        expected.push_back(static_cast<float>(E4m3Value(code)) * scales[block]);
      }
    }
    ExpectElements(StoredElements::Fp8Blocks(file, Named("w"), file, Named("s"), s.block_rows, s.block_cols), expected,
                   1);
  }
}

TEST_F(StoredElementsTest, Mxfp4HoldsTheEvenElementInTheLowBits) {
  for (const int64_t num_blocks : {1, 6, 1500}) {
    const std::string codes = RandomBytes(num_blocks * 16, 3);
    std::string scales = RandomBytes(num_blocks, 4);
    for (char& scale : scales) scale = static_cast<char>(100 + (static_cast<uint8_t>(scale) % 50));
    const SafetensorsFile* file =
        Write({{"b", "U8", {1, num_blocks, 16}, codes}, {"s", "U8", {1, num_blocks}, scales}});
    std::vector<float> expected;
    for (int64_t i = 0; i < num_blocks * 32; ++i) {
      const uint8_t byte = static_cast<uint8_t>(codes[static_cast<size_t>(i / 2)]);
      const int code = i % 2 == 0 ? byte & 15 : byte >> 4;
      const int exponent = static_cast<uint8_t>(scales[static_cast<size_t>(i / 32)]) - 127;
      expected.push_back(static_cast<float>(std::ldexp(E2m1Value(code), exponent)));
    }
    ExpectElements(StoredElements::Mxfp4(file, Named("b"), file, Named("s")), expected, 32);
  }
}

}  // namespace
}  // namespace switchyard
