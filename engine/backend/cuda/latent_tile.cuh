// Attention over latents (MLA): the work of one block, whose warps share the sums of their slots by columns, because a
// row's are 512 wide and too many registers for one warp, and the scores by keys. What they owe each other goes through
// shared memory.
#ifndef SWITCHYARD_ENGINE_BACKEND_CUDA_LATENT_TILE_CUH_
#define SWITCHYARD_ENGINE_BACKEND_CUDA_LATENT_TILE_CUH_

#include <ptx.cuh>

#include "engine/backend/cuda/attention.cuh"

namespace switchyard::cuda {

// 16 kSlotTiles (row, head) slots against blocks of 64 keys. Shared memory, rows swizzled as in layout.h:
//   queries [kSlots][kDim] | weights [kSlots][64] | maxima, sums [kKeyTiles][kSlots] | stages of keys [64][kDim]
template <int kDimValue, int kSlotTilesValue>
struct LatentTile {
  static constexpr int kDim = kDimValue;  // of a key, padded with zeros
  static constexpr int kSlotTiles = kSlotTilesValue;
  static constexpr int kSlots = 16 * kSlotTiles;
  static constexpr int kKeyTiles = kKeyBlock / 16;
  static constexpr int kWarps = kSlotTiles * kKeyTiles;
  static constexpr int kThreads = kWarps * kWarp;
  static constexpr int kValues = kDim < kMaxLatentDim ? kDim : kMaxLatentDim;  // columns of a value, at most
  static constexpr int kWarpValues = kValues / kWarps;                         // of which a warp sums up
  static constexpr int kRowBytes = kDim * 2;
  static constexpr int kQueryBytes = kSlots * kRowBytes;
  static constexpr int kWeightBytes = kSlots * kKeyBlock * 2;
  static constexpr int kExchangeBytes = kKeyTiles * kSlots * 4;
  static constexpr int kStageBytes = kKeyBlock * kRowBytes;

  static constexpr int SharedBytes(int num_stages) {
    return kQueryBytes + kWeightBytes + 2 * kExchangeBytes + num_stages * kStageBytes;
  }
  // The wide tile leaves room for one block on a multiprocessor, which fetches keys while it computes; of the others
  // two or more run side by side.
  static int NumStages(const AttentionArgs& args) {
    return kSlotTiles > 1 && SharedBytes(2) <= args.max_shared_bytes ? 2 : 1;
  }

  // 16-byte unit `unit` of a row of queries or keys.
  __device__ static unsigned char* Unit(unsigned char* rows, int row, int unit) {
    return rows + row * kRowBytes + (unit ^ (row & 7)) * 16;
  }
};

// Softmax state of a chunk, or of all chunks so far. A lane has slots g and g + 8 of each tile of 16, g = lane / 4.
template <typename Tile>
struct LatentState {
  float max[Tile::kSlotTiles][2];
  float sum[Tile::kSlotTiles][2];
  float out[Tile::kSlotTiles][Tile::kWarpValues / 8][4];  // elements 0, 1 of slot g and 2, 3 of slot g + 8

  __device__ void Clear() {
#pragma unroll
    for (int t = 0; t < Tile::kSlotTiles; ++t) {
      for (int i = 0; i < 2; ++i) {
        max[t][i] = kNoMaximum;
        sum[t][i] = 0.0f;
      }
#pragma unroll
      for (int n = 0; n < Tile::kWarpValues / 8; ++n) {
        for (int c = 0; c < 4; ++c) out[t][n][c] = 0.0f;
      }
    }
  }

  __device__ void MergeChunk(const LatentState& chunk) {
#pragma unroll
    for (int t = 0; t < Tile::kSlotTiles; ++t) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        float keep, add;
        MergeFactors(chunk.max[t][i], &max[t][i], &keep, &add);
        sum[t][i] = Merge(sum[t][i], keep, chunk.sum[t][i], add);
#pragma unroll
        for (int n = 0; n < Tile::kWarpValues / 8; ++n) {
#pragma unroll
          for (int c = 2 * i; c < 2 * i + 2; ++c) out[t][n][c] = Merge(out[t][n][c], keep, chunk.out[t][n][c], add);
        }
      }
    }
  }
};

// One block's walk over keys.
template <typename Tile>
struct LatentBlock {
  const DeviceStep& step;
  const AttentionArgs& args;
  unsigned char* const queries;
  unsigned char* const weights;
  float* const maxima;
  float* const sums;
  unsigned char* const stages;
  const int num_stages;
  const int lane, warp;
  const int slot_tile, key_tile;  // whose scores this warp computes
  int32_t positions[2];           // of this lane's slots of that tile, negative for none
  int32_t first_visible[2];
  float own_sums[2];              // of this lane's weights in the chunk
  LatentState<Tile> chunk;

