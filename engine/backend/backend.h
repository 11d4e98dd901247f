// THE seam: the coarse operations of one device. A model step is a dozen kinds of calls on matrices.
//
// Contract for every backend, synchronous (CPU) or asynchronous (a GPU stream) alike:
//  * Load and Allocate calls return a status. Step operations return nothing: shapes were checked when the model was
//    built, and a failure of the device is remembered and reported by the next Wait().
//  * Operations run in the order of the calls. Host-readable results (Routing, ExpertBatches, HostView) are valid
//    after Wait(). Of a step that BeginStep announced, a device may keep the arrays per token to itself: all but the
//    Routing of the rows in logit_rows where explain_routing asks for it.
//  * Every row's result has one fixed order of additions that does not depend on the other rows of the call: the same
//    row alone or in a batch gives the same bits.
//  * Nothing is allocated in a step operation.
// One thread calls at a time.
#ifndef SWITCHYARD_ENGINE_BACKEND_BACKEND_H_
#define SWITCHYARD_ENGINE_BACKEND_BACKEND_H_

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/backend/activation.h"
#include "engine/backend/row_sampling.h"
#include "engine/base/dtype.h"
#include "engine/base/status_macros.h"
#include "engine/base/tensor_reader.h"

namespace switchyard {

// Activations: rows x cols elements of the backend's activation type (float on the CPU), row-major without padding,
// in the device's memory. A view; the backend owns the memory.
struct Matrix {
  void* data = nullptr;
  int64_t rows = 0;
  int64_t cols = 0;

  // The same memory as a smaller matrix: buffers are sized for the largest step, a step uses the front of them.
  Matrix Front(int64_t num_rows, int64_t num_cols) const { return Matrix{data, num_rows, num_cols}; }
};

// A weight matrix [out, in] in the layout the backend likes, with an optional bias [out].
class Weight {
 public:
  virtual ~Weight() = default;
  virtual int64_t out_features() const = 0;
  virtual int64_t bytes() const = 0;          // in device memory
  virtual int64_t num_nonfinite() const = 0;  // NaN or infinite elements, counted while loading
};

// All experts of one layer: gate (if there is one) and up [intermediate, hidden], down [hidden, intermediate].
class ExpertWeights {
 public:
  virtual ~ExpertWeights() = default;
  virtual int64_t bytes() const = 0;
  virtual int64_t num_nonfinite() const = 0;
};

// The same for all experts of a layer.
struct ExpertForm {
  Activation activation = Activation::kSilu;
  float limit = 0.0f;   // of kClampedSwiglu
  bool biases = false;  // on gate, up and down
  bool operator==(const ExpertForm&) const = default;
};

struct ExpertReaders {
  const TensorReader* gate = nullptr;  // null where the activation is not gated, like its bias
  const TensorReader* up = nullptr;
  const TensorReader* down = nullptr;
  ExpertForm form = {};
  const TensorReader* gate_bias = nullptr;  // [1, intermediate], where form.biases; likewise:
  const TensorReader* up_bias = nullptr;
  const TensorReader* down_bias = nullptr;  // [1, hidden]
};

// What the matrices of a layer's experts take in device memory, and whether they stay as the checkpoint stores them.
struct ExpertMemory {
  QuantizedFormat kept = QuantizedFormat::kNone;  // kNone: dequantized, or never quantized
  int64_t bytes = 0;
};

// Elements of gate, up and down of all experts.
inline int64_t ExpertElements(std::span<const ExpertReaders> experts) {
  int64_t elements = 0;
  for (const ExpertReaders& expert : experts) {
    for (const TensorReader* matrix : {expert.gate, expert.up, expert.down}) {
      if (matrix != nullptr) elements += matrix->rows() * matrix->cols();
    }
  }
  return elements;
}

// ---------------------------------------------------------------------------------------------------- attention

enum class QkNorm : uint8_t {
  kNone,
  kFull,  // RMS norm over the full projected width, before the head split (OLMoE)
  kHead,  // RMS norm per head over head_dim, before RoPE (Qwen3)
  kL2AfterRope,  // RMS norm per head without weights, after RoPE (Llama 4)
};

// One attention layer, after projection. Query head n reads KV head n / (num_heads / num_kv_heads).
//
// Latent attention (MLA, DeepSeek-V2, 2405.04434) in its absorbed form is one shared KV head: the key of a token is
// its latent vector followed by one rotated rope key, the value is the latent vector, the first latent_dim elements
// of the key, and only the key is cached. head_dim is then latent_dim + the rotated width, the query of each head is
// its non-rotated part taken into the latent space followed by its rotated part, and so the projected row holds
// queries only.
struct AttentionShape {
  int32_t num_heads = 0;
  int32_t num_kv_heads = 0;
  int32_t head_dim = 0;
  float scale = 0.0f;             // of the scores, usually head_dim^-0.5
  QkNorm qk_norm = QkNorm::kNone;
  float qk_norm_eps = 0.0f;
  float clip_qkv = 0.0f;          // clamp q, k, v to [-c, c] after projection and full-width norm; 0 = off
  int32_t sliding_window = 0;     // a token sees itself and window - 1 predecessors; 0 = all
  int32_t chunk_size = 0;         // a token sees only its own chunk [n c, (n + 1) c) of positions; 0 = all
  std::vector<float> rope_inv_freq;  // [rotated_dim / 2]; scaling applied; empty: no RoPE
  bool rope_interleaved = false;     // pairs (2m, 2m + 1); else half-split (m, m + rotated_dim / 2)
  float rope_attention_factor = 1.0f;  // multiplies cos and sin
  float temperature_scale = 0.0f;  // q *= 1 + scale * ln(1 + floor((position + 1) / temperature_floor)); 0 = off
  float temperature_floor = 1.0f;
  bool has_sinks = false;          // a learned logit per query head joins the softmax's sum, and nothing else
  const Weight* sinks = nullptr;   // kVector [num_heads], set once it is loaded
  // A learned number per head and distance joins the scaled score (T5, 1910.10683): element [head, clamp(key - query,
  // -D, D) + D] with D this number; 0 = off.
  int32_t relative_max_distance = 0;
  const Weight* relative_bias = nullptr;  // kVector [num_heads * (2 D + 1)], set once it is loaded
  int32_t latent_dim = 0;          // MLA; 0 = keys and values of their own

