// The instructions of compute capability 9.0 alone (sm_90a): transaction barriers, the tensor copy engine (TMA) and
// products of whole warpgroups (wgmma). As ptx.cuh, one function each, and the tests replace this file, too.
//
// Device code that uses them stands between #if SWITCHYARD_HOPPER and #endif: for other targets it compiles to nothing.
#ifndef SWITCHYARD_ENGINE_BACKEND_CUDA_PTX_HOPPER_CUH_
#define SWITCHYARD_ENGINE_BACKEND_CUDA_PTX_HOPPER_CUH_

#include <cuda.h>
#include <ptx.cuh>

#include <cstdint>

// The host's pass sees the code as well, as it has to.
#if !defined(__CUDA_ARCH__) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define SWITCHYARD_HOPPER 1
#else
#define SWITCHYARD_HOPPER 0
#endif

#if SWITCHYARD_HOPPER && defined(__CUDACC__)

namespace switchyard::cuda {

// ---- registers and barriers of warps ----

// Hands registers of this warpgroup back, or takes some: kRegisters per thread from now on, a multiple of 8. All warps
// of the warpgroup call it.
template <int kRegisters>
__device__ __forceinline__ void ReleaseRegisters() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kRegisters));
}
template <int kRegisters>
__device__ __forceinline__ void TakeRegisters() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kRegisters));
}

// Barrier `id` (1-15; 0 is __syncthreads) of `threads` threads of the block, whole warps.
__device__ __forceinline__ void SyncThreads(int id, int threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

// ---- mbarriers: a phase ends when all arrivals and all announced bytes are there ----

using Mbarrier = uint64_t;

__device__ __forceinline__ void InitMbarrier(Mbarrier* barrier, int arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(SharedAddress(barrier)), "r"(arrivals) : "memory");
}
// After the thread's InitMbarriers, before the block's barrier: the copy engine and other threads see them.
__device__ __forceinline__ void FenceMbarrierInit() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}
__device__ __forceinline__ void Arrive(Mbarrier* barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(SharedAddress(barrier)) : "memory");
}
// Arrives, and announces `bytes` of copies that the phase waits for, too.
__device__ __forceinline__ void ArriveExpect(Mbarrier* barrier, uint32_t bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(SharedAddress(barrier)), "r"(bytes)
               : "memory");
}
// Waits for the end of the phase of parity `parity`. Of a new barrier, parity 1 has ended.
__device__ __forceinline__ void WaitParity(Mbarrier* barrier, uint32_t parity) {
  uint32_t done = 0;
  while (done == 0) {
    asm volatile(
        "{\n"
        ".reg .pred ended;\n"
        "mbarrier.try_wait.parity.shared::cta.b64 ended, [%1], %2;\n"
        "selp.u32 %0, 1, 0, ended;\n"
        "}\n"
        : "=r"(done)
        : "r"(SharedAddress(barrier)), "r"(parity)
        : "memory");
  }
}

// Orders what this thread has written to shared memory by ordinary means (cp.async, too, once waited for) before what
// wgmma and the copy engine do there after the next synchronisation.
__device__ __forceinline__ void FenceProxyAsync() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

// ---- the copy engine ----

__device__ __forceinline__ void PrefetchTensorMap(const CUtensorMap* map) {
  asm volatile("prefetch.tensormap [%0];" ::"l"(map) : "memory");
}
// Starts copying the map's box at (col, row) to `to`; its bytes count for `barrier`. What lies outside of the matrix is
// zero. One thread calls it. `map` is a __grid_constant__ parameter.
__device__ __forceinline__ void CopyTile(void* to, const CUtensorMap* map, int32_t col, int32_t row,
                                         Mbarrier* barrier) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3}], [%4];"
      :
      : "r"(SharedAddress(to)), "l"(map), "r"(col), "r"(row), "r"(SharedAddress(barrier))
      : "memory");
}

// ---- wgmma ----

// Before a warpgroup's first product and wherever its accumulators were touched since the last one.
__device__ __forceinline__ void WgmmaFence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
// Closes the group of products since the last call.
__device__ __forceinline__ void WgmmaCommit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
// Waits until at most kPending of the groups, the newest ones, are under way: the others have read their operands.
template <int kPending>
__device__ __forceinline__ void WgmmaWait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
}
// Waits for all of them. Only after this may `acc` be read; the empty statements keep the compiler from doing so
// earlier.
template <int kCount>
__device__ __forceinline__ void WgmmaWaitAll(float (&acc)[kCount]) {
  WgmmaWait<0>();
#pragma unroll
  for (int i = 0; i < kCount; ++i) asm volatile("" : "+f"(acc[i])::"memory");
}

