// Norms, clip and RoPE of q and k, the KV cache, and causal attention over it.
//
// Every row's result has one order of operations, whoever shares the step. Keys are taken in blocks of 64 with a
// running maximum; 256 keys make a chunk with a softmax state of its own, and chunks are merged in order. Decode gives
// each chunk to another block of threads, prefill walks through them: the same functions on the same operands. Blocks
// and chunks are aligned to absolute positions, and one that a row must not see leaves its state exactly as it was.
#include <ptx.cuh>

#include <type_traits>

#include "engine/backend/cuda/kernels.h"
#include "engine/backend/cuda/warp.cuh"

namespace switchyard::cuda {
namespace {

constexpr float kNoMaximum = -1e30f;  // finite: exp2(kNoMaximum - kNoMaximum) is 1, not NaN
constexpr float kLog2E = 1.44269504088896341f;
constexpr int kPrepareThreads = 128;
constexpr int kMaxPairs = kMaxHeadDim / 2;

__device__ __forceinline__ int64_t QSize(const AttentionArgs& args) {
  return static_cast<int64_t>(args.num_heads) * args.head_dim;
}
__device__ __forceinline__ int64_t KvSize(const AttentionArgs& args) {
  return static_cast<int64_t>(args.num_kv_heads) * args.head_dim;
}
__device__ __forceinline__ int64_t QkvSize(const AttentionArgs& args) { return QSize(args) + 2 * KvSize(args); }

// Index of the first element of a position's keys (and values) of one KV head.
__device__ __forceinline__ int64_t CacheIndex(const DeviceStep& step, const AttentionArgs& args, int64_t row,
                                              int32_t position, int32_t kv_head) {
  const int64_t block = step.tables[step.table_starts[row] + position / args.block_size];
  return ((block * args.num_kv_heads + kv_head) * args.block_size + position % args.block_size) * args.dim_pad;
}

__device__ __forceinline__ int32_t FirstVisible(const AttentionArgs& args, int32_t position) {
  if (args.chunk_size > 0) return position < 0 ? 0 : position / args.chunk_size * args.chunk_size;
  const int32_t first = position - args.sliding_window + 1;
  return args.sliding_window > 0 && first > 0 ? first : 0;
}

// RMS norm of `size` values in place by one block.
__device__ void NormInPlace(float* x, const float* weight, int64_t size, float eps, float* shared) {
  float squares = 0.0f;
  for (int64_t i = threadIdx.x; i < size; i += blockDim.x) squares = fmaf(x[i], x[i], squares);
  const float scale = 1.0f / sqrtf(BlockSum(squares, shared) / static_cast<float>(size) + eps);
  for (int64_t i = threadIdx.x; i < size; i += blockDim.x) x[i] = x[i] * scale * weight[i];
}

// One warp norms (if asked) and rotates one head in place. Lane l has pairs l, l + 32, ...: no other lane touches them.
__device__ void PrepareHead(const AttentionArgs& args, const float* norm, const float* cosines, const float* sines,
                            float* head) {
  const int lane = threadIdx.x % kWarp;
  if (norm != nullptr) {
    float squares = 0.0f;
    for (int d = lane; d < args.head_dim; d += kWarp) squares = fmaf(head[d], head[d], squares);
    const float scale = 1.0f / sqrtf(WarpSum(squares) / static_cast<float>(args.head_dim) + args.qk_norm_eps);
    for (int d = lane; d < args.head_dim; d += kWarp) head[d] = head[d] * scale * norm[d];
    __syncwarp();
  }
  for (int m = lane; m < args.rotated_pairs; m += kWarp) {
    float* const first = head + (args.rope_interleaved ? 2 * m : m);
    float* const second = args.rope_interleaved ? first + 1 : first + args.rotated_pairs;
    const float a = *first, b = *second;
    *first = a * cosines[m] - b * sines[m];
    *second = b * cosines[m] + a * sines[m];
  }
  if (args.qk_norm != 3) return;
  __syncwarp();
  float squares = 0.0f;
  for (int d = lane; d < args.head_dim; d += kWarp) squares = fmaf(head[d], head[d], squares);
  const float scale = 1.0f / sqrtf(WarpSum(squares) / static_cast<float>(args.head_dim) + args.qk_norm_eps);
  for (int d = lane; d < args.head_dim; d += kWarp) head[d] *= scale;
}

// One warp writes the keys and values of one head. A value row that is not finite is stored as zeros under a NaN key:
// who sees it is lost either way, and 0 * infinity can never leak from a key that is masked.
__device__ void StoreKeyValue(const AttentionArgs& args, int64_t index, const float* key, const float* value) {
  const int lane = threadIdx.x % kWarp;
  bool finite = true;
  for (int d = lane; d < args.head_dim; d += kWarp) finite = finite && isfinite(value[d]);
  finite = __ballot_sync(kAllLanes, finite) == kAllLanes;
  for (int d = lane; d < args.head_dim; d += kWarp) {
    const float k = !finite && d == 0 ? NAN : key[d];
    const float v = finite ? value[d] : 0.0f;
    if (args.cache_is_bf16) {
      static_cast<uint16_t*>(args.keys)[index + d] = ToBf16Bits(k);
      // The largest floats round to infinity; they saturate.
      const uint16_t bits = ToBf16Bits(v);
      static_cast<uint16_t*>(args.values)[index + d] = (bits & 0x7fff) == 0x7f80 ? bits - 1 : bits;
    } else {
      static_cast<float*>(args.keys)[index + d] = k;
      static_cast<float*>(args.values)[index + d] = v;
    }
  }
}

// One block per row. Roofline: bytes = rows * qkv size * 8 + the cache rows.
__global__ void PrepareQkvKernel(DeviceStep step, AttentionArgs args, float* qkv) {
  __shared__ float cosines[kMaxPairs];
  __shared__ float sines[kMaxPairs];
  __shared__ float shared[kPrepareThreads / kWarp];
  const int64_t row = blockIdx.x;
  if (row >= step.counts->num_tokens) return;
  float* const q = qkv + row * QkvSize(args);
  float* const k = q + QSize(args);
  const float* const v = k + KvSize(args);
  const int32_t position = step.positions[row];
  if (args.qk_norm == 1) {
    NormInPlace(q, args.q_norm, QSize(args), args.qk_norm_eps, shared);
    NormInPlace(k, args.k_norm, KvSize(args), args.qk_norm_eps, shared);
    __syncthreads();
  }
  if (args.clip > 0.0f) {
    for (int64_t i = threadIdx.x; i < QkvSize(args); i += blockDim.x) {
      const float x = q[i];  // written so that NaN stays NaN
      q[i] = x > args.clip ? args.clip : x < -args.clip ? -args.clip : x;
    }
  }
  for (int m = threadIdx.x; m < args.rotated_pairs; m += blockDim.x) {
    // Reduced in double: a float angle of 100,000 has no digits left behind the point.
    constexpr double kTwoPi = 6.283185307179586477;
    const double angle = static_cast<double>(position) * static_cast<double>(args.inv_freq[m]);
    const float reduced = static_cast<float>(angle - rint(angle / kTwoPi) * kTwoPi);
    cosines[m] = cosf(reduced) * args.rope_factor;
    sines[m] = sinf(reduced) * args.rope_factor;
  }
  __syncthreads();
  const int warp = threadIdx.x / kWarp, num_warps = blockDim.x / kWarp;
  for (int h = warp; h < args.num_heads; h += num_warps) {
    float* const head = q + h * args.head_dim;
    PrepareHead(args, args.qk_norm == 2 ? args.q_norm : nullptr, cosines, sines, head);
    if (args.temperature_scale == 0.0f) continue;
    __syncwarp();
    const float steps = floorf(static_cast<float>(position + 1) / args.temperature_floor);
    const float temperature = 1.0f + args.temperature_scale * log1pf(steps);
    for (int d = threadIdx.x % kWarp; d < args.head_dim; d += kWarp) head[d] *= temperature;
  }
  for (int h = warp; h < args.num_kv_heads; h += num_warps) {
    float* const key = k + h * args.head_dim;
    PrepareHead(args, args.qk_norm == 2 ? args.k_norm : nullptr, cosines, sines, key);
    __syncwarp();
    StoreKeyValue(args, CacheIndex(step, args, row, position, h), key, v + h * args.head_dim);
  }
}

__device__ __forceinline__ void StoreOut(const AttentionArgs& args, Planes out, int64_t row, int32_t head, int dim,
                                         float value) {
  const int64_t col = static_cast<int64_t>(head) * args.head_dim + dim;
  if (out.f32 != nullptr) out.f32[row * QSize(args) + col] = value;
  if (out.bf16 != nullptr) out.bf16[row * out.stride + col] = ToBf16Bits(value);
}

// The padding of a row's bf16 plane, by the threads that own head 0.
__device__ __forceinline__ void ClearOutPadding(const AttentionArgs& args, Planes out, int64_t row, int thread,
                                                int num_threads) {
  if (out.bf16 == nullptr) return;
  for (int64_t c = QSize(args) + thread; c < out.stride; c += num_threads) out.bf16[row * out.stride + c] = 0;
}

// fp32 cache, one warp per (row, query head), for models that are kept in fp32. Roofline: bytes = keys and values of
// the row's past, for each query head (the caches serve the heads of a group).
__global__ void AttentionF32Kernel(DeviceStep step, AttentionArgs args, const float* qkv, Planes out) {
  constexpr int kDimsPerLane = kMaxHeadDim / kWarp;
  const int lane = threadIdx.x % kWarp;
  const int64_t row = blockIdx.x;
  const int32_t head = blockIdx.y * (blockDim.x / kWarp) + threadIdx.x / kWarp;
  if (row >= step.counts->num_tokens || head >= args.num_heads) return;
  const int32_t kv_head = head / (args.num_heads / args.num_kv_heads);
  const int32_t position = step.positions[row];
  const int32_t first = FirstVisible(args, position);
  const float* const q = qkv + row * QkvSize(args) + static_cast<int64_t>(head) * args.head_dim;
  // A sink is where a row starts from: a key that was seen before all others and had no value.
  float running_max = args.sinks != nullptr ? args.sinks[head] : kNoMaximum;
  float running_sum = args.sinks != nullptr ? 1.0f : 0.0f;
  float sums[kDimsPerLane] = {};
  for (int32_t base = first / kKeyBlock * kKeyBlock; base <= position; base += kKeyBlock) {
    float scores[2], weights[2];
    float largest = running_max;
    for (int i = 0; i < 2; ++i) {
      const int32_t key = base + i * kWarp + lane;
      scores[i] = -INFINITY;
      if (key < first || key > position) continue;
      const float* const keys = static_cast<const float*>(args.keys) + CacheIndex(step, args, row, key, kv_head);
      float dot = 0.0f;
      for (int d = 0; d < args.head_dim; ++d) dot = fmaf(q[d], keys[d], dot);
      scores[i] = dot * args.scale;
      largest = fmaxf(largest, scores[i]);
    }
    largest = WarpMax(largest);
    const float correction = expf(running_max - largest);
    for (int i = 0; i < 2; ++i) weights[i] = expf(scores[i] - largest);
    running_sum = fmaf(running_sum, correction, WarpSum(weights[0] + weights[1]));
    running_max = largest;
    for (int i = 0; i < kDimsPerLane; ++i) sums[i] *= correction;
    for (int j = 0; j < kKeyBlock && base + j <= position; ++j) {
      const float weight = __shfl_sync(kAllLanes, weights[j / kWarp], j % kWarp);
      if (base + j < first) continue;
      const float* const values =
          static_cast<const float*>(args.values) + CacheIndex(step, args, row, base + j, kv_head);
      for (int i = 0; i < kDimsPerLane; ++i) {
        const int d = i * kWarp + lane;
        if (d < args.head_dim) sums[i] = fmaf(weight, values[d], sums[i]);
      }
    }
  }
  for (int i = 0; i < kDimsPerLane; ++i) {
    const int d = i * kWarp + lane;
    if (d < args.head_dim) StoreOut(args, out, row, head, d, sums[i] / running_sum);
  }
  if (head == 0) ClearOutPadding(args, out, row, lane, kWarp);
}

// ---- bf16 cache: tiles of 16 (row, head) slots per warp on the matrix units ----

// Merges the softmax state of a chunk into that of the chunks before it.
__device__ __forceinline__ void MergeFactors(float chunk_max, float* total_max, float* keep, float* add) {
  const float largest = fmaxf(*total_max, chunk_max);
  *keep = exp2f(*total_max - largest);
  *add = exp2f(chunk_max - largest);
  *total_max = largest;
}
__device__ __forceinline__ float Merge(float total, float keep, float chunk, float add) {
  return fmaf(chunk, add, total * keep);
}

// A sink counts as a chunk before all others, with one key that has no value.
__device__ __forceinline__ void StartFromSink(const AttentionArgs& args, int32_t head, float* max, float* sum) {
  if (args.sinks == nullptr) return;
  *max = args.sinks[head] * kLog2E;
  *sum = 1.0f;
}

// Rows of a shared tile are padded by 16 bytes, so that eight rows of an ldmatrix tile lie in different banks.
template <int kDim>
constexpr int kTileStride = kDim + 8;

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
template <int kDim>
__device__ void LoadKeyBlock(const DeviceStep& step, const AttentionArgs& args, int64_t row, int32_t kv_head,
                             int32_t first_key, int32_t last_key, uint16_t* keys, uint16_t* values) {
  constexpr int kUnits = kDim / 8;
  for (int i = threadIdx.x; i < kKeyBlock * kUnits; i += blockDim.x) {
    const int key = i / kUnits, unit = i % kUnits;
    const bool valid = first_key + key <= last_key;
    const int64_t from = valid ? CacheIndex(step, args, row, first_key + key, kv_head) + unit * 8 : 0;
    const int to = key * kTileStride<kDim> + unit * 8;
    CopyAsync16(keys + to, static_cast<const uint16_t*>(args.keys) + from, valid);
    CopyAsync16(values + to, static_cast<const uint16_t*>(args.values) + from, valid);
  }
}

// Which (row, query head) a slot is.
struct Slot {
  int64_t row;
  int32_t head;
  bool used;
};

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

template <int kDim>
constexpr int kStages = kDim <= 128 ? 2 : 1;

template <int kDim>
constexpr size_t AttentionSharedBytes(int num_slots) {
  return (num_slots + kStages<kDim> * 2 * kKeyBlock) * kTileStride<kDim> * sizeof(uint16_t);
}

// Walks the key blocks of [begin, end), begin a multiple of 64: the next block is fetched while one is computed.
template <int kDim, typename Compute>
__device__ void ForKeyBlocks(const DeviceStep& step, const AttentionArgs& args, int64_t row, int32_t kv_head,
                             int32_t begin, int32_t end, int32_t last_key, uint16_t* tiles, const Compute& compute) {
  constexpr int kTile = kKeyBlock * kTileStride<kDim>;
  const auto keys_of = [&](int32_t block) { return tiles + block % kStages<kDim> * 2 * kTile; };
  const int32_t num_blocks = (end - begin + kKeyBlock - 1) / kKeyBlock;
  const auto load = [&](int32_t block) {
    if (block < num_blocks) {
      LoadKeyBlock<kDim>(step, args, row, kv_head, begin + block * kKeyBlock, last_key, keys_of(block),
                         keys_of(block) + kTile);
    }
    CopyAsyncCommit();
  };
  if (kStages<kDim> > 1) load(0);
  for (int32_t block = 0; block < num_blocks; ++block) {
    load(block + kStages<kDim> - 1);
    CopyAsyncWait<kStages<kDim> - 1>();
    __syncthreads();
    compute(begin + block * kKeyBlock, keys_of(block), keys_of(block) + kTile);
    __syncthreads();
  }
}

constexpr int kSlotsPerWarp = 16;
constexpr int kPrefillWarps = 4;
constexpr int kPrefillSlots = kPrefillWarps * kSlotsPerWarp;

// One block per (tile of rows, KV head); the four warps share each key block. Roofline: flops = 4 * head_dim per
// (query head, key) on the matrix units; bytes = keys and values once per tile of 64 slots, mostly from the L2 cache.
template <int kDim>
__global__ void __launch_bounds__(kPrefillWarps* kWarp)
    AttentionPrefillKernel(DeviceStep step, AttentionArgs args, const PrefillTile* tiles, const float* qkv,
                           Planes out) {
  uint16_t* const q = DynamicShared<uint16_t>();
  uint16_t* const key_tiles = q + kPrefillSlots * kTileStride<kDim>;
  const PrefillTile tile = tiles[blockIdx.x];
  const int32_t kv_head = blockIdx.y;
  const int32_t group = args.num_heads / args.num_kv_heads;
  const auto slot_at = [&](int i) {
    return Slot{tile.first_row + i / group, kv_head * group + i % group, i < tile.num_rows * group};
  };
  LoadQueries<kDim>(args, qkv, kPrefillSlots, slot_at, q);

  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  const int first_slot = warp * kSlotsPerWarp;
  Slot slots[2];
  int32_t positions[2], first_visible[2];
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    slots[i] = slot_at(first_slot + lane / 4 + 8 * i);
    positions[i] = slots[i].used ? step.positions[slots[i].row] : -1;
    first_visible[i] = FirstVisible(args, positions[i]);
  }
  const int32_t first_position = step.positions[tile.first_row];
  const int32_t last_position = first_position + tile.num_rows - 1;

