// Stands for engine/backend/cuda/ptx/hopper.cuh: the same functions with the same meaning, on fibers.
#ifndef SWITCHYARD_TESTS_SUPPORT_CUDA_EMULATION_HOPPER_CUH_
#define SWITCHYARD_TESTS_SUPPORT_CUDA_EMULATION_HOPPER_CUH_

#include <cuda.h>
#include <ptx.cuh>

#include <cstdint>

#include "hopper.h"

#define SWITCHYARD_HOPPER 1

namespace switchyard::cuda {

template <int kRegisters>
void ReleaseRegisters() {
  static_assert(kRegisters % 8 == 0 && kRegisters >= 24 && kRegisters <= 256);
}
template <int kRegisters>
void TakeRegisters() {
  ReleaseRegisters<kRegisters>();
}
inline void SyncThreads(int id, int threads) { cuda_emulation::SyncThreads(id, threads); }

using Mbarrier = uint64_t;
inline void InitMbarrier(Mbarrier* barrier, int arrivals) { cuda_emulation::InitMbarrier(barrier, arrivals); }
inline void FenceMbarrierInit() {}
inline void Arrive(Mbarrier* barrier) { cuda_emulation::ArriveExpect(barrier, 0); }
inline void ArriveExpect(Mbarrier* barrier, uint32_t bytes) { cuda_emulation::ArriveExpect(barrier, bytes); }
inline void WaitParity(Mbarrier* barrier, uint32_t parity) { cuda_emulation::WaitParity(barrier, parity); }
inline void FenceProxyAsync() { cuda_emulation::FenceProxyAsync(); }

inline void PrefetchTensorMap(const CUtensorMap*) {}
inline void CopyTile(void* to, const CUtensorMap* map, int32_t col, int32_t row, Mbarrier* barrier) {
  cuda_emulation::CopyTile(to, *map, col, row, barrier);
}

inline void WgmmaFence() { cuda_emulation::WgmmaFence(); }
inline void WgmmaCommit() { cuda_emulation::WgmmaCommit(); }
template <int kPending>
void WgmmaWait() {
  cuda_emulation::WgmmaWait(kPending);
}
template <int kCount>
void WgmmaWaitAll(float (&)[kCount]) {
  cuda_emulation::WgmmaWait(0);
}
template <int kCount>
void WgmmaBf16(float (&acc)[kCount], uint64_t a, uint64_t b, bool accumulate) {
  static_assert(kCount % 4 == 0 && kCount <= 128);
  cuda_emulation::WgmmaBf16(acc, kCount, a, b, accumulate);
}

}  // namespace switchyard::cuda

#endif  // SWITCHYARD_TESTS_SUPPORT_CUDA_EMULATION_HOPPER_CUH_
