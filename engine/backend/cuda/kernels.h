// Every kernel as a plain function that starts it on a stream; those of attention are in attention_kernels.h. No
// function waits or allocates; errors of a launch stay with the CUDA runtime until the backend's Wait asks.
//
// Pointers are device memory. `bf16` elements are uint16_t; a bf16 plane has rows of `stride` elements, of which those
// beyond the columns are written as zeros.
#ifndef SWITCHYARD_ENGINE_BACKEND_CUDA_KERNELS_H_
#define SWITCHYARD_ENGINE_BACKEND_CUDA_KERNELS_H_

#include <cuda_runtime_api.h>

#include <cstdint>

#include "engine/backend/cuda/layout.h"
#include "engine/backend/row_sampling.h"
#include "engine/base/dtype.h"
#include "engine/base/host_device.h"

namespace switchyard::cuda {

// The two planes of an activation matrix; a null plane is not written.
struct Planes {
  float* f32 = nullptr;
  uint16_t* bf16 = nullptr;
  int64_t stride = 0;  // of bf16, in elements
};

// What changes from step to step, in device memory at addresses that never change, so that recorded steps can be
// repeated. `counts` lets a kernel that was started for more rows know how many there are.
struct StepCounts {
  int32_t num_tokens;
  int32_t num_logit_rows;
  int32_t num_decode_rows;
  int32_t num_sampled_rows = 0;  // 0: the host draws the tokens
};
// Null counts: just as many tokens as rows. For kernels.
SWITCHYARD_HOST_DEVICE inline int64_t NumTokens(const StepCounts* counts, int64_t rows) {
  return counts == nullptr ? rows : counts->num_tokens;
}
struct DeviceStep {
  const StepCounts* counts;
  const RowSampling* sampling;  // [num_sampled_rows]
  const int32_t* ids;           // [num_tokens]; ~i stands for sampled[i]
  const int32_t* sampled;       // tokens of the step before, -1 where it found none
  const int32_t* positions;     // [num_tokens]
  const int32_t* table_starts;  // [num_tokens] where in `tables` the row's block table begins
  const int32_t* tables;
  const int32_t* logit_rows;    // [num_logit_rows]
  const int32_t* decode_rows;   // [num_decode_rows] rows that are the only one of their sequence
};

// A run of consecutive rows of one sequence.
struct PrefillTile {
  int32_t first_row;
  int32_t num_rows;
};

// The activations of one projection, see engine/backend/activation.h.
enum class Ungated : int32_t { kNone, kRelu, kGeluTanh, kTanh };

// ---- activate.cu ----

void LaunchActivate(Ungated activation, int64_t count, float* values, cudaStream_t stream);

// ---- rowwise.cu ----

// table: [vocabulary][stride] of fp32 or bf16.
void LaunchEmbed(const DeviceStep& step, int64_t rows, const void* table, bool table_is_bf16, int64_t table_stride,
                 int64_t cols, float* out, cudaStream_t stream);
void LaunchRmsNorm(const float* in, const float* weight, float eps, int64_t rows, int64_t cols, Planes out,
                   cudaStream_t stream);
// bias may be null.
void LaunchLayerNorm(const float* in, const float* weight, const float* bias, float eps, int64_t rows, int64_t cols,
                     Planes out, cudaStream_t stream);
void LaunchAddBias(const float* bias, int64_t rows, int64_t cols, float* values, cudaStream_t stream);
void LaunchScale(float factor, int64_t count, float* values, cudaStream_t stream);
// Interleaved: gate and up rows lie as in an expert's matrix; otherwise all of gate, then all of up. `in_stride`
// elements per row; exactly one of in_f32 and in_bf16 is given.
struct GateUpInput {
  const float* f32 = nullptr;
  const uint16_t* bf16 = nullptr;
  int64_t stride = 0;
  bool interleaved = false;
};
void LaunchSiluMul(GateUpInput in, int64_t rows, int64_t cols, Planes out, cudaStream_t stream);
void LaunchAddGated(const float* in, const float* gate, int64_t in_cols, const float* values, int64_t rows,
                    int64_t cols, float* out, cudaStream_t stream);
void LaunchSelectRows(const DeviceStep& step, const float* in, int64_t rows, int64_t cols, float* out,
                      cudaStream_t stream);
void LaunchToBf16(const float* in, int64_t rows, int64_t cols, uint16_t* out, int64_t stride, cudaStream_t stream);
void LaunchToF32(const uint16_t* in, int64_t stride, int64_t rows, int64_t cols, float* out, cudaStream_t stream);
// Adds the NaN and infinite elements of `count` values to *total.
void LaunchCountNonfinite(const void* values, bool is_bf16, int64_t count, unsigned long long* total,
                          cudaStream_t stream);

// ---- sampling.cu ----

// tokens[row] = what Sampler draws from the first num_ids logits of the row; -1 if one of them is not finite.
void LaunchSampleTokens(const DeviceStep& step, const float* logits, int64_t rows, int64_t cols, int64_t num_ids,
                        int32_t* tokens, cudaStream_t stream);

// ---- router.cu; `counts` may be null, here and in group_by_expert.cu ----

// What a router writes; see Routing.
struct RoutingArrays {
  int32_t* expert_ids;
  float* expert_weights;
  float* margins;
  float* logsumexps;
  float* probability_sums;
  double* squared_logsumexp_sum;
};
// As RouterConfig, whose enumerations are numbers here.
struct RouterArgs {
  int32_t num_experts = 0;
  int32_t top_k = 0;
  int32_t score = 0;    // 0 softmax, 1 sigmoid, 2 the logit itself
  int32_t weights = 0;  // 0 the score, 1 softmax of the chosen, 2 sigmoid, 3 sparse mixer
  bool normalize = false;
  float normalize_power = 1.0f;
  float normalize_eps = 0.0f;
  float scale = 1.0f;
  int32_t num_groups = 1;
  int32_t topk_group = 1;
  bool group_by_two = false;         // a group's score is the sum of its two best, else its best
  float mixer_threshold = 0.0f;
  const float* bias = nullptr;         // [num_experts] of the logits
  const float* choice_bias = nullptr;  // [num_experts] of the scores, for the choice only
};
// One launch for few tokens, two for many. scratch: RouterScratchBytes, whose front every call finds and leaves zeroed;
// it may serve calls of different sizes, one after the other.
int64_t RouterScratchBytes(int64_t rows, int64_t num_experts);
void LaunchRoute(const StepCounts* counts, const float* in, int64_t rows, int64_t cols, const float* weight,
                 int64_t weight_stride, const RouterArgs& args, void* scratch, RoutingArrays out,
                 cudaStream_t stream);

// ---- group_by_expert.cu ----

struct BatchArrays {
  int32_t* expert_offsets;
  int32_t* choice_to_row;
  int32_t* row_to_token;
  float* row_weights;  // null unless the router weighs inputs
};
// Tiles for the grouped GEMMs and when each expert was at work, in device memory.
struct ExpertPlan {
  ExpertTile* tiles = nullptr;
  int32_t* num_tiles = nullptr;
  unsigned long long* first_start = nullptr;  // [num_experts] nanoseconds of the global timer
  unsigned long long* last_end = nullptr;     // 0: not at all
};
// expert_weights: of the choices, read where row_weights are wanted.
void LaunchGroupByExpert(const StepCounts* counts, const int32_t* expert_ids, const float* expert_weights, int64_t rows,
                         int32_t top_k, int32_t num_experts, int tile_tokens, ExpertPlan plan, BatchArrays out,
                         cudaStream_t stream);
// Marks the start (or end) of the batches of all experts at once: for libraries that run them as one call.
void LaunchStampExperts(const int32_t* expert_offsets, int32_t num_experts, bool end, ExpertPlan plan,
                        cudaStream_t stream);

// The routing of the step's rows with logits, in records of `record` words per row: for each layer, from its offset
// on, the ids of its experts, their weights, and the margin.
struct RoutedLayer {
  const int32_t* expert_ids;
  const float* expert_weights;
  const float* margins;
  int32_t top_k;
  int32_t offset;  // words
};
void LaunchCollectRouting(const DeviceStep& step, const RoutedLayer* layers, int64_t num_layers, int64_t record,
                          int64_t rows, float* out, cudaStream_t stream);

// *at = now, in nanoseconds of the global timer.
void LaunchStamp(unsigned long long* at, cudaStream_t stream);

// out[t] += sum over j of weights[t, j] * rows[choice_to_row[t * k + j]]; rows in one of the planes. Null weights
// are 1.
void LaunchCombine(const StepCounts* counts, const float* rows_f32, const uint16_t* rows_bf16, int64_t rows_stride,
                   const float* expert_weights, const int32_t* choice_to_row, int64_t tokens, int32_t top_k,
                   int64_t cols, float* out, cudaStream_t stream);

// ---- grouped_gemm.cu ----

enum class GemmOutput : int32_t { kAssign, kAdd, kSiluMul };

// out[row] = weight_e x in[source of row] (+ bias), for the rows of each expert e. Dense products are one expert whose
// tiles follow from `rows`.
struct GroupedGemm {
  const void* weight = nullptr;     // [experts][out_rows padded][k padded], fp32 or bf16
  int64_t weight_rows = 0;          // padded rows of one expert
  int64_t k = 0;                    // padded
  int64_t out_cols = 0;             // features, before padding; of kSiluMul the products
  const void* in = nullptr;         // bf16: [*][k]; fp32: [*][in_stride]
  int64_t in_stride = 0;            // elements
  int64_t in_cols = 0;              // real columns of an fp32 input
  const int32_t* row_to_source = nullptr;  // null: row r reads input row r
  const float* bias = nullptr;      // [experts][weight_rows], in the order of the weight's rows
  float swiglu_limit = 0.0f;        // > 0: kSiluMul is (clamp(up) + 1) * g * sigmoid(1.702 g), g = min(gate, limit)
  GemmOutput output = GemmOutput::kAssign;
  Ungated activation = Ungated::kNone;  // of what kAssign writes
  Planes out;
  int64_t out_stride = 0;           // of the fp32 plane
  // Where the tiles come from: a plan, or `dense_rows` rows of expert 0.
  ExpertPlan plan;
  int64_t max_tiles = 0;
  int64_t dense_rows = 0;
};

void LaunchGemmBf16(const GroupedGemm& gemm, int tile_tokens, int num_multiprocessors, cudaStream_t stream);
void LaunchGemmF32(const GroupedGemm& gemm, int tile_tokens, cudaStream_t stream);

// ---- linear_per_part.cu: products with a weight matrix of its own for each part ----

// Dense: part p of an output row is weights[p] x part p of the input row. With a plan: row r of expert p is weights[p]
// x in[row_to_source[r]], or in[r] where that is null.
struct PartGemm {
  int64_t weight_stride = 0;  // padded in_cols, in elements
  int64_t in_cols = 0;        // of one part
  int64_t out_cols = 0;
  const float* in = nullptr;
  int64_t in_stride = 0;
  int64_t in_part = 0;        // from one part of an input row to the next; 0 with a plan
  const int32_t* row_to_source = nullptr;
  float* out = nullptr;
  int64_t out_stride = 0;
  int64_t out_part = 0;
  ExpertPlan plan;            // or, without tiles, `dense_rows` rows of every part
  int64_t dense_rows = 0;
  int32_t num_parts = 0;
};
// weights: addresses in device memory of num_parts matrices, at most kMaxParts; inputs are rounded to bf16 for bf16
// ones. tile_tokens: of the plan.
void LaunchPartGemm(const PartGemm& gemm, const void* const* weights, DType dtype, int tile_tokens,
                    int num_multiprocessors, cudaStream_t stream);

// ---- expert_rows.cu: moving rows for the library calls; elements of type `dtype`, padding written as zeros ----

// out[row] = in[row_to_source[row]] for row < *num_rows. A null row_to_source copies in order, a null num_rows all
// rows.
void LaunchGatherRows(const void* in, DType dtype, int64_t cols, int64_t in_stride, const int32_t* row_to_source,
                      const int32_t* num_rows, int64_t max_rows, int64_t out_stride, void* out, cudaStream_t stream);
// out[row] = in[row_to_token[row]] * row_weights[row], rounded to `dtype`.
void LaunchWeighRows(const float* in, int64_t cols, const int32_t* row_to_token, const float* row_weights,
                     const int32_t* num_rows, int64_t max_rows, DType dtype, int64_t out_stride, void* out,
                     cudaStream_t stream);
// out[row] = in[expert of row][token of row]: `in` is [num_experts][tokens] rows. Writes the plane of `dtype`.
void LaunchGatherPadded(const void* in, DType dtype, int64_t in_stride, int64_t tokens, const int32_t* expert_offsets,
                        int32_t num_experts, const int32_t* row_to_token, int64_t max_rows, int64_t cols, Planes out,
                        int64_t out_f32_stride, cudaStream_t stream);

}  // namespace switchyard::cuda

#endif  // SWITCHYARD_ENGINE_BACKEND_CUDA_KERNELS_H_
