// Attention of runs of rows of one sequence over a bf16 cache. One block per (tile of rows, KV head); the four warps
// share each key block. Roofline: flops = 4 * head_dim per (query head, key) on the matrix units; bytes = keys and
// values once per tile of 64 slots, mostly from the L2 cache.
#include <ptx.cuh>

#include "engine/backend/cuda/attention_tiles.cuh"

namespace switchyard::cuda {
namespace {

constexpr int kPrefillWarps = 4;
constexpr int kPrefillSlots = kPrefillWarps * kSlotsPerWarp;

template <int kDim>
__global__ void __launch_bounds__(kPrefillWarps* kWarp)
    AttentionPrefillKernel(DeviceStep step, AttentionArgs args, const PrefillTile* tiles, const float* qkv,
                           Planes out) {
  BeginKernel();
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
    ForKeyBlocks<kDim>(step, args, tile.first_row, kv_head, begin, end, last_position, kStages<kDim>, key_tiles,
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

}  // namespace

int32_t PrefillTileRows(const AttentionArgs& args) { return kPrefillSlots / (args.num_heads / args.num_kv_heads); }

void LaunchAttentionPrefill(const DeviceStep& step, const AttentionArgs& args, const PrefillTile* tiles,
                            int64_t num_tiles, const float* qkv, Planes out, cudaStream_t stream) {
  WithDim(args.dim_pad, [&](auto dim) {
    constexpr int kDim = decltype(dim)::value;
    Launch(AttentionPrefillKernel<kDim>, dim3(num_tiles, args.num_kv_heads), dim3(kPrefillWarps * kWarp),
           AttentionSharedBytes<kDim>(kPrefillSlots, kStages<kDim>), stream, step, args, tiles, qkv, out);
  });
}

}  // namespace switchyard::cuda