  int64_t q_size() const { return int64_t{num_heads} * head_dim; }
  int64_t kv_size() const { return int64_t{num_kv_heads} * head_dim; }
  int64_t qkv_size() const { return latent_dim > 0 ? q_size() : q_size() + 2 * kv_size(); }
  int64_t out_size() const { return int64_t{num_heads} * (latent_dim > 0 ? latent_dim : head_dim); }
};

// Rows [first_row, first_row + num_tokens) of the step belong to one sequence and stand at consecutive positions.
struct AttentionSlice {
  int64_t first_row = 0;
  int32_t num_tokens = 0;
  int32_t first_position = 0;
  const int32_t* block_table = nullptr;
  // Of an encoder-decoder: positions below it hold keys and values of the encoder's output. CrossAttention sees these
  // and no others, Attention all others.
  int32_t num_encoder_tokens = 0;
  // Where experts have a capacity: of the rows of a step, those at positions below it are the request's prompt and
  // share the places; the others, which were generated one by one, always find one.
  int32_t prompt_end = 0;
};

// Blocks hold whole groups of 16 positions: what a tile of keys is on every device that multiplies by tiles.
inline constexpr int32_t kKvBlockUnit = 16;

struct KvCacheShape {
  int32_t num_layers = 0;
  int32_t num_blocks = 0;
  int32_t block_size = 0;     // a multiple of kKvBlockUnit
  int32_t num_kv_heads = 0;
  int32_t head_dim = 0;
  DType dtype = DType::kF32;  // kF32 or kBF16
  int32_t latent_dim = 0;     // > 0: values are the first latent_dim elements of the keys, and not stored again
};

// Paged keys and values of all layers: position p of a sequence lives in block block_table[p / block_size].
class KvCache {
 public:
  virtual ~KvCache() = default;
};

// ---------------------------------------------------------------------------------------------------------- MoE

enum class RouterScore : uint8_t { kSoftmax, kSigmoid, kLogit };

enum class GroupScore : uint8_t {
  kMax,        // of the best expert of the group (DeepSeek-V2)
  kTopTwoSum,  // of its two best (DeepSeek-V3)
};

enum class RouterWeights : uint8_t {
  kScore,            // the score, without the choice bias
  kSoftmaxOfChosen,  // softmax over the logits of the chosen
  kSigmoid,          // of the logit
  // Phi-3.5-MoE: each of two experts by a softmax over those whose logit is near the best of what is left.
  kSparseMixer,
};

// Who gets the places when more tokens of a group want an expert than it has room for.
enum class CapacityOrder : uint8_t {
  kFirstCome,      // all first choices before any second; within a rank the earlier token
  kBestGateFirst,  // likewise, but within a rank the token whose first weight is largest (V-MoE's batch priority)
  kExpertChoice,   // the tokens that weigh most for the expert; with top_k = num_experts: expert choice (2202.09368)
};

// logits -> scores -> the top_k largest (ties: lowest expert id) -> weights. Always in fp32.
//
//   score    softmax(z), sigmoid(z) or z
//   choose   score + choice bias; of num_groups equal runs of experts only the topk_group best stay
//   weigh    from the scores or logits of the chosen; / (p-norm + normalize_eps) if asked; * scale
//   apply    to the expert's output, or to its input
struct RouterConfig {
  int32_t num_experts = 0;
  int32_t top_k = 0;
  bool normalize = false;         // weights / (their norm + normalize_eps)
  float normalize_eps = 0.0f;
  float scale = 1.0f;             // multiplies the weights last
  RouterScore score = RouterScore::kSoftmax;
  RouterWeights weights = RouterWeights::kScore;
  float normalize_power = 1.0f;   // p of the norm; 1 = their sum
  int32_t num_groups = 1;
  int32_t topk_group = 1;
  GroupScore group_score = GroupScore::kMax;
  float mixer_threshold = 0.0f;   // kSparseMixer: experts with (best - z) / max(|z|, best) above this are left out
  bool weigh_input = false;       // the weight multiplies the expert's input (Llama 4)
  int32_t capacity = 0;           // rows that an expert takes of one group of rows; 0 = all. See LimitChoices.
  CapacityOrder capacity_order = CapacityOrder::kFirstCome;
  bool has_choice_bias = false;   // a learned bias is added to the score for the choice only
  const Weight* choice_bias = nullptr;  // kVector [num_experts], set once it is loaded
};

// Rows of a step that share the capacity of the experts: always of one request, so that a request's answer never depends
// on who else is in the step.
struct RowGroup {
  int64_t first_row = 0;
  int64_t num_rows = 0;
};

// The expert of a choice that found no room: it makes no row and adds nothing.
inline constexpr int32_t kDropped = -1;

// What the router of one layer decided in one step. Allocated by the backend for max_tokens; host-readable after Wait.
struct Routing {
  int32_t num_tokens = 0;
  int32_t top_k = 0;
  int32_t num_experts = 0;
  int32_t* expert_ids = nullptr;       // [num_tokens, top_k], most wanted first; or kDropped
  float* expert_weights = nullptr;     // [num_tokens, top_k]
  float* margins = nullptr;            // [num_tokens] last chosen minus the best not chosen, as compared; 0 if k = E
  float* logsumexps = nullptr;         // [num_tokens] of the router logits
  float* probability_sums = nullptr;   // [num_experts] sum over tokens of softmax(logits)
  double* squared_logsumexp_sum = nullptr;  // [1] sum over tokens of logsumexp^2
  bool weigh_input = false;            // as the router's config says
};

// For one MoE layer of one step: which rows belong to which expert.
//
// The router answers "which experts does this token want?". The grouped GEMM needs the opposite: one contiguous
// block of rows for each expert. A *choice* is one (token, rank) pair, numbered token * top_k + rank; a *row* is
// the place of that choice after sorting by expert.
//
//   choices of tokens 0,1,2 with top_k = 2:   {0,2} {2,3} {0,2}
//   rows, grouped by expert:      e0: t0 t2 | e1: - | e2: t0 t1 t2 | e3: t1
//   expert_offsets = {0, 2, 2, 5, 6}
//
// Invariants: offsets start at 0 and end at the number of rows; choice_to_row is a permutation, but for choices that
// were dropped, whose row is kDropped; inside one expert rows keep token order, so results do not depend on timing.
struct ExpertBatches {
  int32_t num_experts = 0;
  int32_t num_rows = 0;                // num_tokens * top_k, less those dropped
  int32_t* expert_offsets = nullptr;   // [num_experts + 1]
  int32_t* choice_to_row = nullptr;    // [num_tokens, top_k]
  int32_t* row_to_token = nullptr;     // [num_rows]
  float* expert_seconds = nullptr;     // [num_experts] wall time of each expert's batch, written by ExpertMlp
  float* row_weights = nullptr;        // [num_rows] multiplies the row's input; null unless the router weighs inputs
};

// What one layer asks of a device, sizes aside. See Backend::CheckServed.
struct LayerBlocks {
  const AttentionShape* attention = nullptr;
  const RouterConfig* router = nullptr;  // null in a dense layer
  ExpertForm experts;
  bool layer_norm = false;
  bool attention_experts = false;  // mixture of attention heads (JetMoE)
  bool bidirectional = false;      // of an encoder: BidirectionalAttention instead of Attention
  bool cross_attention = false;    // of a decoder that reads an encoder's output
  bool moe_output_bias = false;
  bool router_bias = false;
};

// The names of those of its blocks that not every device computes.
inline std::vector<std::string> ExtraBlocks(const LayerBlocks& blocks) {
  std::vector<std::string> names;
  const auto add = [&names](bool used, const char* name) {
    if (used) names.emplace_back(name);
  };
  const AttentionShape& attention = *blocks.attention;
  add(blocks.layer_norm, "layer norm");
  add(blocks.attention_experts, "mixture of attention heads");
  add(blocks.bidirectional, "bidirectional attention");
  add(blocks.cross_attention, "cross attention");
  add(blocks.moe_output_bias, "bias on the experts' sum");
  add(attention.latent_dim > 0, "latent attention (MLA)");
  add(attention.rope_interleaved, "interleaved RoPE");
  add(attention.qk_norm == QkNorm::kL2AfterRope, "q/k norm after RoPE");
  add(attention.chunk_size > 0, "chunked attention");
  add(attention.temperature_scale != 0.0f, "query temperature");
  add(attention.has_sinks, "attention sinks");
  add(attention.relative_max_distance > 0, "relative position bias");
  if (blocks.router == nullptr) return names;
  const RouterConfig& router = *blocks.router;
  add(router.score == RouterScore::kSigmoid, "sigmoid router");
  add(router.score == RouterScore::kLogit, "router that chooses by logits");
  add(router.weights != RouterWeights::kScore, "router weights other than the scores");
  add(router.normalize && router.normalize_power != 1.0f, "router weights normalised by a p-norm");
  add(router.num_groups > 1, "grouped router");
  add(router.has_choice_bias, "router choice bias");
  add(blocks.router_bias, "router bias");
  add(router.weigh_input, "router weights on the experts' inputs");
  add(router.capacity > 0, "expert capacity");
  add(blocks.experts.activation == Activation::kClampedSwiglu, "clamped SwiGLU");
  add(!IsGated(blocks.experts.activation), "experts without a gate");
  add(blocks.experts.biases, "expert biases");
  return names;
}

// ------------------------------------------------------------------------------------------------------ backend

enum class WeightUse : uint8_t {
  kLinear,     // operand of Linear
  kEmbedding,  // operand of Embed
  kVector,     // norms, the gate of a shared expert: one row, kept in fp32
  kRouter,     // operand of Route: kept in fp32
};

enum class OutputMode : uint8_t { kAssign, kAdd };

// Who may multiply the experts of a layer, a kernel or a library, and of how many layers it has since the backend was
// made.
struct ExpertGemmCount {
  std::string provider;  // of a GPU a value of BackendOptions::expert_gemm, of a CPU one of cpu_isa
  uint64_t layers = 0;
};

// What a step runs on; the views are those that its operations get.
struct StepInputs {
  std::span<const int32_t> ids;               // [num_tokens]
  std::span<const AttentionSlice> slices;
  std::span<const int32_t> logit_rows;        // rows whose logits are wanted
  std::span<const RowSampling> sampling = {};  // one for each logit row, or none: then the device draws no tokens
  bool explain_routing = false;               // ... and their routing, too
};

class Backend {
 public:
  virtual ~Backend() = default;

