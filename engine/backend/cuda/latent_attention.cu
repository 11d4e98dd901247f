// Attention over latents (MLA) in a bf16 cache: all query heads read the one key of a position, whose front is its
// value. Roofline: bytes = a key (1152 with DeepSeek's 512 + 64) once for all heads of a row: its tiles of heads run at
// the same time, so all but the first find it in the L2 cache; flops = 2 * (head_dim + latent_dim) per (query head,
// key), 242 per byte with 128 heads: at the edge of what the matrix units can do while memory delivers.
#include <ptx.cuh>

#include "engine/backend/cuda/latent_tile.cuh"

namespace switchyard::cuda {
namespace {

constexpr int kSmallDim = 128;  // of keys that get tiles of their own, which only tests and small models have
// That a last block merges, which has up to 32 heads of 2 KB for each: 8 chunks take it some 5 us.
constexpr int64_t kMaxChunksOfLastBlock = 8;

// What the blocks of a launch are: (item, chunk if split, group of heads), the last fastest. An item is a tile of rows,
// or where `tiles` is null a row of step.decode_rows.
struct LatentItems {
  const PrefillTile* tiles;
  int64_t first;  // of the decode rows
  int64_t max_chunks;
  int32_t num_stages;
};

// kSplit: one chunk to its partial result, and the last block of a row and group merges; else all chunks of the item.
template <typename Tile, bool kSplit>
__global__ void __launch_bounds__(Tile::kThreads)
    LatentAttentionKernel(DeviceStep step, AttentionArgs args, LatentItems items, const float* q, DecodeScratch scratch,
                          Planes out) {
  BeginKernel();
  const int64_t groups = CeilDiv(args.num_heads, Tile::kSlots);
  const int32_t group = static_cast<int32_t>(blockIdx.x % groups);
  const int64_t chunk_index = kSplit ? blockIdx.x / groups % items.max_chunks : 0;
  const int64_t item = blockIdx.x / groups / (kSplit ? items.max_chunks : 1);
  if (items.tiles == nullptr && items.first + item >= step.counts->num_decode_rows) return;
  const PrefillTile tile =
      items.tiles != nullptr ? items.tiles[item] : PrefillTile{step.decode_rows[items.first + item], 1};
  const int32_t heads = args.num_heads < Tile::kSlots ? args.num_heads : Tile::kSlots;  // of the tile
  const auto slot_at = [&](int i) {
    const int32_t head = group * Tile::kSlots + i % heads;
    return Slot{tile.first_row + i / heads, head, i < tile.num_rows * heads && head < args.num_heads};
  };
  const int32_t first_position = step.positions[tile.first_row];
  const int32_t last_position = first_position + tile.num_rows - 1;
  const ChunkRange chunks = {VisibleChunks(args, first_position).first, last_position / kKeyChunk};
  int32_t begin = chunks.first * kKeyChunk, end = last_position + 1;
  if (kSplit) {
    if (chunk_index < chunks.first || chunk_index > chunks.last) return;
    begin = static_cast<int32_t>(chunk_index) * kKeyChunk;
    end = end < begin + kKeyChunk ? end : begin + kKeyChunk;
  }
  LatentBlock<Tile> block(step, args, DynamicShared<unsigned char>(), items.num_stages);
  block.LoadQueries(q, slot_at);
  const auto for_slots = [&](const auto& body) {
#pragma unroll
    for (int t = 0; t < Tile::kSlotTiles; ++t) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const Slot slot = slot_at(t * 16 + block.lane / 4 + 8 * i);
        if (slot.used) body(t, i, slot);
      }
    }
  };
  if constexpr (kSplit) {
    block.Walk(tile.first_row, begin, end, [&] {
      for_slots([&](int t, int i, const Slot& slot) {
        float* const to = PartialAt(args, scratch.partials, items.max_chunks, item, 0, chunk_index, slot.head);
        if (block.warp == 0 && block.lane % 4 == 0) {
          to[0] = block.chunk.max[t][i];
          to[1] = block.chunk.sum[t][i];
        }
        block.ForColumns([&](int n, int c, int d) { to[2 + d] = block.chunk.out[t][n][2 * i + c]; });
      });
    });
    if (items.max_chunks > kMaxChunksOfLastBlock) return;
    const int32_t first_head = group * Tile::kSlots;
    if (!IsLastBlock(scratch.finished + item * args.num_heads + first_head, chunks.last - chunks.first + 1)) return;
    for (int s = block.warp; s < Tile::kSlots && first_head + s < args.num_heads; s += Tile::kWarps) {
      MergeChunks<Tile::kValues / kWarp>(args, scratch.partials, items.max_chunks, item, tile.first_row, first_head + s,
                                         chunks, out);
    }
  } else {
    LatentState<Tile> total;
    total.Clear();
    for_slots([&](int t, int i, const Slot& slot) {
      StartFromSink(args, slot.head, &total.max[t][i], &total.sum[t][i]);
    });
    block.Walk(tile.first_row, begin, end, [&] { total.MergeChunk(block.chunk); });
    for_slots([&](int t, int i, const Slot& slot) {
      block.ForColumns([&](int n, int c, int d) {
        StoreOut(args, out, slot.row, slot.head, d, total.out[t][n][2 * i + c] / total.sum[t][i]);
      });
    });
  }
  if (group != 0) return;
  for (int r = 0; r < tile.num_rows; ++r) ClearOutPadding(args, out, tile.first_row + r, threadIdx.x, blockDim.x);
}

