// Attention over an fp32 cache, one warp per (row, query head), for models that are kept in fp32. Roofline: bytes =
// keys and values of the row's past, for each query head (the caches serve the heads of a group).
#include <ptx.cuh>

#include "engine/backend/cuda/attention.cuh"

namespace switchyard::cuda {
namespace {

constexpr int kHeadsPerBlock = 4;

template <int kDimsPerLane>
__global__ void AttentionF32Kernel(DeviceStep step, AttentionArgs args, const float* qkv, Planes out) {
  BeginKernel();
  const int lane = threadIdx.x % kWarp;
  const int64_t row = blockIdx.x;
  const int32_t head = blockIdx.y * (blockDim.x / kWarp) + threadIdx.x / kWarp;
  if (row >= step.counts->num_tokens || head >= args.num_heads) return;
  const int32_t kv_head = head / (args.num_heads / args.num_kv_heads);
  const int32_t position = step.positions[row], value_dim = ValueDim(args);
  const int32_t first = FirstVisible(args, position);
  const float* const q = qkv + row * QkvSize(args) + static_cast<int64_t>(head) * args.head_dim;
  // A sink is where a row starts from: a key that was seen before all others and had no value.
  float running_max = args.sinks != nullptr ? args.sinks[head] : kNoMaximum;
  float running_sum = args.sinks != nullptr ? 1.0f : 0.0f;
  float sums[kDimsPerLane] = {};
  for (int32_t base = first / kKeyBlock * kKeyBlock; base <= position; base += kKeyBlock) {
    float scores[2], weights[2];
    float largest = running_max;
    for (int i = 0; i < 2; ++i) {
      const int32_t key = base + i * kWarp + lane;
      scores[i] = -INFINITY;
      if (key < first || key > position) continue;
      const float* const keys = static_cast<const float*>(args.keys) + CacheIndex(step, args, row, key, kv_head);
      float dot = 0.0f;
      for (int d = 0; d < args.head_dim; ++d) dot = fmaf(q[d], keys[d], dot);
      scores[i] = dot * args.scale;
      largest = fmaxf(largest, scores[i]);
    }
    largest = WarpMax(largest);
    const float correction = expf(running_max - largest);
    for (int i = 0; i < 2; ++i) weights[i] = expf(scores[i] - largest);
    running_sum = fmaf(running_sum, correction, WarpSum(weights[0] + weights[1]));
    running_max = largest;
    for (int i = 0; i < kDimsPerLane; ++i) sums[i] *= correction;
    for (int j = 0; j < kKeyBlock && base + j <= position; ++j) {
      const float weight = __shfl_sync(kAllLanes, weights[j / kWarp], j % kWarp);
      if (base + j < first) continue;
      const float* const values =
          static_cast<const float*>(args.values) + CacheIndex(step, args, row, base + j, kv_head);
      for (int i = 0; i < kDimsPerLane; ++i) {
        const int d = i * kWarp + lane;
        if (d < value_dim) sums[i] = fmaf(weight, values[d], sums[i]);
      }
    }
  }
  for (int i = 0; i < kDimsPerLane; ++i) {
    const int d = i * kWarp + lane;
    if (d < value_dim) StoreOut(args, out, row, head, d, sums[i] / running_sum);
  }
  if (head == 0) ClearOutPadding(args, out, row, lane, kWarp);
}

}  // namespace

void LaunchAttentionF32(const DeviceStep& step, const AttentionArgs& args, int64_t rows, const float* qkv, Planes out,
                        cudaStream_t stream) {
  const auto kernel =
      args.latent_dim > 0 ? AttentionF32Kernel<kMaxLatentDim / kWarp> : AttentionF32Kernel<kMaxHeadDim / kWarp>;
  Launch(kernel, dim3(rows, CeilDiv(args.num_heads, kHeadsPerBlock)), dim3(kHeadsPerBlock * kWarp), 0, stream, step,
         args, qkv, out);
}

}  // namespace switchyard::cuda
