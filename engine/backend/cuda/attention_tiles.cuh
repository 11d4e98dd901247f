// Attention over a bf16 cache on the matrix units: tiles of 16 (row, head) slots per warp against blocks of 64 keys.
#ifndef SWITCHYARD_ENGINE_BACKEND_CUDA_ATTENTION_TILES_CUH_
#define SWITCHYARD_ENGINE_BACKEND_CUDA_ATTENTION_TILES_CUH_

#include <ptx.cuh>

#include <type_traits>

#include "engine/backend/cuda/attention.cuh"

namespace switchyard::cuda {

inline constexpr int kSlotsPerWarp = 16;

// Rows of a shared tile are padded by 16 bytes, so that eight rows of an ldmatrix tile lie in different banks.
template <int kDim>
inline constexpr int kTileStride = kDim + 8;

// The state of one chunk for the 16 slots of a warp. A lane has slots g and g + 8 (index 0 and 1), g = lane / 4.
template <int kDim>
struct ChunkState {
  float max[2];
  float sum[4];            // an accumulator of P x ones: elements 0 and 2 are the sums of the two slots
  float out[kDim / 8][4];  // P x V: elements 0, 1 of slot g and 2, 3 of slot g + 8

  __device__ void Clear() {
    max[0] = max[1] = kNoMaximum;
    for (int c = 0; c < 4; ++c) sum[c] = 0.0f;
#pragma unroll
    for (int n = 0; n < kDim / 8; ++n) {
      for (int c = 0; c < 4; ++c) out[n][c] = 0.0f;
    }
  }
};

// 64 keys from `first_key` on for the warp's 16 slots. q: [16][kTileStride], keys and values: [64][kTileStride].
// `positions` of the lane's two slots, negative for none. scale includes log2(e).
template <int kDim>
__device__ void AttendKeys(const uint16_t* q, const uint16_t* keys, const uint16_t* values, int32_t first_key,
                           const int32_t (&first_visible)[2], const int32_t (&positions)[2], float scale,
                           ChunkState<kDim>* state) {
  constexpr int kStride = kTileStride<kDim>;
  constexpr uint32_t kOnes = 0x3f803f80;  // two ones in bfloat16
  const int lane = threadIdx.x % kWarp;
  float scores[kKeyBlock / 8][4] = {};
#pragma unroll
  for (int kk = 0; kk < kDim / 16; ++kk) {
    uint32_t a[4];
    LoadMatrix4(a, q + (lane % 16) * kStride + kk * 16 + lane / 16 * 8);
#pragma unroll
    for (int n = 0; n < kKeyBlock / 8; n += 2) {
      uint32_t b[4];
      LoadMatrix4(b, keys + (n * 8 + lane % 8 + lane / 16 * 8) * kStride + kk * 16 + lane / 8 % 2 * 8);
      MmaBf16(scores[n], a, b[0], b[1]);
      MmaBf16(scores[n + 1], a, b[2], b[3]);
    }
  }
  float largest[2] = {state->max[0], state->max[1]};
#pragma unroll
  for (int n = 0; n < kKeyBlock / 8; ++n) {
#pragma unroll
    for (int c = 0; c < 4; ++c) {
      const int slot = c / 2;
      const int32_t key = first_key + n * 8 + 2 * (lane % 4) + c % 2;
      const bool visible = key >= first_visible[slot] && key <= positions[slot];
      scores[n][c] = visible ? scores[n][c] * scale : -INFINITY;
      largest[slot] = fmaxf(largest[slot], scores[n][c]);
    }
  }
#pragma unroll
  for (int slot = 0; slot < 2; ++slot) {
    largest[slot] = fmaxf(largest[slot], __shfl_xor_sync(kAllLanes, largest[slot], 1));
    largest[slot] = fmaxf(largest[slot], __shfl_xor_sync(kAllLanes, largest[slot], 2));
    const float correction = exp2f(state->max[slot] - largest[slot]);
    state->max[slot] = largest[slot];
    for (int c = 2 * slot; c < 2 * slot + 2; ++c) {
      state->sum[c] *= correction;
#pragma unroll
      for (int n = 0; n < kDim / 8; ++n) state->out[n][c] *= correction;
    }
  }
#pragma unroll
  for (int kk = 0; kk < kKeyBlock / 16; ++kk) {
    // The accumulators of two groups of 8 keys are, once exponentiated, the operand for 16 keys.
    uint32_t p[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float(&pair)[4] = scores[2 * kk + i / 2];
      const int slot = i % 2;
      p[i] = PackBf16(exp2f(pair[2 * slot] - largest[slot]), exp2f(pair[2 * slot + 1] - largest[slot]));
    }
    MmaBf16(state->sum, p, kOnes, kOnes);
#pragma unroll
    for (int n = 0; n < kDim / 8; n += 2) {
      uint32_t b[4];
      LoadMatrix4Transposed(b, values + (kk * 16 + lane % 16) * kStride + n * 8 + lane / 16 * 8);
      MmaBf16(state->out[n], p, b[0], b[1]);
      MmaBf16(state->out[n + 1], p, b[2], b[3]);
    }
  }
}

// The block's threads start copying keys and values [first_key, first_key + 64) of one head, zeros beyond `last_key`.
// first_key is a multiple of 64: the place of each run of 16 keys is looked up once.
template <int kDim>
__device__ void LoadKeyBlock(const DeviceStep& step, const AttentionArgs& args, int64_t row, int32_t kv_head,
                             int32_t first_key, int32_t last_key, uint16_t* keys, uint16_t* values) {
  constexpr int kUnits = kDim / 8;
#pragma unroll
  for (int first = 0; first < kKeyBlock; first += kKeyRun) {
    const int32_t num_valid = last_key - (first_key + first) + 1;
    const int64_t run = num_valid > 0 ? CacheIndex(step, args, row, first_key + first, kv_head) : 0;
    for (int i = threadIdx.x; i < kKeyRun * kUnits; i += blockDim.x) {
      const int key = i / kUnits, unit = i % kUnits;
      const bool valid = key < num_valid;
      const int64_t from = valid ? run + key * kDim + unit * 8 : 0;
      const int to = (first + key) * kTileStride<kDim> + unit * 8;
      CopyAsync16(keys + to, static_cast<const uint16_t*>(args.keys) + from, valid);
      CopyAsync16(values + to, static_cast<const uint16_t*>(args.values) + from, valid);
    }
  }
}

// Copies the q of `num_slots` slots to shared memory as bfloat16, with zeros for unused slots and padding.
template <int kDim, typename SlotAt>
__device__ void LoadQueries(const AttentionArgs& args, const float* qkv, int num_slots, const SlotAt& slot_at,
                            uint16_t* q) {
  for (int i = threadIdx.x; i < num_slots * kDim; i += blockDim.x) {
    const Slot slot = slot_at(i / kDim);
    const int d = i % kDim;
    float value = 0.0f;
    if (slot.used && d < args.head_dim) {
      value = qkv[slot.row * QkvSize(args) + static_cast<int64_t>(slot.head) * args.head_dim + d];
    }
    q[i / kDim * kTileStride<kDim> + d] = ToBf16Bits(value);
  }
}

// Blocks of keys in shared memory at a time: as many as let several blocks of threads share a multiprocessor, and at
// most a chunk.
template <int kDim>
inline constexpr int kStages = kDim <= 128 ? 2 : 1;
inline constexpr int kMaxStages = kKeyChunk / kKeyBlock;

template <int kDim>
inline constexpr int32_t AttentionSharedBytes(int num_slots, int num_stages) {
  return (num_slots + num_stages * 2 * kKeyBlock) * kTileStride<kDim> * static_cast<int32_t>(sizeof(uint16_t));
}

// Walks the key blocks of [begin, end), begin a multiple of 64: the next num_stages - 1 blocks are fetched while one is
// computed. num_stages: 1, 2 or 4.
template <int kDim, typename Compute>
__device__ void ForKeyBlocks(const DeviceStep& step, const AttentionArgs& args, int64_t row, int32_t kv_head,
                             int32_t begin, int32_t end, int32_t last_key, int num_stages, uint16_t* tiles,
                             const Compute& compute) {
  constexpr int kTile = kKeyBlock * kTileStride<kDim>;
  const auto keys_of = [&](int32_t block) { return tiles + block % num_stages * 2 * kTile; };
  const int32_t num_blocks = (end - begin + kKeyBlock - 1) / kKeyBlock;
  const auto load = [&](int32_t block) {
    if (block < num_blocks) {
      LoadKeyBlock<kDim>(step, args, row, kv_head, begin + block * kKeyBlock, last_key, keys_of(block),
                         keys_of(block) + kTile);
    }
    CopyAsyncCommit();
  };
  for (int32_t block = 0; block < num_stages - 1; ++block) load(block);
  for (int32_t block = 0; block < num_blocks; ++block) {
    load(block + num_stages - 1);
    if (num_stages == 1) {
      CopyAsyncWait<0>();
    } else if (num_stages == 2) {
      CopyAsyncWait<1>();
    } else {
      CopyAsyncWait<kMaxStages - 1>();
    }
    __syncthreads();
    compute(begin + block * kKeyBlock, keys_of(block), keys_of(block) + kTile);
    __syncthreads();
  }
}

// body(std::integral_constant<int, D>) for the padded head size D, one of 32, 64, ... 256.
template <int kDim = 32, typename Body>
void WithDim(int32_t dim_pad, const Body& body) {
  if (dim_pad <= kDim) return body(std::integral_constant<int, kDim>());
  if constexpr (kDim < kMaxHeadDim) return WithDim<kDim + 32>(dim_pad, body);
}

}  // namespace switchyard::cuda

#endif  // SWITCHYARD_ENGINE_BACKEND_CUDA_ATTENTION_TILES_CUH_
