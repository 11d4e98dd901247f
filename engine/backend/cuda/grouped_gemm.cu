// Products of the rows of each expert with that expert's weights; a dense product is the case of one expert.
//
// Roofline: bytes = the weights of every expert that has rows, once (each token tile beyond the first reads them from
// the L2 cache); flops = 2 * rows * out * k. Below about 180 rows per expert the bytes decide, so the weights are the
// operand with 16 rows per instruction and the token tile is as narrow as 8.
//
// Every output is one chain of 16-wide products over k in order, whatever the tile: its bits depend on its row alone.
#include <ptx.cuh>

#include "engine/backend/cuda/gemm_tiles.cuh"
#include "engine/backend/cuda/kernels.h"
#include "engine/backend/cuda/warp.cuh"

namespace switchyard::cuda {
namespace {

__device__ __forceinline__ void StoreOne(const GroupedGemm& gemm, int64_t row, int64_t col, float value) {
  if (col < gemm.out_cols) {
    if (gemm.out.f32 != nullptr) {
      float* const at = gemm.out.f32 + row * gemm.out_stride + col;
      *at = gemm.output == GemmOutput::kAdd ? *at + value : value;
    }
  }
  // The padding gets zeros, which is what zero rows of weights give.
  if (gemm.out.bf16 != nullptr && col < gemm.out.stride) gemm.out.bf16[row * gemm.out.stride + col] = ToBf16Bits(value);
}

template <int kOutValue, int kTokensValue, int kWarpOutValue, int kWarpTokensValue, int kStagesValue>
struct TileShape {
  static constexpr int kOut = kOutValue;                // weight rows of a block
  static constexpr int kTokens = kTokensValue;
  static constexpr int kWarpOut = kWarpOutValue;        // of a warp, a multiple of 16
  static constexpr int kWarpTokens = kWarpTokensValue;  // a multiple of 8
  static constexpr int kStages = kStagesValue;
  static constexpr int kWarpsOut = kOut / kWarpOut;
  static constexpr int kThreads = kWarpsOut * (kTokens / kWarpTokens) * kWarp;
  static constexpr int kRowBytes = kTileK * 2;
  static constexpr int kStageBytes = (kOut + kTokens) * kRowBytes;
  static constexpr int kSharedBytes = kStages * kStageBytes + kTokens * 8;
};

// One block's walk over its share of the work: a pipeline of kStages tiles of weights and activations in shared memory.
template <typename Shape>
struct GemmBlock {
  static constexpr int kMmaOut = Shape::kWarpOut / 16;
  static constexpr int kMmaTokens = Shape::kWarpTokens / 8;

  const GroupedGemm& gemm;
  unsigned char* const stages;
  int64_t* const sources;  // [kTokens] input row of each row of the tile, -1 beyond the last
  float acc[kMmaOut][kMmaTokens][4];

  __device__ void LoadSources(const ExpertTile& tile) {
    for (int i = threadIdx.x; i < Shape::kTokens; i += Shape::kThreads) {
      sources[i] = i < tile.num_rows ? SourceOf(gemm, tile.first_row + i) : -1;
    }
  }

  __device__ const uint16_t* WeightAt(int32_t expert, int64_t out_block) const {
    return static_cast<const uint16_t*>(gemm.weight) + (expert * gemm.weight_rows + out_block * Shape::kOut) * gemm.k;
  }

  __device__ void LoadWeights(int stage, const uint16_t* weight, int64_t k) {
    unsigned char* const to = stages + stage * Shape::kStageBytes;
    for (int i = threadIdx.x; i < Shape::kOut * 8; i += Shape::kThreads) {
      const int row = i / 8, unit = i % 8;
      CopyAsync16(to + SwizzledOffset(row, unit), weight + row * gemm.k + k + unit * 8, true);
    }
  }

  __device__ void LoadTokens(int stage, int64_t k) {
    unsigned char* const tokens = stages + stage * Shape::kStageBytes + Shape::kOut * Shape::kRowBytes;
    const uint16_t* const in = static_cast<const uint16_t*>(gemm.in);
    for (int i = threadIdx.x; i < Shape::kTokens * 8; i += Shape::kThreads) {
      const int row = i / 8, unit = i % 8;
      const int64_t source = sources[row];
      CopyAsync16(tokens + SwizzledOffset(row, unit), in + (source < 0 ? 0 : source) * gemm.in_stride + k + unit * 8,
                  source >= 0);
    }
  }

