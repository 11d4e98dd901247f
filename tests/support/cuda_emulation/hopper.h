// What compute capability 9.0 adds, for running threads. Everything happens as late as the hardware may do it, and what
// it must not meet meanwhile ends the program with the kernel's name.
#ifndef SWITCHYARD_TESTS_SUPPORT_CUDA_EMULATION_HOPPER_H_
#define SWITCHYARD_TESTS_SUPPORT_CUDA_EMULATION_HOPPER_H_

#include <cuda.h>

#include <cstdint>

namespace cuda_emulation {

void SyncThreads(int id, int threads);

void InitMbarrier(uint64_t* barrier, int arrivals);
void ArriveExpect(uint64_t* barrier, uint32_t bytes);
void WaitParity(uint64_t* barrier, uint32_t parity);
void FenceProxyAsync();

// Lands when somebody waits for the barrier and nothing but copies is missing; until then the place holds NaN.
void CopyTile(void* to, const CUtensorMap& map, int32_t col, int32_t row, uint64_t* barrier);

// The sums are NaN until they were waited for. The operands must not change from the call to the wait, must have passed
// a proxy fence where cp.async brought them, and be the same for all warps of the warpgroup.
void WgmmaFence();
void WgmmaCommit();
void WgmmaWait(int pending);
void WgmmaBf16(float* acc, int count, uint64_t a, uint64_t b, bool accumulate);

// For emulation.cc.
void BeginHopperBlock(int num_threads);
void EndHopperBlock();                           // nothing may be under way
void WroteByCopyAsync(const void* to, int bytes);  // by the running thread; wgmma does not see it yet

}  // namespace cuda_emulation

#endif  // SWITCHYARD_TESTS_SUPPORT_CUDA_EMULATION_HOPPER_H_
