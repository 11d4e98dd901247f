// The backend's class, shared by the files that define its parts; everybody else includes cuda_backend.h.
#ifndef SWITCHYARD_ENGINE_BACKEND_CUDA_CUDA_BACKEND_IMPL_H_
#define SWITCHYARD_ENGINE_BACKEND_CUDA_CUDA_BACKEND_IMPL_H_

#include <array>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "engine/backend/cuda/activations.h"
#include "engine/backend/cuda/attention_kernels.h"
#include "engine/backend/cuda/cuda_backend.h"
#include "engine/backend/cuda/device_memory.h"
#include "engine/backend/cuda/expert_gemm_choice.h"
#include "engine/backend/cuda/kernels.h"
#include "engine/backend/cuda/kv_cache.h"
#include "engine/backend/cuda/recorder.h"
#include "engine/backend/cuda/step_inputs.h"
#include "engine/backend/cuda/step_results.h"
#include "engine/backend/cuda/weights.h"
#include "engine/base/worker_pool.h"

namespace switchyard::cuda {

constexpr int64_t kPartialFloats = int64_t{32} << 20;  // of a DecodeScratch

inline const CudaWeight& Cuda(const Weight& weight) { return static_cast<const CudaWeight&>(weight); }
inline const float* Vector(const Weight* weight) {
  return weight == nullptr ? nullptr : static_cast<const CudaWeight*>(weight)->data.as<float>();
}

// Cut out of `base` what every step brings to the host of a Routing or ExpertBatches, and return its bytes; a null base
// only counts.
int64_t PlaceRoutingResults(char* base, int32_t num_experts, RoutingArrays* arrays);
int64_t PlaceBatchResults(char* base, int32_t num_experts, BatchArrays* arrays, ExpertPlan* stamps);

class CudaBackend final : public Backend {
 public:
  static absl::StatusOr<std::unique_ptr<Backend>> Create(const BackendOptions& options);
  ~CudaBackend() override;

  const std::string& description() const override { return description_; }
  std::span<const ExpertGemmCount> expert_gemms() const override { return expert_gemms_->counts(); }

  absl::StatusOr<std::unique_ptr<Weight>> LoadWeight(std::span<const TensorReader* const> parts,
                                                     std::span<const TensorReader* const> biases, DType dtype,
                                                     WeightUse use) override;
  absl::StatusOr<std::unique_ptr<ExpertWeights>> LoadExperts(std::span<const ExpertReaders> experts,
                                                             DType dtype) override;
  absl::StatusOr<Matrix> AllocateMatrix(int64_t rows, int64_t cols) override {
    return activations_.Allocate(rows, cols);
  }
  absl::StatusOr<Routing> AllocateRouting(int32_t max_tokens, const RouterConfig& config) override;
  absl::StatusOr<ExpertBatches> AllocateExpertBatches(int32_t max_tokens, const RouterConfig& config) override;
  int64_t AvailableBytes() const override;
  // Two planes, and what the experts need between their products.
  int64_t ActivationBytes(int64_t fp32_bytes) const override { return 2 * fp32_bytes; }
  // All of it: the GPU's memory serves nothing else.
  int64_t DefaultKvCacheBytes(int64_t free_bytes) const override { return free_bytes; }
  absl::Status CheckServed(const LayerBlocks& blocks) const override;
  int64_t KvBlockBytes(const KvCacheShape& shape) const override {
    return CudaKvCache::BlockBytes(shape);
  }
  absl::StatusOr<std::unique_ptr<KvCache>> AllocateKvCache(const KvCacheShape& shape) override;
  absl::Status PrepareScratch(int32_t max_tokens) override;

