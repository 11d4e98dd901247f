#include "tests/bench/gpu/device.h"

#include <cstdio>
#include <cstdlib>

namespace switchyard::bench {
namespace {

constexpr int64_t kCublasWorkspace = int64_t{32} << 20;  // its own, so that captured calls do not allocate

Device& MutableDevice() {
  static Device device;
  return device;
}

}  // namespace

void CheckCuda(cudaError_t error, const char* call, const char* file, int line) {
  if (error == cudaSuccess) return;
  std::fprintf(stderr, "%s:%d: %s: %s\n", file, line, call, cudaGetErrorString(error));
  std::exit(1);
}

void CheckCublas(cublasStatus_t status, const char* call, const char* file, int line) {
  if (status == CUBLAS_STATUS_SUCCESS) return;
  std::fprintf(stderr, "%s:%d: %s: cuBLAS error %d\n", file, line, call, static_cast<int>(status));
  std::exit(1);
}

std::string OpenDevice() {
  int count = 0;
  const cudaError_t error = cudaGetDeviceCount(&count);
  if (error != cudaSuccess) return cudaGetErrorString(error);
  if (count == 0) return "the CUDA runtime finds none";
  cudaDeviceProp properties;
  CUDA_OK(cudaSetDevice(0));
  CUDA_OK(cudaGetDeviceProperties(&properties, 0));
  if (properties.major < 8) return std::string(properties.name) + " is older than compute capability 8.0";
  Device& device = MutableDevice();
  device.name = properties.name;
  device.num_multiprocessors = properties.multiProcessorCount;
  device.max_shared_bytes = static_cast<int>(properties.sharedMemPerBlockOptin);
  device.has_wgmma = properties.major == 9 && properties.minor == 0;
  device.total_bytes = static_cast<int64_t>(properties.totalGlobalMem);
  CUDA_OK(cudaStreamCreateWithFlags(&device.stream, cudaStreamNonBlocking));
  CUBLAS_OK(cublasCreate_v2(&device.cublas));
  CUBLAS_OK(cublasSetStream_v2(device.cublas, device.stream));
  CUBLAS_OK(cublasSetWorkspace_v2(device.cublas, AllocateBytes(kCublasWorkspace), kCublasWorkspace));
  return "";
}

const Device& TheDevice() { return MutableDevice(); }
cudaStream_t Stream() { return MutableDevice().stream; }

Versions TheVersions() {
  Versions versions;
  CUDA_OK(cudaDriverGetVersion(&versions.driver));
  CUDA_OK(cudaRuntimeGetVersion(&versions.runtime));
  CUBLAS_OK(cublasGetVersion_v2(TheDevice().cublas, &versions.cublas));
  return versions;
}

void Synchronize() {
  CUDA_OK(cudaGetLastError());
  CUDA_OK(cudaStreamSynchronize(Stream()));
}

int64_t FreeBytes() {
  size_t free = 0, total = 0;
  CUDA_OK(cudaMemGetInfo(&free, &total));
  return static_cast<int64_t>(free);
}

void* AllocateBytes(int64_t bytes) {
  void* pointer = nullptr;
  const cudaError_t error = cudaMalloc(&pointer, static_cast<size_t>(bytes));
  if (error != cudaSuccess) std::fprintf(stderr, "allocating %.2f GiB:\n", static_cast<double>(bytes) / (1 << 30));
  CUDA_OK(error);
  return pointer;
}

void Deallocate(void* pointer) {
  if (pointer != nullptr) CUDA_OK(cudaFree(pointer));
}

void* AllocatePinned(int64_t bytes) {
  void* pointer = nullptr;
  CUDA_OK(cudaHostAlloc(&pointer, static_cast<size_t>(bytes), cudaHostAllocDefault));
  return pointer;
}

void FreePinned(void* pointer) {
  if (pointer != nullptr) CUDA_OK(cudaFreeHost(pointer));
}

void Copy(void* to, const void* from, int64_t bytes) {
  if (bytes == 0) return;
  CUDA_OK(cudaMemcpyAsync(to, from, static_cast<size_t>(bytes), cudaMemcpyDefault, Stream()));
  CUDA_OK(cudaStreamSynchronize(Stream()));
}

void Poison(void* pointer, int64_t bytes) {
  if (bytes > 0) CUDA_OK(cudaMemsetAsync(pointer, 0xff, static_cast<size_t>(bytes), Stream()));
}

void Clear(void* pointer, int64_t bytes) {
  if (bytes > 0) CUDA_OK(cudaMemsetAsync(pointer, 0, static_cast<size_t>(bytes), Stream()));
}

}  // namespace switchyard::bench
