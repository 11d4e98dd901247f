// Products with a weight matrix of its own for each part: heads of a row (LinearPerHead), or rows of an expert whose
// matrices were loaded one by one (LinearPerExpert). One launch for all parts, whose addresses travel with it.
//
// Roofline: bytes = every weight once, and the inputs once per block of 64 outputs; flops = 2 * rows * out * in per
// part. Below about 180 rows the bytes of the weights decide.
//
// Every output is one chain over k in order, whatever the tile: its bits depend on its row alone.
#include <ptx.cuh>

#include "engine/backend/cuda/kernels.h"
#include "engine/backend/cuda/warp.cuh"

namespace switchyard::cuda {
namespace {

constexpr int kStages = 4;  // of weights
constexpr int kWarps = 4;
constexpr int kThreads = kWarps * kWarp;
constexpr int kRowBytes = kTileK * 2;
constexpr int kStageBytes = kTileOut * kRowBytes;

struct PartWeights {
  const void* at[kMaxParts];
};

__device__ __forceinline__ ExpertTile TileAt(const PartGemm& gemm, int tile_tokens, int64_t t) {
  if (gemm.plan.tiles != nullptr) return gemm.plan.tiles[t];
  const int32_t per_part = static_cast<int32_t>(CeilDiv(gemm.dense_rows, tile_tokens));
  const int32_t part = static_cast<int32_t>(t / per_part);
  const int32_t first = static_cast<int32_t>(t % per_part) * tile_tokens;
  const int32_t left = static_cast<int32_t>(gemm.dense_rows) - first;
  return {part, first, left < tile_tokens ? left : tile_tokens, part * per_part, per_part};
}

// This block's share of the (tile, block of outputs) pairs: body(tile, first output).
template <typename Body>
__device__ void ForWork(const PartGemm& gemm, int tile_tokens, const Body& body) {
  const int64_t num_tiles = gemm.plan.tiles != nullptr ? *gemm.plan.num_tiles
                                                       : gemm.num_parts * CeilDiv(gemm.dense_rows, tile_tokens);
  const int64_t num_out_blocks = CeilDiv(gemm.out_cols, kTileOut);
  const auto tile_at = [&](int64_t t) { return TileAt(gemm, tile_tokens, t); };
  for (int64_t index = blockIdx.x; index < num_tiles * num_out_blocks; index += gridDim.x) {
    const GemmWork work = FindGemmWork(index, num_out_blocks, tile_at);
    body(tile_at(work.tile), work.out_block * kTileOut);
  }
}

// Where the input of a tile's row begins.
__device__ __forceinline__ const float* InputOf(const PartGemm& gemm, const ExpertTile& tile, int row) {
  const int64_t index = tile.first_row + row;
  const int64_t source = gemm.row_to_source != nullptr ? gemm.row_to_source[index] : index;
  return gemm.in + source * gemm.in_stride + tile.expert * gemm.in_part;
}

__device__ __forceinline__ void Store(const PartGemm& gemm, const ExpertTile& tile, int row, int64_t col, float value) {
  if (row >= tile.num_rows || col >= gemm.out_cols) return;
  gemm.out[(tile.first_row + row) * gemm.out_stride + tile.expert * gemm.out_part + col] = value;
}

// kTokens rows at a time against 64 weight rows, 16 of each warp. Weights arrive by cp.async some steps ahead; inputs
// are fp32 and wait in registers while the step before them is multiplied.
template <int kTokens>
struct PartBlock {
  static constexpr int kPairs = kTokens * kTileK / 2 / kThreads;  // of inputs, for each thread
  static constexpr int kInputBytes = kTokens * kRowBytes;
  static constexpr int kSharedBytes = kStages * kStageBytes + 2 * kInputBytes;

  const PartGemm& gemm;
  unsigned char* const weights;
  unsigned char* const inputs;  // two steps
  float held[kPairs][2];

  __device__ void LoadWeights(const uint16_t* from, int64_t step) {
    unsigned char* const to = weights + step % kStages * kStageBytes;
    for (int i = threadIdx.x; i < kTileOut * 8; i += kThreads) {
      const int row = i / 8, unit = i % 8;
      CopyAsync16(to + SwizzledOffset(row, unit), from + row * gemm.weight_stride + step * kTileK + unit * 8, true);
    }
  }