  // For people: "cpu (amx, 2 threads)".
  virtual const std::string& description() const = 0;
  // All that may run, in an order that stays; counted when the host starts ExpertMlp, or a recording with it.
  virtual std::span<const ExpertGemmCount> expert_gemms() const = 0;

  // ---- load time ----

  // Called for each layer before anything is loaded.
  // UNIMPLEMENTED: names the blocks that this device does not compute; here, all that not every device does.
  virtual absl::Status CheckServed(const LayerBlocks& blocks) const {
    std::string names;
    for (const std::string& name : ExtraBlocks(blocks)) names += (names.empty() ? "" : ", ") + name;
    if (names.empty()) return absl::OkStatus();
    return absl::UnimplementedError(description() + " does not compute: " + names);
  }

  // Stacks `parts` by rows into one matrix, so that for instance q, k and v are one multiplication. `biases` is empty
  // or has one entry per part, each null (zeros) or [1, rows of the part]; a kRouter may have one too.
  virtual absl::StatusOr<std::unique_ptr<Weight>> LoadWeight(std::span<const TensorReader* const> parts,
                                                             std::span<const TensorReader* const> biases, DType dtype,
                                                             WeightUse use) = 0;
  virtual absl::StatusOr<std::unique_ptr<ExpertWeights>> LoadExperts(std::span<const ExpertReaders> experts,
                                                                     DType dtype) = 0;
  // What LoadExperts would make of them. Experts that stay quantized give the same results, bit for bit, as dequantized
  // ones. Here: none do.
  virtual ExpertMemory PlanExperts(std::span<const ExpertReaders> experts, DType dtype) const {
    return {QuantizedFormat::kNone, ExpertElements(experts) * DTypeBytes(dtype)};
  }
  // Zeroed memory for `rows` x `cols` activations, owned by the backend until it dies.
  virtual absl::StatusOr<Matrix> AllocateMatrix(int64_t rows, int64_t cols) = 0;
  virtual absl::StatusOr<Routing> AllocateRouting(int32_t max_tokens, const RouterConfig& config) = 0;
  virtual absl::StatusOr<ExpertBatches> AllocateExpertBatches(int32_t max_tokens, const RouterConfig& config) = 0;
  // What the device can still allocate; very large when it cannot say.
  virtual int64_t AvailableBytes() const = 0;
  // What activations take that would be `fp32_bytes` in fp32, with scratch.
  virtual int64_t ActivationBytes(int64_t fp32_bytes) const { return fp32_bytes; }
  // Size of the KV cache where nobody says, when weights and activations leave `free_bytes`.
  virtual int64_t DefaultKvCacheBytes(int64_t free_bytes) const {
    static_cast<void>(free_bytes);
    return int64_t{1} << 30;
  }
  // Memory of one block in all layers, with what the device's layout adds; `num_blocks` does not matter.
  virtual int64_t KvBlockBytes(const KvCacheShape& shape) const = 0;
  // INVALID_ARGUMENT: a shape that the device does not serve. RESOURCE_EXHAUSTED: not enough memory.
  virtual absl::StatusOr<std::unique_ptr<KvCache>> AllocateKvCache(const KvCacheShape& shape) = 0;
  // Called once after everything is loaded and the KV cache allocated: the widest call of each operation, so that
  // scratch is sized here.
  virtual absl::Status PrepareScratch(int32_t max_tokens) = 0;

