// Sums, conversions and meeting points that several kernels share.
#ifndef SWITCHYARD_ENGINE_BACKEND_CUDA_WARP_CUH_
#define SWITCHYARD_ENGINE_BACKEND_CUDA_WARP_CUH_

#include <ptx.cuh>

#include "engine/backend/cuda/layout.h"

namespace switchyard::cuda {

inline constexpr int kWarp = 32;
inline constexpr unsigned kAllLanes = 0xffffffffu;

// Blocks of kernels that go over rows, of which several share a row's columns, two for each thread.
inline dim3 GridOfRows(int64_t rows, int64_t cols, int threads) { return dim3(rows, CeilDiv(cols, 2 * threads)); }
__device__ __forceinline__ int64_t FirstCol() { return static_cast<int64_t>(blockIdx.y) * blockDim.x + threadIdx.x; }
__device__ __forceinline__ int64_t ColStep() { return static_cast<int64_t>(gridDim.y) * blockDim.x; }

__device__ __forceinline__ float Bf16Bits(uint16_t value) { return __uint_as_float(static_cast<uint32_t>(value) << 16); }
__device__ __forceinline__ uint16_t ToBf16Bits(float value) { return static_cast<uint16_t>(PackBf16(value, 0.0f)); }

// The same sum in every lane; a fixed tree, so the bits depend on the values alone.
__device__ __forceinline__ float WarpSum(float value) {
  for (int distance = kWarp / 2; distance > 0; distance /= 2) value += __shfl_xor_sync(kAllLanes, value, distance);
  return value;
}

__device__ __forceinline__ float WarpMax(float value) {
  for (int distance = kWarp / 2; distance > 0; distance /= 2) {
    value = fmaxf(value, __shfl_xor_sync(kAllLanes, value, distance));
  }
  return value;
}

// The sum over a block of blockDim.x threads, in every thread. `shared`: one float per warp.
__device__ __forceinline__ float BlockSum(float value, float* shared) {
  const int warp = threadIdx.x / kWarp;
  value = WarpSum(value);
  __syncthreads();  // the last sum may still be read
  if (threadIdx.x % kWarp == 0) shared[warp] = value;
  __syncthreads();
  float total = 0.0f;
  for (int w = 0; w < static_cast<int>(blockDim.x) / kWarp; ++w) total += shared[w];
  return total;
}

// True for the last of `num_blocks` blocks that come here with this counter, whose threads then see what the threads of
// all of them have written, if they look past the L1 cache. The counter wraps to 0, where it began.
__device__ __forceinline__ bool IsLastBlock(unsigned* counter, int32_t num_blocks) {
  bool last = false;
  __syncthreads();
  if (threadIdx.x == 0) {
    // Fences are cumulative: between the barriers, one thread's speak for its whole block.
    __threadfence();
    const unsigned before = num_blocks - 1;
    last = atomicInc(counter, before) == before;
    __threadfence();
  }
  return __syncthreads_and(threadIdx.x > 0 || last) != 0;
}

// silu(gate) * up, silu(x) = x / (1 + exp(-x)).
__device__ __forceinline__ float SiluTimes(float gate, float up) { return gate / (1.0f + expf(-gate)) * up; }

}  // namespace switchyard::cuda

#endif  // SWITCHYARD_ENGINE_BACKEND_CUDA_WARP_CUH_
