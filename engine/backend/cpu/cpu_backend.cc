#include "engine/backend/cpu/cpu_backend.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/backend/cpu/capacity.h"
#include "engine/backend/cpu/context.h"
#include "engine/backend/cpu/encoder_attention.h"
#include "engine/backend/cpu/expert_mlp.h"
#include "engine/backend/cpu/isa.h"
#include "engine/backend/cpu/kv_attention.h"
#include "engine/backend/cpu/linear.h"
#include "engine/backend/cpu/router.h"
#include "engine/backend/cpu/weights.h"
#include "engine/base/bf16.h"
#include "engine/base/status_macros.h"

namespace switchyard::cpu {
namespace {

constexpr int64_t kInlineElements = 16384;  // smaller row-wise operations cost less than waking the workers

float* Floats(Matrix matrix) { return static_cast<float*>(matrix.data); }
float* Row(Matrix matrix, int64_t row) { return Floats(matrix) + row * matrix.cols; }

const CpuWeight& Cpu(const Weight& weight) { return static_cast<const CpuWeight&>(weight); }
const CpuWeight* Cpu(const Weight* weight) { return static_cast<const CpuWeight*>(weight); }

class CpuBackend final : public Backend {
 public:
  CpuBackend(Isa isa, bool keep_quantized, std::unique_ptr<WorkerPool> pool)
      : context_(std::move(pool), KernelsFor(isa)),
        keep_quantized_(keep_quantized),
        description_(absl::StrCat("cpu (", IsaName(isa), ", ", num_host_threads(),
                                  num_host_threads() == 1 ? " thread)" : " threads)")),
        expert_gemm_{IsaName(isa), 0} {}

  const std::string& description() const override { return description_; }
  std::span<const ExpertGemmCount> expert_gemms() const override { return {&expert_gemm_, 1}; }

  absl::Status CheckServed(const LayerBlocks&) const override { return absl::OkStatus(); }

  absl::StatusOr<std::unique_ptr<Weight>> LoadWeight(std::span<const TensorReader* const> parts,
                                                     std::span<const TensorReader* const> biases, DType dtype,
                                                     WeightUse use) override {
    return LoadCpuWeight(context_, parts, biases, dtype, use);
  }

  absl::StatusOr<std::unique_ptr<ExpertWeights>> LoadExperts(std::span<const ExpertReaders> experts,
                                                             DType dtype) override {
    return LoadCpuExperts(context_, experts, dtype, keep_quantized_);
  }

  ExpertMemory PlanExperts(std::span<const ExpertReaders> experts, DType dtype) const override {
    return PlanCpuExperts(experts, dtype, keep_quantized_);
  }

  absl::StatusOr<Matrix> AllocateMatrix(int64_t rows, int64_t cols) override {
    ASSIGN_OR_RETURN(void* data, Own(rows * cols * 4, "activations"));
    return Matrix{data, rows, cols};
  }

  absl::StatusOr<Routing> AllocateRouting(int32_t max_tokens, const RouterConfig& config) override {
    const int64_t choices = int64_t{max_tokens} * config.top_k;
    Routing routing;
    routing.top_k = config.top_k;
    routing.num_experts = config.num_experts;
    RETURN_IF_ERROR(OwnArray(choices, &routing.expert_ids));
    RETURN_IF_ERROR(OwnArray(choices, &routing.expert_weights));
    RETURN_IF_ERROR(OwnArray(max_tokens, &routing.margins));
    RETURN_IF_ERROR(OwnArray(max_tokens, &routing.logsumexps));
    RETURN_IF_ERROR(OwnArray(config.num_experts, &routing.probability_sums));
    RETURN_IF_ERROR(OwnArray(1, &routing.squared_logsumexp_sum));
    context_.sizes.num_experts = std::max<int64_t>(context_.sizes.num_experts, config.num_experts);
    context_.sizes.router_temp = std::max(context_.sizes.router_temp, RouterTempElements(config));
    if (config.capacity > 0) {
      const int64_t elements = CapacityScratchElements(max_tokens, config.top_k, config.num_experts);
      context_.sizes.capacity = std::max(context_.sizes.capacity, elements);
    }
    return routing;
  }

