// Roofline: bytes = the weights of every expert that has rows, once, flops = 2 * rows * out * k; below about 180 rows
// per expert the bytes decide (a ring of 200 KiB per multiprocessor keeps them coming), above it the matrix units.
//
// There is one block per multiprocessor; it walks its share of the tiles. Its warps have roles, joined by a ring of
// stages of shared memory, each with two barriers: full (copies have landed) and empty (both multiplying warpgroups
// have read it).
//
//   warp 0        one thread asks the copy engine for 128 weight rows x 64 k per stage
//   warps 1-3     gather the rows of the tokens with cp.async into the same permuted layout; rows beyond the expert's
//                 last are zeros
//   warps 4-11    two warpgroups of 64 weight rows each: wgmma with the weights as the 64-row operand and tokens as
//                 columns, so that a thread holds gate and up of one feature; then activation and stores
//
// Every output is one chain of 16-wide products over k in order, fp32, whatever the tile, and there is no other way for
// few rows: its bits depend on its row alone.
#include "engine/backend/cuda/wgmma_gemm.h"

#include <hopper.cuh>

#include "engine/backend/cuda/gemm_tiles.cuh"
#include "engine/backend/cuda/wgmma_layout.h"

namespace switchyard::cuda {
namespace {

#if SWITCHYARD_HOPPER

constexpr int kGatherWarps = 3;
constexpr int kGatherThreads = kGatherWarps * kWarp;
constexpr int kGatherRows = kGatherThreads / 8;  // at a time: 8 lanes copy the 128 bytes of one
constexpr int kGatherBatch = 8;       // row numbers that a thread holds at a time
constexpr int kGatherLag = 2;         // stages whose token copies are under way; fewer than any ring has
constexpr int kGatherBarrier = 1;     // numbers of barriers of some warps
constexpr int kConsumerBarrier = 2;   // and the next
// Of 65536 by 384 threads each has 168; the sums of 256 columns alone are 128.
constexpr int kLoaderRegisters = 56;
constexpr int kConsumerRegisters = 224;

// A place in the ring and the parity of its turn.
template <int kStages>
struct RingPosition {
  int stage = 0;
  uint32_t parity = 0;

  __device__ __forceinline__ void Advance() {
    if (++stage == kStages) {
      stage = 0;
      parity ^= 1;
    }
  }
};

template <typename Shape>
struct Ring {
  unsigned char* const shared;
  using Position = RingPosition<Shape::kStages>;

  __device__ __forceinline__ unsigned char* Weights(int stage) const { return shared + stage * Shape::kStageBytes; }
  __device__ __forceinline__ unsigned char* Tokens(int stage) const { return Weights(stage) + Shape::kWeightBytes; }
  __device__ __forceinline__ Mbarrier* Full(int stage) const {
    return reinterpret_cast<Mbarrier*>(shared + Shape::kBarriersOffset) + stage;
  }
  __device__ __forceinline__ Mbarrier* Empty(int stage) const { return Full(Shape::kStages + stage); }
  __device__ __forceinline__ int32_t* Sources() const {
    return reinterpret_cast<int32_t*>(shared + Shape::kSourcesOffset);
  }
  __device__ __forceinline__ unsigned char* Results(int consumer) const {
    return shared + Shape::kStoreOffset + consumer * Shape::kStoreBytes;
  }

