// The emulated Hopper instructions multiply, and notice what a kernel forgets.
#include <gtest/gtest.h>
#include <hopper.cuh>

#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "engine/backend/cuda/tensor_map.h"
#include "engine/backend/cuda/wgmma_layout.h"
#include "engine/base/bf16.h"

namespace switchyard::cuda {
namespace {

enum class Planted {
  kNothing,
  kNoWaitForTiles,
  kNoProxyFence,
  kNoWgmmaFence,
  kNoWaitForSums,
  kTouchedSums,
  kChangedOperand,
  kWrongBytes,
  kWrongParity,
  kUnalignedOperand,
};

using Shape = WgmmaShape<8>;
constexpr int kWeightRows = Shape::kOut, kK = kTileK, kTokens = Shape::kTokens;

// One warpgroup: out[token][row] of 64 weight rows, which the copy engine brings, and 8 tokens, which cp.async does.
void Kernel(Planted planted, const CUtensorMap map, const uint16_t* in, float* out) {
  BeginKernel();
  unsigned char* shared = DynamicShared<unsigned char>();
  shared += (kSwizzleBytes - SharedAddress(shared) % kSwizzleBytes) % kSwizzleBytes;
  unsigned char* const tokens = shared + Shape::kWeightBytes;
  auto* const full = reinterpret_cast<Mbarrier*>(shared + Shape::kStageBytes);
  const int thread = static_cast<int>(threadIdx.x);
  if (thread == 0) {
    InitMbarrier(full, 1 + kWarpgroup / 32);
    FenceMbarrierInit();
  }
  __syncthreads();
  if (thread == 0) {
    ArriveExpect(full, Shape::kWeightBytes - (planted == Planted::kWrongBytes ? 16 : 0));
    CopyTile(shared, &map, 0, 0, full);
  }
  if (thread < kTokens * 8) {
    CopyAsync16(tokens + SwizzledOffset(thread / 8, thread % 8), in + thread * 8, true);
  }
  CopyAsyncCommit();
  CopyAsyncWait<0>();
  if (planted != Planted::kNoProxyFence) FenceProxyAsync();
  __syncwarp();
  if (thread % 32 == 0) Arrive(full);
  if (planted != Planted::kNoWaitForTiles) WaitParity(full, planted == Planted::kWrongParity ? 1 : 0);
  float acc[4] = {};
  if (planted != Planted::kNoWgmmaFence) WgmmaFence();
  const uint32_t first = SharedAddress(shared) + (planted == Planted::kUnalignedOperand ? 128 : 0);
  for (int k = 0; k < kK; k += kWgmmaK) {
    WgmmaBf16(acc, WgmmaDescriptor(first + k * 2), WgmmaDescriptor(SharedAddress(tokens) + k * 2), k > 0);
  }
  WgmmaCommit();
  if (planted == Planted::kTouchedSums) acc[1] = 0.0f;
  if (planted == Planted::kChangedOperand && thread == 0) tokens[5] ^= 1;
  if (planted != Planted::kNoWaitForSums) WgmmaWaitAll(acc);
  for (int i = 0; i < 4; ++i) {
    const int row = thread / 32 * 16 + thread % 32 / 4 + i / 2 * 8, token = thread % 4 * 2 + i % 2;
    out[token * kWgmmaOut + row] = acc[i];
  }
}

// Row r, column k of the weights: small whole numbers, so that sums are exact.
float WeightAt(int r, int k) { return static_cast<float>((r * 5 + k * 3) % 7 - 3); }
float TokenAt(int t, int k) { return static_cast<float>((t * 11 + k) % 5 - 2); }

std::vector<float> RunKernel(Planted planted) {
  std::vector<uint16_t> weight, in;
  for (int r = 0; r < kWeightRows; ++r) {
    for (int k = 0; k < kK; ++k) weight.push_back(FloatToBf16(WeightAt(r, k)));
  }
  for (int t = 0; t < kTokens; ++t) {
    for (int k = 0; k < kK; ++k) in.push_back(FloatToBf16(TokenAt(t, k)));
  }
  std::vector<float> out(kTokens * kWgmmaOut);
  CUtensorMap map;
  EXPECT_EQ(MakeWeightMap(FindTensorMapEncoder(), weight.data(), kWeightRows, kK, &map), CUDA_SUCCESS);
  Launch(Kernel, dim3(1), dim3(kWarpgroup), Shape::kSharedBytes, nullptr, planted, map, in.data(), out.data());
  EXPECT_EQ(cudaStreamSynchronize(nullptr), cudaSuccess);
  return out;
}

TEST(HopperEmulationTest, Multiplies) {
  const std::vector<float> out = RunKernel(Planted::kNothing);
  for (int t = 0; t < kTokens; ++t) {
    for (int r = 0; r < kWgmmaOut; ++r) {
      float sum = 0.0f;
      for (int k = 0; k < kK; ++k) sum += WeightAt(r, k) * TokenAt(t, k);
      EXPECT_EQ(out[static_cast<size_t>(t * kWgmmaOut + r)], sum) << "token " << t << ", row " << r;
    }
  }
}

TEST(HopperEmulationDeathTest, SeesWhatAKernelForgets) {
  const std::pair<Planted, std::string> errors[] = {
      {Planted::kNoWaitForTiles, "operands of a wgmma changed"},
      {Planted::kNoProxyFence, "without a proxy fence"},
      {Planted::kNoWgmmaFence, "without a wgmma fence"},
      {Planted::kNoWaitForSums, "ends with products that nobody waited for"},
      {Planted::kTouchedSums, "writes the sums of a wgmma that is under way"},
      {Planted::kChangedOperand, "operands of a wgmma changed"},
      {Planted::kWrongBytes, "more bytes than were announced"},
      {Planted::kWrongParity, "operands of a wgmma changed"},
      {Planted::kUnalignedOperand, "off the swizzle's 1024 bytes"},
  };
  for (const auto& [planted, message] : errors) EXPECT_DEATH(RunKernel(planted), message);
}

}  // namespace
}  // namespace switchyard::cuda
