#include "engine/backend/cuda/cuda_backend.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <deque>
#include <limits>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/backend/cuda/activations.h"
#include "engine/backend/cuda/device_memory.h"
#include "engine/backend/cuda/expert_gemm.h"
#include "engine/backend/cuda/kernels.h"
#include "engine/backend/cuda/recorder.h"
#include "engine/backend/cuda/served_blocks.h"
#include "engine/backend/cuda/step_inputs.h"
#include "engine/backend/cuda/weights.h"
#include "engine/base/status_macros.h"
#include "engine/base/worker_pool.h"

namespace switchyard::cuda {
namespace {

constexpr int kOldestMajor = 8;                       // cp.async, bfloat16 in the matrix units
constexpr int64_t kPartialFloats = int64_t{32} << 20;  // results of attention chunks before they are merged
constexpr int64_t kMaxRecordedChunks = 512;            // 131,072 tokens: fits the above with 128 heads of 256
constexpr int64_t kReserveBytes = int64_t{512} << 20;  // the above, and what the driver, graphs and cuBLAS take

const CudaWeight& Cuda(const Weight& weight) { return static_cast<const CudaWeight&>(weight); }
const float* Vector(const Weight* weight) {
  return weight == nullptr ? nullptr : static_cast<const CudaWeight*>(weight)->data.as<float>();
}

struct CudaKvCache final : public KvCache {
  KvCacheShape shape;
  int32_t dim_pad = 0;
  DeviceBuffer keys;
  DeviceBuffer values;

  static int32_t DimPad(const KvCacheShape& shape) { return static_cast<int32_t>(RoundUp(shape.head_dim, 32)); }
  // Keys, or values, of one block in one layer.
  static int64_t BlockElements(const KvCacheShape& shape) {
    return int64_t{shape.num_kv_heads} * shape.block_size * DimPad(shape);
  }
  void* LayerOf(const DeviceBuffer& buffer, int32_t layer) const {
    return buffer.as<char>() + layer * shape.num_blocks * BlockElements(shape) * DTypeBytes(shape.dtype);
  }
};

absl::Status CheckShape(const KvCacheShape& shape) {
  if (shape.num_layers <= 0 || shape.num_blocks <= 0 || shape.num_kv_heads <= 0 || shape.head_dim <= 0 ||
      shape.head_dim % 2 != 0 || shape.head_dim > kMaxHeadDim) {
    return absl::InvalidArgumentError(absl::StrCat("KV cache of ", shape.num_layers, " layers, ", shape.num_blocks,
                                                   " blocks, ", shape.num_kv_heads, " heads of ", shape.head_dim,
                                                   ": sizes must be positive and the head size even, at most ",
                                                   kMaxHeadDim));
  }
  if (shape.block_size <= 0 || shape.block_size % kKvBlockUnit != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("block_size is ", shape.block_size, ", expected a multiple of ", kKvBlockUnit));
  }
  return absl::OkStatus();
}

class CudaBackend final : public Backend {
 public:
  static absl::StatusOr<std::unique_ptr<Backend>> Create(const BackendOptions& options);
  ~CudaBackend() override;

  const std::string& description() const override { return description_; }

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
    return 2 * shape.num_layers * CudaKvCache::BlockElements(shape) * DTypeBytes(shape.dtype);
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
  absl::StatusOr<const int32_t*> AllocateBestTokens(int64_t max_rows) override;
  void BestTokens(Matrix logits, int64_t num_ids) override;
  void LayerNorm(Matrix in, const Weight& weight, const Weight* bias, float eps, Matrix out) override;
  void Scale(float factor, Matrix matrix) override;
  void AddBias(const Weight& bias, Matrix matrix) override;

  void StartTimer() override;
  void StopTimer(float* seconds) override;
  absl::Status Wait() override;
  std::span<const float> HostView(Matrix matrix) override;
  int num_host_threads() const override { return pool_->num_threads(); }
  void ParallelFor(int64_t count, const std::function<void(int, int64_t)>& body) override {
    pool_->ParallelFor(count, body);
  }

 private:
  // The device's side of a Routing or ExpertBatches, found by the host address of its first array.
  struct RoutingMemory {
    RoutingArrays device = {};
    RoutingArrays host = {};
    DeviceBuffer device_memory;
    PinnedBuffer host_memory;
  };
  struct BatchMemory {
    BatchArrays device = {};
    BatchArrays host = {};
    DeviceBuffer device_memory;
    PinnedBuffer host_memory;
  };
  struct Timer {
    cudaEvent_t start = nullptr;
    cudaEvent_t end = nullptr;
    float* seconds = nullptr;
  };
  struct DeviceVector {
    std::vector<float> values;
    DeviceBuffer data;
  };

  CudaBackend(std::unique_ptr<WorkerPool> pool, cudaStream_t stream, const cudaDeviceProp& properties)
      : pool_(std::move(pool)),
        stream_(stream),
        num_multiprocessors_(properties.multiProcessorCount),
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
  const float* OnDevice(const std::vector<float>& values);
  void Decode(const UploadedStep& inputs, const AttentionArgs& args, int64_t max_chunks, const float* qkv, Planes out);
  Activations::Written PlanesForReaders() const { return reads_bf16_ ? Activations::kBoth : Activations::kF32; }