  absl::StatusOr<ExpertBatches> AllocateExpertBatches(int32_t max_tokens, const RouterConfig& config) override {
    const int64_t choices = int64_t{max_tokens} * config.top_k;
    if (choices > INT32_MAX) {
      return absl::InvalidArgumentError(absl::StrCat("a step of ", max_tokens, " tokens, each to ", config.top_k,
                                                     " experts, makes ", choices, " rows, at most ", INT32_MAX));
    }
    ExpertBatches batches;
    batches.num_experts = config.num_experts;
    RETURN_IF_ERROR(OwnArray(config.num_experts + 1, &batches.expert_offsets));
    RETURN_IF_ERROR(OwnArray(choices, &batches.choice_to_row));
    RETURN_IF_ERROR(OwnArray(choices, &batches.row_to_token));
    RETURN_IF_ERROR(OwnArray(config.num_experts, &batches.expert_seconds));
    if (config.weigh_input) {
      RETURN_IF_ERROR(OwnArray(choices, &batches.row_weights));
      context_.sizes.weighed_rows = std::max(context_.sizes.weighed_rows, choices);
    }
    return batches;
  }

  int64_t AvailableBytes() const override { return AvailableMemoryBytes(); }

  int64_t KvBlockBytes(const KvCacheShape& shape) const override { return CpuKvCache::BlockBytes(shape); }

  absl::StatusOr<std::unique_ptr<KvCache>> AllocateKvCache(const KvCacheShape& shape) override {
    ASSIGN_OR_RETURN(auto cache, CpuKvCache::Create(shape));
    context_.sizes.dim_pad = std::max(context_.sizes.dim_pad, cache->layout().dim_pad);
    return cache;
  }

  absl::Status PrepareScratch(int32_t max_tokens) override { return context_.AllocateScratch(max_tokens); }

  void Embed(std::span<const int32_t> ids, const Weight& table, Matrix out) override {
    const CpuWeight& weight = Cpu(table);
    for (size_t i = 0; i < ids.size(); ++i) {
      float* const to = Row(out, static_cast<int64_t>(i));
      if (weight.dtype == DType::kF32) {
        std::memcpy(to, weight.data.as<float>() + ids[i] * weight.in, static_cast<size_t>(weight.in) * 4);
      } else {
        const uint16_t* const from = weight.data.as<uint16_t>() + ids[i] * weight.in;
        for (int64_t c = 0; c < weight.in; ++c) to[c] = Bf16ToFloat(from[c]);
      }
    }
  }

  void RmsNorm(Matrix in, const Weight& weight, float eps, Matrix out) override {
    ForRows(in.rows, in.cols, [&](int64_t r) {
      context_.kernels.rms_norm(Row(in, r), Cpu(weight).data.as<float>(), in.cols, eps, Row(out, r));
    });
  }

  void Linear(Matrix in, const Weight& weight, OutputMode mode, Matrix out) override {
    cpu::Linear(context_, Floats(in), in.rows, Cpu(weight), mode == OutputMode::kAdd, Floats(out));
  }

  void PrepareQkv(const AttentionShape& shape, std::span<const AttentionSlice> slices, const Weight* q_norm,
                  const Weight* k_norm, int32_t layer, KvCache& cache, Matrix qkv) override {
    RunPrepareQkv(context_, shape, slices, Cpu(q_norm), Cpu(k_norm), layer, static_cast<CpuKvCache&>(cache),
                  Floats(qkv));
  }

  void Attention(const AttentionShape& shape, std::span<const AttentionSlice> slices, int32_t layer,
                 const KvCache& cache, Matrix qkv, Matrix out) override {
    RunAttention(context_, shape, slices, layer, static_cast<const CpuKvCache&>(cache), {Floats(qkv), qkv.cols},
                 KeysSeen::kUpToItself, Floats(out));
  }

  void Route(Matrix in, const Weight& router, const RouterConfig& config, Routing* routing) override {
    RunRouter(context_, Floats(in), in.rows, Cpu(router), config, routing);
  }

  void GroupByExpert(const Routing& routing, ExpertBatches* batches) override {
    GroupChoicesByExpert(routing, batches);
  }

  void ExpertMlp(Matrix in, const ExpertWeights& experts, const ExpertBatches& batches, Matrix rows_out) override {
    if (in.rows > 0) ++expert_gemm_.layers;
    RunExpertMlp(context_, Floats(in), static_cast<const CpuExperts&>(experts), batches, Floats(rows_out));
  }

  void Combine(Matrix rows, const Routing& routing, const ExpertBatches& batches, Matrix out) override {
    const int32_t k = routing.top_k;
    ForRows(routing.num_tokens, out.cols * k, [&](int64_t t) {
      for (int64_t choice = t * k; choice < (t + 1) * k; ++choice) {
        if (batches.choice_to_row[choice] == kDropped) continue;
        const float weight = routing.weigh_input ? 1.0f : routing.expert_weights[choice];
        context_.kernels.add_scaled(weight, Row(rows, batches.choice_to_row[choice]), out.cols, Row(out, t));
      }
    });
  }