  __device__ __forceinline__ void InitBarriers() const {
    for (int stage = 0; stage < Shape::kStages; ++stage) {
      InitMbarrier(Full(stage), 1 + kGatherWarps);
      InitMbarrier(Empty(stage), Shape::kConsumers * kWarpgroup / kWarp);
    }
    FenceMbarrierInit();
  }
};

template <typename Shape>
__device__ __forceinline__ void LoadWeights(const GroupedGemm& gemm, const CUtensorMap* weights,
                                            const Ring<Shape>& ring) {
  typename Ring<Shape>::Position at;
  ForEachTile<Shape::kOut, Shape::kTokens>(gemm, [&](const ExpertTile& tile, int64_t out_block) {
    const int32_t row = static_cast<int32_t>(tile.expert * gemm.weight_rows + out_block * Shape::kOut);
    for (int32_t k = 0; k < gemm.k; k += kTileK) {
      WaitParity(ring.Empty(at.stage), at.parity ^ 1);
      ArriveExpect(ring.Full(at.stage), Shape::kWeightBytes);
      CopyTile(ring.Weights(at.stage), weights, k, row, ring.Full(at.stage));
      at.Advance();
    }
  });
}

// Says that this warp's part of the stage is there. REQUIRES: its copies were waited for.
__device__ __forceinline__ void AnnounceTokens(Mbarrier* full) {
  FenceProxyAsync();
  __syncwarp();
  if (threadIdx.x % kWarp == 0) Arrive(full);
}

// Starts this thread's part of the copies of one stage: unit `unit` of every kGatherRows-th row from `first` on.
// `sources`: where the rows begin, in units of kGatherUnit elements after `in`; -1: a row of zeros.
template <int kTokens>
__device__ __forceinline__ void GatherRows(const uint16_t* in, const int32_t* sources, int first, int unit,
                                           unsigned char* to) {
#pragma unroll
  for (int done = 0; done < kTokens; done += kGatherBatch * kGatherRows) {
    // All of a batch are read before the first copy, behind which the compiler would not move the next read.
    int32_t batch[kGatherBatch];
#pragma unroll
    for (int i = 0; i < kGatherBatch; ++i) {
      const int row = done + i * kGatherRows + first;
      if (done + i * kGatherRows < kTokens) batch[i] = row < kTokens ? sources[row] : -1;
    }
#pragma unroll
    for (int i = 0; i < kGatherBatch; ++i) {
      const int row = done + i * kGatherRows + first;
      if (done + i * kGatherRows >= kTokens || row >= kTokens) continue;
      const int64_t source = batch[i] < 0 ? 0 : batch[i];
      CopyAsync16(to + SwizzledOffset(row, unit), in + source * kGatherUnit, batch[i] >= 0);
    }
  }
}

template <typename Shape>
__device__ __forceinline__ void LoadTokens(const GroupedGemm& gemm, const Ring<Shape>& ring) {
  const int thread = static_cast<int>(threadIdx.x) - kWarp;
  const int unit = thread % 8;
  const uint16_t* const in = static_cast<const uint16_t*>(gemm.in) + unit * kGatherUnit;
  int32_t* const sources = ring.Sources();
  typename Ring<Shape>::Position at, announced;
  int64_t num_stages = 0;
  ForEachTile<Shape::kOut, Shape::kTokens>(gemm, [&](const ExpertTile& tile, int64_t) {
    SyncThreads(kGatherBarrier, kGatherThreads);  // the last tile's sources have been read
    for (int i = thread; i < Shape::kTokens; i += kGatherThreads) {
      sources[i] = i < tile.num_rows
                       ? static_cast<int32_t>(SourceOf(gemm, tile.first_row + i) * gemm.in_stride / kGatherUnit)
                       : -1;
    }
    SyncThreads(kGatherBarrier, kGatherThreads);
    for (int64_t k = 0; k < gemm.k; k += kTileK) {
      WaitParity(ring.Empty(at.stage), at.parity ^ 1);
      GatherRows<Shape::kTokens>(in + k, sources, thread / 8, unit, ring.Tokens(at.stage));
      CopyAsyncCommit();
      at.Advance();
      if (num_stages++ < kGatherLag) continue;
      CopyAsyncWait<kGatherLag>();
      AnnounceTokens(ring.Full(announced.stage));
      announced.Advance();
    }
  });
  CopyAsyncWait<0>();
  for (; announced.stage != at.stage; announced.Advance()) AnnounceTokens(ring.Full(announced.stage));
}

// What becomes of the sums of gate and up rows g and g + 8, or of any two such rows.
enum class Result { kSums, kSilu, kActivated };

// One of the warpgroups that multiply: 64 weight rows of each tile.
template <typename Shape>
struct Consumer {
  const GroupedGemm& gemm;
  const Ring<Shape>& ring;
  const int consumer;  // 0 or 1
  typename Ring<Shape>::Position at = {};
  float acc[Shape::kTokens / 2] = {};

