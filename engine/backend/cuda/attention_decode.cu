// Attention of rows that stand alone over a bf16 cache, split over chunks of keys. Roofline: bytes = each chunk's keys
// and values once, for all heads of a group; the partial results, written and read once, are 1/16 of it for 8 heads of
// 128, and stay in the L2 cache.
#include <ptx.cuh>

#include "engine/backend/cuda/attention_tiles.cuh"

namespace switchyard::cuda {
namespace {

constexpr int kDecodeWarps = 4;
constexpr int kMergeWarps = 4;
// That a last block merges: one multiprocessor gets no more than some 100 GB/s, which costs more than a launch where
// a group of 8 heads has 64 chunks.
constexpr int64_t kMaxChunksOfLastBlock = 32;

// One block per (row, KV head, chunk of 256 keys, 16 heads of the group). All warps copy keys and values, of which one
// warp alone could not ask for enough at a time (a multiprocessor needs 33 KB under way for its share of 4.3 TB/s at
// 1 us); the first computes. Who finishes last merges the row's chunks.
template <int kDim>
__global__ void __launch_bounds__(kDecodeWarps* kWarp)
    AttentionDecodeKernel(DeviceStep step, AttentionArgs args, int64_t first, int64_t max_chunks, int num_stages,
                          const float* qkv, DecodeScratch scratch, Planes out) {
  BeginKernel();
  uint16_t* const q = DynamicShared<uint16_t>();
  uint16_t* const key_tiles = q + kSlotsPerWarp * kTileStride<kDim>;
  const int32_t group = args.num_heads / args.num_kv_heads;
  const int32_t slots_of_group = (group + kSlotsPerWarp - 1) / kSlotsPerWarp;
  const int32_t chunk_index = static_cast<int32_t>(blockIdx.x);
  const int64_t i = blockIdx.z;  // of this launch
  const int32_t kv_head = blockIdx.y / slots_of_group;
  const int32_t first_slot = blockIdx.y % slots_of_group * kSlotsPerWarp;
  const int32_t first_head = kv_head * group + first_slot;
  if (first + i >= step.counts->num_decode_rows) return;
  const int64_t row = step.decode_rows[first + i];
  const int32_t position = step.positions[row];
  const ChunkRange chunks = VisibleChunks(args, position);
  if (chunk_index < chunks.first || chunk_index > chunks.last) return;
  const auto slot_at = [&](int s) { return Slot{row, first_head + s, first_slot + s < group}; };
  LoadQueries<kDim>(args, qkv, kSlotsPerWarp, slot_at, q);
  __syncthreads();

  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  const int32_t visible = FirstVisible(args, position);
  const int32_t positions[2] = {position, position}, first_visible[2] = {visible, visible};
  const int32_t begin = chunk_index * kKeyChunk;
  const int32_t end = begin + kKeyChunk <= position ? begin + kKeyChunk : position + 1;
  ChunkState<kDim> chunk;
  chunk.Clear();
  ForKeyBlocks<kDim>(step, args, row, kv_head, begin, end, position, num_stages, key_tiles,
                     [&](int32_t first_key, const uint16_t* keys, const uint16_t* values) {
                       if (warp > 0) return;
                       AttendKeys<kDim>(q, keys, values, first_key, first_visible, positions, args.scale * kLog2E,
                                        &chunk);
                     });
  for (int h = 0; h < 2 && warp == 0; ++h) {
    const int32_t slot = first_slot + lane / 4 + 8 * h;
    if (slot >= group) continue;
    float* const to = PartialAt(args, scratch.partials, max_chunks, i, kv_head, chunk_index, slot);
    if (lane % 4 == 0) {
      to[0] = chunk.max[h];
      to[1] = chunk.sum[2 * h];
    }
#pragma unroll
    for (int n = 0; n < kDim / 8; ++n) {
      for (int c = 0; c < 2; ++c) to[2 + n * 8 + 2 * (lane % 4) + c] = chunk.out[n][2 * h + c];
    }
  }
  if (max_chunks > kMaxChunksOfLastBlock) return;
  if (!IsLastBlock(scratch.finished + i * args.num_heads + first_head, chunks.last - chunks.first + 1)) return;
  for (int s = warp; s < kSlotsPerWarp && first_slot + s < group; s += kDecodeWarps) {
    MergeChunks<kDim / kWarp>(args, scratch.partials, max_chunks, i, row, first_head + s, chunks, out);
  }
  if (first_head == 0) ClearOutPadding(args, out, row, threadIdx.x, blockDim.x);
}

// One warp per (row, query head).
template <int kDimsPerLane>
__global__ void MergeChunksKernel(DeviceStep step, AttentionArgs args, int64_t first, int64_t max_chunks,
                                  float* partials, Planes out) {
  BeginKernel();
  const int64_t i = blockIdx.x;
  const int32_t head = static_cast<int32_t>(blockIdx.y) * kMergeWarps + threadIdx.x / kWarp;
  if (first + i >= step.counts->num_decode_rows || head >= args.num_heads) return;
  const int64_t row = step.decode_rows[first + i];
  MergeChunks<kDimsPerLane>(args, partials, max_chunks, i, row, head, VisibleChunks(args, step.positions[row]), out);
  if (head == 0) ClearOutPadding(args, out, row, threadIdx.x % kWarp, kWarp);
}

// Where every block has a multiprocessor to itself, all keys of its chunk may be under way at once.
template <int kDim>
int NumStages(const AttentionArgs& args, int64_t num_blocks) {
  if (num_blocks > args.num_multiprocessors) return kStages<kDim>;
  int stages = kMaxStages;
  while (stages > kStages<kDim> && AttentionSharedBytes<kDim>(kSlotsPerWarp, stages) > args.max_shared_bytes) {
    stages /= 2;
  }
  return stages;
}

}  // namespace

int64_t DecodePartialFloats(int64_t rows, const AttentionArgs& args, int64_t max_chunks) {
  return rows * args.num_heads * max_chunks * (2 + PartialDim(args));
}

int64_t MaxDecodeRows(const DecodeScratch& scratch, const AttentionArgs& args, int64_t max_chunks) {
  const int64_t by_partials = scratch.num_partials / DecodePartialFloats(1, args, max_chunks);
  const int64_t by_counters = kChunkCounters / args.num_heads;
  return by_partials < by_counters ? by_partials : by_counters;
}

void LaunchAttentionDecode(const DeviceStep& step, const AttentionArgs& args, int64_t first, int64_t rows,
                           int64_t max_chunks, const float* qkv, const DecodeScratch& scratch, Planes out,
                           cudaStream_t stream) {
  const int64_t groups = CeilDiv(args.num_heads / args.num_kv_heads, kSlotsPerWarp) * args.num_kv_heads;
  WithDim(args.dim_pad, [&](auto dim) {
    constexpr int kDim = decltype(dim)::value;
    const int num_stages = NumStages<kDim>(args, max_chunks * groups * rows);
    Launch(AttentionDecodeKernel<kDim>, dim3(max_chunks, groups, rows), dim3(kDecodeWarps * kWarp),
           AttentionSharedBytes<kDim>(kSlotsPerWarp, num_stages), stream, step, args, first, max_chunks, num_stages,
           qkv, scratch, out);
  });
  if (max_chunks > kMaxChunksOfLastBlock) {
    LaunchMergeChunks(step, args, first, rows, max_chunks, scratch.partials, out, stream);
  }
}

void LaunchMergeChunks(const DeviceStep& step, const AttentionArgs& args, int64_t first, int64_t rows,
                       int64_t max_chunks, float* partials, Planes out, cudaStream_t stream) {
  const auto kernel =
      args.latent_dim > 0 ? MergeChunksKernel<kMaxLatentDim / kWarp> : MergeChunksKernel<kMaxHeadDim / kWarp>;
  Launch(kernel, dim3(rows, CeilDiv(args.num_heads, kMergeWarps)), dim3(kMergeWarps * kWarp), 0, stream, step, args,
         first, max_chunks, partials, out);
}

}  // namespace switchyard::cuda
