// Activations of one projection in place. Roofline: bytes = the matrix once in and once out.
#include "engine/backend/cuda/ungated.cuh"

namespace switchyard::cuda {
namespace {

constexpr int kThreads = 256;

__global__ void ActivateKernel(Ungated activation, int64_t count, float* values) {
  BeginKernel();
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i < count) values[i] = ApplyUngated(activation, values[i]);
}

}  // namespace

void LaunchActivate(Ungated activation, int64_t count, float* values, cudaStream_t stream) {
  Launch(ActivateKernel, dim3(CeilDiv(count, kThreads)), dim3(kThreads), 0, stream, activation, count, values);
}

}  // namespace switchyard::cuda