  // ---- step time: rows of `in` and `out` say how many tokens there are ----

  // Announces a step, so that its inputs reach the device in one transfer. True: the backend has recorded the
  // operations of such a step and has started to repeat them, so neither they nor EndStep must be called. False: they
  // must, in the same order in every step. Both calls may be left out where one operation is used alone.
  virtual bool BeginStep(const StepInputs& step, const KvCache& cache) {
    static_cast<void>(step);
    static_cast<void>(cache);
    return false;
  }
  virtual void EndStep() {}

  // out[i] = table[ids[i]]. REQUIRES: 0 <= ids[i] < rows of the table.
  virtual void Embed(std::span<const int32_t> ids, const Weight& table, Matrix out) = 0;
  // out = in / sqrt(mean(in^2) + eps) * weight, per row. `out` may be `in`.
  virtual void RmsNorm(Matrix in, const Weight& weight, float eps, Matrix out) = 0;
  // out (+)= in x weight^T + bias.
  virtual void Linear(Matrix in, const Weight& weight, OutputMode mode, Matrix out) = 0;
  // qkv: [num_tokens, q_size + 2 kv_size] as projected. Norms, clips and rotates q and k in place, as `shape` says, and
  // writes k and v to their places in the cache. q_norm and k_norm are null unless shape.qk_norm asks for them.
  virtual void PrepareQkv(const AttentionShape& shape, std::span<const AttentionSlice> slices, const Weight* q_norm,
                          const Weight* k_norm, int32_t layer, KvCache& cache, Matrix qkv) = 0;
  // Causal attention of each row's q over the cached keys up to its own position. out: [num_tokens, out_size].
  virtual void Attention(const AttentionShape& shape, std::span<const AttentionSlice> slices, int32_t layer,
                         const KvCache& cache, Matrix qkv, Matrix out) = 0;
  // Logits in fp32, then `config`'s rule. Fills all of `routing`.
  virtual void Route(Matrix in, const Weight& router, const RouterConfig& config, Routing* routing) = 0;
  virtual void GroupByExpert(const Routing& routing, ExpertBatches* batches) = 0;
  // rows_out[r] = down_e(silu(gate_e(x)) * up_e(x)) for x = in[row_to_token[r]], e the expert of row r, or as the
  // experts' form says; one batch of rows per expert. Fills batches.expert_seconds. rows_out: [num_rows, hidden].
  virtual void ExpertMlp(Matrix in, const ExpertWeights& experts, const ExpertBatches& batches, Matrix rows_out) = 0;
  // out[t] += sum over ranks j = 0..k-1, in this order, of weight[t, j] * rows[choice_to_row[t * k + j]]; the weights
  // are 1 where they multiplied the inputs.
  virtual void Combine(Matrix rows, const Routing& routing, const ExpertBatches& batches, Matrix out) = 0;
  // gate_up: [num_tokens, 2 * cols of out], gate first. out = silu(gate) * up.
  virtual void SiluMul(Matrix gate_up, Matrix out) = 0;
  // out[t] += sigmoid(in[t] . gate) * values[t]; `gate` is a kVector.
  virtual void AddGated(Matrix in, const Weight& gate, Matrix values, Matrix out) = 0;
  // out[i] = in[rows[i]].
  virtual void SelectRows(Matrix in, std::span<const int32_t> rows, Matrix out) = 0;

