// Norms, clip and RoPE of q and k, and the KV cache. Roofline: bytes = rows * qkv size * 8 + the cache rows.
#include <ptx.cuh>

#include "engine/backend/cuda/attention.cuh"

namespace switchyard::cuda {
namespace {

constexpr int kPrepareThreads = 128;
constexpr int kMaxPairs = kMaxHeadDim / 2;

// RMS norm of `size` values in place by one block.
__device__ void NormInPlace(float* x, const float* weight, int64_t size, float eps, float* shared) {
  float squares = 0.0f;
  for (int64_t i = threadIdx.x; i < size; i += blockDim.x) squares = fmaf(x[i], x[i], squares);
  const float scale = 1.0f / sqrtf(BlockSum(squares, shared) / static_cast<float>(size) + eps);
  for (int64_t i = threadIdx.x; i < size; i += blockDim.x) x[i] = x[i] * scale * weight[i];
}

// Cosines and sines of a position, by one block.
__device__ void ComputeRotation(const AttentionArgs& args, int32_t position, float* cosines, float* sines) {
  for (int m = threadIdx.x; m < args.rotated_pairs; m += blockDim.x) {
    // Reduced in double: a float angle of 100,000 has no digits left behind the point.
    constexpr double kTwoPi = 6.283185307179586477;
    const double angle = static_cast<double>(position) * static_cast<double>(args.inv_freq[m]);
    const float reduced = static_cast<float>(angle - rint(angle / kTwoPi) * kTwoPi);
    cosines[m] = cosf(reduced) * args.rope_factor;
    sines[m] = sinf(reduced) * args.rope_factor;
  }
}

// One warp rotates the front of `from` to `to`, which may be the same.
__device__ void Rotate(const AttentionArgs& args, const float* cosines, const float* sines, const float* from,
                       float* to) {
  for (int m = threadIdx.x % kWarp; m < args.rotated_pairs; m += kWarp) {
    const int first = args.rope_interleaved ? 2 * m : m;
    const int second = args.rope_interleaved ? first + 1 : first + args.rotated_pairs;
    const float a = from[first], b = from[second];
    to[first] = a * cosines[m] - b * sines[m];
    to[second] = b * cosines[m] + a * sines[m];
  }
}

// A value as the cache keeps it: the largest floats round to infinity; they saturate.
__device__ __forceinline__ uint16_t SaturatedBf16(float value) {
  const uint16_t bits = ToBf16Bits(value);
  return (bits & 0x7fff) == 0x7f80 ? bits - 1 : bits;
}

// One warp norms (if asked) and rotates one head in place. Lane l has pairs l, l + 32, ...: no other lane touches them.
__device__ void PrepareHead(const AttentionArgs& args, const float* norm, const float* cosines, const float* sines,
                            float* head) {
  const int lane = threadIdx.x % kWarp;
  if (norm != nullptr) {
    float squares = 0.0f;
    for (int d = lane; d < args.head_dim; d += kWarp) squares = fmaf(head[d], head[d], squares);
    const float scale = 1.0f / sqrtf(WarpSum(squares) / static_cast<float>(args.head_dim) + args.qk_norm_eps);
    for (int d = lane; d < args.head_dim; d += kWarp) head[d] = head[d] * scale * norm[d];
    __syncwarp();
  }
  Rotate(args, cosines, sines, head, head);
  if (args.qk_norm != 3) return;
  __syncwarp();
  float squares = 0.0f;
  for (int d = lane; d < args.head_dim; d += kWarp) squares = fmaf(head[d], head[d], squares);
  const float scale = 1.0f / sqrtf(WarpSum(squares) / static_cast<float>(args.head_dim) + args.qk_norm_eps);
  for (int d = lane; d < args.head_dim; d += kWarp) head[d] *= scale;
}

// One warp writes the keys and values of one head. A value row that is not finite is stored as zeros under a NaN key:
// who sees it is lost either way, and 0 * infinity can never leak from a key that is masked.
__device__ void StoreKeyValue(const AttentionArgs& args, int64_t index, const float* key, const float* value) {
  const int lane = threadIdx.x % kWarp;
  bool finite = true;
  for (int d = lane; d < args.head_dim; d += kWarp) finite = finite && isfinite(value[d]);
  finite = __ballot_sync(kAllLanes, finite) == kAllLanes;
  for (int d = lane; d < args.head_dim; d += kWarp) {
    const float k = !finite && d == 0 ? NAN : key[d];
    const float v = finite ? value[d] : 0.0f;
    if (args.cache_is_bf16) {
      static_cast<uint16_t*>(args.keys)[index + d] = ToBf16Bits(k);
      static_cast<uint16_t*>(args.values)[index + d] = SaturatedBf16(v);
    } else {
      static_cast<float*>(args.keys)[index + d] = k;
      static_cast<float*>(args.values)[index + d] = v;
    }
  }
}

// One block per row.
__global__ void PrepareQkvKernel(DeviceStep step, AttentionArgs args, float* qkv) {
  BeginKernel();
  __shared__ float cosines[kMaxPairs];
  __shared__ float sines[kMaxPairs];
  __shared__ float shared[kPrepareThreads / kWarp];
  const int64_t row = blockIdx.x;
  if (row >= step.counts->num_tokens) return;
  float* const q = qkv + row * QkvSize(args);
  float* const k = q + QSize(args);
  const float* const v = k + KvSize(args);
  const int32_t position = step.positions[row];
  if (args.qk_norm == 1) {
    NormInPlace(q, args.q_norm, QSize(args), args.qk_norm_eps, shared);
    NormInPlace(k, args.k_norm, KvSize(args), args.qk_norm_eps, shared);
    __syncthreads();
  }
  if (args.clip > 0.0f) {
    for (int64_t i = threadIdx.x; i < QkvSize(args); i += blockDim.x) {
      const float x = q[i];  // written so that NaN stays NaN
      q[i] = x > args.clip ? args.clip : x < -args.clip ? -args.clip : x;
    }
  }
  ComputeRotation(args, position, cosines, sines);
  __syncthreads();
  const int warp = threadIdx.x / kWarp, num_warps = blockDim.x / kWarp;
  for (int h = warp; h < args.num_heads; h += num_warps) {
    float* const head = q + h * args.head_dim;
    PrepareHead(args, args.qk_norm == 2 ? args.q_norm : nullptr, cosines, sines, head);
    if (args.temperature_scale == 0.0f) continue;
    __syncwarp();
    const float steps = floorf(static_cast<float>(position + 1) / args.temperature_floor);
    const float temperature = 1.0f + args.temperature_scale * log1pf(steps);
    for (int d = threadIdx.x % kWarp; d < args.head_dim; d += kWarp) head[d] *= temperature;
  }
  for (int h = warp; h < args.num_kv_heads; h += num_warps) {
    float* const key = k + h * args.head_dim;
    PrepareHead(args, args.qk_norm == 2 ? args.k_norm : nullptr, cosines, sines, key);
    __syncwarp();
    StoreKeyValue(args, CacheIndex(step, args, row, position, h), key, v + h * args.head_dim);
  }
}

// One block writes a latent's key, whose front is its value. One that is not finite becomes zeros, with a NaN where
// only scores read it.
__device__ void StoreLatent(const AttentionArgs& args, int64_t index, const float* key) {
  bool finite = true;
  for (int d = threadIdx.x; d < args.head_dim; d += blockDim.x) finite = finite && isfinite(key[d]);
  finite = __syncthreads_and(finite ? 1 : 0) != 0;
  for (int d = threadIdx.x; d < args.head_dim; d += blockDim.x) {
    if (args.cache_is_bf16) {
      const uint16_t bad = d == args.latent_dim ? 0x7fc0 : 0;
      static_cast<uint16_t*>(args.keys)[index + d] = finite ? SaturatedBf16(key[d]) : bad;
    } else {
      const float bad = d == args.latent_dim ? NAN : 0.0f;
      static_cast<float*>(args.keys)[index + d] = finite ? key[d] : bad;
    }
  }
}

// One block per row; its warps share the heads. The rotated part of a head of q ends it, in q as in the queries.
__global__ void PrepareLatentKernel(DeviceStep step, AttentionArgs args, int64_t q_width, const float* q,
                                    float* latents, float* queries) {
  BeginKernel();
  __shared__ float cosines[kMaxPairs];
  __shared__ float sines[kMaxPairs];
  __shared__ float shared[kPrepareThreads / kWarp];
  const int64_t row = blockIdx.x;
  if (row >= step.counts->num_tokens) return;
  const int32_t position = step.positions[row];
  float* const latent = latents + row * args.head_dim;
  ComputeRotation(args, position, cosines, sines);
  NormInPlace(latent, args.k_norm, args.latent_dim, args.qk_norm_eps, shared);
  __syncthreads();
  const int warp = threadIdx.x / kWarp, num_warps = blockDim.x / kWarp;
  const int64_t q_head = q_width / args.num_heads;
  const int32_t rotated = 2 * args.rotated_pairs;
  for (int h = warp; h < args.num_heads; h += num_warps) {
    Rotate(args, cosines, sines, q + row * q_width + (h + 1) * q_head - rotated,
           queries + row * QSize(args) + static_cast<int64_t>(h + 1) * args.head_dim - rotated);
  }
  if (warp == 0) Rotate(args, cosines, sines, latent + args.latent_dim, latent + args.latent_dim);
  __syncthreads();
  StoreLatent(args, CacheIndex(step, args, row, position, 0), latent);
}

}  // namespace

void LaunchPrepareQkv(const DeviceStep& step, const AttentionArgs& args, int64_t rows, float* qkv,
                      cudaStream_t stream) {
  Launch(PrepareQkvKernel, dim3(rows), dim3(kPrepareThreads), 0, stream, step, args, qkv);
}

void LaunchPrepareLatent(const DeviceStep& step, const AttentionArgs& args, int64_t rows, int64_t q_width,
                         const float* q, float* latents, float* queries, cudaStream_t stream) {
  Launch(PrepareLatentKernel, dim3(rows), dim3(kPrepareThreads), 0, stream, step, args, q_width, q, latents, queries);
}

}  // namespace switchyard::cuda