  __device__ void HoldInputs(const ExpertTile& tile, int first, int64_t step) {
#pragma unroll
    for (int p = 0; p < kPairs; ++p) {
      const int i = p * kThreads + threadIdx.x;
      const int row = first + i / (kTileK / 2);
      const int64_t col = step * kTileK + i % (kTileK / 2) * 2;
      const float* const from = row < tile.num_rows ? InputOf(gemm, tile, row) : nullptr;
      held[p][0] = from != nullptr && col < gemm.in_cols ? from[col] : 0.0f;
      held[p][1] = from != nullptr && col + 1 < gemm.in_cols ? from[col + 1] : 0.0f;
    }
  }

  __device__ void StoreInputs(int64_t step) {
    unsigned char* const to = inputs + step % 2 * kInputBytes;
#pragma unroll
    for (int p = 0; p < kPairs; ++p) {
      const int i = p * kThreads + threadIdx.x;
      const int row = i / (kTileK / 2), col = i % (kTileK / 2) * 2;
      *reinterpret_cast<uint32_t*>(to + SwizzledOffset(row, col / 8) + col % 8 * 2) = PackBf16(held[p][0], held[p][1]);
    }
  }

  __device__ void Multiply(int64_t step, float (&acc)[kTokens / 8][4]) {
    const unsigned char* const w = weights + step % kStages * kStageBytes;
    const unsigned char* const x = inputs + step % 2 * kInputBytes;
    const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
#pragma unroll
    for (int kk = 0; kk < kTileK / 16; ++kk) {
      uint32_t a[4];
      LoadMatrix4(a, w + SwizzledOffset(warp * 16 + lane % 16, kk * 2 + lane / 16));
#pragma unroll
      for (int j = 0; j < kTokens / 8; j += 2) {
        uint32_t b[4];
        LoadMatrix4(b, x + SwizzledOffset(j * 8 + lane % 8 + lane / 16 * 8, kk * 2 + lane / 8 % 2));
        MmaBf16(acc[j], a, b[0], b[1]);
        MmaBf16(acc[j + 1], a, b[2], b[3]);
      }
    }
  }