  void SiluMul(Matrix gate_up, Matrix out) override {
    ForRows(gate_up.rows, out.cols, [&](int64_t r) {
      const float* const gate = Row(gate_up, r);
      context_.kernels.silu_mul(gate, gate + out.cols, out.cols, Row(out, r));
    });
  }

  void AddGated(Matrix in, const Weight& gate, Matrix values, Matrix out) override {
    ForRows(in.rows, in.cols, [&](int64_t t) {
      const float score = context_.kernels.dot(Row(in, t), Cpu(gate).data.as<float>(), in.cols);
      const float factor = 1.0f / (1.0f + std::exp(-score));
      context_.kernels.add_scaled(factor, Row(values, t), out.cols, Row(out, t));
    });
  }

  void SelectRows(Matrix in, std::span<const int32_t> rows, Matrix out) override {
    for (size_t i = 0; i < rows.size(); ++i) {
      std::memcpy(Row(out, static_cast<int64_t>(i)), Row(in, rows[i]), static_cast<size_t>(in.cols) * 4);
    }
  }

  void LayerNorm(Matrix in, const Weight& weight, const Weight* bias, float eps, Matrix out) override {
    const float* const shift = bias == nullptr ? nullptr : Cpu(*bias).data.as<float>();
    ForRows(in.rows, in.cols, [&](int64_t r) {
      context_.kernels.layer_norm(Row(in, r), Cpu(weight).data.as<float>(), shift, in.cols, eps, Row(out, r));
    });
  }

  void Upload(std::span<const float> values, Matrix matrix) override {
    CHECK(static_cast<int64_t>(values.size()) == matrix.rows * matrix.cols);
    std::copy(values.begin(), values.end(), Floats(matrix));
  }

  void Activate(Activation activation, Matrix matrix) override {
    ForRows(matrix.rows, matrix.cols, [&](int64_t r) {
      context_.kernels.activate(activation, matrix.cols, Row(matrix, r));
    });
  }

  void LimitChoices(const RouterConfig& config, std::span<const RowGroup> groups, Routing* routing) override {
    RunLimitChoices(context_, config, groups, routing);
  }

  void Scale(float factor, Matrix matrix) override {
    ForRows(matrix.rows, matrix.cols, [&](int64_t r) { context_.kernels.scale(factor, matrix.cols, Row(matrix, r)); });
  }

  void LinearPerHead(Matrix in, std::span<const std::unique_ptr<Weight>> heads, Matrix out) override {
    cpu::LinearPerHead(context_, Floats(in), in.cols, in.rows, heads, Floats(out), out.cols);
  }

  void AddBias(const Weight& bias, Matrix matrix) override {
    ForRows(matrix.rows, matrix.cols, [&](int64_t r) {
      context_.kernels.add_scaled(1.0f, Cpu(bias).data.as<float>(), matrix.cols, Row(matrix, r));
    });
  }

  void LinearPerExpert(Matrix in, bool in_is_grouped, std::span<const std::unique_ptr<Weight>> experts,
                       const ExpertBatches& batches, Matrix rows_out) override {
    cpu::LinearPerExpert(context_, Floats(in), in_is_grouped, experts, batches, Floats(rows_out));
  }

  void SpreadHeads(const AttentionShape& shape, Matrix rows, const ExpertBatches& batches, Matrix kv,
                   Matrix qkv) override {
    const int64_t top_k = shape.num_heads / shape.num_kv_heads, dim = shape.head_dim;
    ForRows(qkv.rows, qkv.cols, [&](int64_t t) {
      for (int64_t j = 0; j < top_k; ++j) {
        const float* const from = Row(rows, batches.choice_to_row[t * top_k + j]);
        for (int64_t n = 0; n < shape.num_kv_heads; ++n) {
          std::copy_n(from + n * dim, dim, Row(qkv, t) + (n * top_k + j) * dim);
        }
      }
      std::copy_n(Row(kv, t), kv.cols, Row(qkv, t) + shape.q_size());
    });
  }

  void CollectHeads(const AttentionShape& shape, Matrix attended, const ExpertBatches& batches,
                    Matrix rows) override {
    const int64_t top_k = shape.num_heads / shape.num_kv_heads, dim = shape.head_dim;
    ForRows(attended.rows, attended.cols, [&](int64_t t) {
      for (int64_t j = 0; j < top_k; ++j) {
        float* const to = Row(rows, batches.choice_to_row[t * top_k + j]);
        for (int64_t n = 0; n < shape.num_kv_heads; ++n) {
          std::copy_n(Row(attended, t) + (n * top_k + j) * dim, dim, to + n * dim);
        }
      }
    });
  }