  ChunkState<kDim> chunk, total;
  total.Clear();
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    if (slots[i].used) StartFromSink(args, slots[i].head, &total.max[i], &total.sum[2 * i]);
  }
  for (int32_t begin = FirstVisible(args, first_position) / kKeyChunk * kKeyChunk; begin <= last_position;
       begin += kKeyChunk) {
    const int32_t end = begin + kKeyChunk <= last_position ? begin + kKeyChunk : last_position + 1;
    chunk.Clear();
    ForKeyBlocks<kDim>(step, args, tile.first_row, kv_head, begin, end, last_position, key_tiles,
                       [&](int32_t first_key, const uint16_t* keys, const uint16_t* values) {
                         AttendKeys<kDim>(q + first_slot * kTileStride<kDim>, keys, values, first_key, first_visible,
                                          positions, args.scale * kLog2E, &chunk);
                       });
#pragma unroll
  for (int i = 0; i < 2; ++i) {
      float keep, add;
      MergeFactors(chunk.max[i], &total.max[i], &keep, &add);
      total.sum[2 * i] = Merge(total.sum[2 * i], keep, chunk.sum[2 * i], add);
#pragma unroll
      for (int n = 0; n < kDim / 8; ++n) {
#pragma unroll
        for (int c = 2 * i; c < 2 * i + 2; ++c) total.out[n][c] = Merge(total.out[n][c], keep, chunk.out[n][c], add);
      }
    }
  }
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    if (!slots[i].used) continue;
#pragma unroll
    for (int n = 0; n < kDim / 8; ++n) {
#pragma unroll
      for (int c = 0; c < 2; ++c) {
        const int d = n * 8 + 2 * (lane % 4) + c;
        if (d < args.head_dim) {
          StoreOut(args, out, slots[i].row, slots[i].head, d, total.out[n][2 * i + c] / total.sum[2 * i]);
        }
      }
    }
  }
  if (kv_head != 0) return;
  for (int r = 0; r < tile.num_rows; ++r) ClearOutPadding(args, out, tile.first_row + r, threadIdx.x, blockDim.x);
}

