// The kernels of attention as plain functions, as in kernels.h.
#ifndef SWITCHYARD_ENGINE_BACKEND_CUDA_ATTENTION_KERNELS_H_
#define SWITCHYARD_ENGINE_BACKEND_CUDA_ATTENTION_KERNELS_H_

#include <cuda_runtime_api.h>

#include <cstdint>

#include "engine/backend/cuda/kernels.h"

namespace switchyard::cuda {

// ---- rope_and_cache.cu, attention_f32.cu, attention_decode.cu, attention_prefill.cu ----

struct AttentionArgs {
  int32_t num_heads = 0;
  int32_t num_kv_heads = 0;
  int32_t head_dim = 0;
  int32_t dim_pad = 0;
  int32_t latent_dim = 0;  // > 0: a row of queries has no keys and values behind it, a value is the front of its key
  int32_t sliding_window = 0;
  int32_t chunk_size = 0;
  float scale = 0.0f;
  const float* sinks = nullptr;  // [num_heads]
  int32_t block_size = 0;
  bool cache_is_bf16 = false;
  void* keys = nullptr;    // of this layer: [block][kv head][block_size][dim_pad]
  void* values = nullptr;  // those of a latent are its keys
  int32_t max_shared_bytes = 0;  // that a block can have on this device
  int32_t num_multiprocessors = 0;
  // Only for PrepareQkv and PrepareLatent (whose latents take k_norm):
  int32_t qk_norm = 0;  // as QkNorm: 0 none, 1 full width, 2 per head, 3 per head without weights after RoPE
  float qk_norm_eps = 0.0f;
  const float* q_norm = nullptr;
  const float* k_norm = nullptr;
  float clip = 0.0f;
  const float* inv_freq = nullptr;  // [rotated_pairs]
  int32_t rotated_pairs = 0;
  bool rope_interleaved = false;
  float rope_factor = 1.0f;
  float temperature_scale = 0.0f;
  float temperature_floor = 1.0f;
};

void LaunchPrepareQkv(const DeviceStep& step, const AttentionArgs& args, int64_t rows, float* qkv, cudaStream_t stream);

// q: [rows][q_width] as projected, queries: [rows][q size]. See Backend::PrepareLatent.
void LaunchPrepareLatent(const DeviceStep& step, const AttentionArgs& args, int64_t rows, int64_t q_width,
                         const float* q, float* latents, float* queries, cudaStream_t stream);

// fp32 cache: one warp per (row, query head).
void LaunchAttentionF32(const DeviceStep& step, const AttentionArgs& args, int64_t rows, const float* qkv, Planes out,
                        cudaStream_t stream);

// What the blocks that have one chunk each leave for the last of them, which merges the chunks; where they are too many
// for one block, a launch of its own does. Launches on one stream share it.
inline constexpr int64_t kChunkCounters = 1 << 16;
struct DecodeScratch {
  float* partials = nullptr;
  int64_t num_partials = 0;      // floats
  unsigned* finished = nullptr;  // [kChunkCounters] blocks so far; all 0 before the first launch and after every one
};
// Floats of partial results.
int64_t DecodePartialFloats(int64_t rows, const AttentionArgs& args, int64_t max_chunks);
// The most rows of one launch; 0: the scratch is too small for any.
int64_t MaxDecodeRows(const DecodeScratch& scratch, const AttentionArgs& args, int64_t max_chunks);

// bf16 cache, rows that stand alone (decode): each (row, KV head, chunk of keys) on its own; who is last merges.
// Rows [first, first + rows) of step.decode_rows, at most MaxDecodeRows; `max_chunks` chunks reach the longest row's
// position.
void LaunchAttentionDecode(const DeviceStep& step, const AttentionArgs& args, int64_t first, int64_t rows,
                           int64_t max_chunks, const float* qkv, const DecodeScratch& scratch, Planes out,
                           cudaStream_t stream);

// The second half of the launches of decode where max_chunks is above what their last blocks merge: one warp per (row,
// query head).
void LaunchMergeChunks(const DeviceStep& step, const AttentionArgs& args, int64_t first, int64_t rows,
                       int64_t max_chunks, float* partials, Planes out, cudaStream_t stream);

// bf16 cache, runs of consecutive rows of one sequence: 64 (row, head of the group) pairs share each key.
int32_t PrefillTileRows(const AttentionArgs& args);  // the most rows of one tile
void LaunchAttentionPrefill(const DeviceStep& step, const AttentionArgs& args, const PrefillTile* tiles,
                            int64_t num_tiles, const float* qkv, Planes out, cudaStream_t stream);

// ---- latent_attention.cu: bf16 cache of latents (MLA); the same bits by all three ways ----

// As LaunchAttentionDecode.
void LaunchLatentSplit(const DeviceStep& step, const AttentionArgs& args, int64_t first, int64_t rows,
                       int64_t max_chunks, const float* q, const DecodeScratch& scratch, Planes out,
                       cudaStream_t stream);
// The first `rows` of step.decode_rows, each of whose LatentBlocks blocks walks through all keys: no partial results,
// and so less for the memory to do, where there are rows enough.
int64_t LatentBlocks(const AttentionArgs& args);
void LaunchLatentRows(const DeviceStep& step, const AttentionArgs& args, int64_t rows, const float* q, Planes out,
                      cudaStream_t stream);
// Runs of consecutive rows of one sequence, at most LatentTileRows each.
int32_t LatentTileRows(const AttentionArgs& args);
void LaunchLatentTiles(const DeviceStep& step, const AttentionArgs& args, const PrefillTile* tiles, int64_t num_tiles,
                       const float* q, Planes out, cudaStream_t stream);

// ---- attention_experts.cu: JetMoE, see Backend::SpreadHeads; `counts` may be null ----

struct SpreadSizes {
  int32_t num_kv_heads = 0;
  int32_t top_k = 0;
  int32_t head_dim = 0;
};
void LaunchSpreadHeads(const StepCounts* counts, const SpreadSizes& sizes, const float* expert_rows,
                       const int32_t* choice_to_row, const float* kv, int64_t tokens, float* qkv, cudaStream_t stream);
void LaunchCollectHeads(const StepCounts* counts, const SpreadSizes& sizes, const float* attended,
                        const int32_t* choice_to_row, int64_t tokens, float* expert_rows, cudaStream_t stream);

}  // namespace switchyard::cuda

#endif  // SWITCHYARD_ENGINE_BACKEND_CUDA_ATTENTION_KERNELS_H_