  std::unique_ptr<WorkerPool> pool_;
  cudaStream_t const stream_;
  const int num_multiprocessors_;
  std::string description_;
  double memory_utilization_ = 1.0;
  absl::Status failure_;
  Activations activations_;
  std::unique_ptr<WeightLoader> loader_;  // while loading
  std::unique_ptr<ExpertGemm> native_;
  std::unique_ptr<ExpertGemm> chosen_;    // what the options ask for; null: native
  ExpertGemm* expert_gemm_ = nullptr;
  std::map<const void*, RoutingMemory> routings_;
  std::map<const void*, BatchMemory> batches_;
  std::deque<DeviceVector> vectors_;      // RoPE frequencies: few, each used by many layers

  // What loading found out, for PrepareScratch.
  bool reads_bf16_ = false;
  int32_t max_experts_ = 0;
  int32_t max_top_k_ = 0;
  bool weighs_inputs_ = false;
  std::vector<ExpertSizes> expert_sizes_;

  DeviceBuffer router_scratch_;
  DeviceBuffer expert_scratch_;
  DeviceBuffer weighed_rows_;  // inputs of the experts times their router weights
  DeviceBuffer plan_memory_;
  DeviceBuffer partials_;
  ExpertPlan plan_;           // of the layer under way: ExpertMlp follows its GroupByExpert
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

