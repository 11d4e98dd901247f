// The instructions that C++ has no words for, one function each. The tests compile the kernels for the CPU with another
// file of this name, which gives every function the same meaning (tests/support/cuda_emulation).
#ifndef SWITCHYARD_ENGINE_BACKEND_CUDA_PTX_PTX_CUH_
#define SWITCHYARD_ENGINE_BACKEND_CUDA_PTX_PTX_CUH_

#include <cuda_runtime.h>

#include <cstdint>
#include <utility>

namespace switchyard::cuda {

// Whether the device can start a kernel before the one ahead of it has ended (compute capability 9.0 and newer).
inline bool KernelsOverlap() {
  static const bool overlap = [] {
    int device = 0, major = 0;
    cudaGetDevice(&device);
    cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
    return major >= 9;
  }();
  return overlap;
}

// Blocks of `kernel` may have so much dynamic shared memory: more than 48 KiB has to be asked for. What was asked for
// is never lowered, as a recorded launch may need it.
inline void AllowShared(const void* kernel, size_t shared_bytes) {
  constexpr size_t kDefaultLimit = 48 << 10;
  if (shared_bytes <= kDefaultLimit / 2) return;  // no kernel has more than the other half as static variables
  cudaFuncAttributes attributes = {};
  cudaFuncGetAttributes(&attributes, kernel);
  const int bytes = static_cast<int>(shared_bytes);
  if (attributes.maxDynamicSharedSizeBytes >= bytes) return;
  cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
}

// Starts `kernel`, which calls BeginKernel, on `stream` with `shared_bytes` of dynamic shared memory. A failure stays
// in cudaPeekAtLastError.
template <typename... Parameters, typename... Arguments>
void Launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t shared_bytes, cudaStream_t stream,
            Arguments&&... arguments) {
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) return;
  AllowShared(reinterpret_cast<const void*>(kernel), shared_bytes);
  cudaLaunchAttribute overlap = {};
  overlap.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  overlap.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config = {};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = shared_bytes;
  config.stream = stream;
  config.attrs = &overlap;
  config.numAttrs = KernelsOverlap() ? 1 : 0;
  cudaLaunchKernelEx(&config, kernel, std::forward<Arguments>(arguments)...);
}

// Blocks of the kernel that fit on one multiprocessor at a time. Asked once for each kernel.
template <auto kKernel>
int BlocksPerMultiprocessor(int threads, size_t shared_bytes) {
  static const int blocks = [&] {
    int fit = 0;
    AllowShared(reinterpret_cast<const void*>(kKernel), shared_bytes);
    cudaOccupancyMaxActiveBlocksPerMultiprocessor(&fit, kKernel, threads, shared_bytes);
    return fit > 0 ? fit : 1;
  }();
  return blocks;
}

#ifdef __CUDACC__

// Every thread of every kernel calls it, before it reads what another kernel wrote and before it writes: Launch may
// start a kernel while the one ahead still runs, which hides most of the time between the two. Waits until that one has
// ended and its writes are seen; it ended no sooner than those before it, as it waited, too. Then lets the next start.
__device__ __forceinline__ void BeginKernel() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

// The block's dynamic shared memory, aligned to 128 bytes.
template <typename T>
__device__ __forceinline__ T* DynamicShared() {
  extern __shared__ __align__(128) unsigned char switchyard_shared[];
  return reinterpret_cast<T*>(switchyard_shared);
}

__device__ __forceinline__ uint32_t SharedAddress(const void* pointer) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}

// Starts copying 16 bytes to shared memory, or 16 zero bytes where not `valid` (then `from` is not read). Both
// addresses are multiples of 16.
__device__ __forceinline__ void CopyAsync16(void* to, const void* from, bool valid) {
  asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;" ::"r"(SharedAddress(to)), "l"(from),
               "r"(valid ? 16 : 0)
               : "memory");
}

// Closes the group of this thread's copies since the last call.
__device__ __forceinline__ void CopyAsyncCommit() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// Waits until at most kPending of this thread's groups, the newest ones, are still under way.
template <int kPending>
__device__ __forceinline__ void CopyAsyncWait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
}

// Four 8x8 tiles of 16-bit elements. Lane l gives the address of row l % 8 of tile l / 8 (16 bytes); it gets elements
// (l / 4, 2 (l % 4)) and the next of each tile. Transposed: elements (2 (l % 4), l / 4) and the one below.
__device__ __forceinline__ void LoadMatrix4(uint32_t (&tiles)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(tiles[0]), "=r"(tiles[1]), "=r"(tiles[2]), "=r"(tiles[3])
               : "r"(SharedAddress(row))
               : "memory");
}

__device__ __forceinline__ void LoadMatrix4Transposed(uint32_t (&tiles)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(tiles[0]), "=r"(tiles[1]), "=r"(tiles[2]), "=r"(tiles[3])
               : "r"(SharedAddress(row))
               : "memory");
}

// c[16x8] += a[16x16] b[16x8] in bfloat16 with fp32 sums. With g = lane / 4 and q = lane % 4 a lane holds
//   a: (g, 2q), (g+8, 2q), (g, 2q+8), (g+8, 2q+8), two neighbours in k each     b: (2q, g), (2q+8, g), likewise
//   c: (g, 2q), (g, 2q+1), (g+8, 2q), (g+8, 2q+1)
__device__ __forceinline__ void MmaBf16(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// Two floats rounded to bfloat16, nearest even; `low` in the lower half. NaN stays NaN.
__device__ __forceinline__ uint32_t PackBf16(float low, float high) {
  uint32_t packed;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
  return packed;
}

// Nanoseconds of a clock that all multiprocessors share.
__device__ __forceinline__ unsigned long long GlobalTimer() {
  unsigned long long nanoseconds;
  asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(nanoseconds)::"memory");
  return nanoseconds;
}

#endif  // __CUDACC__

}  // namespace switchyard::cuda

#endif  // SWITCHYARD_ENGINE_BACKEND_CUDA_PTX_PTX_CUH_
