// Memory of the device, and host memory that the device sees.
#ifndef SWITCHYARD_ENGINE_BACKEND_CUDA_DEVICE_MEMORY_H_
#define SWITCHYARD_ENGINE_BACKEND_CUDA_DEVICE_MEMORY_H_

#include <cuda_runtime_api.h>

#include <cstdint>
#include <string>
#include <type_traits>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/backend/cuda/layout.h"

namespace switchyard::cuda {

// OK, or INTERNAL with `what` and CUDA's words.
absl::Status ToStatus(cudaError_t error, const std::string& what);

// Owns zeroed device memory, aligned to 256 bytes. Movable; the address never changes.
class DeviceBuffer {
 public:
  DeviceBuffer() = default;
  DeviceBuffer(DeviceBuffer&& other) noexcept { *this = std::move(other); }
  DeviceBuffer& operator=(DeviceBuffer&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }
  ~DeviceBuffer();

  // RESOURCE_EXHAUSTED: names `purpose`, what is needed and what is free.
  static absl::StatusOr<DeviceBuffer> Allocate(int64_t bytes, const std::string& purpose);

  template <typename T>
  T* as() const {
    return static_cast<T*>(data_);
  }
  int64_t bytes() const { return bytes_; }

 private:
  void* data_ = nullptr;
  int64_t bytes_ = 0;
};

// Owns zeroed page-locked host memory, which kernels read and write at the same address.
class PinnedBuffer {
 public:
  PinnedBuffer() = default;
  PinnedBuffer(PinnedBuffer&& other) noexcept { *this = std::move(other); }
  PinnedBuffer& operator=(PinnedBuffer&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }
  ~PinnedBuffer();

  // RESOURCE_EXHAUSTED: the host has no such memory left.
  static absl::StatusOr<PinnedBuffer> Allocate(int64_t bytes);

  template <typename T>
  T* as() const {
    return static_cast<T*>(data_);
  }
  int64_t bytes() const { return bytes_; }

 private:
  void* data_ = nullptr;
  int64_t bytes_ = 0;
};

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

}  // namespace switchyard::cuda

#endif  // SWITCHYARD_ENGINE_BACKEND_CUDA_DEVICE_MEMORY_H_
