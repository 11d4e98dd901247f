// The token of each row of logits, one block per row. Roofline: bytes = rows * num_ids * 4, read once.
#include <ptx.cuh>

#include "engine/backend/cuda/kernels.h"
#include "engine/backend/cuda/warp.cuh"

namespace switchyard::cuda {
namespace {

constexpr int kThreads = 1024;  // a row of logits is long, and there are few

__global__ void SampleTokensKernel(DeviceStep step, const float* logits, int64_t cols, int64_t num_ids,
                                   int32_t* tokens) {
  __shared__ float values[kThreads / kWarp];
  __shared__ int32_t ids[kThreads / kWarp];
  const int64_t row = blockIdx.x;
  if (row >= step.counts->num_sampled_rows) return;
  float largest = -INFINITY;
  int32_t id = INT32_MAX;
  bool finite = true;
  for (int64_t i = threadIdx.x; i < num_ids; i += kThreads) {
    const float value = logits[row * cols + i];
    finite = finite && isfinite(value);
    if (value > largest) {
      largest = value;
      id = static_cast<int32_t>(i);
    }
  }
  for (int distance = kWarp / 2; distance > 0; distance /= 2) {
    const float value = __shfl_xor_sync(kAllLanes, largest, distance);
    const int32_t other = __shfl_xor_sync(kAllLanes, id, distance);
    if (value > largest || (value == largest && other < id)) {
      largest = value;
      id = other;
    }
  }
  finite = __syncthreads_and(finite);
  if (threadIdx.x % kWarp == 0) {
    values[threadIdx.x / kWarp] = largest;
    ids[threadIdx.x / kWarp] = id;
  }
  __syncthreads();
  if (threadIdx.x != 0) return;
  for (int w = 1; w < kThreads / kWarp; ++w) {
    if (values[w] > largest || (values[w] == largest && ids[w] < id)) {
      largest = values[w];
      id = ids[w];
    }
  }
  tokens[row] = finite ? id : -1;
}

}  // namespace

void LaunchSampleTokens(const DeviceStep& step, const float* logits, int64_t rows, int64_t cols, int64_t num_ids,
                        int32_t* tokens, cudaStream_t stream) {
  Launch(SampleTokensKernel, dim3(rows), dim3(kThreads), 0, stream, step, logits, cols, num_ids, tokens);
}

}  // namespace switchyard::cuda
