// Attention of rows that stand alone over a bf16 cache, split over chunks of keys. Roofline: bytes = each chunk's keys
// and values once, for all heads of a group.
#include <ptx.cuh>

#include "engine/backend/cuda/attention_tiles.cuh"

namespace switchyard::cuda {
namespace {

constexpr int kHeadsPerBlock = 4;

// One warp per (row, KV head, chunk of 256 keys, 16 heads of the group).
template <int kDim>
__global__ void AttentionDecodeKernel(DeviceStep step, AttentionArgs args, int64_t first, int64_t max_chunks,
                                      const float* qkv, float* partials) {
  BeginKernel();
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
template <int kDimsPerLane>
__global__ void MergeChunksKernel(DeviceStep step, AttentionArgs args, int64_t first, int64_t max_chunks,
                                  float* partials, Planes out) {
  BeginKernel();
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
      if (d * kWarp + lane < PartialDim(args)) sums[d] = Merge(sums[d], keep, from[2 + d * kWarp + lane], add);
    }
  }
  for (int d = 0; d < kDimsPerLane; ++d) {
    if (d * kWarp + lane < ValueDim(args)) StoreOut(args, out, row, head, d * kWarp + lane, sums[d] / sum);
  }
  if (head == 0) ClearOutPadding(args, out, row, lane, kWarp);
}

}  // namespace

int64_t DecodePartialFloats(int64_t rows, const AttentionArgs& args, int64_t max_chunks) {
  return rows * args.num_heads * max_chunks * (2 + PartialDim(args));
}

void LaunchAttentionDecode(const DeviceStep& step, const AttentionArgs& args, int64_t first, int64_t rows,
                           int64_t max_chunks, const float* qkv, float* partials, Planes out, cudaStream_t stream) {
  const int64_t groups = CeilDiv(args.num_heads / args.num_kv_heads, kSlotsPerWarp) * args.num_kv_heads;
  WithDim(args.dim_pad, [&](auto dim) {
    constexpr int kDim = decltype(dim)::value;
    Launch(AttentionDecodeKernel<kDim>, dim3(max_chunks, groups, rows), dim3(kWarp),
           AttentionSharedBytes<kDim>(kSlotsPerWarp), stream, step, args, first, max_chunks, qkv, partials);
  });
  LaunchMergeChunks(step, args, first, rows, max_chunks, partials, out, stream);
}

void LaunchMergeChunks(const DeviceStep& step, const AttentionArgs& args, int64_t first, int64_t rows,
                       int64_t max_chunks, float* partials, Planes out, cudaStream_t stream) {
  const auto kernel =
      args.latent_dim > 0 ? MergeChunksKernel<kMaxLatentDim / kWarp> : MergeChunksKernel<kMaxHeadDim / kWarp>;
  Launch(kernel, dim3(rows, CeilDiv(args.num_heads, kHeadsPerBlock)), dim3(kHeadsPerBlock * kWarp), 0, stream, step,
         args, first, max_chunks, partials, out);
}

}  // namespace switchyard::cuda
