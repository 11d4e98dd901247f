// Runs kernels on the CPU: the blocks of a grid one after the other, the threads of a block as fibers of the calling
// thread. One kernel at a time in the whole process.
#ifndef SWITCHYARD_TESTS_SUPPORT_CUDA_EMULATION_EMULATION_H_
#define SWITCHYARD_TESTS_SUPPORT_CUDA_EMULATION_EMULATION_H_

#include <cstdint>
#include <functional>
#include <string>

#include "cuda_runtime_api.h"

namespace cuda_emulation {

struct KernelLaunch {
  const void* kernel = nullptr;
  dim3 grid;
  dim3 block;
  size_t shared_bytes = 0;
  std::function<void()> body;  // what one thread runs
};

// Runs the kernel, or records it where the stream is being captured.
void LaunchKernel(KernelLaunch launch, cudaStream_t stream);

// Calls, or records the call where the stream is being captured.
void RunOnStream(cudaStream_t stream, std::function<void()> call);

// For running threads.
void BeginKernel();  // one that ends without it has broken the contract of Launch
void* SharedMemory();
void CopyAsync(void* to, const void* from, int bytes);  // zeros where `from` is null
void CommitCopies();
void WaitForCopies(int pending);
uint64_t Nanoseconds();
int CurrentThread();  // of the block
void WaitUntil(std::function<bool()> condition);
[[noreturn]] void Fatal(const char* what);  // names the kernel, block and thread
// Shared memory by the addresses that instructions know it by: the block's begins at a multiple of 128, not of 1024.
uint32_t SharedAddressOf(const void* pointer);
void* SharedAt(uint32_t address, int bytes);  // ends the program where it is outside

// For tests.
enum class ThreadOrder { kForward, kReverse };
void SetThreadOrder(ThreadOrder order);
enum class BlockOrder { kForward, kReverse, kShuffled };
void SetBlockOrder(BlockOrder order);
int64_t NumGraphLaunches();               // since the process began
void SetRefuseCapture(bool refuse);       // streams cannot be captured
void FailNextSynchronize(cudaError_t error);  // as a device that broke during a step
void SetDeviceMemory(size_t bytes);       // what cudaMemGetInfo and cudaMalloc know of
inline constexpr size_t kMaxSharedMemory = 227 << 10;  // as on Hopper
void SetSharedMemory(size_t bytes);       // that a block may have
void SetComputeCapability(int major, int minor);

}  // namespace cuda_emulation

#endif  // SWITCHYARD_TESTS_SUPPORT_CUDA_EMULATION_EMULATION_H_
