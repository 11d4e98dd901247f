#include "tests/bench/gpu/bench_kernels.h"

#include <ptx.cuh>

#include "engine/backend/cuda/warp.cuh"
#include "tests/bench/gpu/device.h"

namespace switchyard::bench {
namespace {

using cuda::BeginKernel;
using cuda::Bf16Bits;
using cuda::CeilDiv;
using cuda::kWarp;

constexpr int kThreads = 256;
constexpr int kBlocksPerMultiprocessor = 8;

__device__ __forceinline__ uint64_t Mix(uint64_t x) {  // splitmix64
  x += 0x9e3779b97f4a7c15ull;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
  return x ^ (x >> 31);
}

// Two independent normal values (Box-Muller).
__device__ __forceinline__ void NormalPair(uint64_t seed, uint64_t index, float* a, float* b) {
  const uint64_t bits = Mix(seed * 0x632be59bd9b4e019ull + index);
  const float u = (static_cast<float>(bits >> 40) + 1.0f) * (1.0f / 16777217.0f);  // in (0, 1]
  const float angle = static_cast<float>(bits & 0xffffff) * (6.28318530718f / 16777216.0f);
  const float radius = sqrtf(-2.0f * logf(u));
  *a = radius * cosf(angle);
  *b = radius * sinf(angle);
}

__global__ void FillNormalBf16Kernel(uint32_t* out, int64_t rows, int64_t padded_rows, int64_t cols, int64_t stride,
                                     float sigma, uint64_t seed) {
  BeginKernel();
  const int64_t pairs = stride / 2;
  const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < padded_rows * pairs; i += step) {
    const int64_t row = i / pairs, col = i % pairs * 2;
    float a, b;
    NormalPair(seed, static_cast<uint64_t>(i), &a, &b);
    a = row < rows && col < cols ? a * sigma : 0.0f;
    b = row < rows && col + 1 < cols ? b * sigma : 0.0f;
    out[i] = cuda::PackBf16(a, b);
  }
}

__global__ void FillNormalF32Kernel(float* out, int64_t count, float mean, float sigma, uint64_t seed) {
  BeginKernel();
  const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; 2 * i < count; i += step) {
    float a, b;
    NormalPair(seed, static_cast<uint64_t>(i), &a, &b);
    out[2 * i] = mean + a * sigma;
    if (2 * i + 1 < count) out[2 * i + 1] = mean + b * sigma;
  }
}

// Eight loads of 16 bytes in flight per thread.
__global__ void ReadAllKernel(const uint4* data, int64_t count, uint32_t* sink) {
  BeginKernel();
  constexpr int kLoads = 8;
  const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x;
  int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  uint32_t folded = 0;
  for (; i + (kLoads - 1) * step < count; i += kLoads * step) {
    uint4 values[kLoads];
#pragma unroll
    for (int j = 0; j < kLoads; ++j) values[j] = data[i + j * step];
#pragma unroll
    for (int j = 0; j < kLoads; ++j) folded |= values[j].x & values[j].y & values[j].z & values[j].w;
  }
  for (; i < count; i += step) folded |= data[i].x & data[i].y & data[i].z & data[i].w;
  // Values below 2 never have the highest bit of the exponent, so no fold of them is all ones.
  if (folded == 0xffffffffu) *sink = folded;
}

// One warp per output.
__global__ void ReferenceLinearKernel(const uint16_t* weight, const int32_t* matrices, int64_t matrix_elements,
                                      int64_t k_stride, const float* in, const int32_t* sources, int64_t in_stride,
                                      int64_t k, int64_t outs, float* out) {
  BeginKernel();
  const int lane = threadIdx.x % kWarp;
  const int64_t o = static_cast<int64_t>(blockIdx.x) * (kThreads / kWarp) + threadIdx.x / kWarp;
  const int64_t row = blockIdx.y;
  if (o >= outs) return;
  const uint16_t* const w = weight + matrices[row] * matrix_elements + o * k_stride;
  const float* const x = in + sources[row] * in_stride;
  float sum = 0.0f;
  for (int64_t i = lane; i < k; i += kWarp) sum = fmaf(Bf16Bits(w[i]), x[i], sum);
  sum = cuda::WarpSum(sum);
  if (lane == 0) out[row * outs + o] = sum;
}

__device__ __forceinline__ int64_t CacheIndex(const cuda::DeviceStep& step, const cuda::AttentionArgs& args,
                                              int64_t row, int32_t position, int32_t kv_head) {
  const int64_t block = step.tables[step.table_starts[row] + position / args.block_size];
  return ((block * args.num_kv_heads + kv_head) * args.block_size + position % args.block_size) * args.dim_pad;
}