  __device__ LatentBlock(const DeviceStep& device_step, const AttentionArgs& attention_args, unsigned char* shared,
                         int stage_count)
      : step(device_step),
        args(attention_args),
        queries(shared),
        weights(queries + Tile::kQueryBytes),
        maxima(reinterpret_cast<float*>(weights + Tile::kWeightBytes)),
        sums(reinterpret_cast<float*>(weights + Tile::kWeightBytes + Tile::kExchangeBytes)),
        stages(weights + Tile::kWeightBytes + 2 * Tile::kExchangeBytes),
        num_stages(stage_count),
        lane(threadIdx.x % kWarp),
        warp(threadIdx.x / kWarp),
        slot_tile(warp % Tile::kSlotTiles),
        key_tile(warp / Tile::kSlotTiles) {}

  // Queries to shared memory as bfloat16, with zeros for unused slots and padding.
  template <typename SlotAt>
  __device__ void LoadQueries(const float* from, const SlotAt& slot_at) {
    for (int i = threadIdx.x; i < Tile::kSlots * Tile::kDim / 2; i += Tile::kThreads) {
      const int row = i / (Tile::kDim / 2), d = i % (Tile::kDim / 2) * 2;
      const Slot slot = slot_at(row);
      float low = 0.0f, high = 0.0f;
      if (slot.used && d < args.head_dim) {
        const float* const at = from + slot.row * QSize(args) + static_cast<int64_t>(slot.head) * args.head_dim + d;
        low = at[0];
        high = at[1];
      }
      *reinterpret_cast<uint32_t*>(Tile::Unit(queries, row, d / 8) + d % 8 * 2) = PackBf16(low, high);
    }
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const Slot slot = slot_at(slot_tile * 16 + lane / 4 + 8 * i);
      positions[i] = slot.used ? step.positions[slot.row] : -1;
      first_visible[i] = FirstVisible(args, positions[i]);
    }
  }

  // Starts copying keys [first_key, first_key + 64) to a stage, zeros beyond `last_key`; each warp takes whole keys.
  __device__ void LoadKeys(int64_t row, int32_t first_key, int32_t last_key, int stage) {
    unsigned char* const to = stages + stage * Tile::kStageBytes;
    for (int key = warp; key < kKeyBlock; key += Tile::kWarps) {
      const bool visible = first_key + key <= last_key;
      const uint16_t* const from =
          static_cast<const uint16_t*>(args.keys) + (visible ? CacheIndex(step, args, row, first_key + key, 0) : 0);
      for (int unit = lane; unit < Tile::kDim / 8; unit += kWarp) {
        const bool valid = visible && unit * 8 < args.dim_pad;
        CopyAsync16(Tile::Unit(to, key, unit), from + (valid ? unit * 8 : 0), valid);
      }
    }
    CopyAsyncCommit();
  }

  // The warp's scores of 16 slots with 16 keys, scaled to powers of two, -infinity where the slot must not look.
  __device__ void Score(unsigned char* keys, int32_t first_key, float (&scores)[2][4]) {
#pragma unroll 4
    for (int kk = 0; kk < Tile::kDim / 16; ++kk) {
      uint32_t a[4], b[4];
      LoadMatrix4(a, Tile::Unit(queries, slot_tile * 16 + lane % 16, kk * 2 + lane / 16));
      LoadMatrix4(b, Tile::Unit(keys, key_tile * 16 + lane % 8 + lane / 16 * 8, kk * 2 + lane / 8 % 2));
      MmaBf16(scores[0], a, b[0], b[1]);
      MmaBf16(scores[1], a, b[2], b[3]);
    }
    float largest[2] = {kNoMaximum, kNoMaximum};
#pragma unroll
    for (int n = 0; n < 2; ++n) {
#pragma unroll
      for (int c = 0; c < 4; ++c) {
        const int32_t key = first_key + key_tile * 16 + n * 8 + 2 * (lane % 4) + c % 2;
        const bool visible = key >= first_visible[c / 2] && key <= positions[c / 2];
        scores[n][c] = visible ? scores[n][c] * (args.scale * kLog2E) : -INFINITY;
        largest[c / 2] = fmaxf(largest[c / 2], scores[n][c]);
      }
    }
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      largest[i] = fmaxf(largest[i], __shfl_xor_sync(kAllLanes, largest[i], 1));
      largest[i] = fmaxf(largest[i], __shfl_xor_sync(kAllLanes, largest[i], 2));
      if (lane % 4 == 0) maxima[key_tile * Tile::kSlots + slot_tile * 16 + lane / 4 + 8 * i] = largest[i];
    }
  }

  // Adds 64 keys to the chunk.
  __device__ void Attend(unsigned char* keys, int32_t first_key) {
    float scores[2][4] = {};
    Score(keys, first_key, scores);
    __syncthreads();
    float own_max[2] = {kNoMaximum, kNoMaximum};
#pragma unroll
    for (int t = 0; t < Tile::kSlotTiles; ++t) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        float largest = chunk.max[t][i];
        for (int k = 0; k < Tile::kKeyTiles; ++k) {
          largest = fmaxf(largest, maxima[k * Tile::kSlots + t * 16 + lane / 4 + 8 * i]);
        }
        const float correction = exp2f(chunk.max[t][i] - largest);
        chunk.max[t][i] = largest;
        if (t == slot_tile) {
          own_max[i] = largest;
          own_sums[i] *= correction;
        }
#pragma unroll
        for (int n = 0; n < Tile::kWarpValues / 8; ++n) {
          for (int c = 2 * i; c < 2 * i + 2; ++c) chunk.out[t][n][c] *= correction;
        }
      }
    }