  __device__ __forceinline__ void Release(int stage) const {
    __syncwarp();
    if (threadIdx.x % kWarp == 0) Arrive(ring.Empty(stage));
  }

  __device__ __forceinline__ void Multiply() {
    int last = -1;  // stage whose products are under way
    for (int64_t k = 0; k < gemm.k; k += kTileK) {
      WaitParity(ring.Full(at.stage), at.parity);
      const uint32_t weights = SharedAddress(ring.Weights(at.stage)) + consumer * kWgmmaOut * Shape::kRowBytes;
      const uint32_t tokens = SharedAddress(ring.Tokens(at.stage));
      WgmmaFence();
#pragma unroll
      for (int kk = 0; kk < kTileK / kWgmmaK; ++kk) {
        WgmmaBf16(acc, WgmmaDescriptor(weights + kk * kWgmmaK * 2), WgmmaDescriptor(tokens + kk * kWgmmaK * 2),
                  k + kk > 0);
      }
      WgmmaCommit();
      WgmmaWait<1>();
      if (last >= 0) Release(last);
      last = at.stage;
      at.Advance();
    }
    WgmmaWaitAll(acc);
    Release(last);
  }

  // Thread (g, q) of warp w has weight rows 16 w + g and 8 below, columns 2 q and 2 q + 1 of every 8.
  template <Result kResult>
  __device__ __forceinline__ void StoreAs(const ExpertTile& tile, int64_t out_block) {
    const int thread = threadIdx.x % kWarpgroup, warp = thread / kWarp;
    const int g = thread % kWarp / 4, q = thread % 4;
    constexpr bool kPairs = kResult != Result::kSums;  // of rows, that give one result
    constexpr int kUnits = kPairs ? kWgmmaOut / 16 : kWgmmaOut / 8;  // of 16 bytes, of one token's results
    const int64_t first_out = out_block * Shape::kOut + consumer * kWgmmaOut;
    const float upper_bias = BiasOf(gemm, tile.expert, first_out + warp * 16 + g);
    const float lower_bias = BiasOf(gemm, tile.expert, first_out + warp * 16 + g + 8);
    const int64_t first_col = kPairs ? first_out / 2 : first_out;
    const bool padding = kPairs && first_col + warp * 8 + g >= gemm.out_cols;
    unsigned char* const results = ring.Results(consumer);
#pragma unroll
    for (int first = 0; first < Shape::kTokens; first += Shape::kStoreTokens) {
      if (first >= tile.num_rows) break;
#pragma unroll
      for (int j = 0; j < Shape::kStoreTokens / 8; ++j) {
#pragma unroll
        for (int t = 0; t < 2; ++t) {
          const int index = (first / 8 + j) * 4 + t;
          const float upper = acc[index] + upper_bias, lower = acc[index + 2] + lower_bias;
          auto* const row = reinterpret_cast<uint16_t*>(results + (j * 8 + 2 * q + t) * Shape::kStoreRowBytes);
          if (kPairs) {
            // A division by more than 2^126 gives 0 here: less than bfloat16 can tell from it.
            const float result = kResult == Result::kSilu ? __fdividef(upper, 1.0f + expf(-upper)) * lower
                                                          : Activate(gemm, upper, lower);
            row[warp * 8 + g] = ToBf16Bits(padding ? 0.0f : result);
          } else {
            row[warp * 16 + g] = ToBf16Bits(upper);
            row[warp * 16 + g + 8] = ToBf16Bits(lower);
          }
        }
      }
      SyncThreads(kConsumerBarrier + consumer, kWarpgroup);
      for (int i = thread; i < Shape::kStoreTokens * kUnits; i += kWarpgroup) {
        const int token = i / kUnits, unit = i % kUnits;
        const int64_t col = first_col + unit * 8;
        if (first + token >= tile.num_rows || col >= gemm.out.stride) continue;
        *reinterpret_cast<uint4*>(gemm.out.bf16 + (tile.first_row + first + token) * gemm.out.stride + col) =
            *reinterpret_cast<const uint4*>(results + token * Shape::kStoreRowBytes + unit * 16);
      }
      SyncThreads(kConsumerBarrier + consumer, kWarpgroup);  // the next tokens take their place
    }
  }