  __device__ void Multiply(int stage) {
    const unsigned char* const weights = stages + stage * Shape::kStageBytes;
    const unsigned char* const tokens = weights + Shape::kOut * Shape::kRowBytes;
    const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
    const int first_out = warp % Shape::kWarpsOut * Shape::kWarpOut;
    const int first_token = warp / Shape::kWarpsOut * Shape::kWarpTokens;
#pragma unroll
    for (int kk = 0; kk < kTileK / 16; ++kk) {
      uint32_t a[kMmaOut][4];
#pragma unroll
      for (int i = 0; i < kMmaOut; ++i) {
        LoadMatrix4(a[i], weights + SwizzledOffset(first_out + i * 16 + lane % 16, kk * 2 + lane / 16));
      }
#pragma unroll
      for (int j = 0; j < kMmaTokens; j += 2) {
        // Two groups of 8 tokens; where there is only one, the upper lanes repeat it.
        const bool pair = j + 1 < kMmaTokens;
        uint32_t b[4];
        LoadMatrix4(b, tokens + SwizzledOffset(first_token + j * 8 + lane % 8 + (pair ? lane / 16 * 8 : 0),
                                               kk * 2 + lane / 8 % 2));
#pragma unroll
        for (int i = 0; i < kMmaOut; ++i) {
          MmaBf16(acc[i][j], a[i], b[0], b[1]);
          if (pair) MmaBf16(acc[i][j + 1], a[i], b[2], b[3]);
        }
      }
    }
  }

  __device__ void StoreTile(const ExpertTile& tile, int64_t out_block) {
    const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
    const int g = lane / 4, q = lane % 4;
    const int64_t first_out = out_block * Shape::kOut + warp % Shape::kWarpsOut * Shape::kWarpOut;
    const int first_token = warp / Shape::kWarpsOut * Shape::kWarpTokens;
#pragma unroll
    for (int i = 0; i < kMmaOut; ++i) {
      const int64_t out = first_out + i * 16;
#pragma unroll
      for (int j = 0; j < kMmaTokens; ++j) {
#pragma unroll
        for (int t = 0; t < 2; ++t) {
          const int token = first_token + j * 8 + 2 * q + t;
          if (token >= tile.num_rows) continue;
          const int64_t row = tile.first_row + token;
          // Weight rows g and g + 8.
          const float upper = acc[i][j][t] + BiasOf(gemm, tile.expert, out + g);
          const float lower = acc[i][j][2 + t] + BiasOf(gemm, tile.expert, out + g + 8);
          if (gemm.output == GemmOutput::kSiluMul) {
            const bool padding = out / 2 + g >= gemm.out_cols;
            StoreOne(gemm, row, out / 2 + g, padding ? 0.0f : Activate(gemm, upper, lower));
          } else {
            StoreOne(gemm, row, out + g, ApplyUngated(gemm.activation, upper));
            StoreOne(gemm, row, out + g + 8, ApplyUngated(gemm.activation, lower));
          }
        }
      }
    }
  }

  // The weights of a tile's first stages, which need nothing of what other kernels write. Before the first Run.
  __device__ void LoadAhead(int32_t expert, int64_t out_block) {
    const uint16_t* const weight = WeightAt(expert, out_block);
    for (int s = 0; s < Shape::kStages - 1 && s * kTileK < gemm.k; ++s) LoadWeights(s, weight, s * kTileK);
  }