  std::deque<Timer> timers_;  // of this step, reused
  size_t num_timers_ = 0;
  PinnedBuffer host_view_;
  PinnedBuffer best_tokens_;
};

absl::StatusOr<cudaDeviceProp> FirstDevice() {
  int count = 0;
  const cudaError_t error = cudaGetDeviceCount(&count);
  if (error == cudaErrorNoDevice || (error == cudaSuccess && count == 0)) {
    return absl::FailedPreconditionError("CUDA finds no device");
  }
  RETURN_IF_ERROR(ToStatus(error, "the GPU cannot be used"));
  cudaDeviceProp properties;
  RETURN_IF_ERROR(ToStatus(cudaGetDeviceProperties(&properties, 0), "cudaGetDeviceProperties"));
  if (properties.major < kOldestMajor) {
    return absl::FailedPreconditionError(absl::StrCat(properties.name, " has compute capability ", properties.major,
                                                      ".", properties.minor, ", at least ", kOldestMajor,
                                                      ".0 is needed"));
  }
  return properties;
}

absl::StatusOr<std::unique_ptr<Backend>> CudaBackend::Create(const BackendOptions& options) {
  if (!(options.memory_utilization > 0.0 && options.memory_utilization <= 1.0)) {
    return absl::InvalidArgumentError(
        absl::StrCat("memory_utilization is ", options.memory_utilization, ", expected more than 0 and at most 1"));
  }
  ASSIGN_OR_RETURN(const cudaDeviceProp properties, FirstDevice());
  RETURN_IF_ERROR(ToStatus(cudaSetDevice(0), "cudaSetDevice"));
  const int num_threads = options.num_threads > 0 ? options.num_threads : WorkerPool::NumAvailableCores();
  ASSIGN_OR_RETURN(std::unique_ptr<WorkerPool> pool, WorkerPool::Create(num_threads));
  cudaStream_t stream = nullptr;
  RETURN_IF_ERROR(ToStatus(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "cudaStreamCreate"));
  std::unique_ptr<CudaBackend> backend(new CudaBackend(std::move(pool), stream, properties));
  backend->memory_utilization_ = options.memory_utilization;
  backend->native_ = MakeNativeExpertGemm(properties.multiProcessorCount, stream);
  backend->expert_gemm_ = backend->native_.get();
  if (options.expert_gemm == "cublas_grouped") {
    ASSIGN_OR_RETURN(backend->chosen_, MakeCublasGroupedExpertGemm(stream));
  } else if (options.expert_gemm == "cublas_padded") {
    ASSIGN_OR_RETURN(backend->chosen_, MakeCublasPaddedExpertGemm(stream));
  } else if (options.expert_gemm != "native" && options.expert_gemm != "auto") {
    return absl::InvalidArgumentError(absl::StrCat("expert_gemm is '", options.expert_gemm,
                                                   "'; use auto, native, cublas_grouped or cublas_padded"));
  }
  if (backend->chosen_ != nullptr) backend->expert_gemm_ = backend->chosen_.get();
  backend->description_ = absl::StrCat("cuda (", properties.name, ", ", properties.totalGlobalMem >> 30, " GiB, ",
                                       backend->expert_gemm_->name(), " experts)");
  return backend;
}

CudaBackend::~CudaBackend() {
  cudaStreamSynchronize(stream_);
  recorder_.Forget();
  for (const Timer& timer : timers_) {
    cudaEventDestroy(timer.start);
    cudaEventDestroy(timer.end);
  }
  chosen_ = nullptr;
  native_ = nullptr;
  loader_ = nullptr;
  cudaStreamDestroy(stream_);
}

// ---------------------------------------------------------------------------------------------------- load time

absl::StatusOr<WeightLoader*> CudaBackend::Loader() {
  if (loader_ == nullptr) {
    ASSIGN_OR_RETURN(loader_, WeightLoader::Create(pool_.get(), stream_));
  }
  return loader_.get();
}

absl::StatusOr<std::unique_ptr<Weight>> CudaBackend::LoadWeight(std::span<const TensorReader* const> parts,
                                                                std::span<const TensorReader* const> biases,
                                                                DType dtype, WeightUse use) {
  ASSIGN_OR_RETURN(WeightLoader* const loader, Loader());
  if (use == WeightUse::kLinear && dtype == DType::kBF16) reads_bf16_ = true;
  return loader->LoadWeight(parts, biases, dtype, use);
}

absl::StatusOr<std::unique_ptr<ExpertWeights>> CudaBackend::LoadExperts(std::span<const ExpertReaders> experts,
                                                                        DType dtype) {
  ASSIGN_OR_RETURN(WeightLoader* const loader, Loader());
  if (dtype == DType::kBF16) reads_bf16_ = true;
  ASSIGN_OR_RETURN(std::unique_ptr<ExpertWeights> loaded, loader->LoadExperts(experts, dtype));
  expert_sizes_.push_back(static_cast<const CudaExperts&>(*loaded));
  return loaded;
}

// Cuts `bytes` per array out of one allocation, each at a multiple of 256.
template <typename... T>
int64_t PlaceArrays(char* base, std::pair<T**, int64_t>... arrays) {
  int64_t used = 0;
  const auto place = [&](auto& array) {
    using Element = std::remove_pointer_t<std::remove_pointer_t<decltype(array.first)>>;
    if (base != nullptr) *array.first = reinterpret_cast<Element*>(base + used);
    used += RoundUp(array.second * static_cast<int64_t>(sizeof(Element)), 256);
  };
  (place(arrays), ...);
  return used;
}

absl::StatusOr<Routing> CudaBackend::AllocateRouting(int32_t max_tokens, const RouterConfig& config) {
  CHECK(config.num_experts <= kMaxExperts && config.top_k <= kMaxTopK);  // CheckServed has said so
  const int64_t choices = int64_t{max_tokens} * config.top_k;
  RoutingMemory memory;
  const auto place = [&](char* base, RoutingArrays* arrays) {
    return PlaceArrays(base, std::pair(&arrays->expert_ids, choices), std::pair(&arrays->expert_weights, choices),
                       std::pair(&arrays->margins, int64_t{max_tokens}),
                       std::pair(&arrays->logsumexps, int64_t{max_tokens}),
                       std::pair(&arrays->probability_sums, int64_t{config.num_experts}));
  };
  const int64_t bytes = place(nullptr, &memory.host);
  ASSIGN_OR_RETURN(memory.host_memory, PinnedBuffer::Allocate(bytes));
  ASSIGN_OR_RETURN(memory.device_memory, DeviceBuffer::Allocate(bytes, "routing"));
  place(memory.host_memory.as<char>(), &memory.host);
  place(memory.device_memory.as<char>(), &memory.device);
  max_experts_ = std::max(max_experts_, config.num_experts);
  max_top_k_ = std::max(max_top_k_, config.top_k);
  weighs_inputs_ |= config.weigh_input;

  Routing routing;
  routing.top_k = config.top_k;
  routing.num_experts = config.num_experts;
  routing.expert_ids = memory.host.expert_ids;
  routing.expert_weights = memory.host.expert_weights;
  routing.margins = memory.host.margins;
  routing.logsumexps = memory.host.logsumexps;
  routing.probability_sums = memory.host.probability_sums;
  routings_.emplace(routing.expert_ids, std::move(memory));
  return routing;
}

absl::StatusOr<ExpertBatches> CudaBackend::AllocateExpertBatches(int32_t max_tokens, const RouterConfig& config) {
  const int64_t choices = int64_t{max_tokens} * config.top_k;
  if (choices > INT32_MAX) {
    return absl::InvalidArgumentError(absl::StrCat("a step of ", max_tokens, " tokens, each to ", config.top_k,
                                                   " experts, makes ", choices, " rows, at most ", INT32_MAX));
  }
  BatchMemory memory;
  ExpertBatches batches;
  batches.num_experts = config.num_experts;
  const int64_t weights = config.weigh_input ? choices : 0;
  const auto place = [&](char* base, BatchArrays* arrays, float** seconds) {
    const int64_t bytes =
        PlaceArrays(base, std::pair(&arrays->expert_offsets, int64_t{config.num_experts} + 1),
                    std::pair(&arrays->choice_to_row, choices), std::pair(&arrays->row_to_token, choices),
                    std::pair(seconds, int64_t{config.num_experts}), std::pair(&arrays->row_weights, weights));
    if (!config.weigh_input) arrays->row_weights = nullptr;
    return bytes;
  };
  float* unused = nullptr;
  const int64_t bytes = place(nullptr, &memory.host, &batches.expert_seconds);
  ASSIGN_OR_RETURN(memory.host_memory, PinnedBuffer::Allocate(bytes));
  ASSIGN_OR_RETURN(memory.device_memory, DeviceBuffer::Allocate(bytes, "expert batches"));
  place(memory.host_memory.as<char>(), &memory.host, &batches.expert_seconds);
  place(memory.device_memory.as<char>(), &memory.device, &unused);
  batches.expert_offsets = memory.host.expert_offsets;
  batches.choice_to_row = memory.host.choice_to_row;
  batches.row_to_token = memory.host.row_to_token;
  batches.row_weights = memory.host.row_weights;
  batches_.emplace(batches.expert_offsets, std::move(memory));
  return batches;
}

int64_t CudaBackend::AvailableBytes() const {
  size_t free = 0, total = 0;
  if (cudaMemGetInfo(&free, &total) != cudaSuccess) {
    cudaGetLastError();
    return std::numeric_limits<int64_t>::max();
  }
  const double usable = static_cast<double>(free) * memory_utilization_;
  return std::max<int64_t>(0, static_cast<int64_t>(usable) - kReserveBytes);
}

absl::Status CudaBackend::CheckServed(const LayerBlocks& blocks) const { return CheckServedByCuda(blocks); }

absl::StatusOr<std::unique_ptr<KvCache>> CudaBackend::AllocateKvCache(const KvCacheShape& shape) {
  if (shape.latent_dim > 0) return absl::UnimplementedError("the CUDA backend does not compute latent attention (MLA)");
  RETURN_IF_ERROR(CheckShape(shape));
  auto cache = std::make_unique<CudaKvCache>();
  cache->shape = shape;
  cache->dim_pad = CudaKvCache::DimPad(shape);
  const int64_t bytes = KvBlockBytes(shape) / 2 * shape.num_blocks;
  ASSIGN_OR_RETURN(cache->keys, DeviceBuffer::Allocate(bytes, "the KV cache"));
  ASSIGN_OR_RETURN(cache->values, DeviceBuffer::Allocate(bytes, "the KV cache"));
  return cache;
}

absl::Status CudaBackend::PrepareScratch(int32_t max_tokens) {
  // The loading thread's launches: nobody else sees their errors.
  RETURN_IF_ERROR(Wait());
  loader_ = nullptr;
  max_tokens_ = max_tokens;
  ASSIGN_OR_RETURN(router_scratch_,
                   DeviceBuffer::Allocate(RouterScratchFloats(max_tokens, max_experts_) * 4, "routing"));
  const int64_t max_rows = int64_t{max_tokens} * max_top_k_;
  int64_t expert_bytes = 0;
  for (const ExpertSizes& sizes : expert_sizes_) {
    for (const ExpertGemm* gemm : {native_.get(), expert_gemm_}) {
      expert_bytes = std::max(expert_bytes, gemm->ScratchBytes(sizes, max_tokens, max_rows));
    }
  }
  ASSIGN_OR_RETURN(expert_scratch_, DeviceBuffer::Allocate(expert_bytes, "expert activations"));
  int64_t weighed_bytes = 0;
  for (const ExpertSizes& sizes : expert_sizes_) {
    if (weighs_inputs_) weighed_bytes = std::max(weighed_bytes, max_rows * sizes.hidden_stride * 4);
  }
  ASSIGN_OR_RETURN(weighed_rows_, DeviceBuffer::Allocate(weighed_bytes, "expert activations"));
  const int64_t max_tiles = MaxExpertTiles(max_rows, max_experts_, ChooseTileTokens(0, 1));
  const auto place = [&](char* base) {
    return PlaceArrays(base, std::pair(&plan_.tiles, max_tiles + 1), std::pair(&plan_.num_tiles, int64_t{1}),
                       std::pair(&plan_.first_start, int64_t{max_experts_}),
                       std::pair(&plan_.last_end, int64_t{max_experts_}));
  };
  ASSIGN_OR_RETURN(plan_memory_, DeviceBuffer::Allocate(place(nullptr), "expert batches"));
  place(plan_memory_.as<char>());
  ASSIGN_OR_RETURN(partials_, DeviceBuffer::Allocate(kPartialFloats * 4, "attention"));
  recorder_.Forget();
  return absl::OkStatus();
}

// ---------------------------------------------------------------------------------------------------- step time

bool CudaBackend::BeginStep(const StepInputs& step, const KvCache& cache) {
  const CudaKvCache& kv = static_cast<const CudaKvCache&>(cache);
  announced_ = step;
  in_step_ = true;
  num_timers_ = 0;
  Check(step_.Upload(step, kv.shape.block_size, stream_));
  if (step_.generation() != recorded_generation_) {
    recorder_.Forget();
    recorded_generation_ = step_.generation();
  }
  const int64_t rows = step_.num_tokens();
  const bool decode_only = step_.num_decode_rows() == rows && static_cast<int64_t>(step.logit_rows.size()) == rows;
  bucket_ = decode_only ? std::min(RowBucket(rows), max_tokens_) : 0;
  chunk_bucket_ = ChunkBucket(step_.longest_decode() / kKeyChunk + 1);
  if (!failure_.ok() || bucket_ == 0 || chunk_bucket_ > kMaxRecordedChunks || !expert_gemm_->recordable()) {
    bucket_ = 0;
    return false;
  }
  switch (recorder_.Begin({bucket_, chunk_bucket_})) {
    case Recorder::Action::kRunDirectly: bucket_ = 0; return false;
    case Recorder::Action::kRecord: return false;
    case Recorder::Action::kRepeated: break;
  }
  recorder_.RunOnRepeat(rows);
  in_step_ = false;
  bucket_ = 0;
  return true;
}

void CudaBackend::EndStep() {
  if (recorder_.recording()) Check(recorder_.Finish());
  in_step_ = false;
  bucket_ = 0;
}

int64_t CudaBackend::LaunchRows(Matrix matrix) const {
  if (!failure_.ok()) return 0;
  return bucket_ == 0 ? matrix.rows : std::min(bucket_, activations_.Capacity(matrix));
}

// Waits and copies, which no recording could repeat.
void CudaBackend::UploadSingle(const StepInputs& inputs, int32_t block_size) {
  CHECK(!recorder_.recording());
  Check(single_.Upload(inputs, block_size, stream_));
}

UploadedStep& CudaBackend::InputsFor(std::span<const AttentionSlice> slices, int32_t block_size) {
  if (in_step_ && slices.data() == announced_.slices.data() && slices.size() == announced_.slices.size()) return step_;
  UploadSingle({.ids = {}, .slices = slices, .logit_rows = {}}, block_size);
  return single_;
}

void CudaBackend::Embed(std::span<const int32_t> ids, const Weight& table, Matrix out) {
  const CudaWeight& weight = Cuda(table);
  const bool announced = in_step_ && ids.data() == announced_.ids.data() && ids.size() == announced_.ids.size();
  if (!announced) UploadSingle({.ids = ids, .slices = {}, .logit_rows = {}}, kKvBlockUnit);
  LaunchEmbed((announced ? step_ : single_).device(), LaunchRows(out), weight.data.as<void>(),
              weight.dtype == DType::kBF16, weight.stride, weight.in, activations_.Write(out, Activations::kF32).f32,
              stream_);
}

void CudaBackend::RmsNorm(Matrix in, const Weight& weight, float eps, Matrix out) {
  const int64_t rows = LaunchRows(in);
  const float* const from = activations_.ReadF32(in, rows);
  LaunchRmsNorm(from, Vector(&weight), eps, rows, in.cols, activations_.Write(out, PlanesForReaders()), stream_);
}

void CudaBackend::LayerNorm(Matrix in, const Weight& weight, const Weight* bias, float eps, Matrix out) {
  const int64_t rows = LaunchRows(in);
  const float* const from = activations_.ReadF32(in, rows);
  LaunchLayerNorm(from, Vector(&weight), Vector(bias), eps, rows, in.cols,
                  activations_.Write(out, PlanesForReaders()), stream_);
}

void CudaBackend::Scale(float factor, Matrix matrix) {
  const int64_t rows = LaunchRows(matrix);
  float* const values = activations_.ReadF32(matrix, rows);
  activations_.Write(matrix, Activations::kF32);
  LaunchScale(factor, rows * matrix.cols, values, stream_);
}

void CudaBackend::AddBias(const Weight& bias, Matrix matrix) {
  const int64_t rows = LaunchRows(matrix);
  float* const values = activations_.ReadF32(matrix, rows);
  activations_.Write(matrix, Activations::kF32);
  LaunchAddBias(Vector(&bias), rows, matrix.cols, values, stream_);
}

void CudaBackend::Linear(Matrix in, const Weight& weight, OutputMode mode, Matrix out) {
  const CudaWeight& w = Cuda(weight);
  const int64_t rows = LaunchRows(out);
  GroupedGemm gemm;
  gemm.weight = w.data.as<void>();
  gemm.weight_rows = w.rows;
  gemm.k = w.stride;
  gemm.out_cols = w.out;
  gemm.in_cols = w.in;
  gemm.bias = w.bias.as<float>();
  gemm.output = mode == OutputMode::kAdd ? GemmOutput::kAdd : GemmOutput::kAssign;
  gemm.dense_rows = rows;
  if (mode == OutputMode::kAdd) activations_.ReadF32(out, rows);
  const int tile_tokens = ChooseTileTokens(rows, 1);
  gemm.max_tiles = CeilDiv(rows, tile_tokens);
  gemm.out_stride = out.cols;
  if (w.dtype == DType::kBF16) {
    const Activations::Bf16View view = activations_.ReadBf16(in, rows);
    gemm.in = view.data;
    gemm.in_stride = view.stride;
    gemm.out = activations_.Write(out, Activations::kF32);
    gemm.out.stride = 0;
    LaunchGemmBf16(gemm, tile_tokens, num_multiprocessors_, stream_);
  } else {
    gemm.in = activations_.ReadF32(in, rows);
    gemm.in_stride = in.cols;
    gemm.out = activations_.Write(out, Activations::kF32);
    LaunchGemmF32(gemm, tile_tokens, stream_);
  }
}

const float* CudaBackend::OnDevice(const std::vector<float>& values) {
  if (values.empty()) return nullptr;
  for (const DeviceVector& vector : vectors_) {
    if (vector.values == values) return vector.data.as<float>();
  }
  CHECK(!recorder_.recording());
  DeviceVector vector;
  vector.values = values;
  absl::StatusOr<DeviceBuffer> data = DeviceBuffer::Allocate(static_cast<int64_t>(values.size()) * 4, "RoPE");
  if (!data.ok()) {
    Check(data.status());
    return nullptr;
  }
  vector.data = *std::move(data);
  vectors_.push_back(std::move(vector));
  const DeviceVector& kept = vectors_.back();
  Check(ToStatus(cudaMemcpyAsync(kept.data.as<void>(), kept.values.data(), values.size() * 4, cudaMemcpyHostToDevice,
                                 stream_),
                 "copying RoPE frequencies"));
  return kept.data.as<float>();
}

AttentionArgs CudaBackend::ArgsFor(const AttentionShape& shape, const CudaKvCache& cache, int32_t layer) {
  AttentionArgs args;
  args.num_heads = shape.num_heads;
  args.num_kv_heads = shape.num_kv_heads;
  args.head_dim = shape.head_dim;
  args.dim_pad = cache.dim_pad;
  args.sliding_window = shape.sliding_window;
  args.chunk_size = shape.chunk_size;
  args.scale = shape.scale;
  args.sinks = Vector(shape.sinks);
  args.block_size = cache.shape.block_size;
  args.cache_is_bf16 = cache.shape.dtype == DType::kBF16;
  args.keys = cache.LayerOf(cache.keys, layer);
  args.values = cache.LayerOf(cache.values, layer);
  return args;
}

void CudaBackend::PrepareQkv(const AttentionShape& shape, std::span<const AttentionSlice> slices, const Weight* q_norm,
                             const Weight* k_norm, int32_t layer, KvCache& cache, Matrix qkv) {
  const CudaKvCache& kv = static_cast<const CudaKvCache&>(cache);
  const int64_t rows = LaunchRows(qkv);
  AttentionArgs args = ArgsFor(shape, kv, layer);
  args.qk_norm = static_cast<int32_t>(shape.qk_norm);
  args.qk_norm_eps = shape.qk_norm_eps;
  args.q_norm = Vector(q_norm);
  args.k_norm = Vector(k_norm);
  args.clip = shape.clip_qkv;
  args.inv_freq = OnDevice(shape.rope_inv_freq);
  args.rotated_pairs = static_cast<int32_t>(shape.rope_inv_freq.size());
  args.rope_interleaved = shape.rope_interleaved;
  args.rope_factor = shape.rope_attention_factor;
  args.temperature_scale = shape.temperature_scale;
  args.temperature_floor = shape.temperature_floor;
  float* const data = activations_.ReadF32(qkv, rows);
  activations_.Write(qkv, Activations::kF32);
  LaunchPrepareQkv(InputsFor(slices, kv.shape.block_size).device(), args, rows, data, stream_);
}

void CudaBackend::Attention(const AttentionShape& shape, std::span<const AttentionSlice> slices, int32_t layer,
                            const KvCache& cache, Matrix qkv, Matrix out) {
  const CudaKvCache& kv = static_cast<const CudaKvCache&>(cache);
  const AttentionArgs args = ArgsFor(shape, kv, layer);
  const int64_t rows = LaunchRows(qkv);
  const float* const data = activations_.ReadF32(qkv, rows);
  const Planes planes = activations_.Write(out, PlanesForReaders());
  UploadedStep& inputs = InputsFor(slices, kv.shape.block_size);
  if (rows == 0) return;
  if (!args.cache_is_bf16) {
    LaunchAttentionF32(inputs.device(), args, rows, data, planes, stream_);
    return;
  }
  const int64_t max_chunks = bucket_ > 0 ? chunk_bucket_ : inputs.longest_decode() / kKeyChunk + 1;
  // Past the scratch's capacity a decode row walks through its chunks like a prefill, with the same result.
  const bool split = DecodePartialFloats(1, args, max_chunks) <= kPartialFloats;
  if (split && inputs.num_decode_rows() > 0) Decode(inputs, args, max_chunks, data, planes);
  if (split && inputs.num_decode_rows() == inputs.num_tokens()) return;
  CHECK(!recorder_.recording());
  Check(inputs.UploadTiles(PrefillTileRows(args), /*all=*/!split, stream_));
  if (!failure_.ok()) return;
  LaunchAttentionPrefill(inputs.device(), args, inputs.tiles(), inputs.num_tiles(), data, planes, stream_);
}

// As many rows at a time as the scratch holds results for.
void CudaBackend::Decode(const UploadedStep& inputs, const AttentionArgs& args, int64_t max_chunks, const float* qkv,
                         Planes out) {
  const int64_t rows = bucket_ > 0 ? bucket_ : inputs.num_decode_rows();
  const int64_t at_once = kPartialFloats / DecodePartialFloats(1, args, max_chunks);
  for (int64_t first = 0; first < rows; first += at_once) {
    LaunchAttentionDecode(inputs.device(), args, first, std::min(at_once, rows - first), max_chunks, qkv,
                          partials_.as<float>(), out, stream_);
  }
}

void CudaBackend::Route(Matrix in, const Weight& router, const RouterConfig& config, Routing* routing) {
  const CudaWeight& weight = Cuda(router);
  const int64_t rows = LaunchRows(in);
  const RoutingMemory& memory = routings_.at(routing->expert_ids);
  RouterArgs args;
  args.num_experts = config.num_experts;
  args.top_k = config.top_k;
  args.score = static_cast<int32_t>(config.score);
  args.weights = static_cast<int32_t>(config.weights);
  args.normalize = config.normalize;
  args.normalize_power = config.normalize_power;
  args.normalize_eps = config.normalize_eps;
  args.scale = config.scale;
  args.num_groups = config.num_groups;
  args.topk_group = config.topk_group;
  args.group_by_two = config.group_score == GroupScore::kTopTwoSum;
  args.mixer_threshold = config.mixer_threshold;
  args.bias = weight.bias.as<float>();
  args.choice_bias = Vector(config.choice_bias);
  const auto set_counts = [routing, config](int64_t num_tokens) {
    routing->num_tokens = static_cast<int32_t>(num_tokens);
    routing->top_k = config.top_k;
    routing->num_experts = config.num_experts;
    routing->weigh_input = config.weigh_input;
  };
  set_counts(in.rows);
  if (recorder_.recording()) recorder_.OnRepeat(set_counts);
  LaunchRoute(Counts(), activations_.ReadF32(in, rows), rows, in.cols, weight.data.as<float>(), weight.stride, args,
              router_scratch_.as<float>(), memory.device, memory.host, stream_);
}

void CudaBackend::GroupByExpert(const Routing& routing, ExpertBatches* batches) {
  const BatchMemory& memory = batches_.at(batches->expert_offsets);
  if (!failure_.ok()) return;
  const int64_t tokens = bucket_ > 0 ? bucket_ : routing.num_tokens;
  plan_tile_tokens_ = ChooseTileTokens(tokens * routing.top_k, routing.num_experts);
  const auto set_counts = [batches, num_experts = routing.num_experts, top_k = routing.top_k](int64_t num_tokens) {
    batches->num_experts = num_experts;
    batches->num_rows = static_cast<int32_t>(num_tokens) * top_k;
  };
  set_counts(routing.num_tokens);
  if (recorder_.recording()) recorder_.OnRepeat(set_counts);
  const RoutingArrays& chosen = routings_.at(routing.expert_ids).device;
  LaunchGroupByExpert(Counts(), chosen.expert_ids, chosen.expert_weights, tokens, routing.top_k, routing.num_experts,
                      plan_tile_tokens_, plan_, memory.device, memory.host, stream_);
}

void CudaBackend::ExpertMlp(Matrix in, const ExpertWeights& experts, const ExpertBatches& batches, Matrix rows_out) {
  const CudaExperts& weights = static_cast<const CudaExperts&>(experts);
  const BatchMemory& memory = batches_.at(batches.expert_offsets);
  const int64_t tokens = LaunchRows(in);
  const int64_t top_k = in.rows == 0 ? 0 : batches.num_rows / in.rows;
  const bool bf16 = weights.dtype == DType::kBF16;
  ExpertBatch batch;
  batch.tokens = tokens;
  batch.max_rows = tokens * top_k;
  batch.tile_tokens = plan_tile_tokens_;
  batch.plan = plan_;
  batch.device = memory.device;
  batch.host_offsets = memory.host.expert_offsets;
  if (memory.device.row_weights != nullptr) {
    batch.in = weighed_rows_.as<void>();
    batch.in_by_row = true;
    batch.in_stride = weights.hidden_stride;
    LaunchWeighRows(activations_.ReadF32(in, tokens), in.cols, memory.device.row_to_token, memory.device.row_weights,
                    memory.device.expert_offsets + batches.num_experts, batch.max_rows, weights.dtype,
                    weights.hidden_stride, weighed_rows_.as<void>(), stream_);
  } else if (bf16) {
    const Activations::Bf16View view = activations_.ReadBf16(in, tokens);
    batch.in = view.data;
    batch.in_stride = view.stride;
  } else {
    batch.in = activations_.ReadF32(in, tokens);
    batch.in_stride = in.cols;
  }
  batch.out = activations_.Write(rows_out, bf16 ? Activations::kBf16 : Activations::kF32);
  batch.out_stride = rows_out.cols;
  ExpertGemm& provider = expert_gemm_->Takes(weights, batch) ? *expert_gemm_ : *native_;
  Check(provider.Run(weights, batch, expert_scratch_.as<void>()));
  LaunchExpertSeconds(memory.device.expert_offsets, batches.num_experts, plan_, batches.expert_seconds, stream_);
}

void CudaBackend::Combine(Matrix rows, const Routing& routing, const ExpertBatches& batches, Matrix out) {
  const int64_t tokens = LaunchRows(out);
  const float* f32 = nullptr;
  Activations::Bf16View view = {nullptr, rows.cols};
  if (activations_.HasBf16(rows)) {
    view = activations_.ReadBf16(rows, rows.rows);
  } else {
    f32 = activations_.ReadF32(rows, rows.rows);
  }
  float* const sums = activations_.ReadF32(out, tokens);
  activations_.Write(out, Activations::kF32);
  LaunchCombine(Counts(), f32, view.data, view.stride,
                routing.weigh_input ? nullptr : routings_.at(routing.expert_ids).device.expert_weights,
                batches_.at(batches.expert_offsets).device.choice_to_row, tokens, routing.top_k, out.cols, sums,
                stream_);
}

void CudaBackend::SiluMul(Matrix gate_up, Matrix out) {
  const int64_t rows = LaunchRows(out);
  GateUpInput in;
  in.f32 = activations_.ReadF32(gate_up, rows);
  in.stride = gate_up.cols;
  LaunchSiluMul(in, rows, out.cols, activations_.Write(out, PlanesForReaders()), stream_);
}

void CudaBackend::AddGated(Matrix in, const Weight& gate, Matrix values, Matrix out) {
  const int64_t rows = LaunchRows(out);
  const float* const from = activations_.ReadF32(in, rows);
  const float* const added = activations_.ReadF32(values, rows);
  float* const sums = activations_.ReadF32(out, rows);
  activations_.Write(out, Activations::kF32);
  LaunchAddGated(from, Vector(&gate), in.cols, added, rows, out.cols, sums, stream_);
}

void CudaBackend::SelectRows(Matrix in, std::span<const int32_t> rows, Matrix out) {
  const bool announced =
      in_step_ && rows.data() == announced_.logit_rows.data() && rows.size() == announced_.logit_rows.size();
  if (!announced) UploadSingle({.ids = {}, .slices = {}, .logit_rows = rows}, kKvBlockUnit);
  const float* const from = activations_.ReadF32(in, LaunchRows(in));
  LaunchSelectRows((announced ? step_ : single_).device(), from, LaunchRows(out), in.cols,
                   activations_.Write(out, Activations::kF32).f32, stream_);
}

absl::StatusOr<const int32_t*> CudaBackend::AllocateBestTokens(int64_t max_rows) {
  ASSIGN_OR_RETURN(best_tokens_, PinnedBuffer::Allocate(max_rows * 4));
  return best_tokens_.as<const int32_t>();
}

void CudaBackend::BestTokens(Matrix logits, int64_t num_ids) {
  const int64_t rows = LaunchRows(logits);
  LaunchBestTokens(Counts(), activations_.ReadF32(logits, rows), rows, logits.cols, num_ids,
                   best_tokens_.as<int32_t>(), stream_);
}

// ---------------------------------------------------------------------------------------------------- results

void CudaBackend::StartTimer() {
  if (num_timers_ == timers_.size()) {
    Timer timer;
    Check(ToStatus(cudaEventCreateWithFlags(&timer.start, cudaEventDefault), "cudaEventCreate"));
    Check(ToStatus(cudaEventCreateWithFlags(&timer.end, cudaEventDefault), "cudaEventCreate"));
    timers_.push_back(timer);
  }
  cudaEventRecordWithFlags(timers_[num_timers_].start, stream_,
                           recorder_.recording() ? cudaEventRecordExternal : cudaEventRecordDefault);
}

void CudaBackend::StopTimer(float* seconds) {
  Timer& timer = timers_[num_timers_++];
  timer.seconds = seconds;
  cudaEventRecordWithFlags(timer.end, stream_,
                           recorder_.recording() ? cudaEventRecordExternal : cudaEventRecordDefault);
  if (recorder_.recording()) recorder_.OnRepeat([this, n = num_timers_](int64_t) { num_timers_ = n; });
}

absl::Status CudaBackend::Wait() {
  const cudaError_t launch = cudaPeekAtLastError();
  const cudaError_t run = cudaStreamSynchronize(stream_);
  Check(ToStatus(launch != cudaSuccess ? launch : run, "the GPU failed"));
  RETURN_IF_ERROR(failure_);
  for (size_t i = 0; i < num_timers_; ++i) {
    float milliseconds = 0.0f;
    if (cudaEventElapsedTime(&milliseconds, timers_[i].start, timers_[i].end) == cudaSuccess) {
      *timers_[i].seconds = milliseconds * 1e-3f;
    } else {
      cudaGetLastError();  // a time that cannot be told is no failure of the step
    }
  }
  num_timers_ = 0;
  return absl::OkStatus();
}

std::span<const float> CudaBackend::HostView(Matrix matrix) {
  const int64_t count = matrix.rows * matrix.cols;
  if (host_view_.bytes() < count * 4) {
    absl::StatusOr<PinnedBuffer> larger = PinnedBuffer::Allocate(2 * count * 4);
    if (!larger.ok()) {
      Check(larger.status());
      return {};
    }
    host_view_ = *std::move(larger);
  }
  if (!failure_.ok()) return {};
  const float* const data = activations_.ReadF32(matrix, matrix.rows);
  Check(ToStatus(cudaMemcpyAsync(host_view_.as<void>(), data, static_cast<size_t>(count) * 4, cudaMemcpyDeviceToHost,
                                 stream_),
                 "copying results"));
  Check(ToStatus(cudaStreamSynchronize(stream_), "copying results"));
  if (!failure_.ok()) return {};
  return {host_view_.as<float>(), static_cast<size_t>(count)};
}

}  // namespace

absl::StatusOr<std::string> DescribeDevice() {
  ASSIGN_OR_RETURN(const cudaDeviceProp properties, FirstDevice());
  return absl::StrCat(properties.name, ", ", properties.totalGlobalMem / 1000000000, " GB");
}

absl::StatusOr<std::unique_ptr<Backend>> CreateCudaBackend(const BackendOptions& options) {
  return CudaBackend::Create(options);
}

}  // namespace switchyard::cuda