// partials: [row of the launch][kv head][chunk][slot of the group][2 + dim_pad]: maximum, sum, output.
__device__ __forceinline__ float* PartialAt(const AttentionArgs& args, float* partials, int64_t max_chunks, int64_t i,
                                            int32_t kv_head, int64_t chunk, int32_t slot) {
  const int32_t group = args.num_heads / args.num_kv_heads;
  return partials + ((((i * args.num_kv_heads + kv_head) * max_chunks + chunk) * group + slot) * (2 + args.dim_pad));
}

// One warp per (row, KV head, chunk of 256 keys, 16 heads of the group). Roofline: bytes = the chunk's keys and values
// once, for all heads of the group.
template <int kDim>
__global__ void AttentionDecodeKernel(DeviceStep step, AttentionArgs args, int64_t first, int64_t max_chunks,
                                      const float* qkv, float* partials) {
  uint16_t* const q = DynamicShared<uint16_t>();
  uint16_t* const key_tiles = q + kSlotsPerWarp * kTileStride<kDim>;
  const int32_t group = args.num_heads / args.num_kv_heads;
  const int32_t slots_of_group = (group + kSlotsPerWarp - 1) / kSlotsPerWarp;
  const int64_t chunk_index = blockIdx.x, i = blockIdx.z;  // of this launch
  const int32_t kv_head = blockIdx.y / slots_of_group;
  const int32_t first_slot = blockIdx.y % slots_of_group * kSlotsPerWarp;
  if (first + i >= step.counts->num_decode_rows) return;
  const int64_t row = step.decode_rows[first + i];
  const int32_t position = step.positions[row];
  const int32_t begin = static_cast<int32_t>(chunk_index) * kKeyChunk;
  const int32_t visible = FirstVisible(args, position);
  if (begin > position || begin + kKeyChunk <= visible) return;
  const auto slot_at = [&](int s) { return Slot{row, kv_head * group + first_slot + s, first_slot + s < group}; };
  LoadQueries<kDim>(args, qkv, kSlotsPerWarp, slot_at, q);
  __syncthreads();

  const int32_t positions[2] = {position, position}, first_visible[2] = {visible, visible};
  const int32_t end = begin + kKeyChunk <= position ? begin + kKeyChunk : position + 1;
  ChunkState<kDim> chunk;
  chunk.Clear();
  ForKeyBlocks<kDim>(step, args, row, kv_head, begin, end, position, key_tiles,
                     [&](int32_t first_key, const uint16_t* keys, const uint16_t* values) {
                       AttendKeys<kDim>(q, keys, values, first_key, first_visible, positions, args.scale * kLog2E,
                                        &chunk);
                     });
  const int lane = threadIdx.x % kWarp;
  for (int h = 0; h < 2; ++h) {
    const int32_t slot = first_slot + lane / 4 + 8 * h;
    if (slot >= group) continue;
    float* const to = PartialAt(args, partials, max_chunks, i, kv_head, chunk_index, slot);
    if (lane % 4 == 0) {
      to[0] = chunk.max[h];
      to[1] = chunk.sum[2 * h];
    }
#pragma unroll
    for (int n = 0; n < kDim / 8; ++n) {
      for (int c = 0; c < 2; ++c) to[2 + n * 8 + 2 * (lane % 4) + c] = chunk.out[n][2 * h + c];
    }
  }
}

