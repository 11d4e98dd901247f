// The inner loops that exist once per instruction set, as a table of functions.
//
// Every function computes rows one by one as far as rounding goes: which rows share a call never changes a row's bits.
// Nothing here knows threads or allocates. Which table is for which machine: isa.h.
#ifndef SWITCHYARD_ENGINE_BACKEND_CPU_KERNELS_H_
#define SWITCHYARD_ENGINE_BACKEND_CPU_KERNELS_H_

#include <cstdint>

#include "engine/backend/activation.h"
#include "engine/backend/cpu/isa_kind.h"
#include "engine/backend/cpu/layout.h"
#include "engine/base/small_floats.h"

namespace switchyard::cpu {

// One KV head's part of one slice: `heads_per_kv` query heads of `num_tokens` tokens at consecutive positions.
struct AttentionTask {
  const KvLayout* layout = nullptr;
  const char* cache = nullptr;           // of this layer and KV head, block 0
  const int32_t* block_table = nullptr;
  const float* q = nullptr;              // first token, first of the query heads; heads are head_dim apart
  int64_t q_stride = 0;                  // floats from token to token
  float* out = nullptr;                  // likewise
  int64_t out_stride = 0;
  int32_t num_tokens = 0;
  int32_t heads_per_kv = 0;
  int32_t first_position = 0;
  int32_t sliding_window = 0;            // 0 = all
  int32_t chunk_size = 0;                // 0 = all
  const float* sinks = nullptr;          // of the query heads; null = none
  int32_t first_key = 0;                 // keys before this position are not seen
  int32_t num_keys = 0;                  // > 0: every row sees keys [0, num_keys), whatever its position; 0: causal
  const float* relative_bias = nullptr;  // of the query heads, [heads_per_kv][2 * relative_max_distance + 1]
  int32_t relative_max_distance = 0;
  float scale = 0.0f;
  void* scratch = nullptr;               // AttentionScratchBytes, 64-byte aligned
};

int64_t AttentionScratchBytes(int32_t dim_pad);

// The first `steps` steps of a chunk of a quantized panel as a bfloat16 panel of so many steps: what the stored numbers
// round to (layout.h), but that the sign of a zero or NaN may differ, which no result can tell: sums start at +0.
// `panel` is a multiple of 64 bytes.
using ExpandChunk = void (*)(const uint8_t* chunk, int64_t steps, uint16_t* panel);

struct QuantizedPanel {
  const uint8_t* chunks = nullptr;
  int64_t chunk_bytes = 0;
  ExpandChunk expand = nullptr;
  uint16_t* scratch = nullptr;  // [kChunkElements], for the chunk in use
};

struct Kernels {
  Isa isa = Isa::kScalar;

  // c[r][0..32) = rows[r][0..in) x panel. c: [num_rows][32].
  void (*gemm_f32)(const float* const* rows, int num_rows, const float* panel, int64_t in, float* c);
  // The same on packed activations and a bfloat16 panel; accumulates in fp32. c: room for num_rows rounded up to 16.
  void (*gemm_bf16)(const uint16_t* a, int num_rows, const uint16_t* panel, int64_t k_steps, float* c);
  // gemm_bf16 on a panel that is expanded chunk by chunk: the same bits as on the whole bfloat16 panel.
  void (*gemm_quantized)(const uint16_t* a, int num_rows, const QuantizedPanel& panel, int64_t k_steps, float* c);
  ExpandChunk expand_mxfp4;
  ExpandChunk expand_fp8;
  // Rounds in[32 * first_step .. 32 * last_step), zeros beyond `cols`, to bfloat16. `a_row` is the row's place in the
  // first step of its row group.
  void (*pack_row)(const float* in, int64_t cols, int64_t first_step, int64_t last_step, uint16_t* a_row);

  // The first `steps` steps of one tile of a bfloat16 panel, from 16 rows of weights, row-major [16][in]. `to` is a
  // multiple of 64 bytes. Returns how many of these elements are NaN or infinite.
  int64_t (*pack_tile_bf16)(const uint16_t* rows, int64_t in, int64_t steps, uint16_t* to);

  // What becomes of a panel's c; `cols` of its 32 (or 16) columns exist. `bias` may be null.
  void (*store_panel)(const float* c, int num_rows, int cols, const float* bias, bool add, float* out, int64_t stride);
  // The same without bias, written past the caches: for outputs too large to be found there again. Visible to other
  // threads after the writer's next atomic read-modify-write, which the end of a parallel section is.
  void (*stream_panel)(const float* c, int num_rows, int cols, float* out, int64_t stride);
  // `limit` is of Activation::kClampedSwiglu. Gated activations make 16 columns of c's gate and up, others all 32;
  // `cols` of them exist.
  void (*activate_panel_f32)(Activation activation, float limit, const float* c, int num_rows, int cols, float* h,
                             int64_t stride);
  // h: packed activations of the intermediate width; the columns start at `first_col`, a multiple of 16 or 32. Writes
  // all of them: those that do not exist have zero weights and biases, and every activation of zeros is 0.
  void (*activate_panel_bf16)(Activation activation, float limit, const float* c, int num_rows, int64_t first_col,
                              int64_t k_steps, uint16_t* h);
  void (*add_panel_bias)(const float* bias, int num_rows, float* c);  // c[r][0..32) += bias[0..32)

  void (*rms_norm)(const float* in, const float* weight, int64_t size, float eps, float* out);
  // `bias` may be null.
  void (*layer_norm)(const float* in, const float* weight, const float* bias, int64_t size, float eps, float* out);
  void (*scale)(float factor, int64_t size, float* x);  // x *= factor
  void (*silu_mul)(const float* gate, const float* up, int64_t size, float* out);
  void (*activate)(Activation activation, int64_t size, float* x);  // in place; one that is not gated
  void (*add_scaled)(float scale, const float* in, int64_t size, float* out);  // out += scale * in
  float (*dot)(const float* a, const float* b, int64_t size);
  // probabilities = exp(logits - max) / sum; returns both.
  void (*softmax)(const float* logits, int64_t size, float* probabilities, float* max, float* sum);

  // cos and sin of position * inv_freq[m] times factor, m < size.
  void (*rope_angles)(int32_t position, const float* inv_freq, int64_t size, float factor, float* cos, float* sin);
  // Rotates the pairs (x[m], x[m + size]), m < size.
  void (*rotate)(const float* cos, const float* sin, int64_t size, float* x);
  void (*rotate_pairs)(const float* cos, const float* sin, int64_t size, float* x);  // (x[2m], x[2m + 1]) instead

  // Writes one token's key and value of one KV head to place `slot` of a group (layout.h); see CpuKvCache for values
  // that are not finite. head_dim <= kMaxHeadDim.
  void (*store_key_value)(const KvLayout& layout, char* group, int32_t slot, const float* key, const float* value);
  void (*store_latent)(const KvLayout& layout, char* group, int32_t slot, const float* latent);
  void (*attend)(const AttentionTask& task);
};

// REQUIRES: isa is one of AvailableIsas().
const Kernels& KernelsFor(Isa isa);

// Each in its own file, compiled for its instruction set.
extern const Kernels kScalarKernels;
extern const Kernels kAvx2Kernels;
extern const Kernels kAvx512Kernels;
extern const Kernels kAvx512Bf16Kernels;
extern const Kernels kAmxKernels;

}  // namespace switchyard::cpu

#endif  // SWITCHYARD_ENGINE_BACKEND_CPU_KERNELS_H_
