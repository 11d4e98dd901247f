// Stands for engine/backend/cuda/ptx/ptx.cuh: the same functions with the same meaning, on fibers.
#ifndef SWITCHYARD_TESTS_SUPPORT_CUDA_EMULATION_PTX_CUH_
#define SWITCHYARD_TESTS_SUPPORT_CUDA_EMULATION_PTX_CUH_

#include <cuda_runtime.h>

#include <cstdint>
#include <functional>
#include <tuple>
#include <utility>

#include "emulation.h"
#include "engine/base/bf16.h"

namespace switchyard::cuda {

template <typename... Parameters, typename... Arguments>
void Launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t shared_bytes, cudaStream_t stream,
            Arguments&&... arguments) {
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) return;
  // Parameters are copied at the launch, as on the device.
  std::tuple<Parameters...> copies(std::forward<Arguments>(arguments)...);
  cuda_emulation::LaunchKernel({reinterpret_cast<const void*>(kernel), grid, block, shared_bytes,
                                [kernel, copies] { std::apply(kernel, copies); }},
                               stream);
}

template <auto kKernel>
int BlocksPerMultiprocessor(int, size_t) {
  return 2;
}

inline void BeginKernel() { cuda_emulation::BeginKernel(); }

template <typename T>
T* DynamicShared() {
  return static_cast<T*>(cuda_emulation::SharedMemory());
}

inline uint32_t SharedAddress(const void* pointer) { return cuda_emulation::SharedAddressOf(pointer); }

inline void CopyAsync16(void* to, const void* from, bool valid) {
  cuda_emulation::CopyAsync(to, valid ? from : nullptr, 16);
}
inline void CopyAsyncCommit() { cuda_emulation::CommitCopies(); }
template <int kPending>
void CopyAsyncWait() {
  cuda_emulation::WaitForCopies(kPending);
}

namespace emulated {

// Row `row` of the 8x8 tile that lanes 8 * tile ... 8 * tile + 7 gave the addresses of.
inline const uint16_t* TileRow(const uint64_t* addresses, int tile, int row) {
  return reinterpret_cast<const uint16_t*>(addresses[8 * tile + row]);
}

inline uint32_t Pair(uint16_t low, uint16_t high) { return low | static_cast<uint32_t>(high) << 16; }

}  // namespace emulated

inline void LoadMatrix4(uint32_t (&tiles)[4], const void* row) {
  const uint64_t* const all = cuda_emulation::ExchangeInWarp(0xffffffffu, reinterpret_cast<uint64_t>(row));
  const int g = cuda_emulation::Lane() / 4, q = cuda_emulation::Lane() % 4;
  for (int t = 0; t < 4; ++t) {
    const uint16_t* const values = emulated::TileRow(all, t, g);
    tiles[t] = emulated::Pair(values[2 * q], values[2 * q + 1]);
  }
}

inline void LoadMatrix4Transposed(uint32_t (&tiles)[4], const void* row) {
  const uint64_t* const all = cuda_emulation::ExchangeInWarp(0xffffffffu, reinterpret_cast<uint64_t>(row));
  const int g = cuda_emulation::Lane() / 4, q = cuda_emulation::Lane() % 4;
  for (int t = 0; t < 4; ++t) {
    tiles[t] = emulated::Pair(emulated::TileRow(all, t, 2 * q)[g], emulated::TileRow(all, t, 2 * q + 1)[g]);
  }
}

// The operands of all lanes meet through one exchange of addresses; each lane then computes its own four sums, k in
// order in fp32.
inline void MmaBf16(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  struct Fragments {
    uint32_t a[4];
    uint32_t b[2];
  };
  const Fragments mine = {{a[0], a[1], a[2], a[3]}, {b0, b1}};
  const uint64_t* const all = cuda_emulation::ExchangeInWarp(0xffffffffu, reinterpret_cast<uint64_t>(&mine));
  const auto value = [](uint32_t pair, int half) { return Bf16ToFloat(static_cast<uint16_t>(pair >> (16 * half))); };
  const int g = cuda_emulation::Lane() / 4, q = cuda_emulation::Lane() % 4;
  float sums[4] = {c[0], c[1], c[2], c[3]};
  for (int k = 0; k < 16; ++k) {
    const int holder = k % 8 / 2, half = k % 2, upper = k / 8;
    const auto& left = *reinterpret_cast<const Fragments*>(all[4 * g + holder]);
    const float a_rows[2] = {value(left.a[2 * upper], half), value(left.a[2 * upper + 1], half)};
    for (int n = 0; n < 2; ++n) {
      const auto& right = *reinterpret_cast<const Fragments*>(all[4 * (2 * q + n) + holder]);
      const float b = value(right.b[upper], half);
      sums[n] += a_rows[0] * b;
      sums[2 + n] += a_rows[1] * b;
    }
  }
  cuda_emulation::ExchangeInWarp(0xffffffffu, 0);  // nobody leaves while its operands are read
  for (int i = 0; i < 4; ++i) c[i] = sums[i];
}

inline uint32_t PackBf16(float low, float high) { return emulated::Pair(FloatToBf16(low), FloatToBf16(high)); }

inline unsigned long long GlobalTimer() { return cuda_emulation::Nanoseconds(); }

}  // namespace switchyard::cuda

#endif  // SWITCHYARD_TESTS_SUPPORT_CUDA_EMULATION_PTX_CUH_
