#include "engine/backend/cuda/cuda_backend.h"

#include <algorithm>
#include <limits>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/backend/cuda/cuda_backend_impl.h"
#include "engine/backend/cuda/served_blocks.h"
#include "engine/base/status_macros.h"

namespace switchyard::cuda {
namespace {

constexpr int kOldestMajor = 8;                       // cp.async, bfloat16 in the matrix units
constexpr int64_t kReserveBytes = int64_t{512} << 20;  // the above, and what the driver, graphs and cuBLAS take

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

}  // namespace

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
  ASSIGN_OR_RETURN(backend->expert_gemms_, ExpertGemmChoice::Create(options, properties, stream));
  backend->description_ = absl::StrCat("cuda (", properties.name, ", ", properties.totalGlobalMem >> 30, " GiB, ",
                                       backend->expert_gemms_->description(), ")");
  return backend;
}

CudaBackend::~CudaBackend() {
  cudaStreamSynchronize(stream_);
  recorder_.Forget();
  expert_gemms_ = nullptr;
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
  const ExpertSizes& sizes = static_cast<const CudaExperts&>(*loaded);
  if (std::find(expert_sizes_.begin(), expert_sizes_.end(), sizes) == expert_sizes_.end()) {
    expert_sizes_.push_back(sizes);
  }
  return loaded;
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

absl::Status CudaBackend::PrepareScratch(int32_t max_tokens) {
  // The loading thread's launches: nobody else sees their errors.
  RETURN_IF_ERROR(Wait());
  loader_ = nullptr;
  max_tokens_ = max_tokens;
  RETURN_IF_ERROR(step_.Reserve(max_tokens, max_logit_rows_));
  ASSIGN_OR_RETURN(router_scratch_,
                   DeviceBuffer::Allocate(RouterScratchBytes(max_tokens, max_experts_), "routing"));
  const int64_t max_rows = int64_t{max_tokens} * max_top_k_;
  int64_t expert_bytes = 0;
  for (const ExpertSizes& sizes : expert_sizes_) {
    expert_bytes = std::max(expert_bytes, expert_gemms_->ScratchBytes(sizes, max_tokens, max_rows));
  }
  ASSIGN_OR_RETURN(expert_scratch_, DeviceBuffer::Allocate(expert_bytes, "expert activations"));
  int64_t weighed_bytes = 0;
  for (const ExpertSizes& sizes : expert_sizes_) {
    if (weighs_inputs_) weighed_bytes = std::max(weighed_bytes, max_rows * sizes.hidden_stride * 4);
  }
  ASSIGN_OR_RETURN(weighed_rows_, DeviceBuffer::Allocate(weighed_bytes, "expert activations"));
  const int64_t max_tiles = MaxExpertTiles(max_rows, max_experts_, expert_gemms_->SmallestTileTokens());
  const auto place = [&](char* base) {
    return PlaceArrays(base, std::pair(&tiles_.tiles, max_tiles + 1), std::pair(&tiles_.num_tiles, int64_t{1}));
  };
  ASSIGN_OR_RETURN(plan_memory_, DeviceBuffer::Allocate(place(nullptr), "expert batches"));
  place(plan_memory_.as<char>());
  ASSIGN_OR_RETURN(partials_, DeviceBuffer::Allocate(kPartialFloats * 4, "attention"));
  ASSIGN_OR_RETURN(chunk_counters_, DeviceBuffer::Allocate(kChunkCounters * 4, "attention"));
  recorder_.Forget();
  return AllocateResults();
}

absl::StatusOr<std::string> DescribeDevice() {
  ASSIGN_OR_RETURN(const cudaDeviceProp properties, FirstDevice());
  return absl::StrCat(properties.name, ", ", properties.totalGlobalMem / 1000000000, " GB");
}

absl::StatusOr<std::unique_ptr<Backend>> CreateCudaBackend(const BackendOptions& options) {
  return CudaBackend::Create(options);
}

}  // namespace switchyard::cuda
