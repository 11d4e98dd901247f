// From router logits to per-expert batches, and back to tokens. All small; see each kernel.
#include <ptx.cuh>

#include "engine/backend/cuda/kernels.h"
#include "engine/backend/cuda/warp.cuh"

namespace switchyard::cuda {
namespace {

constexpr int kLogitTile = 32;    // tokens and experts of one block
constexpr int kLogitStep = 32;    // k of one step
constexpr int kLogitThreads = 256;
constexpr int kRouteWarps = 4;    // tokens of one block of RouteKernel
constexpr int kPlanThreads = 1024;
constexpr int kPlanWarps = kPlanThreads / kWarp;
constexpr int kSumThreads = 256;
constexpr int kCombineThreads = 256;

__device__ __forceinline__ int64_t Count(const StepCounts* counts, int64_t rows) {
  return counts == nullptr ? rows : counts->num_tokens;
}

// partial[s][token][expert]: part s of the dot products, in fp32. Roofline: flops = 2 * tokens * experts * k at the
// rate of the ordinary cores; bytes = weight + tokens * k * 4 * experts / 32. k is split in a fixed way, so that a few
// tokens still use several multiprocessors and no logit depends on how many tokens there are.
__global__ void RouterLogitsKernel(const StepCounts* counts, const float* in, int64_t rows, int64_t cols,
                                   const float* weight, int64_t weight_stride, int32_t num_experts, float* partial) {
  BeginKernel();
  __shared__ float x[kLogitTile][kLogitStep + 1];
  __shared__ float w[kLogitTile][kLogitStep + 1];
  const int64_t num_tokens = Count(counts, rows);
  const int64_t first_expert = static_cast<int64_t>(blockIdx.x) * kLogitTile;
  const int64_t first_token = static_cast<int64_t>(blockIdx.y) * kLogitTile;
  if (first_token >= num_tokens) return;
  const int64_t part = RoundUp(CeilDiv(cols, kRouterSplits), kLogitStep);
  const int64_t begin = part * blockIdx.z;
  const int64_t end = begin + part < cols ? begin + part : cols;
  const int lane = threadIdx.x % kLogitTile, group = threadIdx.x / kLogitTile;  // 8 groups
  float sums[4] = {0.0f, 0.0f, 0.0f, 0.0f};  // expert `lane`, tokens group + 8 i
  for (int64_t k = begin; k < end; k += kLogitStep) {
    __syncthreads();
    for (int i = group; i < kLogitTile; i += kLogitThreads / kLogitTile) {
      const bool inside = k + lane < end;
      const int64_t token = first_token + i, expert = first_expert + i;
      x[i][lane] = inside && token < num_tokens ? in[token * cols + k + lane] : 0.0f;
      w[i][lane] = inside && expert < num_experts ? weight[expert * weight_stride + k + lane] : 0.0f;
    }
    __syncthreads();
    for (int j = 0; j < kLogitStep; ++j) {
      for (int i = 0; i < 4; ++i) sums[i] = fmaf(x[group + 8 * i][j], w[lane][j], sums[i]);
    }
  }
  const int64_t expert = first_expert + lane;
  if (expert >= num_experts) return;
  for (int i = 0; i < 4; ++i) {
    const int64_t token = first_token + group + 8 * i;
    if (token < num_tokens) partial[(blockIdx.z * rows + token) * num_experts + expert] = sums[i];
  }
}

struct Best {
  float score;
  int32_t expert;
};

__device__ __forceinline__ bool IsBetter(float score, int32_t expert, const Best& than) {
  return score > than.score || (score == than.score && expert < than.expert);
}

// The larger score; among equals the lower id.
__device__ __forceinline__ Best BetterOfWarp(Best best) {
  for (int distance = kWarp / 2; distance > 0; distance /= 2) {
    const float score = __shfl_xor_sync(kAllLanes, best.score, distance);
    const int32_t expert = __shfl_xor_sync(kAllLanes, best.expert, distance);
    if (IsBetter(score, expert, best)) best = {score, expert};
  }
  return best;
}

__device__ __forceinline__ float Sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }

// One warp's experts: lane l has experts l, l + 32, ... in slots 0, 1, ...
constexpr int kSlots = kMaxExperts / kWarp;
struct LaneExperts {
  float logits[kSlots];
  float scores[kSlots];
  float choice[kSlots];  // what is compared
  unsigned open;         // a bit for each slot whose expert exists and is not chosen yet
};

// Hides the experts of all but the topk_group best groups. `shared`: num_experts + num_groups floats of the warp.
__device__ void LimitGroups(const RouterArgs& args, LaneExperts* mine, float* shared) {
  const int lane = threadIdx.x % kWarp;
  const int32_t size = args.num_experts / args.num_groups;
  float* const group_scores = shared + args.num_experts;
#pragma unroll
  for (int i = 0; i < kSlots; ++i) {
    if (i * kWarp + lane < args.num_experts) shared[i * kWarp + lane] = mine->choice[i];
  }
  __syncwarp();
  for (int32_t g = lane; g < args.num_groups; g += kWarp) {
    float best = -INFINITY, second = -INFINITY;
    for (int32_t e = g * size; e < (g + 1) * size; ++e) {
      second = shared[e] > best ? best : fmaxf(second, shared[e]);
      best = fmaxf(best, shared[e]);
    }
    group_scores[g] = args.group_by_two && size > 1 ? best + second : best;
  }
  __syncwarp();
#pragma unroll
  for (int i = 0; i < kSlots; ++i) {
    const int32_t expert = i * kWarp + lane;
    if (expert >= args.num_experts) continue;
    // A group stays if fewer than topk_group are ahead of it: better ones, and equal ones before it.
    const int32_t group = expert / size;
    int32_t ahead = 0;
    for (int32_t other = 0; other < args.num_groups; ++other) {
      const float score = group_scores[other];
      ahead += score > group_scores[group] || (other < group && score == group_scores[group]) ? 1 : 0;
    }
    if (ahead >= args.topk_group) mine->choice[i] = -INFINITY;
  }
}

// The sum of exp(logit - best) over the open experts that are near the best of them (Phi-3.5-MoE).
__device__ float SparseMixerSum(const RouterArgs& args, const LaneExperts& mine, float best) {
  float sum = 0.0f;
#pragma unroll
  for (int i = 0; i < kSlots; ++i) {
    if ((mine.open >> i & 1u) == 0) continue;
    const float logit = mine.logits[i];
    if (!((best - logit) / fmaxf(fabsf(logit), best) > args.mixer_threshold)) sum += expf(logit - best);
  }
  return WarpSum(sum);
}

// The weight of rank `lane` from what its expert scored; lanes from top_k on hold nothing.
__device__ float FinishWeight(const RouterArgs& args, float logit, float weight) {
  const int lane = threadIdx.x % kWarp;
  const bool used = lane < args.top_k;
  if (args.weights == 1) {
    const float largest = WarpMax(used ? logit : -INFINITY);
    weight = used ? expf(logit - largest) : 0.0f;
    weight /= WarpSum(weight);
  } else if (args.weights == 2) {
    weight = Sigmoid(logit);
  }
  if (args.normalize) {
    const bool plain = args.normalize_power == 1.0f;
    const float sum = WarpSum(!used ? 0.0f : plain ? weight : powf(fabsf(weight), args.normalize_power));
    weight /= args.normalize_eps + (plain ? sum : powf(sum, 1.0f / args.normalize_power));
  }
  return weight * args.scale;
}

// One warp per token: scores of the experts, then the k best, one after the other. Roofline: bytes = tokens * experts *
// 4 * (splits + 1), all in the L2 cache; latency of k warp reductions. `probabilities`: [tokens][experts], softmax.
__global__ void RouteKernel(const StepCounts* counts, int64_t rows, RouterArgs args, const float* partial,
                            float* probabilities, RoutingArrays out) {
  BeginKernel();
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  const int64_t token = static_cast<int64_t>(blockIdx.x) * kRouteWarps + warp;
  if (token >= Count(counts, rows)) return;
  const int32_t num_experts = args.num_experts, k = args.top_k;
  LaneExperts mine;
  mine.open = 0;
  float largest = -INFINITY;
  bool finite = true;
#pragma unroll
  for (int i = 0; i < kSlots; ++i) {
    const int32_t expert = i * kWarp + lane;
    if (expert >= num_experts) continue;
    mine.open |= 1u << i;
    float logit = args.bias == nullptr ? 0.0f : args.bias[expert];
    for (int s = 0; s < kRouterSplits; ++s) logit += partial[(s * rows + token) * num_experts + expert];
    finite = finite && isfinite(logit);
    largest = fmaxf(largest, logit);
    mine.logits[i] = logit;
  }
  finite = __ballot_sync(kAllLanes, finite) == kAllLanes;
  largest = WarpMax(largest);
  float sum = 0.0f;
#pragma unroll
  for (int i = 0; i < kSlots; ++i) {
    if ((mine.open >> i & 1u) != 0) sum += mine.scores[i] = expf(mine.logits[i] - largest);
  }
  sum = WarpSum(sum);
#pragma unroll
  for (int i = 0; i < kSlots; ++i) {
    const int32_t expert = i * kWarp + lane;
    if ((mine.open >> i & 1u) == 0) continue;
    const float probability = finite ? mine.scores[i] / sum : 0.0f;
    probabilities[token * num_experts + expert] = probability;
    mine.scores[i] = args.score == 0 ? probability : args.score == 1 ? Sigmoid(mine.logits[i]) : mine.logits[i];
    const float choice = mine.scores[i] + (args.choice_bias == nullptr ? 0.0f : args.choice_bias[expert]);
    mine.choice[i] = choice > -INFINITY ? choice : -INFINITY;  // NaN of a damaged bias: chosen last, but a valid expert
  }
  if (args.num_groups > 1) {
    LimitGroups(args, &mine, DynamicShared<float>() + warp * (num_experts + args.num_groups));
  }

  const int64_t first = token * k;
  float logit = 0.0f, weight = 0.0f;  // of rank `lane`
  float last = 0.0f, margin = 0.0f;
  for (int32_t j = 0; j <= k && j < num_experts; ++j) {
    Best best = {-INFINITY, num_experts};
#pragma unroll
    for (int i = 0; i < kSlots; ++i) {
      if ((mine.open >> i & 1u) != 0 && IsBetter(mine.choice[i], i * kWarp + lane, best)) {
        best = {mine.choice[i], i * kWarp + lane};
      }
    }
    best = BetterOfWarp(best);
    if (!finite) best.expert = j;  // any valid experts will do: the weights say that the row is lost
    if (j == k) {
      margin = best.score > -INFINITY ? last - best.score : 0.0f;
      break;
    }
    float chosen_logit = 0.0f, chosen_score = 0.0f;
#pragma unroll
    for (int i = 0; i < kSlots; ++i) {
      if (i * kWarp + lane != best.expert) continue;
      chosen_logit = mine.logits[i];
      chosen_score = mine.scores[i];
    }
    chosen_logit = __shfl_sync(kAllLanes, chosen_logit, best.expert % kWarp);
    chosen_score = __shfl_sync(kAllLanes, chosen_score, best.expert % kWarp);
    if (args.weights == 3) chosen_score = 1.0f / SparseMixerSum(args, mine, chosen_logit);
    if (best.expert % kWarp == lane) mine.open &= ~(1u << (best.expert / kWarp));
    if (lane == j) {
      logit = chosen_logit;
      weight = chosen_score;
      out.expert_ids[first + j] = best.expert;
    }
    last = best.score;
  }
  weight = FinishWeight(args, logit, weight);
  if (lane < k) out.expert_weights[first + lane] = finite ? weight : NAN;
  if (lane == 0) {
    out.margins[token] = finite ? margin : 0.0f;
    out.logsumexps[token] = finite ? largest + logf(sum) : 0.0f;
  }
}

// Sums over tokens, of the probabilities and of the squared logsumexps. One block per 32 experts: eight groups of rows,
// added up in a fixed order; the first block does the logsumexps, too. Roofline: bytes = tokens * experts * 4 from the
// L2 cache.
__global__ void SumOverTokensKernel(const StepCounts* counts, int64_t rows, int32_t num_experts,
                                    const float* probabilities, RoutingArrays out) {
  BeginKernel();
  __shared__ float shared[kSumThreads];
  __shared__ double squares[kSumThreads];
  const int64_t num_tokens = Count(counts, rows);
  const int lane = threadIdx.x % kWarp, group = threadIdx.x / kWarp;
  const int32_t expert = blockIdx.x * kWarp + lane;
  float sum = 0.0f;
  if (expert < num_experts) {
    for (int64_t t = group; t < num_tokens; t += kSumThreads / kWarp) sum += probabilities[t * num_experts + expert];
  }
  shared[threadIdx.x] = sum;
  double square = 0.0;
  if (blockIdx.x == 0) {
    for (int64_t t = threadIdx.x; t < num_tokens; t += kSumThreads) {
      square += static_cast<double>(out.logsumexps[t]) * out.logsumexps[t];
    }
    squares[threadIdx.x] = square;
  }
  __syncthreads();
  if (blockIdx.x == 0 && threadIdx.x == 0) {
    for (int i = 1; i < kSumThreads; ++i) square += squares[i];
    *out.squared_logsumexp_sum = square;
  }
  if (group != 0 || expert >= num_experts) return;
  for (int g = 1; g < kSumThreads / kWarp; ++g) sum += shared[g * kWarp + lane];
  out.probability_sums[expert] = sum;
}

// One warp: sums[i + 1] becomes the sum of sums[1] ... sums[i + 1], and sums[0] = 0.
__device__ void SumInOrder(int32_t* sums, int32_t count) {
  const int lane = threadIdx.x % kWarp;
  int32_t before = 0;
  if (lane == 0) sums[0] = 0;
  for (int32_t base = 0; base < count; base += kWarp) {
    int32_t sum = base + lane < count ? sums[base + lane + 1] : 0;
    for (int distance = 1; distance < kWarp; distance *= 2) {
      const int32_t left = __shfl_sync(kAllLanes, sum, lane - distance);
      if (lane >= distance) sum += left;
    }
    if (base + lane < count) sums[base + lane + 1] = before + sum;
    before += __shfl_sync(kAllLanes, sum, kWarp - 1);
  }
  __syncwarp();
}

// One block sorts the choices by expert, keeping token order: each warp counts its contiguous part of the choices,
// offsets follow by expert and then by warp, and a second pass places them. Roofline: latency; bytes = choices * 4
// twice in and 16 out. Also lists the tiles of the grouped GEMMs and resets the experts' clocks.
// Shared memory: counts[warp][expert], then starts[expert + 1], then tile_starts[expert + 1].
__global__ void GroupByExpertKernel(const StepCounts* counts, const int32_t* expert_ids, const float* expert_weights,
                                    int64_t rows, int32_t top_k, int32_t num_experts, int tile_tokens, ExpertPlan plan,
                                    BatchArrays out) {
  BeginKernel();
  int32_t* const warp_counts = DynamicShared<int32_t>();
  int32_t* const starts = warp_counts + kPlanWarps * num_experts;
  int32_t* const tile_starts = starts + num_experts + 1;
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  const int32_t num_choices = static_cast<int32_t>(Count(counts, rows)) * top_k;
  const int32_t per_warp = static_cast<int32_t>(RoundUp(CeilDiv(num_choices, kPlanWarps), kWarp));
  const int32_t begin = warp * per_warp;
  const int32_t end = begin + per_warp < num_choices ? begin + per_warp : num_choices;
  int32_t* const mine = warp_counts + warp * num_experts;

  for (int32_t i = threadIdx.x; i < kPlanWarps * num_experts; i += kPlanThreads) warp_counts[i] = 0;
  __syncthreads();
  for (int32_t base = begin; base < end; base += kWarp) {
    const int32_t expert = base + lane < end ? expert_ids[base + lane] : -1;
    const unsigned same = __match_any_sync(kAllLanes, expert);
    // The last lane of an expert adds for all of them.
    if (expert >= 0 && (same >> lane) == 1u) mine[expert] += __popc(same);
    __syncwarp();
  }
  __syncthreads();
  for (int32_t e = threadIdx.x; e < num_experts; e += kPlanThreads) {
    int32_t total = 0;
    for (int w = 0; w < kPlanWarps; ++w) {
      const int32_t count = warp_counts[w * num_experts + e];
      warp_counts[w * num_experts + e] = total;
      total += count;
    }
    starts[e + 1] = total;
    tile_starts[e + 1] = static_cast<int32_t>(CeilDiv(total, tile_tokens));
    plan.first_start[e] = ~0ull;
    plan.last_end[e] = 0;
  }
  __syncthreads();
  if (warp == 0) {
    SumInOrder(starts, num_experts);
    SumInOrder(tile_starts, num_experts);
    if (lane == 0) *plan.num_tiles = tile_starts[num_experts];
  }
  __syncthreads();
  for (int32_t e = threadIdx.x; e <= num_experts; e += kPlanThreads) {
    out.expert_offsets[e] = starts[e];
    if (e == num_experts) continue;
    for (int32_t tile = tile_starts[e], row = starts[e]; tile < tile_starts[e + 1]; ++tile, row += tile_tokens) {
      const int32_t left = starts[e + 1] - row;
      plan.tiles[tile] = {e, row, left < tile_tokens ? left : tile_tokens, tile_starts[e],
                          tile_starts[e + 1] - tile_starts[e]};
    }
  }
  for (int32_t base = begin; base < end; base += kWarp) {
    const int32_t choice = base + lane;
    const int32_t expert = choice < end ? expert_ids[choice] : -1;
    const unsigned same = __match_any_sync(kAllLanes, expert);
    if (expert >= 0) {
      const int32_t row = starts[expert] + mine[expert] + __popc(same & ((1u << lane) - 1));
      out.choice_to_row[choice] = row;
      out.row_to_token[row] = choice / top_k;
      if (out.row_weights != nullptr) out.row_weights[row] = expert_weights[choice];
    }
    __syncwarp();
    if (expert >= 0 && (same >> lane) == 1u) mine[expert] += __popc(same);
    __syncwarp();
  }
}

// Roofline: latency.
__global__ void StampExpertsKernel(const int32_t* expert_offsets, int32_t num_experts, bool end, ExpertPlan plan) {
  BeginKernel();
  const unsigned long long now = GlobalTimer();
  for (int32_t e = threadIdx.x; e < num_experts; e += blockDim.x) {
    if (expert_offsets[e] < expert_offsets[e + 1]) (end ? plan.last_end : plan.first_start)[e] = now;
  }
}

// Roofline: latency.
__global__ void ExpertSecondsKernel(const int32_t* expert_offsets, int32_t num_experts, ExpertPlan plan,
                                    float* seconds) {
  BeginKernel();
  for (int32_t e = threadIdx.x; e < num_experts; e += blockDim.x) {
    const unsigned long long start = plan.first_start[e], end = plan.last_end[e];
    const bool used = expert_offsets[e] < expert_offsets[e + 1];
    // The timer advances in steps of up to a microsecond: a short batch may begin and end in the same one.
    const float nanoseconds = end > start ? static_cast<float>(end - start) : 1.0f;
    seconds[e] = used ? nanoseconds * 1e-9f : 0.0f;
  }
}

// Roofline: latency.
__global__ void StampKernel(unsigned long long* at) {
  BeginKernel();
  *at = GlobalTimer();
}

// One block per row and layer. Roofline: latency; bytes = rows * layers * (2 top_k + 1) * 8.
__global__ void CollectRoutingKernel(const DeviceStep step, const RoutedLayer* layers, int64_t record, float* out) {
  BeginKernel();
  const RoutedLayer layer = layers[blockIdx.y];
  const int64_t row = blockIdx.x;
  if (row >= step.counts->num_logit_rows) return;
  const int64_t token = step.logit_rows[row];
  float* const to = out + row * record + layer.offset;
  for (int32_t j = threadIdx.x; j < layer.top_k; j += blockDim.x) {
    reinterpret_cast<int32_t*>(to)[j] = layer.expert_ids[token * layer.top_k + j];
    to[layer.top_k + j] = layer.expert_weights[token * layer.top_k + j];
  }
  if (threadIdx.x == 0) to[2 * layer.top_k] = layer.margins[token];
}

// Roofline: bytes = tokens * cols * (top_k * row element + 8).
__global__ void CombineKernel(const StepCounts* counts, const float* rows_f32, const uint16_t* rows_bf16,
                              int64_t rows_stride, const float* expert_weights, const int32_t* choice_to_row,
                              int64_t tokens, int32_t top_k, int64_t cols, float* out) {
  BeginKernel();
  __shared__ float weights[kMaxTopK];
  __shared__ int32_t sources[kMaxTopK];
  const int64_t token = blockIdx.x;
  if (token >= Count(counts, tokens)) return;
  if (static_cast<int32_t>(threadIdx.x) < top_k) {
    weights[threadIdx.x] = expert_weights == nullptr ? 1.0f : expert_weights[token * top_k + threadIdx.x];
    sources[threadIdx.x] = choice_to_row[token * top_k + threadIdx.x];
  }
  __syncthreads();
  for (int64_t c = threadIdx.x; c < cols; c += blockDim.x) {
    float sum = out[token * cols + c];
    for (int32_t j = 0; j < top_k; ++j) {
      const int64_t at = sources[j] * rows_stride + c;
      sum = fmaf(weights[j], rows_f32 != nullptr ? rows_f32[at] : Bf16Bits(rows_bf16[at]), sum);
    }
    out[token * cols + c] = sum;
  }
}

}  // namespace

