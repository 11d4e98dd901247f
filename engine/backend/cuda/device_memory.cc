#include "engine/backend/cuda/device_memory.h"

#include <cstring>

#include "absl/strings/str_cat.h"

namespace switchyard::cuda {

absl::Status ToStatus(cudaError_t error, const std::string& what) {
  if (error == cudaSuccess) return absl::OkStatus();
  return absl::InternalError(absl::StrCat(what, ": ", cudaGetErrorString(error)));
}

DeviceBuffer::~DeviceBuffer() { cudaFree(data_); }

absl::StatusOr<DeviceBuffer> DeviceBuffer::Allocate(int64_t bytes, const std::string& purpose) {
  DeviceBuffer buffer;
  if (bytes <= 0) return buffer;
  // A failed allocation breaks nothing, but forgetting it must not hide what failed before.
  const absl::Status before = ToStatus(cudaGetLastError(), "the GPU failed");
  if (!before.ok()) return before;
  if (cudaMalloc(&buffer.data_, static_cast<size_t>(bytes)) != cudaSuccess) {
    cudaGetLastError();
    buffer.data_ = nullptr;
    size_t free = 0, total = 0;
    cudaMemGetInfo(&free, &total);
    return absl::ResourceExhaustedError(absl::StrCat("cannot allocate ", bytes >> 20, " MiB for ", purpose,
                                                     " on the GPU: ", free >> 20, " of ", total >> 20,
                                                     " MiB are free"));
  }
  buffer.bytes_ = bytes;
  // On the legacy stream, for which the backend's non-blocking stream does not wait: so the host does.
  cudaError_t error = cudaMemset(buffer.data_, 0, static_cast<size_t>(bytes));
  if (error == cudaSuccess) error = cudaStreamSynchronize(nullptr);
  const absl::Status cleared = ToStatus(error, "clearing memory");
  if (!cleared.ok()) return cleared;
  return buffer;
}

PinnedBuffer::~PinnedBuffer() { cudaFreeHost(data_); }

absl::StatusOr<PinnedBuffer> PinnedBuffer::Allocate(int64_t bytes) {
  PinnedBuffer buffer;
  if (bytes <= 0) return buffer;
  const absl::Status before = ToStatus(cudaGetLastError(), "the GPU failed");
  if (!before.ok()) return before;
  if (cudaHostAlloc(&buffer.data_, static_cast<size_t>(bytes), cudaHostAllocDefault) != cudaSuccess) {
    cudaGetLastError();
    buffer.data_ = nullptr;
    return absl::ResourceExhaustedError(absl::StrCat("cannot lock ", bytes >> 20, " MiB of host memory for the GPU"));
  }
  buffer.bytes_ = bytes;
  std::memset(buffer.data_, 0, static_cast<size_t>(bytes));
  return buffer;
}

}  // namespace switchyard::cuda