// One warp per (row, query head) merges the chunks in order. Roofline: bytes = the partial results once.
__global__ void MergeChunksKernel(DeviceStep step, AttentionArgs args, int64_t first, int64_t max_chunks,
                                  float* partials, Planes out) {
  constexpr int kDimsPerLane = kMaxHeadDim / kWarp;
  const int lane = threadIdx.x % kWarp;
  const int64_t i = blockIdx.x;
  const int32_t head = blockIdx.y * (blockDim.x / kWarp) + threadIdx.x / kWarp;
  if (first + i >= step.counts->num_decode_rows || head >= args.num_heads) return;
  const int64_t row = step.decode_rows[first + i];
  const int32_t group = args.num_heads / args.num_kv_heads;
  const int32_t position = step.positions[row];
  float max = kNoMaximum, sum = 0.0f;
  StartFromSink(args, head, &max, &sum);
  float sums[kDimsPerLane] = {};
  for (int32_t chunk = FirstVisible(args, position) / kKeyChunk; chunk <= position / kKeyChunk; ++chunk) {
    const float* const from = PartialAt(args, partials, max_chunks, i, head / group, chunk, head % group);
    float keep, add;
    MergeFactors(from[0], &max, &keep, &add);
    sum = Merge(sum, keep, from[1], add);
    for (int d = 0; d < kDimsPerLane; ++d) {
      if (d * kWarp + lane < args.dim_pad) sums[d] = Merge(sums[d], keep, from[2 + d * kWarp + lane], add);
    }
  }
  for (int d = 0; d < kDimsPerLane; ++d) {
    if (d * kWarp + lane < args.head_dim) StoreOut(args, out, row, head, d * kWarp + lane, sums[d] / sum);
  }
  if (head == 0) ClearOutPadding(args, out, row, lane, kWarp);
}