// body(tile shape). The wide tile where it is asked for and the device has the memory for it.
template <typename Body>
auto WithTile(const AttentionArgs& args, bool wide, const Body& body) {
  if (args.dim_pad <= kSmallDim) {
    return wide ? body(LatentTile<kSmallDim, 2>()) : body(LatentTile<kSmallDim, 1>());
  }
  using Wide = LatentTile<kMaxLatentHeadDim, 2>;
  return wide && Wide::SharedBytes(1) <= args.max_shared_bytes ? body(Wide())
                                                               : body(LatentTile<kMaxLatentHeadDim, 1>());
}

// Of a row that stands alone: no wider than it has heads.
bool IsWide(const AttentionArgs& args) { return args.num_heads > 16; }

template <bool kSplit>
void LaunchItems(const DeviceStep& step, const AttentionArgs& args, LatentItems items, int64_t num_items,
                 const float* q, const DecodeScratch& scratch, Planes out, cudaStream_t stream) {
  WithTile(args, items.tiles != nullptr || IsWide(args), [&](auto shape) {
    using Tile = decltype(shape);
    items.num_stages = Tile::NumStages(args);
    Launch(LatentAttentionKernel<Tile, kSplit>, dim3(num_items * CeilDiv(args.num_heads, Tile::kSlots)),
           dim3(Tile::kThreads), Tile::SharedBytes(items.num_stages), stream, step, args, items, q, scratch, out);
  });
}

}  // namespace

int64_t LatentBlocks(const AttentionArgs& args) {
  return WithTile(args, IsWide(args), [&](auto shape) { return CeilDiv(args.num_heads, decltype(shape)::kSlots); });
}

int32_t LatentTileRows(const AttentionArgs& args) {
  return WithTile(args, /*wide=*/true, [&](auto shape) {
    return args.num_heads < decltype(shape)::kSlots ? decltype(shape)::kSlots / args.num_heads : 1;
  });
}

void LaunchLatentSplit(const DeviceStep& step, const AttentionArgs& args, int64_t first, int64_t rows,
                       int64_t max_chunks, const float* q, const DecodeScratch& scratch, Planes out,
                       cudaStream_t stream) {
  LaunchItems<true>(step, args, {nullptr, first, max_chunks, 0}, rows * max_chunks, q, scratch, out, stream);
  if (max_chunks > kMaxChunksOfLastBlock) {
    LaunchMergeChunks(step, args, first, rows, max_chunks, scratch.partials, out, stream);
  }
}

void LaunchLatentRows(const DeviceStep& step, const AttentionArgs& args, int64_t rows, const float* q, Planes out,
                      cudaStream_t stream) {
  LaunchItems<false>(step, args, {nullptr, 0, 1, 0}, rows, q, {}, out, stream);
}

void LaunchLatentTiles(const DeviceStep& step, const AttentionArgs& args, const PrefillTile* tiles, int64_t num_tiles,
                       const float* q, Planes out, cudaStream_t stream) {
  LaunchItems<false>(step, args, {tiles, 0, 1, 0}, num_tiles, q, {}, out, stream);
}

}  // namespace switchyard::cuda