  // Rows [first, first + kTokens) of the tile.
  __device__ void Run(const ExpertTile& tile, int first, const uint16_t* weight, int64_t first_out) {
    const int64_t num_steps = gemm.weight_stride / kTileK;
    const uint16_t* const from = weight + first_out * gemm.weight_stride;
    float acc[kTokens / 8][4] = {};
    __syncthreads();  // what is in shared memory has been read
    for (int64_t s = 0; s < kStages - 1; ++s) {
      if (s < num_steps) LoadWeights(from, s);
      CopyAsyncCommit();
    }
    HoldInputs(tile, first, 0);
    StoreInputs(0);
    for (int64_t s = 0; s < num_steps; ++s) {
      CopyAsyncWait<kStages - 2>();
      __syncthreads();  // everybody's part of step s is here, and step s - 1 has been read
      if (s + kStages - 1 < num_steps) LoadWeights(from, s + kStages - 1);
      CopyAsyncCommit();
      if (s + 1 < num_steps) HoldInputs(tile, first, s + 1);
      Multiply(s, acc);
      if (s + 1 < num_steps) StoreInputs(s + 1);
    }
    const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
    const int64_t out = first_out + warp * 16 + lane / 4;
#pragma unroll
    for (int j = 0; j < kTokens / 8; ++j) {
#pragma unroll
      for (int c = 0; c < 4; ++c) Store(gemm, tile, first + j * 8 + 2 * (lane % 4) + c % 2, out + c / 2 * 8, acc[j][c]);
    }
  }
};

// Several blocks fit on a multiprocessor: what one of them waits for, another may have.
template <int kTokens>
__global__ void __launch_bounds__(kThreads)
    PartGemmBf16Kernel(PartGemm gemm, int tile_tokens, const __grid_constant__ PartWeights parts) {
  BeginKernel();
  using Block = PartBlock<kTokens>;
  unsigned char* const shared = DynamicShared<unsigned char>();
  Block block = {gemm, shared, shared + kStages * kStageBytes, {}};
  ForWork(gemm, tile_tokens, [&](const ExpertTile& tile, int64_t first_out) {
    const uint16_t* const weight = static_cast<const uint16_t*>(parts.at[tile.expert]);
    for (int first = 0; first < tile.num_rows; first += kTokens) block.Run(tile, first, weight, first_out);
  });
}

constexpr int kF32Threads = 256;
constexpr int kF32Step = 32;    // k of one step
constexpr int kF32Tokens = 8;   // rows at a time

// The same in fp32 for models that are kept so. Roofline: flops at the rate of the ordinary cores.
__global__ void __launch_bounds__(kF32Threads)
    PartGemmF32Kernel(PartGemm gemm, int tile_tokens, const __grid_constant__ PartWeights parts) {
  BeginKernel();
  __shared__ float w[kTileOut][kF32Step + 1];
  __shared__ float x[kF32Tokens][kF32Step + 1];
  const int out = threadIdx.x % kTileOut, token = threadIdx.x / kTileOut;  // and token + 4
  const int load_row = threadIdx.x / kF32Step, load_col = threadIdx.x % kF32Step;
  ForWork(gemm, tile_tokens, [&](const ExpertTile& tile, int64_t first_out) {
    const float* const weight =
        static_cast<const float*>(parts.at[tile.expert]) + first_out * gemm.weight_stride;
    for (int first = 0; first < tile.num_rows; first += kF32Tokens) {
      float sums[2] = {0.0f, 0.0f};
      for (int64_t k = 0; k < gemm.in_cols; k += kF32Step) {
        __syncthreads();
        for (int row = load_row; row < kTileOut; row += kF32Threads / kF32Step) {
          w[row][load_col] = weight[row * gemm.weight_stride + k + load_col];
        }
        const bool inside = first + load_row < tile.num_rows && k + load_col < gemm.in_cols;
        x[load_row][load_col] = inside ? InputOf(gemm, tile, first + load_row)[k + load_col] : 0.0f;
        __syncthreads();
        for (int j = 0; j < kF32Step; ++j) {
          sums[0] = fmaf(w[out][j], x[token][j], sums[0]);
          sums[1] = fmaf(w[out][j], x[token + 4][j], sums[1]);
        }
      }
      Store(gemm, tile, first + token, first_out + out, sums[0]);
      Store(gemm, tile, first + token + 4, first_out + out, sums[1]);
    }
  });
}

template <int kTokens>
void LaunchBf16(const PartGemm& gemm, int tile_tokens, const PartWeights& parts, int num_multiprocessors,
                cudaStream_t stream) {
  constexpr int kSharedBytes = PartBlock<kTokens>::kSharedBytes;
  const int resident =
      num_multiprocessors * BlocksPerMultiprocessor<PartGemmBf16Kernel<kTokens>>(kThreads, kSharedBytes);
  Launch(PartGemmBf16Kernel<kTokens>, dim3(resident), dim3(kThreads), kSharedBytes, stream, gemm, tile_tokens, parts);
}

}  // namespace

void LaunchPartGemm(const PartGemm& gemm, const void* const* weights, DType dtype, int tile_tokens,
                    int num_multiprocessors, cudaStream_t stream) {
  if (gemm.plan.tiles == nullptr && gemm.dense_rows == 0) return;
  PartWeights parts = {};
  for (int32_t p = 0; p < gemm.num_parts; ++p) parts.at[p] = weights[p];
  if (dtype != DType::kBF16) {
    constexpr int kBlocksPerMultiprocessor = 4;
    Launch(PartGemmF32Kernel, dim3(num_multiprocessors * kBlocksPerMultiprocessor), dim3(kF32Threads), 0, stream, gemm,
           tile_tokens, parts);
  } else if (tile_tokens <= 16) {
    LaunchBf16<16>(gemm, tile_tokens, parts, num_multiprocessors, stream);
  } else {
    LaunchBf16<64>(gemm, tile_tokens, parts, num_multiprocessors, stream);
  }
}

}  // namespace switchyard::cuda
