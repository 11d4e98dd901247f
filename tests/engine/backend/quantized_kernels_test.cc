// The kernels that expand quantized weights against plain loops, bit for bit, on every instruction set of this machine:
// every code with scales from one end to the other.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "engine/backend/cpu/isa.h"
#include "engine/backend/cpu/kernels.h"
#include "tests/reference/quantized.h"

namespace switchyard::cpu {
namespace {

class ExpandTest : public ::testing::TestWithParam<Isa> {
 protected:
  // A chunk of random codes.
  std::vector<uint8_t> RandomChunk(QuantizedFormat format) {
    std::vector<uint8_t> chunk(static_cast<size_t>(ChunkBytes(format)));
    for (uint8_t& byte : chunk) byte = static_cast<uint8_t>(random_());
    return chunk;
  }

  static void SetScales(const std::vector<float>& scales, std::vector<uint8_t>* chunk) {
    ASSERT_EQ(scales.size(), 32u);
    std::memcpy(chunk->data(), scales.data(), 128);
  }

  // As the contract of ExpandChunk says: the same bits, but for some signs, and nothing else is written.
  void ExpectExpands(QuantizedFormat format, const std::vector<uint8_t>& stored, int64_t steps,
                     const std::string& what) {
    // Kernels fetch ahead; nothing there may matter.
    struct alignas(64) Memory {
      uint8_t chunk[kChunkScaleBytes + kChunkElements] = {};
      uint16_t panel[kChunkElements + 64] = {};
    };
    auto memory = std::make_unique<Memory>();
    std::memcpy(memory->chunk, stored.data(), stored.size());
    constexpr uint16_t kUntouched = 0x1234;
    std::fill(std::begin(memory->panel), std::end(memory->panel), kUntouched);
    const Kernels& kernels = KernelsFor(GetParam());
    (format == QuantizedFormat::kMxfp4 ? kernels.expand_mxfp4 : kernels.expand_fp8)(memory->chunk, steps,
                                                                                    memory->panel);
    const std::vector<uint16_t> expected = reference::ExpandChunk(format, stored, steps);
    for (size_t i = 0; i < expected.size(); ++i) {
      const uint16_t actual = memory->panel[i];
      // Zeros and NaN (quiet ones) may have either sign.
      const int magnitude = actual & 0x7fff;
      const bool same_but_sign = magnitude == (expected[i] & 0x7fff) && (magnitude == 0 || magnitude > 0x7f80);
      ASSERT_TRUE(same_but_sign || actual == expected[i]) << what << ", " << steps << " steps: element " << i << " is "
                                                          << std::hex << actual << ", expected " << expected[i];
    }
    for (size_t i = expected.size(); i < std::size(memory->panel); ++i) ASSERT_EQ(memory->panel[i], kUntouched) << what;
  }

  std::mt19937 random_{1};
};

TEST_P(ExpandTest, EveryMxfp4CodeWithEveryScale) {
  for (int scale = 0; scale < 256; ++scale) {
    std::vector<uint8_t> chunk = RandomChunk(QuantizedFormat::kMxfp4);
    std::fill_n(chunk.begin(), kChunkScaleBytes, static_cast<uint8_t>(scale));
    for (size_t i = 0; i < 256; ++i) chunk[kChunkScaleBytes + i] = static_cast<uint8_t>(i);  // 16 codes in all places
    ExpectExpands(QuantizedFormat::kMxfp4, chunk, kChunkSteps, "scale " + std::to_string(scale));
  }
}

TEST_P(ExpandTest, Mxfp4WithAnotherScaleForEachColumnAndStep) {
  for (int round = 0; round < 50; ++round) {
    std::vector<uint8_t> chunk = RandomChunk(QuantizedFormat::kMxfp4);
    // From all scales, or from those that need no care, with one or none that does.
    if (round % 2 == 0) {
      for (int i = 0; i < kChunkScaleBytes; ++i) chunk[i] = static_cast<uint8_t>(2 + chunk[i] % 251);
      if (round % 4 == 0) chunk[random_() % kChunkScaleBytes] = round % 8 == 0 ? 1 : 253;
    }
    for (int64_t steps = 1; steps <= kChunkSteps; ++steps) {
      ExpectExpands(QuantizedFormat::kMxfp4, chunk, steps, "round " + std::to_string(round));
    }
  }
}

TEST_P(ExpandTest, EveryFp8CodeWithScalesFromOneEndToTheOther) {
  std::vector<float> scales = {1.0f,
                               0.0123f,
                               -3.7e-4f,
                               0.0f,
                               -0.0f,
                               std::numeric_limits<float>::infinity(),
                               std::numeric_limits<float>::quiet_NaN(),
                               std::numeric_limits<float>::denorm_min(),
                               std::numeric_limits<float>::max(),
                               0x1p-100f,
                               0x1.fffffep-101f,
                               0x1p100f,
                               0x1.000002p100f,
                               0x1p-117f,
                               0x1.5p-126f};
  for (int exponent = -148; exponent < 128; exponent += 5) scales.push_back(std::ldexp(1.37f, exponent));
  for (const float scale : scales) {
    std::vector<uint8_t> chunk = RandomChunk(QuantizedFormat::kFp8);
    SetScales(std::vector<float>(32, scale), &chunk);
    for (size_t i = 0; i < 1024; ++i) chunk[kChunkScaleBytes + i] = static_cast<uint8_t>(i);
    ExpectExpands(QuantizedFormat::kFp8, chunk, kChunkSteps, "scale " + std::to_string(scale));
  }
}

TEST_P(ExpandTest, Fp8WithAnotherScaleForEachColumn) {
  std::normal_distribution<float> normal(0.0f, 0.01f);
  for (int round = 0; round < 50; ++round) {
    std::vector<uint8_t> chunk = RandomChunk(QuantizedFormat::kFp8);
    // Without NaN there is a faster way.
    for (size_t i = kChunkScaleBytes; round % 2 == 0 && i < chunk.size(); ++i) {
      if ((chunk[i] & 0x7f) == 0x7f) chunk[i] ^= 1;
    }
    std::vector<float> scales;
    for (int i = 0; i < 32; ++i) scales.push_back(normal(random_));
    if (round % 4 == 3) scales[random_() % 32] = 0x1p-130f;
    // 16 columns with one scale have a faster way, too; all 32 or each 16 of them.
    if (round % 5 == 0) std::fill_n(scales.begin(), 16, scales[0]);
    if (round % 5 == 0) std::fill_n(scales.begin() + 16, 16, scales[round % 10 == 0 ? 0 : 16]);
    SetScales(scales, &chunk);
    for (int64_t steps = 1; steps <= kChunkSteps; ++steps) {
      ExpectExpands(QuantizedFormat::kFp8, chunk, steps, "round " + std::to_string(round));
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Isas, ExpandTest, ::testing::ValuesIn(AvailableIsas()),
                         [](const auto& info) { return std::string(IsaName(info.param)); });

}  // namespace
}  // namespace switchyard::cpu