int64_t RouterScratchFloats(int64_t rows, int64_t num_experts) { return (kRouterSplits + 1) * rows * num_experts; }

void LaunchRoute(const StepCounts* counts, const float* in, int64_t rows, int64_t cols, const float* weight,
                 int64_t weight_stride, const RouterArgs& args, float* scratch, RoutingArrays out,
                 cudaStream_t stream) {
  float* const probabilities = scratch + kRouterSplits * rows * args.num_experts;
  Launch(RouterLogitsKernel, dim3(CeilDiv(args.num_experts, kLogitTile), CeilDiv(rows, kLogitTile), kRouterSplits),
         dim3(kLogitThreads), 0, stream, counts, in, rows, cols, weight, weight_stride, args.num_experts, scratch);
  const size_t shared_bytes =
      args.num_groups > 1 ? sizeof(float) * kRouteWarps * (args.num_experts + args.num_groups) : 0;
  Launch(RouteKernel, dim3(CeilDiv(rows, kRouteWarps)), dim3(kRouteWarps * kWarp), shared_bytes, stream, counts, rows,
         args, scratch, probabilities, out);
  Launch(SumOverTokensKernel, dim3(CeilDiv(args.num_experts, kWarp)), dim3(kSumThreads), 0, stream, counts, rows,
         args.num_experts, probabilities, out);
}