  void PrepareLatent(const AttentionShape& shape, std::span<const AttentionSlice> slices, const Weight& norm,
                     int32_t layer, KvCache& cache, Matrix q, Matrix latent, Matrix queries) override {
    RunPrepareLatent(context_, shape, slices, Cpu(norm), layer, static_cast<CpuKvCache&>(cache), Floats(q), q.cols,
                     Floats(latent), Floats(queries));
  }

  absl::Status PrepareBidirectional(const AttentionShape& shape, int32_t max_tokens, int32_t max_slices,
                                    DType dtype) override {
    ASSIGN_OR_RETURN(encoder_, EncoderAttention::Create(shape, max_tokens, max_slices, dtype));
    context_.sizes.dim_pad = std::max(context_.sizes.dim_pad, encoder_->layout().dim_pad);
    return absl::OkStatus();
  }

  void BidirectionalAttention(const AttentionShape& shape, std::span<const AttentionSlice> slices, Matrix qkv,
                              Matrix out) override {
    encoder_->Run(context_, shape, slices, Floats(qkv), Floats(out));
  }

  void StoreEncoderKv(const AttentionShape& shape, std::span<const AttentionSlice> slices, int32_t layer,
                      KvCache& cache, Matrix kv) override {
    RunStoreEncoderKv(context_, shape, slices, layer, static_cast<const CpuKvCache&>(cache), Floats(kv));
  }

  void CrossAttention(const AttentionShape& shape, std::span<const AttentionSlice> slices, int32_t layer,
                      const KvCache& cache, Matrix q, Matrix out) override {
    RunAttention(context_, shape, slices, layer, static_cast<const CpuKvCache&>(cache), {Floats(q), q.cols},
                 KeysSeen::kOfEncoder, Floats(out));
  }

  absl::Status Wait() override { return absl::OkStatus(); }

  std::span<const float> HostView(Matrix matrix) override {
    return {Floats(matrix), static_cast<size_t>(matrix.rows * matrix.cols)};
  }

  int num_host_threads() const override { return context_.pool.num_threads(); }

  void ParallelFor(int64_t count, const std::function<void(int, int64_t)>& body) override {
    context_.pool.ParallelFor(count, body);
  }

 private:
  absl::StatusOr<void*> Own(int64_t bytes, const char* purpose) {
    ASSIGN_OR_RETURN(Buffer buffer, Buffer::Allocate(bytes, purpose));
    owned_.push_back(std::move(buffer));
    return owned_.back().as<void>();
  }

  template <typename T>
  absl::Status OwnArray(int64_t count, T** array) {
    ASSIGN_OR_RETURN(void* data, Own(count * static_cast<int64_t>(sizeof(T)), "routing"));
    *array = static_cast<T*>(data);
    return absl::OkStatus();
  }

  // body(row) for every row; contiguous parts per thread, or inline when that is cheaper.
  template <typename Body>
  void ForRows(int64_t num_rows, int64_t elements_per_row, const Body& body) {
    if (num_rows * elements_per_row <= kInlineElements) {
      for (int64_t r = 0; r < num_rows; ++r) body(r);
      return;
    }
    context_.pool.Run([&](int thread) {
      const auto [first, last] = WorkerPool::Part(num_rows, thread, context_.pool.num_threads());
      for (int64_t r = first; r < last; ++r) body(r);
    });
  }

  Context context_;
  const bool keep_quantized_;
  const std::string description_;
  ExpertGemmCount expert_gemm_;
  std::vector<Buffer> owned_;
  std::unique_ptr<EncoderAttention> encoder_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Backend>> CreateCpuBackend(const BackendOptions& options) {
  if (options.num_threads < 0 || options.num_threads > WorkerPool::kMaxThreads) {
    return absl::InvalidArgumentError(absl::StrCat("num_threads is ", options.num_threads,
                                                   ", expected 0 (one per core) to ", WorkerPool::kMaxThreads));
  }
  ASSIGN_OR_RETURN(const Isa isa, ChooseIsa(options.cpu_isa));
  const int num_threads = options.num_threads > 0 ? options.num_threads : WorkerPool::NumAvailableCores();
  ASSIGN_OR_RETURN(std::unique_ptr<WorkerPool> pool, WorkerPool::Create(num_threads));
  return std::make_unique<CpuBackend>(isa, options.keep_quantized, std::move(pool));
}

}  // namespace switchyard::cpu