  // Memory for what SampleTokens draws, [max_rows]; null: the device leaves that to the host, and SampleTokens is not
  // called.
  virtual absl::StatusOr<const int32_t*> AllocateSampledTokens(int64_t max_rows) {
    static_cast<void>(max_rows);
    return nullptr;
  }
  // For each row of `logits` that `sampling` has an entry for: the token that Sampler draws from its first num_ids
  // elements; -1 if one of them is NaN or infinite. Host-readable after Wait(): a step whose rows want no more need not
  // be copied.
  virtual void SampleTokens(Matrix /*logits*/, int64_t /*num_ids*/, std::span<const RowSampling> /*sampling*/) {
    CHECK(false);
  }

  // ---- blocks that only some models have: called if CheckServed accepted them ----

  // out = (in - mean) / sqrt(variance + eps) * weight + bias, per row. `bias` may be null, `out` may be `in`.
  virtual void LayerNorm(Matrix /*in*/, const Weight& /*weight*/, const Weight* /*bias*/, float /*eps*/,
                         Matrix /*out*/) {
    CHECK(false);
  }
  // matrix = values, row by row: what a model reads that is not tokens.
  virtual void Upload(std::span<const float> /*values*/, Matrix /*matrix*/) { CHECK(false); }
  // matrix = activation(matrix), one that is not gated.
  virtual void Activate(Activation /*activation*/, Matrix /*matrix*/) { CHECK(false); }
  // Within each group, in the config's order, an expert takes config.capacity choices; the others become kDropped.
  // The weights stay as they are. Rows outside of all groups keep all choices. Call between Route and GroupByExpert.
  virtual void LimitChoices(const RouterConfig& /*config*/, std::span<const RowGroup> /*groups*/,
                            Routing* /*routing*/) {
    CHECK(false);
  }
  // matrix *= factor.
  virtual void Scale(float /*factor*/, Matrix /*matrix*/) { CHECK(false); }
  // For each of `heads`, n: the front of out[t, n] = the front of in[t, n] x heads[n]^T, where a row of `in` and of
  // `out` is as many equal parts as there are heads. What follows the front of a part stays as it is.
  virtual void LinearPerHead(Matrix /*in*/, std::span<const std::unique_ptr<Weight>> /*heads*/, Matrix /*out*/) {
    CHECK(false);
  }
  // matrix[r] += bias; `bias` is a kVector.
  virtual void AddBias(const Weight& /*bias*/, Matrix /*matrix*/) { CHECK(false); }
  // rows_out[r] = x x experts[e]^T for every row r, e its expert; x = in[row_to_token[r]], or in[r] where `in` is
  // grouped by expert already. One batch of rows per expert.
  virtual void LinearPerExpert(Matrix /*in*/, bool /*in_is_grouped*/,
                               std::span<const std::unique_ptr<Weight>> /*experts*/,
                               const ExpertBatches& /*batches*/, Matrix /*rows_out*/) {
    CHECK(false);
  }
  // JetMoE: an expert makes one query head per KV head, and rank j of top_k reads KV head n with its head n. So query
  // head n * top_k + j of token t is head n of rows[choice_to_row[t * top_k + j]], and the projected keys and values
  // follow: rows [num_rows, num_kv_heads * head_dim], kv [num_tokens, 2 * kv_size], qkv [num_tokens, qkv_size].
  virtual void SpreadHeads(const AttentionShape& /*shape*/, Matrix /*rows*/, const ExpertBatches& /*batches*/,
                           Matrix /*kv*/, Matrix /*qkv*/) {
    CHECK(false);
  }
  // The way back: attended [num_tokens, q_size] -> rows [num_rows, num_kv_heads * head_dim].
  virtual void CollectHeads(const AttentionShape& /*shape*/, Matrix /*attended*/, const ExpertBatches& /*batches*/,
                            Matrix /*rows*/) {
    CHECK(false);
  }
  // MLA. latent: [num_tokens, head_dim] as projected. Norms its latent part with `norm` and shape.qk_norm_eps, rotates
  // its rope key and writes it to the cache. q: [num_tokens, num_heads * any width] as projected; the last elements of
  // each head, as many as the shape rotates, go rotated to the end of that head in `queries` [num_tokens, q_size].
  virtual void PrepareLatent(const AttentionShape& /*shape*/, std::span<const AttentionSlice> /*slices*/,
                             const Weight& /*norm*/, int32_t /*layer*/, KvCache& /*cache*/, Matrix /*q*/,
                             Matrix /*latent*/, Matrix /*queries*/) {
    CHECK(false);
  }
  // Encoders. Memory for the keys and values of a call of BidirectionalAttention with at most max_tokens rows in at
  // most max_slices slices, kept as `dtype`. Called once, for the one shape that all layers share, before
  // PrepareScratch.
  // INVALID_ARGUMENT: a shape that the device does not serve. RESOURCE_EXHAUSTED: not enough memory.
  virtual absl::Status PrepareBidirectional(const AttentionShape& /*shape*/, int32_t /*max_tokens*/,
                                            int32_t /*max_slices*/, DType /*dtype*/) {
    return absl::UnimplementedError(description() + " does not compute: bidirectional attention");
  }
  // Attention of each row's q over the keys and values of all rows of its slice; nothing is cached. qkv: [num_tokens,
  // qkv_size] as projected; q and k are clipped and rotated in place as `shape` says. Positions count from 0 in every
  // slice, whose first_position and block_table are not read. out: [num_tokens, out_size].
  virtual void BidirectionalAttention(const AttentionShape& /*shape*/, std::span<const AttentionSlice> /*slices*/,
                                      Matrix /*qkv*/, Matrix /*out*/) {
    CHECK(false);
  }
  // Encoder-decoders. kv: [num_tokens, 2 kv_size], keys and values of an encoder's output; written to the positions of
  // the slices, which are those below num_encoder_tokens.
  virtual void StoreEncoderKv(const AttentionShape& /*shape*/, std::span<const AttentionSlice> /*slices*/,
                              int32_t /*layer*/, KvCache& /*cache*/, Matrix /*kv*/) {
    CHECK(false);
  }
  // Attention of each row of q [num_tokens, q_size] over all num_encoder_tokens keys of its slice. out: [num_tokens,
  // out_size].
  virtual void CrossAttention(const AttentionShape& /*shape*/, std::span<const AttentionSlice> /*slices*/,
                              int32_t /*layer*/, const KvCache& /*cache*/, Matrix /*q*/, Matrix /*out*/) {
    CHECK(false);
  }

