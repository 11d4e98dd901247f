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

// What a lane brings to a product: pairs of neighbours in k.
struct Fragments {
  Fragments(const uint32_t (&a_pairs)[4], uint32_t b0, uint32_t b1) {
    for (int i = 0; i < 4; ++i) Split(a_pairs[i], a[i]);
    Split(b0, b[0]);
    Split(b1, b[1]);
  }
  static void Split(uint32_t pair, float (&values)[2]) {
    values[0] = Bf16ToFloat(static_cast<uint16_t>(pair));
    values[1] = Bf16ToFloat(static_cast<uint16_t>(pair >> 16));
  }

  float a[4][2];
  float b[2][2];
};

// Reads nothing but Fragments, so sanitizers have nothing to find in it; and it is what tests of kernels run most.
__attribute__((no_sanitize("address", "undefined"))) inline void AddProducts(const uint64_t* fragments, int lane,
                                                                             float (&sums)[4]) {
  const int g = lane / 4, q = lane % 4;
  for (int upper = 0; upper < 2; ++upper) {
    for (int holder = 0; holder < 4; ++holder) {
      const auto& left = *reinterpret_cast<const Fragments*>(fragments[4 * g + holder]);
      const auto& right0 = *reinterpret_cast<const Fragments*>(fragments[8 * q + holder]);
      const auto& right1 = *reinterpret_cast<const Fragments*>(fragments[8 * q + 4 + holder]);
      for (int half = 0; half < 2; ++half) {
        const float a0 = left.a[2 * upper][half], a1 = left.a[2 * upper + 1][half];
        const float b0 = right0.b[upper][half], b1 = right1.b[upper][half];
        sums[0] += a0 * b0;
        sums[1] += a0 * b1;
        sums[2] += a1 * b0;
        sums[3] += a1 * b1;
      }
    }
  }
}

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
  const emulated::Fragments mine(a, b0, b1);
  const uint64_t* const all = cuda_emulation::ExchangeInWarp(0xffffffffu, reinterpret_cast<uint64_t>(&mine));
  float sums[4] = {c[0], c[1], c[2], c[3]};
  emulated::AddProducts(all, cuda_emulation::Lane(), sums);
  cuda_emulation::ExchangeInWarp(0xffffffffu, 0);  // nobody leaves while its operands are read
  for (int i = 0; i < 4; ++i) c[i] = sums[i];
}

inline uint32_t PackBf16(float low, float high) { return emulated::Pair(FloatToBf16(low), FloatToBf16(high)); }

inline unsigned long long GlobalTimer() { return cuda_emulation::Nanoseconds(); }

}  // namespace switchyard::cuda

#endif  // SWITCHYARD_TESTS_SUPPORT_CUDA_EMULATION_PTX_CUH_