  // loaded_ahead: LoadAhead did it for this tile.
  __device__ void Run(const ExpertTile& tile, int64_t out_block, bool loaded_ahead) {
#pragma unroll
    for (int i = 0; i < kMmaOut; ++i) {
#pragma unroll
      for (int j = 0; j < kMmaTokens; ++j) {
#pragma unroll
        for (int c = 0; c < 4; ++c) acc[i][j][c] = 0.0f;
      }
    }
    const uint16_t* const weight = WeightAt(tile.expert, out_block);
    const int64_t num_steps = gemm.k / kTileK;
    __syncthreads();  // the last tile's stages and sources have been read
    LoadSources(tile);
    __syncthreads();
    for (int s = 0; s < Shape::kStages - 1; ++s) {
      if (s < num_steps) {
        if (!loaded_ahead) LoadWeights(s, weight, s * kTileK);
        LoadTokens(s, s * kTileK);
      }
      CopyAsyncCommit();
    }
    for (int64_t s = 0; s < num_steps; ++s) {
      CopyAsyncWait<Shape::kStages - 2>();
      __syncthreads();  // everybody's part of stage s is here, and stage s - 1 has been read
      const int64_t next = s + Shape::kStages - 1;
      if (next < num_steps) {
        LoadWeights(static_cast<int>(next % Shape::kStages), weight, next * kTileK);
        LoadTokens(static_cast<int>(next % Shape::kStages), next * kTileK);
      }
      CopyAsyncCommit();
      Multiply(static_cast<int>(s % Shape::kStages));
    }
    StoreTile(tile, out_block);
  }
};

template <typename Shape>
__global__ void __launch_bounds__(Shape::kThreads) GemmBf16Kernel(GroupedGemm gemm) {
  unsigned char* const shared = DynamicShared<unsigned char>();
  GemmBlock<Shape> block = {gemm, shared, reinterpret_cast<int64_t*>(shared + Shape::kStages * Shape::kStageBytes), {}};
  // Which weights a dense product's block begins with does not depend on what the kernels before it write.
  bool loaded_ahead = gemm.plan.tiles == nullptr;
  if (loaded_ahead) {
    block.LoadAhead(0, FindGemmWork(blockIdx.x, gemm.weight_rows / Shape::kOut, [&](int64_t t) {
                         return TileAt(gemm, Shape::kTokens, t);
                       }).out_block);
  }
  BeginKernel();
  ForEachTile<Shape::kOut, Shape::kTokens>(gemm, [&](const ExpertTile& tile, int64_t out_block) {
    if (threadIdx.x == 0) StampStart(gemm, tile.expert);
    block.Run(tile, out_block, loaded_ahead);
    loaded_ahead = false;
    if (threadIdx.x == 0) StampEnd(gemm, tile.expert);
  });
}

template <typename Shape>
void LaunchShape(const GroupedGemm& gemm, int num_multiprocessors, cudaStream_t stream) {
  const int64_t works = gemm.max_tiles * (gemm.weight_rows / Shape::kOut);
  const int64_t resident = int64_t{num_multiprocessors} *
                           BlocksPerMultiprocessor<GemmBf16Kernel<Shape>>(Shape::kThreads, Shape::kSharedBytes);
  Launch(GemmBf16Kernel<Shape>, dim3(works < resident ? works : resident), dim3(Shape::kThreads), Shape::kSharedBytes,
         stream, gemm);
}

constexpr int kF32Threads = 256;
constexpr int kF32Step = 32;    // k of one step
constexpr int kF32Tokens = 8;   // rows at a time

// The same in fp32 for models that are kept so, and for comparisons: no matrix units, one sum after the other over k.
// Roofline: flops = 2 * rows * out * k at the rate of the ordinary cores.
__global__ void GemmF32Kernel(GroupedGemm gemm, int tile_tokens) {
  BeginKernel();
  __shared__ float w[kTileOut][kF32Step + 1];
  __shared__ float x[kF32Tokens][kF32Step + 1];
  __shared__ float sums[kF32Tokens][kTileOut];
  const int64_t tile_index = blockIdx.y;
  if (tile_index >= NumTiles(gemm, tile_tokens)) return;
  const ExpertTile tile = TileAt(gemm, tile_tokens, tile_index);
  const int64_t first_out = static_cast<int64_t>(blockIdx.x) * kTileOut;
  const float* const weight =
      static_cast<const float*>(gemm.weight) + (tile.expert * gemm.weight_rows + first_out) * gemm.k;
  const float* const in = static_cast<const float*>(gemm.in);
  const int out = threadIdx.x % kTileOut, token = threadIdx.x / kTileOut;  // and token + 4
  if (threadIdx.x == 0) StampStart(gemm, tile.expert);
  for (int first = 0; first < tile.num_rows; first += kF32Tokens) {
    float sum[2] = {0.0f, 0.0f};
    for (int64_t k = 0; k < gemm.in_cols; k += kF32Step) {
      __syncthreads();
      for (int i = threadIdx.x; i < kTileOut * kF32Step; i += kF32Threads) {
        w[i / kF32Step][i % kF32Step] = weight[i / kF32Step * gemm.k + k + i % kF32Step];
      }
      const int row = first + threadIdx.x / kF32Step;
      const int64_t col = k + threadIdx.x % kF32Step;
      const bool inside = row < tile.num_rows && col < gemm.in_cols;
      x[threadIdx.x / kF32Step][threadIdx.x % kF32Step] =
          inside ? in[SourceOf(gemm, tile.first_row + row) * gemm.in_stride + col] : 0.0f;
      __syncthreads();
      for (int j = 0; j < kF32Step; ++j) {
        sum[0] = fmaf(w[out][j], x[token][j], sum[0]);
        sum[1] = fmaf(w[out][j], x[token + 4][j], sum[1]);
      }
    }
    const float bias = BiasOf(gemm, tile.expert, first_out + out);
    sums[token][out] = sum[0] + bias;
    sums[token + 4][out] = sum[1] + bias;
    __syncthreads();
    const int features = gemm.output == GemmOutput::kSiluMul ? kTileOut / 2 : kTileOut;
    for (int i = threadIdx.x; i < kF32Tokens * features; i += kF32Threads) {
      const int row = first + i / features, feature = i % features;
      if (row >= tile.num_rows) continue;
      const float* const all = sums[i / features];
      if (gemm.output == GemmOutput::kSiluMul) {
        StoreOne(gemm, tile.first_row + row, first_out / 2 + feature,
                 Activate(gemm, all[GateUpRow(feature, 0)], all[GateUpRow(feature, 1)]));
      } else {
        StoreOne(gemm, tile.first_row + row, first_out + feature, ApplyUngated(gemm.activation, all[feature]));
      }
    }
    __syncthreads();
  }
  if (threadIdx.x == 0) StampEnd(gemm, tile.expert);
}

}  // namespace

void LaunchGemmBf16(const GroupedGemm& gemm, int tile_tokens, int num_multiprocessors, cudaStream_t stream) {
  // Fewer wide blocks than multiprocessors would leave some of these without a share of the weights: 2,048 rows are 32
  // wide blocks or 128 narrow ones of a single warp. Beyond 32 tokens the tokens, which every block reads again, would
  // cost more than that gains.
  const bool narrow = gemm.max_tiles * (gemm.weight_rows / kTileOut) < num_multiprocessors;
  switch (tile_tokens) {
    case 8:
      if (narrow) return LaunchShape<TileShape<16, 8, 16, 8, 16>>(gemm, num_multiprocessors, stream);
      return LaunchShape<TileShape<64, 8, 16, 8, 6>>(gemm, num_multiprocessors, stream);
    case 16:
      if (narrow) return LaunchShape<TileShape<16, 16, 16, 16, 12>>(gemm, num_multiprocessors, stream);
      return LaunchShape<TileShape<64, 16, 16, 16, 6>>(gemm, num_multiprocessors, stream);
    case 32:
      if (narrow) return LaunchShape<TileShape<16, 32, 16, 32, 8>>(gemm, num_multiprocessors, stream);
      return LaunchShape<TileShape<64, 32, 16, 32, 5>>(gemm, num_multiprocessors, stream);
    case 64: return LaunchShape<TileShape<64, 64, 32, 32, 4>>(gemm, num_multiprocessors, stream);
    default: return LaunchShape<TileShape<128, 128, 64, 32, 3>>(gemm, num_multiprocessors, stream);
  }
}

void LaunchGemmF32(const GroupedGemm& gemm, int tile_tokens, cudaStream_t stream) {
  Launch(GemmF32Kernel, dim3(gemm.weight_rows / kTileOut, gemm.max_tiles), dim3(kF32Threads), 0, stream, gemm,
         tile_tokens);
}

}  // namespace switchyard::cuda
