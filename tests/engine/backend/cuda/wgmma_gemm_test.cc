// The Hopper kernel against the ordinary one, on the emulated device: there both add in the same order, so their bits
// are equal. (On hardware the matrix units of the two instructions may round differently.)
#include "engine/backend/cuda/wgmma_gemm.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <string>
#include <vector>

#include "emulation.h"
#include "engine/backend/cuda/tensor_map.h"
#include "engine/backend/cuda/wgmma_layout.h"
#include "engine/base/bf16.h"

namespace switchyard::cuda {
namespace {

constexpr uint16_t kUntouched = 0x1234;
constexpr int kMultiprocessors = 3;

std::vector<uint16_t> RandomBf16(size_t count, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0.0f, 0.5f);
  std::vector<uint16_t> values(count);
  for (uint16_t& value : values) value = FloatToBf16(normal(random));
  return values;
}

// Experts of which one has no rows, one has one, and one has rows for more than a tile of 256.
struct Layer {
  std::vector<int32_t> offsets = {0, 0, 13, 314, 315};
  int64_t weight_rows = 256;
  int64_t k = 64 * 5;
  int64_t out_cols = 200;    // of kAssign
  int64_t out_stride = 192;  // narrower than the padded weights, as a plane may be
  std::vector<uint16_t> weight, in;
  std::vector<int32_t> row_to_source;
  std::vector<float> bias;

