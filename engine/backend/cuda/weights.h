// Weights in device memory, in the layouts of layout.h. Loading streams rows through two page-locked buffers: host
// threads convert into one while the other is on its way.
#ifndef SWITCHYARD_ENGINE_BACKEND_CUDA_WEIGHTS_H_
#define SWITCHYARD_ENGINE_BACKEND_CUDA_WEIGHTS_H_

#include <cuda_runtime_api.h>

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/backend/backend.h"
#include "engine/backend/cuda/device_memory.h"
#include "engine/base/worker_pool.h"

namespace switchyard::cuda {

// Never written after loading, which ends by waiting: products load weights before the kernels ahead of them end.
struct CudaWeight final : public Weight {
  int64_t out_features() const override { return out; }
  int64_t bytes() const override { return data.bytes() + bias.bytes(); }
  int64_t num_nonfinite() const override { return nonfinite; }

  DType dtype = DType::kF32;
  int64_t out = 0;
  int64_t in = 0;
  int64_t rows = 0;    // padded
  int64_t stride = 0;  // padded `in`, in elements
  DeviceBuffer data;
  DeviceBuffer bias;   // fp32 [rows]; empty: none
  int64_t nonfinite = 0;
};

struct ExpertSizes {
  DType dtype = DType::kF32;
  ExpertForm form;
  int64_t num_experts = 0;
  int64_t hidden = 0;
  int64_t intermediate = 0;
  int64_t gate_up_rows = 0;   // of one expert, padded
  int64_t hidden_stride = 0;  // k of gate and up, padded
  int64_t down_rows = 0;
  int64_t intermediate_stride = 0;
  bool operator==(const ExpertSizes&) const = default;
};

struct CudaExperts final : public ExpertWeights, public ExpertSizes {
  int64_t bytes() const override { return gate_up.bytes() + down.bytes() + gate_up_bias.bytes() + down_bias.bytes(); }
  int64_t num_nonfinite() const override { return nonfinite; }

  DeviceBuffer gate_up;       // of experts without a gate, up alone
  DeviceBuffer down;
  DeviceBuffer gate_up_bias;  // fp32 [experts][gate_up_rows], interleaved like the rows; empty: none
  DeviceBuffer down_bias;     // fp32 [experts][down_rows]
  int64_t nonfinite = 0;
};

class WeightLoader {
 public:
  static absl::StatusOr<std::unique_ptr<WeightLoader>> Create(WorkerPool* pool, cudaStream_t stream);
  ~WeightLoader();

  // As Backend::LoadWeight and LoadExperts.
  absl::StatusOr<std::unique_ptr<Weight>> LoadWeight(std::span<const TensorReader* const> parts,
                                                     std::span<const TensorReader* const> biases, DType dtype,
                                                     WeightUse use);
  absl::StatusOr<std::unique_ptr<ExpertWeights>> LoadExperts(std::span<const ExpertReaders> experts, DType dtype);

 private:
  // `count` rows of a tensor that become rows target, target + 1, ... of a matrix on the device.
  struct Segment {
    const TensorReader* reader;
    int64_t first;
    int64_t count;
    int64_t target;
  };

  WeightLoader(WorkerPool* pool, cudaStream_t stream) : pool_(pool), stream_(stream) {}

  // Cuts rows of `reader` into segments that one thread converts at a time.
  static void AddRows(const TensorReader* reader, DType dtype, int64_t target, std::vector<Segment>* segments);
  // REQUIRES: segments in the order of their targets.
  absl::Status Upload(std::span<const Segment> segments, int64_t cols, DType dtype, int64_t stride, void* to);
  absl::Status ReadChunk(std::span<const Segment> chunk, int64_t row_bytes, DType dtype, char* staging);
  absl::Status LoadExpertBiases(std::span<const ExpertReaders> experts, CudaExperts* weights);
  // Copies host values.
  absl::StatusOr<DeviceBuffer> CopyOf(const std::vector<float>& values);
  absl::StatusOr<int64_t> CountNonfinite(const void* data, DType dtype, int64_t count);

  WorkerPool* const pool_;
  cudaStream_t const stream_;
  PinnedBuffer staging_[2];
  cudaEvent_t copied_[2] = {nullptr, nullptr};
  DeviceBuffer nonfinite_;
};

}  // namespace switchyard::cuda

#endif  // SWITCHYARD_ENGINE_BACKEND_CUDA_WEIGHTS_H_