// body(std::integral_constant<int, D>) for the padded head size D, one of 32, 64, ... 256.
template <int kDim = 32, typename Body>
void WithDim(int32_t dim_pad, const Body& body) {
  if (dim_pad <= kDim) return body(std::integral_constant<int, kDim>());
  if constexpr (kDim < kMaxHeadDim) return WithDim<kDim + 32>(dim_pad, body);
}

constexpr int kHeadsPerBlock = 4;

}  // namespace

void LaunchPrepareQkv(const DeviceStep& step, const AttentionArgs& args, int64_t rows, float* qkv,
                      cudaStream_t stream) {
  Launch(PrepareQkvKernel, dim3(rows), dim3(kPrepareThreads), 0, stream, step, args, qkv);
}

void LaunchAttentionF32(const DeviceStep& step, const AttentionArgs& args, int64_t rows, const float* qkv, Planes out,
                        cudaStream_t stream) {
  Launch(AttentionF32Kernel, dim3(rows, CeilDiv(args.num_heads, kHeadsPerBlock)), dim3(kHeadsPerBlock * kWarp), 0,
         stream, step, args, qkv, out);
}

int64_t DecodePartialFloats(int64_t rows, const AttentionArgs& args, int64_t max_chunks) {
  return rows * args.num_heads * max_chunks * (2 + args.dim_pad);
}

