// What kernels see: qualifiers, built-in variables, warp and block functions.
#ifndef SWITCHYARD_TESTS_SUPPORT_CUDA_EMULATION_CUDA_RUNTIME_H_
#define SWITCHYARD_TESTS_SUPPORT_CUDA_EMULATION_CUDA_RUNTIME_H_

#include <bit>
#include <cmath>
#include <cstdint>

#include "cuda_runtime_api.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __grid_constant__
// One block runs at a time, on one thread of the operating system.
#define __shared__ static

struct alignas(16) float4 {
  float x, y, z, w;
};
struct uint4 {
  unsigned x, y, z, w;
};

// Of the thread that runs now.
extern dim3 threadIdx, blockIdx, blockDim, gridDim;

using std::isfinite;
using std::isnan;

namespace cuda_emulation {

// Called by a running thread.
void WaitForBlock();
// The same, and whether all threads passed true.
bool AllOfBlock(bool predicate);
// Publishes `value` to the lanes of `mask`, waits for all of them, and returns the 32 published values.
const uint64_t* ExchangeInWarp(unsigned mask, uint64_t value);
int Lane();

template <typename T>
uint64_t ToBits(T value) {
  static_assert(sizeof(T) <= 8);
  uint64_t bits = 0;
  __builtin_memcpy(&bits, &value, sizeof(T));
  return bits;
}
template <typename T>
T FromBits(uint64_t bits) {
  T value;
  __builtin_memcpy(&value, &bits, sizeof(T));
  return value;
}

}  // namespace cuda_emulation

inline void __syncthreads() { cuda_emulation::WaitForBlock(); }
inline int __syncthreads_and(int predicate) { return cuda_emulation::AllOfBlock(predicate != 0) ? 1 : 0; }
inline void __syncwarp(unsigned mask = 0xffffffffu) { cuda_emulation::ExchangeInWarp(mask, 0); }
inline unsigned __ballot_sync(unsigned mask, bool predicate) {
  const uint64_t* const all = cuda_emulation::ExchangeInWarp(mask, predicate ? 1 : 0);
  unsigned ballot = 0;
  for (int lane = 0; lane < 32; ++lane) {
    if ((mask >> lane & 1u) != 0 && all[lane] != 0) ballot |= 1u << lane;
  }
  return ballot;
}
inline unsigned __match_any_sync(unsigned mask, int value) {
  const uint64_t bits = cuda_emulation::ToBits(value);
  const uint64_t* const all = cuda_emulation::ExchangeInWarp(mask, bits);
  unsigned same = 0;
  for (int lane = 0; lane < 32; ++lane) {
    if ((mask >> lane & 1u) != 0 && all[lane] == bits) same |= 1u << lane;
  }
  return same;
}
template <typename T>
T __shfl_sync(unsigned mask, T value, int lane) {
  return cuda_emulation::FromBits<T>(cuda_emulation::ExchangeInWarp(mask, cuda_emulation::ToBits(value))[lane & 31]);
}
template <typename T>
T __shfl_xor_sync(unsigned mask, T value, int distance) {
  const uint64_t* const all = cuda_emulation::ExchangeInWarp(mask, cuda_emulation::ToBits(value));
  return cuda_emulation::FromBits<T>(all[cuda_emulation::Lane() ^ distance]);
}

inline float __fdividef(float a, float b) { return a / b; }
inline int __popc(unsigned value) { return std::popcount(value); }
inline unsigned __float_as_uint(float value) { return std::bit_cast<unsigned>(value); }
inline float __uint_as_float(unsigned bits) { return std::bit_cast<float>(bits); }

// Only one thread runs at a time, and sees what all others have written.
inline void __threadfence() {}
template <typename T>
T __ldcg(const T* at) {
  return *at;
}
template <typename T>
T atomicAdd(T* at, T value) {
  const T before = *at;
  *at = before + value;
  return before;
}
inline unsigned atomicInc(unsigned* at, unsigned last) {
  const unsigned before = *at;
  *at = before >= last ? 0 : before + 1;
  return before;
}
template <typename T>
T atomicMin(T* at, T value) {
  const T before = *at;
  if (value < before) *at = value;
  return before;
}
template <typename T>
T atomicMax(T* at, T value) {
  const T before = *at;
  if (value > before) *at = value;
  return before;
}

#endif  // SWITCHYARD_TESTS_SUPPORT_CUDA_EMULATION_CUDA_RUNTIME_H_