// One block per (sample, head): all scores, their softmax, then one thread per feature.
__global__ void ReferenceAttentionKernel(cuda::DeviceStep step, cuda::AttentionArgs args, const int32_t* samples,
                                         int64_t max_context, const float* qkv, float* all_scores, float* out) {
  BeginKernel();
  __shared__ float shared[kThreads / kWarp];
  const int64_t sample = blockIdx.x, row = samples[sample];
  const int32_t head = blockIdx.y, kv_head = head / (args.num_heads / args.num_kv_heads);
  const int32_t length = step.positions[row] + 1;
  const int64_t qkv_size = static_cast<int64_t>(args.num_heads + 2 * args.num_kv_heads) * args.head_dim;
  const float* const q = qkv + row * qkv_size + static_cast<int64_t>(head) * args.head_dim;
  float* const scores = all_scores + (sample * args.num_heads + head) * max_context;
  float largest = -1e30f;
  for (int32_t key = threadIdx.x; key < length; key += blockDim.x) {
    const uint16_t* const keys = static_cast<const uint16_t*>(args.keys) + CacheIndex(step, args, row, key, kv_head);
    float dot = 0.0f;
    for (int d = 0; d < args.head_dim; ++d) dot = fmaf(q[d], Bf16Bits(keys[d]), dot);
    scores[key] = dot * args.scale;
    largest = fmaxf(largest, scores[key]);
  }
  largest = cuda::WarpMax(largest);
  if (threadIdx.x % kWarp == 0) shared[threadIdx.x / kWarp] = largest;
  __syncthreads();
  for (int w = 0; w < kThreads / kWarp; ++w) largest = fmaxf(largest, shared[w]);
  float sum = 0.0f;
  for (int32_t key = threadIdx.x; key < length; key += blockDim.x) {
    scores[key] = expf(scores[key] - largest);
    sum += scores[key];
  }
  sum = cuda::BlockSum(sum, shared);  // its barriers also publish the scores
  for (int d = threadIdx.x; d < args.head_dim; d += blockDim.x) {
    float value = 0.0f;
    for (int32_t key = 0; key < length; ++key) {
      const int64_t at = CacheIndex(step, args, row, key, kv_head) + d;
      value = fmaf(scores[key], Bf16Bits(static_cast<const uint16_t*>(args.values)[at]), value);
    }
    out[(sample * args.num_heads + head) * args.head_dim + d] = value / sum;
  }
}

dim3 PersistentGrid(int64_t items) {
  const int64_t blocks = CeilDiv(items, kThreads);
  const int64_t most = static_cast<int64_t>(TheDevice().num_multiprocessors) * kBlocksPerMultiprocessor;
  return dim3(static_cast<unsigned>(blocks < most ? blocks : most));
}

}  // namespace

void FillNormalBf16(uint16_t* out, int64_t rows, int64_t padded_rows, int64_t cols, int64_t stride, float sigma,
                    uint64_t seed) {
  cuda::Launch(FillNormalBf16Kernel, PersistentGrid(padded_rows * stride / 2), dim3(kThreads), 0, Stream(),
               reinterpret_cast<uint32_t*>(out), rows, padded_rows, cols, stride, sigma, seed);
  Synchronize();  // products load weights ahead of the kernels before them
}

void FillNormalF32(float* out, int64_t count, float mean, float sigma, uint64_t seed) {
  cuda::Launch(FillNormalF32Kernel, PersistentGrid(CeilDiv(count, 2)), dim3(kThreads), 0, Stream(), out, count, mean,
               sigma, seed);
}

void ReadAll(const void* data, int64_t bytes, uint32_t* sink) {
  cuda::Launch(ReadAllKernel, PersistentGrid(bytes / 16), dim3(kThreads), 0, Stream(),
               static_cast<const uint4*>(data), bytes / 16, sink);
}

void ReferenceLinear(const uint16_t* weight, const int32_t* matrices, int64_t matrix_elements, int64_t k_stride,
                     const float* in, const int32_t* sources, int64_t in_stride, int64_t rows, int64_t k, int64_t outs,
                     float* out) {
  cuda::Launch(ReferenceLinearKernel, dim3(static_cast<unsigned>(CeilDiv(outs, kThreads / kWarp)),
                                           static_cast<unsigned>(rows)),
               dim3(kThreads), 0, Stream(), weight, matrices, matrix_elements, k_stride, in, sources, in_stride, k,
               outs, out);
}

void ReferenceAttention(const cuda::DeviceStep& step, const cuda::AttentionArgs& args, const int32_t* samples,
                        int64_t num_samples, int64_t max_context, const float* qkv, float* scores, float* out) {
  cuda::Launch(ReferenceAttentionKernel, dim3(static_cast<unsigned>(num_samples),
                                              static_cast<unsigned>(args.num_heads)),
               dim3(kThreads), 0, Stream(), step, args, samples, max_context, qkv, scores, out);
}

}  // namespace switchyard::bench
