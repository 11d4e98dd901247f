// Device memory and errors for the benchmark: every CUDA call is checked, and a failure ends the program with the
// call's name, because a number measured after it would mean nothing. Everything runs on one stream.
#ifndef SWITCHYARD_TESTS_BENCH_GPU_DEVICE_H_
#define SWITCHYARD_TESTS_BENCH_GPU_DEVICE_H_

#include <cublas_v2.h>
#include <cuda_runtime_api.h>

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace switchyard::bench {

void CheckCuda(cudaError_t error, const char* call, const char* file, int line);
void CheckCublas(cublasStatus_t status, const char* call, const char* file, int line);
#define CUDA_OK(call) ::switchyard::bench::CheckCuda((call), #call, __FILE__, __LINE__)
#define CUBLAS_OK(call) ::switchyard::bench::CheckCublas((call), #call, __FILE__, __LINE__)

struct Device {
  std::string name;
  int num_multiprocessors = 0;
  int max_shared_bytes = 0;  // of a block
  bool has_wgmma = false;
  int64_t total_bytes = 0;
  cudaStream_t stream = nullptr;
  cublasHandle_t cublas = nullptr;
};

struct Versions {
  int driver = 0, runtime = 0, cublas = 0;  // as each library numbers its own
};
Versions TheVersions();

// Empty: the device is ready. Otherwise why there is none; nothing else may be called then.
std::string OpenDevice();
const Device& TheDevice();
cudaStream_t Stream();
// Waits for the stream and checks the last launch.
void Synchronize();
int64_t FreeBytes();

void* AllocateBytes(int64_t bytes);
void Deallocate(void* pointer);
void* AllocatePinned(int64_t bytes);
void FreePinned(void* pointer);
void Copy(void* to, const void* from, int64_t bytes);  // and waits
// Fills with 0xff bytes: NaN in fp32 and bf16, -1 in int32.
void Poison(void* pointer, int64_t bytes);
void Clear(void* pointer, int64_t bytes);

// Owns `size` elements of device memory; of page-locked host memory where kPinned.
template <typename T, bool kPinned = false>
class Array {
 public:
  Array() = default;
  explicit Array(int64_t size) : size_(size) {
    const int64_t bytes = (size > 0 ? size : 1) * static_cast<int64_t>(sizeof(T));
    data_ = static_cast<T*>(kPinned ? AllocatePinned(bytes) : AllocateBytes(bytes));
  }
  explicit Array(const std::vector<T>& values) : Array(static_cast<int64_t>(values.size())) {
    Copy(data_, values.data(), bytes());
  }
  ~Array() { kPinned ? FreePinned(data_) : Deallocate(data_); }
  Array(Array&& other) noexcept { *this = std::move(other); }
  Array& operator=(Array&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    return *this;
  }

  T* get() const { return data_; }
  int64_t size() const { return size_; }
  int64_t bytes() const { return size_ * static_cast<int64_t>(sizeof(T)); }
  std::vector<T> ToHost() const {
    std::vector<T> values(static_cast<size_t>(size_));
    Copy(values.data(), data_, bytes());
    return values;
  }

 private:
  T* data_ = nullptr;
  int64_t size_ = 0;
};
template <typename T>
using PinnedArray = Array<T, true>;

}  // namespace switchyard::bench

#endif  // SWITCHYARD_TESTS_BENCH_GPU_DEVICE_H_