#pragma unroll
    for (int n = 0; n < 2; ++n) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const uint32_t pair =
            PackBf16(exp2f(scores[n][2 * i] - own_max[i]), exp2f(scores[n][2 * i + 1] - own_max[i]));
        // The sum is over what is multiplied: the rounded weights.
        own_sums[i] += Bf16Bits(static_cast<uint16_t>(pair));
        own_sums[i] += Bf16Bits(static_cast<uint16_t>(pair >> 16));
        const int slot = slot_tile * 16 + lane / 4 + 8 * i;
        *reinterpret_cast<uint32_t*>(weights + SwizzledOffset(slot, key_tile * 2 + n) + lane % 4 * 4) = pair;
      }
    }
    __syncthreads();
#pragma unroll
    for (int kk = 0; kk < Tile::kKeyTiles; ++kk) {
      uint32_t a[Tile::kSlotTiles][4];
#pragma unroll
      for (int t = 0; t < Tile::kSlotTiles; ++t) {
        LoadMatrix4(a[t], weights + SwizzledOffset(t * 16 + lane % 16, kk * 2 + lane / 16));
      }
#pragma unroll
      for (int n = 0; n < Tile::kWarpValues / 8; n += 2) {
        uint32_t b[4];
        LoadMatrix4Transposed(
            b, Tile::Unit(keys, kk * 16 + lane % 16, warp * (Tile::kWarpValues / 8) + n + lane / 16));
#pragma unroll
        for (int t = 0; t < Tile::kSlotTiles; ++t) {
          MmaBf16(chunk.out[t][n], a[t], b[0], b[1]);
          MmaBf16(chunk.out[t][n + 1], a[t], b[2], b[3]);
        }
      }
    }
  }

  // The chunk's sums: over the lanes of a slot, then over the tiles of keys in order.
  __device__ void FinishChunk() {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      own_sums[i] += __shfl_xor_sync(kAllLanes, own_sums[i], 1);
      own_sums[i] += __shfl_xor_sync(kAllLanes, own_sums[i], 2);
      if (lane % 4 == 0) sums[key_tile * Tile::kSlots + slot_tile * 16 + lane / 4 + 8 * i] = own_sums[i];
    }
    __syncthreads();
#pragma unroll
    for (int t = 0; t < Tile::kSlotTiles; ++t) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        for (int k = 0; k < Tile::kKeyTiles; ++k) {
          chunk.sum[t][i] += sums[k * Tile::kSlots + t * 16 + lane / 4 + 8 * i];
        }
      }
    }
  }

  __device__ void ClearChunk() {
    chunk.Clear();
    own_sums[0] = own_sums[1] = 0.0f;
  }

  // Walks the keys [begin, end), begin a multiple of 64, and calls finished() whenever a chunk is complete.
  template <typename Finished>
  __device__ void Walk(int64_t row, int32_t begin, int32_t end, const Finished& finished) {
    ClearChunk();
    if (num_stages > 1) LoadKeys(row, begin, end - 1, 0);
    int stage = 0;
    for (int32_t key = begin; key < end; key += kKeyBlock) {
      if (num_stages > 1) {
        CopyAsyncWait<0>();
        __syncthreads();  // this stage is here, and the other one has been read
        if (key + kKeyBlock < end) LoadKeys(row, key + kKeyBlock, end - 1, stage ^ 1);
      } else {
        __syncthreads();  // the stage has been read
        LoadKeys(row, key, end - 1, 0);
        CopyAsyncWait<0>();
        __syncthreads();
      }
      Attend(stages + stage * Tile::kStageBytes, key);
      if (num_stages > 1) stage ^= 1;
      if ((key + kKeyBlock) % kKeyChunk != 0 && key + kKeyBlock < end) continue;
      FinishChunk();
      finished();
      ClearChunk();
    }
  }

  // body(slot number, n, c, column of the value) for each sum of this lane: element [c] of its nth eight columns.
  template <typename Body>
  __device__ void ForColumns(const Body& body) const {
#pragma unroll
    for (int n = 0; n < Tile::kWarpValues / 8; ++n) {
#pragma unroll
      for (int c = 0; c < 2; ++c) {
        const int d = warp * Tile::kWarpValues + n * 8 + 2 * (lane % 4) + c;
        if (d < args.latent_dim) body(n, c, d);
      }
    }
  }
};

}  // namespace switchyard::cuda

#endif  // SWITCHYARD_ENGINE_BACKEND_CUDA_LATENT_TILE_CUH_