  // One branch per tile instead of one per result.
  __device__ __forceinline__ void Store(const ExpertTile& tile, int64_t out_block) {
    if (gemm.output != GemmOutput::kSiluMul) {
      StoreAs<Result::kSums>(tile, out_block);
    } else if (gemm.swiglu_limit == 0.0f) {
      StoreAs<Result::kSilu>(tile, out_block);
    } else {
      StoreAs<Result::kActivated>(tile, out_block);
    }
  }

  __device__ __forceinline__ void Run() {
    const bool stamps = threadIdx.x % kWarpgroup == 0;
    ForEachTile<Shape::kOut, Shape::kTokens>(gemm, [&](const ExpertTile& tile, int64_t out_block) {
      if (stamps) StampStart(gemm, tile.expert);
      Multiply();
      Store(tile, out_block);
      if (stamps) StampEnd(gemm, tile.expert);
    });
  }
};

#endif  // SWITCHYARD_HOPPER

template <typename Shape>
__global__ void __launch_bounds__(Shape::kThreads, 1)
    WgmmaGemmKernel(const GroupedGemm gemm, const __grid_constant__ CUtensorMap weights) {
#if SWITCHYARD_HOPPER
  unsigned char* const shared = DynamicShared<unsigned char>();
  const Ring<Shape> ring = {shared + (kSwizzleBytes - SharedAddress(shared) % kSwizzleBytes) % kSwizzleBytes};
  if (threadIdx.x == 0) {
    PrefetchTensorMap(&weights);
    ring.InitBarriers();
  }
  BeginKernel();
  __syncthreads();
  if (threadIdx.x < kWarpgroup) {
    ReleaseRegisters<kLoaderRegisters>();
    if (threadIdx.x >= kWarp) {
      LoadTokens(gemm, ring);
    } else if (threadIdx.x == 0) {
      LoadWeights(gemm, &weights, ring);
    }
  } else {
    TakeRegisters<kConsumerRegisters>();
    Consumer<Shape> consumer = {gemm, ring, static_cast<int>(threadIdx.x) / kWarpgroup - 1};
    consumer.Run();
  }
#endif
}

template <int kTokens>
void LaunchShape(const GroupedGemm& gemm, const CUtensorMap& weights, int num_multiprocessors, cudaStream_t stream) {
  using Shape = WgmmaShape<kTokens>;
  const int64_t works = gemm.max_tiles * (gemm.weight_rows / Shape::kOut);
  Launch(WgmmaGemmKernel<Shape>, dim3(works < num_multiprocessors ? works : num_multiprocessors), dim3(Shape::kThreads),
         Shape::kSharedBytes, stream, gemm, weights);
}

}  // namespace

void LaunchWgmmaGemm(const GroupedGemm& gemm, const CUtensorMap& weights, int tile_tokens, int num_multiprocessors,
                     cudaStream_t stream) {
  switch (tile_tokens) {
    case 8: return LaunchShape<8>(gemm, weights, num_multiprocessors, stream);
    case 16: return LaunchShape<16>(gemm, weights, num_multiprocessors, stream);
    case 32: return LaunchShape<32>(gemm, weights, num_multiprocessors, stream);
    case 64: return LaunchShape<64>(gemm, weights, num_multiprocessors, stream);
    case 128: return LaunchShape<128>(gemm, weights, num_multiprocessors, stream);
    default: return LaunchShape<256>(gemm, weights, num_multiprocessors, stream);
  }
}

}  // namespace switchyard::cuda