void LaunchGroupByExpert(const StepCounts* counts, const int32_t* expert_ids, const float* expert_weights, int64_t rows,
                         int32_t top_k, int32_t num_experts, int tile_tokens, ExpertPlan plan, BatchArrays out,
                         cudaStream_t stream) {
  const size_t shared_bytes = sizeof(int32_t) * (kPlanWarps * num_experts + 2 * (num_experts + 1));
  Launch(GroupByExpertKernel, dim3(1), dim3(kPlanThreads), shared_bytes, stream, counts, expert_ids, expert_weights,
         rows, top_k, num_experts, tile_tokens, plan, out);
}

void LaunchStampExperts(const int32_t* expert_offsets, int32_t num_experts, bool end, ExpertPlan plan,
                        cudaStream_t stream) {
  Launch(StampExpertsKernel, dim3(1), dim3(kPlanThreads), 0, stream, expert_offsets, num_experts, end, plan);
}

void LaunchExpertSeconds(const int32_t* expert_offsets, int32_t num_experts, ExpertPlan plan, float* seconds,
                         cudaStream_t stream) {
  Launch(ExpertSecondsKernel, dim3(1), dim3(kPlanThreads), 0, stream, expert_offsets, num_experts, plan, seconds);
}

void LaunchStamp(unsigned long long* at, cudaStream_t stream) {
  Launch(StampKernel, dim3(1), dim3(1), 0, stream, at);
}

void LaunchCollectRouting(const DeviceStep& step, const RoutedLayer* layers, int64_t num_layers, int64_t record,
                          int64_t rows, float* out, cudaStream_t stream) {
  Launch(CollectRoutingKernel, dim3(rows, num_layers), dim3(kWarp), 0, stream, step, layers, record, out);
}

void LaunchCombine(const StepCounts* counts, const float* rows_f32, const uint16_t* rows_bf16, int64_t rows_stride,
                   const float* expert_weights, const int32_t* choice_to_row, int64_t tokens, int32_t top_k,
                   int64_t cols, float* out, cudaStream_t stream) {
  Launch(CombineKernel, dim3(tokens), dim3(kCombineThreads), 0, stream, counts, rows_f32, rows_bf16, rows_stride,
         expert_weights, choice_to_row, tokens, top_k, cols, out);
}

}  // namespace switchyard::cuda