  int32_t num_experts() const { return static_cast<int32_t>(offsets.size()) - 1; }
  int64_t rows() const { return offsets.back(); }
  void Fill() {
    weight = RandomBf16(static_cast<size_t>(num_experts() * weight_rows * k), 1);
    in = RandomBf16(static_cast<size_t>(rows() * k), 2);
    for (int64_t r = 0; r < rows(); ++r) row_to_source.push_back(static_cast<int32_t>(r * 7 % rows()));
    for (int64_t i = 0; i < num_experts() * weight_rows; ++i) bias.push_back(static_cast<float>(i % 17) / 8.0f - 1.0f);
  }
};

struct Times {
  std::vector<unsigned long long> start, end;
};

// The rows of the result, then one that nobody may write.
std::vector<uint16_t> Multiply(const Layer& layer, GemmOutput output, float swiglu_limit, bool gather, bool wgmma,
                               int tile_tokens, Times* times = nullptr) {
  std::vector<ExpertTile> tiles;
  for (int32_t e = 0; e < layer.num_experts(); ++e) {
    const int32_t first = layer.offsets[static_cast<size_t>(e)], end = layer.offsets[static_cast<size_t>(e) + 1];
    const int32_t first_tile = static_cast<int32_t>(tiles.size());
    for (int32_t row = first; row < end; row += tile_tokens) {
      tiles.push_back({e, row, std::min(tile_tokens, end - row), first_tile,
                       static_cast<int32_t>(CeilDiv(end - first, tile_tokens))});
    }
  }
  int32_t num_tiles = static_cast<int32_t>(tiles.size());
  std::vector<unsigned long long> start(layer.offsets.size(), ~0ull), end(layer.offsets.size(), 0);
  std::vector<uint16_t> out(static_cast<size_t>((layer.rows() + 1) * layer.out_stride), kUntouched);
  GroupedGemm gemm;
  gemm.weight = layer.weight.data();
  gemm.weight_rows = layer.weight_rows;
  gemm.k = gemm.in_stride = gemm.in_cols = layer.k;
  gemm.out_cols = output == GemmOutput::kSiluMul ? layer.out_cols / 2 : layer.out_cols;
  gemm.in = layer.in.data();
  gemm.row_to_source = gather ? layer.row_to_source.data() : nullptr;
  gemm.bias = swiglu_limit > 0.0f ? layer.bias.data() : nullptr;
  gemm.swiglu_limit = swiglu_limit;
  gemm.output = output;
  gemm.out = {nullptr, out.data(), layer.out_stride};
  gemm.plan = {tiles.data(), &num_tiles, start.data(), end.data()};
  gemm.max_tiles = MaxExpertTiles(layer.rows(), layer.num_experts(), tile_tokens);
  if (wgmma) {
    CUtensorMap map;
    const int64_t rows = layer.num_experts() * layer.weight_rows;
    EXPECT_EQ(MakeWeightMap(FindTensorMapEncoder(), gemm.weight, rows, layer.k, &map), CUDA_SUCCESS);
    LaunchWgmmaGemm(gemm, map, tile_tokens, kMultiprocessors, nullptr);
  } else {
    LaunchGemmBf16(gemm, tile_tokens, kMultiprocessors, nullptr);
  }
  EXPECT_EQ(cudaStreamSynchronize(nullptr), cudaSuccess);
  if (times != nullptr) *times = {start, end};
  return out;
}

class WgmmaGemmTest : public ::testing::TestWithParam<int> {
 protected:
  WgmmaGemmTest() { layer_.Fill(); }
  ~WgmmaGemmTest() override { cuda_emulation::SetThreadOrder(cuda_emulation::ThreadOrder::kForward); }
  Layer layer_;
};

void ExpectSameBits(const std::vector<uint16_t>& values, const std::vector<uint16_t>& expected, int64_t stride) {
  ASSERT_EQ(values.size(), expected.size());
  for (size_t i = 0; i < values.size(); ++i) {
    ASSERT_EQ(values[i], expected[i]) << "row " << static_cast<int64_t>(i) / stride << ", column "
                                      << static_cast<int64_t>(i) % stride;
  }
}

TEST_P(WgmmaGemmTest, EqualsTheOrdinaryKernel) {
  for (const bool gather : {true, false}) {
    for (const GemmOutput output : {GemmOutput::kAssign, GemmOutput::kSiluMul}) {
      ExpectSameBits(Multiply(layer_, output, 0.0f, gather, true, GetParam()),
                     Multiply(layer_, output, 0.0f, gather, false, 32), layer_.out_stride);
    }
  }
}

TEST_P(WgmmaGemmTest, AddsBiasesAndClampsSwiglu) {
  for (const GemmOutput output : {GemmOutput::kAssign, GemmOutput::kSiluMul}) {
    ExpectSameBits(Multiply(layer_, output, 1.5f, true, true, GetParam()),
                   Multiply(layer_, output, 1.5f, true, false, 32), layer_.out_stride);
  }
}

TEST_P(WgmmaGemmTest, OrderOfThreadsDoesNotMatter) {
  const std::vector<uint16_t> forward = Multiply(layer_, GemmOutput::kSiluMul, 0.0f, true, true, GetParam());
  cuda_emulation::SetThreadOrder(cuda_emulation::ThreadOrder::kReverse);
  ExpectSameBits(Multiply(layer_, GemmOutput::kSiluMul, 0.0f, true, true, GetParam()), forward, layer_.out_stride);
}

// One k step, less than any lag, and more than any ring has stages.
TEST_P(WgmmaGemmTest, ShortAndLongRows) {
  for (const int64_t steps : {1, 2, 13, 29}) {
    Layer layer;
    layer.offsets = {0, 9, 12};
    layer.k = 64 * steps;
    layer.Fill();
    ExpectSameBits(Multiply(layer, GemmOutput::kAssign, 0.0f, true, true, GetParam()),
                   Multiply(layer, GemmOutput::kAssign, 0.0f, true, false, 8), layer.out_stride);
  }
}

TEST_P(WgmmaGemmTest, StampsTheExpertsThatHaveRows) {
  Times times;
  Multiply(layer_, GemmOutput::kAssign, 0.0f, true, true, GetParam(), &times);
  for (size_t e = 0; e + 1 < layer_.offsets.size(); ++e) {
    const bool has_rows = layer_.offsets[e] < layer_.offsets[e + 1];
    EXPECT_EQ(times.end[e] > 0, has_rows) << e;
    EXPECT_EQ(times.start[e] < times.end[e], has_rows) << e;
  }
}

INSTANTIATE_TEST_SUITE_P(Tiles, WgmmaGemmTest, ::testing::ValuesIn(kWgmmaTileTokens),
                         [](const auto& info) { return std::to_string(info.param); });

TEST(TensorMapTest, TheDriversRulesAreKept) {
  TensorMapEncoder const encode = FindTensorMapEncoder();
  ASSERT_NE(encode, nullptr);
  alignas(16) static uint16_t weight[128 * 64];
  CUtensorMap map;
  EXPECT_EQ(MakeWeightMap(encode, weight, 128, 64, &map), CUDA_SUCCESS);
  EXPECT_NE(MakeWeightMap(encode, weight + 1, 128, 64, &map), CUDA_SUCCESS);  // address
  EXPECT_NE(MakeWeightMap(encode, weight, 128, 60, &map), CUDA_SUCCESS);      // stride
  EXPECT_NE(MakeWeightMap(encode, weight, 0, 64, &map), CUDA_SUCCESS);
}

// Start 0x5400 + 32, groups 1024 bytes apart, 128-byte swizzle.
TEST(WgmmaLayoutTest, Descriptor) { EXPECT_EQ(WgmmaDescriptor(0x5420), 0x4000004000010542u); }

// The tokens are written by SwizzledOffset, read by the hardware's rule: bits 7-9 of an address are added to bits 4-6.
TEST(WgmmaLayoutTest, TokensLieAsTheHardwareReads) {
  for (int row = 0; row < 256; ++row) {
    for (int unit = 0; unit < 8; ++unit) {
      const int plain = row * 128 + unit * 16;
      EXPECT_EQ(SwizzledOffset(row, unit), plain ^ (plain >> 7 & 7) << 4);
    }
  }
}

TEST(WgmmaLayoutTest, WideTilesForManyRowsOnly) {
  EXPECT_EQ(ChooseWgmmaTileTokens(0, 8), 8);
  EXPECT_EQ(ChooseWgmmaTileTokens(1, 8), 8);
  EXPECT_EQ(ChooseWgmmaTileTokens(8 * 1023, 8), 128);
  EXPECT_EQ(ChooseWgmmaTileTokens(8 * 1024, 8), 256);
}

}  // namespace
}  // namespace switchyard::cuda