// acc[64 x 2 * kCount] (+)= a[64 x 16] b[16 x 2 * kCount] in bfloat16 with fp32 sums; a and b by descriptors of
// shared memory in which k is contiguous. Not `accumulate`: what acc held is ignored. With w the warp in the warpgroup,
// g = lane / 4 and q = lane % 4, acc[4 j + ...] are (16 w + g, 8 j + 2 q), the next column, and both of row + 8.
template <int kCount>
__device__ void WgmmaBf16(float (&acc)[kCount], uint64_t a, uint64_t b, bool accumulate);

#define SWITCHYARD_ACC4(i) "+f"(acc[i]), "+f"(acc[i + 1]), "+f"(acc[i + 2]), "+f"(acc[i + 3])
#define SWITCHYARD_ACC8(i) SWITCHYARD_ACC4(i), SWITCHYARD_ACC4(i + 4)
#define SWITCHYARD_ACC16(i) SWITCHYARD_ACC8(i), SWITCHYARD_ACC8(i + 8)
#define SWITCHYARD_ACC32(i) SWITCHYARD_ACC16(i), SWITCHYARD_ACC16(i + 16)
#define SWITCHYARD_ACC64(i) SWITCHYARD_ACC32(i), SWITCHYARD_ACC32(i + 32)
#define SWITCHYARD_ACC128(i) SWITCHYARD_ACC64(i), SWITCHYARD_ACC64(i + 64)
#define SWITCHYARD_NAMES4 "%0, %1, %2, %3"
#define SWITCHYARD_NAMES8 SWITCHYARD_NAMES4 ", %4, %5, %6, %7"
#define SWITCHYARD_NAMES16 SWITCHYARD_NAMES8 ", %8, %9, %10, %11, %12, %13, %14, %15"
#define SWITCHYARD_NAMES32 \
  SWITCHYARD_NAMES16 ", %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define SWITCHYARD_NAMES64                                                                             \
  SWITCHYARD_NAMES32 ", %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47" \
                     ", %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define SWITCHYARD_NAMES128                                                                                        \
  SWITCHYARD_NAMES64 ", %64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79"             \
                     ", %80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95"             \
                     ", %96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111" \
                     ", %112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127"

// kCount accumulators, kTokens = 2 * kCount; the operands behind them have the next three numbers.
#define SWITCHYARD_WGMMA(kCount, kTokens, A, B, SCALE)                                                               \
  template <>                                                                                                        \
  __device__ __forceinline__ void WgmmaBf16<kCount>(float(&acc)[kCount], uint64_t a, uint64_t b, bool accumulate) {  \
    asm volatile(                                                                                                    \
        "{\n"                                                                                                        \
        ".reg .pred accumulate;\n"                                                                                   \
        "setp.ne.b32 accumulate, " SCALE ", 0;\n"                                                                    \
        "wgmma.mma_async.sync.aligned.m64n" #kTokens "k16.f32.bf16.bf16 {" SWITCHYARD_NAMES##kCount "}, " A ", " B    \
        ", accumulate, 1, 1, 0, 0;\n"                                                                                \
        "}\n"                                                                                                        \
        : SWITCHYARD_ACC##kCount(0)                                                                                  \
        : "l"(a), "l"(b), "r"(static_cast<int32_t>(accumulate)));                                                    \
  }
SWITCHYARD_WGMMA(4, 8, "%4", "%5", "%6")
SWITCHYARD_WGMMA(8, 16, "%8", "%9", "%10")
SWITCHYARD_WGMMA(16, 32, "%16", "%17", "%18")
SWITCHYARD_WGMMA(32, 64, "%32", "%33", "%34")
SWITCHYARD_WGMMA(64, 128, "%64", "%65", "%66")
SWITCHYARD_WGMMA(128, 256, "%128", "%129", "%130")
#undef SWITCHYARD_WGMMA

}  // namespace switchyard::cuda

#endif  // SWITCHYARD_HOPPER && defined(__CUDACC__)

#endif  // SWITCHYARD_ENGINE_BACKEND_CUDA_PTX_HOPPER_CUH_