  // ---- results ----

  // Wall time on the device between the two calls goes to *seconds, which is valid after Wait(). Not nested. These
  // defaults read the host's clock, which is right for a device that has finished when the call returns.
  virtual void StartTimer() { timer_start_ = std::chrono::steady_clock::now(); }
  virtual void StopTimer(float* seconds) {
    *seconds = std::chrono::duration<float>(std::chrono::steady_clock::now() - timer_start_).count();
  }

  // Steps between BeginStep and EndStep that may be called before Wait is called for the first of them: 1, or more where
  // an id ~i of Embed means the token that the step before sampled for its i-th row with logits.
  virtual int max_steps_in_flight() const { return 1; }
  // Waits for the oldest step not waited for, or, if there is none, for everything called so far. INTERNAL: the device
  // failed, with its words; stays failed.
  virtual absl::Status Wait() = 0;
  // The matrix in host memory as fp32, row-major; valid until the next step operation. Call after Wait(). Empty if the
  // device failed meanwhile: then the next Wait says how.
  virtual std::span<const float> HostView(Matrix matrix) = 0;
  virtual int num_host_threads() const = 0;
  // Runs body(thread, i) for i = 0 ... count - 1 on the backend's host threads and returns when all are done (sampling
  // uses it). 0 <= thread < num_host_threads(); no two bodies run with the same thread at once.
  virtual void ParallelFor(int64_t count, const std::function<void(int thread, int64_t i)>& body) = 0;

 private:
  std::chrono::steady_clock::time_point timer_start_;
};

struct BackendOptions {
  std::string device = "auto";        // auto (a GPU if there is one) | cpu | cuda
  std::string cpu_isa = "auto";       // auto | scalar | avx2 | avx512 | avx512_bf16 | amx
  int num_threads = 0;                // CPU workers; 0 = one per available core
  bool keep_quantized = true;         // quantized experts stay so where the device can; see Backend::PlanExperts
  std::string expert_gemm = "auto";   // of a GPU: auto | fastest | native | wgmma | cublas_grouped | cublas_padded
  std::string expert_gemm_table;      // file for auto and fastest, see cuda/expert_gemm_table.h; empty: none
  double memory_utilization = 0.9;    // share of a GPU's free memory that may be used, in (0, 1]
};

struct CreatedBackend {
  std::unique_ptr<Backend> backend;
  std::string reason;  // why this device runs, for people: "no GPU: libcuda.so.1 is not installed"
};

// FAILED_PRECONDITION: the device or instruction set that was asked for by name is not there, and why.
absl::StatusOr<CreatedBackend> CreateBackend(const BackendOptions& options);

}  // namespace switchyard

#endif  // SWITCHYARD_ENGINE_BACKEND_BACKEND_H_
