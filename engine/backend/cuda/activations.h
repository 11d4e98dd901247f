// Activation matrices with two planes: fp32, whose address is Matrix::data, and bfloat16 for the matrix units.
//
// An operation writes the planes that its readers will want, and a reader that finds only the other one has it
// converted first. What is in the planes is known from the calls alone, so a recorded step stays right.
#ifndef SWITCHYARD_ENGINE_BACKEND_CUDA_ACTIVATIONS_H_
#define SWITCHYARD_ENGINE_BACKEND_CUDA_ACTIVATIONS_H_

#include <cuda_runtime_api.h>

#include <cstdint>
#include <map>

#include "absl/status/statusor.h"
#include "engine/backend/backend.h"
#include "engine/backend/cuda/device_memory.h"
#include "engine/backend/cuda/kernels.h"

namespace switchyard::cuda {

class Activations {
 public:
  explicit Activations(cudaStream_t stream) : stream_(stream) {}

  absl::StatusOr<Matrix> Allocate(int64_t rows, int64_t cols);

  // Rows that the memory behind `matrix` has room for, from its first row on.
  int64_t Capacity(Matrix matrix) const;

  // Announces that the next kernel writes these planes of the first `rows` rows, and no other.
  enum Written { kF32 = 1, kBf16 = 2, kBoth = 3 };
  Planes Write(Matrix matrix, Written planes);

  // The planes of a matrix that was written; converts `rows` rows if the wanted plane was not.
  float* ReadF32(Matrix matrix, int64_t rows);
  struct Bf16View {
    const uint16_t* data;
    int64_t stride;
  };
  Bf16View ReadBf16(Matrix matrix, int64_t rows);

  // The plane that was written, without a conversion: bf16 if there is one.
  bool HasBf16(Matrix matrix) const;

 private:
  struct Allocation {
    DeviceBuffer f32;
    DeviceBuffer bf16;
    // The last write: what it covered and which planes hold it.
    const void* data = nullptr;
    int64_t cols = 0;
    int written = kF32;
  };

  Allocation& Find(Matrix matrix);
  const Allocation& Find(Matrix matrix) const { return const_cast<Activations*>(this)->Find(matrix); }
  static uint16_t* Bf16Plane(const Allocation& allocation, Matrix matrix);
  static bool IsLastWrite(const Allocation& allocation, Matrix matrix) {
    return allocation.data == matrix.data && allocation.cols == matrix.cols;
  }

  cudaStream_t const stream_;
  std::map<const char*, Allocation> allocations_;  // by the address of the fp32 plane
};

}  // namespace switchyard::cuda

#endif  // SWITCHYARD_ENGINE_BACKEND_CUDA_ACTIVATIONS_H_