  bool BeginStep(const StepInputs& step, const KvCache& cache) override;
  void EndStep() override;
  void Embed(std::span<const int32_t> ids, const Weight& table, Matrix out) override;
  void RmsNorm(Matrix in, const Weight& weight, float eps, Matrix out) override;
  void Linear(Matrix in, const Weight& weight, OutputMode mode, Matrix out) override;
  void PrepareQkv(const AttentionShape& shape, std::span<const AttentionSlice> slices, const Weight* q_norm,
                  const Weight* k_norm, int32_t layer, KvCache& cache, Matrix qkv) override;
  void Attention(const AttentionShape& shape, std::span<const AttentionSlice> slices, int32_t layer,
                 const KvCache& cache, Matrix qkv, Matrix out) override;
  void Route(Matrix in, const Weight& router, const RouterConfig& config, Routing* routing) override;
  void GroupByExpert(const Routing& routing, ExpertBatches* batches) override;
  void ExpertMlp(Matrix in, const ExpertWeights& experts, const ExpertBatches& batches, Matrix rows_out) override;
  void Combine(Matrix rows, const Routing& routing, const ExpertBatches& batches, Matrix out) override;
  void SiluMul(Matrix gate_up, Matrix out) override;
  void AddGated(Matrix in, const Weight& gate, Matrix values, Matrix out) override;
  void SelectRows(Matrix in, std::span<const int32_t> rows, Matrix out) override;
  absl::StatusOr<const int32_t*> AllocateSampledTokens(int64_t max_rows) override;
  void SampleTokens(Matrix logits, int64_t num_ids, std::span<const RowSampling> sampling) override;
  void LayerNorm(Matrix in, const Weight& weight, const Weight* bias, float eps, Matrix out) override;
  void Activate(Activation activation, Matrix matrix) override;
  void Scale(float factor, Matrix matrix) override;
  void AddBias(const Weight& bias, Matrix matrix) override;
  void LinearPerHead(Matrix in, std::span<const std::unique_ptr<Weight>> heads, Matrix out) override;
  void LinearPerExpert(Matrix in, bool in_is_grouped, std::span<const std::unique_ptr<Weight>> experts,
                       const ExpertBatches& batches, Matrix rows_out) override;
  void SpreadHeads(const AttentionShape& shape, Matrix rows, const ExpertBatches& batches, Matrix kv,
                   Matrix qkv) override;
  void CollectHeads(const AttentionShape& shape, Matrix attended, const ExpertBatches& batches, Matrix rows) override;
  void PrepareLatent(const AttentionShape& shape, std::span<const AttentionSlice> slices, const Weight& norm,
                     int32_t layer, KvCache& cache, Matrix q, Matrix latent, Matrix queries) override;

  int max_steps_in_flight() const override { return max_logit_rows_ > 0 ? kMaxStepsInFlight : 1; }
  void StartTimer() override;
  void StopTimer(float* seconds) override;
  absl::Status Wait() override;
  std::span<const float> HostView(Matrix matrix) override;
  int num_host_threads() const override { return pool_->num_threads(); }
  void ParallelFor(int64_t count, const std::function<void(int, int64_t)>& body) override {
    pool_->ParallelFor(count, body);
  }

 private:
  // The two sides of a Routing or ExpertBatches, found by the host address of its first array: arrays per token, and
  // what is part of every step's results. Each side's memory is laid out alike.
  struct SharedArrays {
    DeviceBuffer device_memory;
    std::unique_ptr<char[]> host_memory;
    int64_t bytes = 0;
    std::unique_ptr<char[]> host_results;
    int64_t results = 0;  // offset in results_
    int64_t result_bytes = 0;
  };
  struct RoutingMemory : SharedArrays {
    RoutingArrays device = {};
    RoutingArrays host = {};
    int32_t num_experts = 0;
    int32_t top_k = 0;
    int32_t offset = 0;  // of its words in a row of collected_routing_
  };
  struct BatchMemory : SharedArrays {
    BatchArrays device = {};
    ExpertPlan plan;         // the stamps of this layer, tiles_ of all
    ExpertPlan host_stamps;  // without tiles
    std::unique_ptr<float[]> seconds;
    int32_t num_experts = 0;
  };
  // What the operations of one step leave for the host; or those outside of any step, since the last Wait.
  struct Touched {
    std::vector<std::pair<Routing*, int32_t>> routings;  // with its number of tokens
    std::vector<std::pair<ExpertBatches*, int32_t>> batches;  // with its number of rows
    std::vector<float*> timers;  // each has two stamps
    std::vector<int32_t> logit_rows;
    bool explain_routing = false;

    void Clear() {
      routings.clear();
      batches.clear();
      timers.clear();
    }
  };
  struct DeviceVector {
    std::vector<float> values;
    DeviceBuffer data;
  };

  CudaBackend(std::unique_ptr<WorkerPool> pool, cudaStream_t stream, const cudaDeviceProp& properties)
      : pool_(std::move(pool)),
        stream_(stream),
        num_multiprocessors_(properties.multiProcessorCount),
        max_shared_bytes_(static_cast<int32_t>(properties.sharedMemPerBlockOptin)),
        activations_(stream),
        recorder_(stream) {}