void LaunchAttentionDecode(const DeviceStep& step, const AttentionArgs& args, int64_t first, int64_t rows,
                           int64_t max_chunks, const float* qkv, float* partials, Planes out, cudaStream_t stream) {
  const int64_t groups = CeilDiv(args.num_heads / args.num_kv_heads, kSlotsPerWarp) * args.num_kv_heads;
  WithDim(args.dim_pad, [&](auto dim) {
    constexpr int kDim = decltype(dim)::value;
    Launch(AttentionDecodeKernel<kDim>, dim3(max_chunks, groups, rows), dim3(kWarp),
           AttentionSharedBytes<kDim>(kSlotsPerWarp), stream, step, args, first, max_chunks, qkv, partials);
  });
  Launch(MergeChunksKernel, dim3(rows, CeilDiv(args.num_heads, kHeadsPerBlock)), dim3(kHeadsPerBlock * kWarp), 0,
         stream, step, args, first, max_chunks, partials, out);
}

int32_t PrefillTileRows(const AttentionArgs& args) { return kPrefillSlots / (args.num_heads / args.num_kv_heads); }

void LaunchAttentionPrefill(const DeviceStep& step, const AttentionArgs& args, const PrefillTile* tiles,
                            int64_t num_tiles, const float* qkv, Planes out, cudaStream_t stream) {
  WithDim(args.dim_pad, [&](auto dim) {
    constexpr int kDim = decltype(dim)::value;
    Launch(AttentionPrefillKernel<kDim>, dim3(num_tiles, args.num_kv_heads), dim3(kPrefillWarps * kWarp),
           AttentionSharedBytes<kDim>(kPrefillSlots), stream, step, args, tiles, qkv, out);
  });
}

}  // namespace switchyard::cuda
