// Tiles of panels, on every instruction set: each element in its place, padding zero, what is not finite counted.
#include "engine/backend/cpu/pack_tile.h"

#include <gtest/gtest.h>

#include <cstring>
#include <string>
#include <vector>

#include "engine/backend/cpu/isa.h"

namespace switchyard::cpu {
namespace {

// Bits of finite bfloat16 numbers, all different for small matrices.
std::vector<uint16_t> MakeRows(int64_t num_rows, int64_t in) {
  std::vector<uint16_t> rows(static_cast<size_t>(num_rows * in));
  for (size_t i = 0; i < rows.size(); ++i) rows[i] = static_cast<uint16_t>(i % 0x7f80 + (i % 3 == 0 ? 0x8000 : 0));
  return rows;
}

struct Panel {
  Panel(int64_t in, DType dtype) : bytes(static_cast<size_t>(PanelBytes(in, dtype)) + 64, '\x5a') {}
  char* data() { return bytes.data() + (64 - reinterpret_cast<uintptr_t>(bytes.data()) % 64) % 64; }
  std::vector<char> bytes;
};

class PackTileTest : public ::testing::TestWithParam<Isa> {
 protected:
  const Kernels& kernels_ = KernelsFor(GetParam());
};

TEST_P(PackTileTest, PutsEachBf16InItsPlace) {
  for (const int64_t in : {1, 31, 32, 33, 64, 200}) {
    for (const int num_rows : {0, 1, 15, 16}) {
      for (const int tile : {0, 1}) {
        const std::vector<uint16_t> rows = MakeRows(num_rows, in);
        Panel panel(in, DType::kBF16);
        EXPECT_EQ(PackTile(kernels_, reinterpret_cast<const char*>(rows.data()), num_rows, in, DType::kBF16,
                           panel.data(), tile),
                  0);
        const uint16_t* const packed = reinterpret_cast<const uint16_t*>(panel.data());
        for (int64_t k = 0; k < KSteps(in) * kStepK; ++k) {
          for (int c = 0; c < kTileCols; ++c) {
            const int64_t step = tile * KSteps(in) + k / kStepK;
            const int64_t at = step * kTileElements + k % kStepK / 2 * kTileCols * 2 + c * 2 + k % 2;
            const int expected = c < num_rows && k < in ? rows[static_cast<size_t>(c * in + k)] : 0;
            ASSERT_EQ(packed[at], expected) << num_rows << " x " << in << ", column " << c << ", k " << k;
          }
        }
      }
    }
  }
}

// One bad element at a time, wherever it is: in whole steps, in the last one, in the last row.
TEST_P(PackTileTest, CountsEachBf16ThatIsNotFinite) {
  for (const int num_rows : {3, 16}) {
    constexpr int64_t kIn = 70;
    std::vector<uint16_t> rows = MakeRows(num_rows, kIn);
    Panel panel(kIn, DType::kBF16);
    const auto pack = [&] {
      return PackTile(kernels_, reinterpret_cast<const char*>(rows.data()), num_rows, kIn, DType::kBF16, panel.data(),
                      0);
    };
    for (size_t i = 0; i < rows.size(); ++i) {
      const uint16_t good = rows[i];
      for (const uint16_t bad : {0x7f80, 0xff80, 0x7fc0, 0xffff}) {
        rows[i] = bad;
        ASSERT_EQ(pack(), 1) << num_rows << " rows, element " << i;
      }
      rows[i] = good;
    }
    for (uint16_t& element : rows) element = 0xffc0;
    EXPECT_EQ(pack(), num_rows * kIn);
  }
}

TEST_P(PackTileTest, CountsEachF32ThatIsNotFinite) {
  constexpr int64_t kIn = 40;
  std::vector<float> rows(kTileCols * kIn, 1.0f);
  Panel panel(kIn, DType::kF32);
  rows[0] = __builtin_inff();
  rows[rows.size() - 1] = __builtin_nanf("");
  EXPECT_EQ(
      PackTile(kernels_, reinterpret_cast<const char*>(rows.data()), kTileCols, kIn, DType::kF32, panel.data(), 1), 2);
}

INSTANTIATE_TEST_SUITE_P(Isas, PackTileTest, ::testing::ValuesIn(AvailableIsas()),
                         [](const auto& info) { return std::string(IsaName(info.param)); });

}  // namespace
}  // namespace switchyard::cpu