  // Remembers the first failure for Wait. After it no kernel is started any more: LaunchRows is 0.
  void Check(absl::Status status) {
    if (failure_.ok()) failure_ = std::move(status);
  }
  absl::StatusOr<WeightLoader*> Loader();
  // Rows that a kernel is started for: those of the call, or more where the step is being recorded.
  int64_t LaunchRows(Matrix matrix) const;
  const StepCounts* Counts() const { return in_step_ ? step_.device().counts : nullptr; }
  // The announced step if the operation belongs to it, else one made for this operation alone.
  UploadedStep& InputsFor(std::span<const AttentionSlice> slices, int32_t block_size);
  void UploadSingle(const StepInputs& inputs, int32_t block_size);
  AttentionArgs ArgsFor(const AttentionShape& shape, const CudaKvCache& cache, int32_t layer);
  DecodeScratch ScratchForDecode() const {
    return {partials_.as<float>(), kPartialFloats, chunk_counters_.as<unsigned>()};
  }
  void AddRope(const AttentionShape& shape, AttentionArgs* args);
  const float* OnDevice(const std::vector<float>& values);
  void AttendLatents(UploadedStep& inputs, const AttentionArgs& args, const float* queries, Planes out);
  // That reach the longest decode row's position, or more where the step is being recorded.
  int64_t MaxChunks(const UploadedStep& inputs) const {
    return bucket_ > 0 ? chunk_bucket_ : inputs.longest_decode() / kKeyChunk + 1;
  }
  absl::Status AllocateShared(const char* purpose, int64_t bytes, int64_t result_bytes, SharedArrays* arrays);
  absl::Status AllocateResults();
  void FinishStep();
  Touched& touched() { return in_step_ ? steps_[results_.next_slot()] : alone_; }
  void Touch(Routing* routing, int64_t num_tokens);
  void Touch(ExpertBatches* batches, int64_t num_rows);
  unsigned long long* Stamp(size_t number) const { return results_.device<unsigned long long>(stamps_) + number; }
  absl::Status CopyOut(const void* device, int64_t bytes, void* host);
  absl::Status FetchAlone();
  void TakeResults(const Touched& touched, const char* results);
  void TakeCollectedRouting(const Touched& touched, const float* rows);
  void Decode(const UploadedStep& inputs, const AttentionArgs& args, int64_t max_chunks, const float* qkv, Planes out);
  Activations::Written PlanesForReaders() const { return reads_bf16_ ? Activations::kBoth : Activations::kF32; }

  std::unique_ptr<WorkerPool> pool_;
  cudaStream_t const stream_;
  const int num_multiprocessors_;
  const int32_t max_shared_bytes_;  // of one block
  std::string description_;
  double memory_utilization_ = 1.0;
  absl::Status failure_;
  Activations activations_;
  std::unique_ptr<WeightLoader> loader_;  // while loading
  std::unique_ptr<ExpertGemmChoice> expert_gemms_;
  StepResults results_;
  std::array<Touched, kMaxStepsInFlight> steps_;  // by slot of results_
  Touched alone_;
  std::map<const void*, RoutingMemory> routings_;
  std::map<const void*, BatchMemory> batches_;
  std::deque<DeviceVector> vectors_;      // RoPE frequencies: few, each used by many layers

  // What loading found out, for PrepareScratch.
  bool reads_bf16_ = false;
  int32_t max_experts_ = 0;
  int32_t max_top_k_ = 0;
  bool weighs_inputs_ = false;
  std::vector<ExpertSizes> expert_sizes_;  // that layers have, each once

  DeviceBuffer router_scratch_;
  DeviceBuffer expert_scratch_;
  DeviceBuffer weighed_rows_;  // inputs of the experts times their router weights
  DeviceBuffer plan_memory_;
  DeviceBuffer partials_;
  DeviceBuffer chunk_counters_;
  ExpertPlan tiles_;          // of the layer under way: ExpertMlp follows its GroupByExpert; without stamps
  int plan_tile_tokens_ = 0;  // what it was made with

  UploadedStep step_;        // the announced one
  UploadedStep single_;      // for an operation outside of it
  StepInputs announced_;
  bool in_step_ = false;
  int64_t max_tokens_ = 0;   // of a step
  int64_t bucket_ = 0;       // rows of the recording under way
  int64_t chunk_bucket_ = 0;
  int64_t recorded_generation_ = 0;
  Recorder recorder_;

  // Parts of results_, as offsets.
  int64_t stamps_ = 0;            // two for each timer
  size_t max_timers_ = 0;
  int64_t sampled_on_device_ = 0;
  int64_t collected_routing_ = 0;  // the last part, as it is not always wanted
  int64_t routing_record_ = 0;     // words per row
  int64_t max_logit_rows_ = 0;
  DeviceBuffer routed_layers_;

  PinnedBuffer host_view_;
  std::vector<int32_t> sampled_tokens_;
};

}  // namespace switchyard::cuda

#endif  // SWITCHYARD_ENGINE_BACKEND_CUDA_CUDA_BACKEND_IMPL_H_
