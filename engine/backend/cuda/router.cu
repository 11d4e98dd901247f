// From a layer's input to the experts of each token, and the sums that say how evenly. Two forms with the same bits:
//
//   few tokens    one launch: each block adds up its part of the logits of 8 tokens, and the block that comes last for
//                 them routes them, a warp each
//   many tokens   two launches: blocks of the first do 64 tokens, so that they read the weight an eighth as often and
//                 multiply more than they load; blocks of the second route 8
#include <ptx.cuh>

#include "engine/backend/cuda/kernels.h"
#include "engine/backend/cuda/warp.cuh"

namespace switchyard::cuda {
namespace {

constexpr int kThreads = 256;     // of every block
constexpr int kWarps = kThreads / kWarp;
constexpr int kPartUnit = 32;      // k of a part is a multiple of it
constexpr int kRouteTokens = kWarps;
// Blocks of the one launch: two fit on a multiprocessor with the registers of routing, and an H100 has 132. A second
// wave of blocks would cost more than a second launch.
constexpr int64_t kMaxFewBlocks = 256;

// Probabilities are added up as whole numbers of 2^-28, so that their sum does not depend on the order: 8 tokens stay
// below 2^32, 2^31 tokens below 2^64.
constexpr float kProbabilityUnits = 268435456.0f;

// All zeros between two calls.
struct alignas(256) RouterState {
  unsigned long long probability_sums[kMaxExperts];
  unsigned arrived[kMaxFewBlocks / kRouterSplits];  // of each tile of 8 tokens, blocks that did their logits
  unsigned routed;                                  // tiles
};

// partial[s][token][expert]: part s of the dot products, in fp32.
struct LogitArgs {
  const float* in = nullptr;
  int64_t rows = 0;
  int64_t cols = 0;
  const float* weight = nullptr;
  int64_t weight_stride = 0;
  int32_t num_experts = 0;
  float* partial = nullptr;
};

// A block's tile: kTokens tokens by kExperts experts, k in steps of kStep, threads in rows of kCols experts. A thread
// adds up every kCols-th expert of every kRows-th token.
template <int kTokensValue, int kExpertsValue, int kStepValue, int kColsValue>
struct LogitTile {
  static constexpr int kTokens = kTokensValue;
  static constexpr int kExperts = kExpertsValue;
  static constexpr int kStep = kStepValue;
  static constexpr int kCols = kColsValue;
  static constexpr int kRows = kThreads / kCols;
};
using FewTokens = LogitTile<kRouteTokens, 32, 128, 32>;  // long steps: all that a block needs is under way at once
using ManyTokens = LogitTile<64, 64, 32, 16>;            // 16 sums per thread for each 8 reads of shared memory

// kRows rows of kStep values, zeros beyond num_rows and num_cols.
template <int kRows, int kStep>
__device__ __forceinline__ void LoadStep(const float* from, int64_t stride, int64_t num_rows, int64_t num_cols,
                                         float (*to)[kStep + 4]) {
#pragma unroll
  for (int i = threadIdx.x; i < kRows * kStep; i += kThreads) {
    const int row = i / kStep, col = i % kStep;
    to[row][col] = row < num_rows && col < num_cols ? from[row * stride + col] : 0.0f;
  }
}

// One block's share: part `part` of the logits of a tile. k is split in a fixed way, so that a few tokens still use
// several multiprocessors, and added up in order, so that no logit depends on how many tokens there are.
template <typename Tile>
__device__ __forceinline__ void AddUpLogits(const LogitArgs& args, int64_t first_token, int64_t num_tokens,
                                            int64_t first_expert, int64_t part) {
  constexpr int kTokens = Tile::kTokens / Tile::kRows, kExperts = Tile::kExperts / Tile::kCols;  // of a thread
  alignas(16) __shared__ float x[Tile::kTokens][Tile::kStep + 4];
  alignas(16) __shared__ float w[Tile::kExperts][Tile::kStep + 4];
  const int64_t part_cols = RoundUp(CeilDiv(args.cols, kRouterSplits), kPartUnit);
  const int64_t begin = part_cols * part;
  const int64_t end = begin + part_cols < args.cols ? begin + part_cols : args.cols;
  const int col = threadIdx.x % Tile::kCols, row = threadIdx.x / Tile::kCols;
  float sums[kTokens][kExperts] = {};
  for (int64_t k = begin; k < end; k += Tile::kStep) {
    __syncthreads();
    LoadStep<Tile::kTokens, Tile::kStep>(args.in + first_token * args.cols + k, args.cols, num_tokens - first_token,
                                         end - k, x);
    LoadStep<Tile::kExperts, Tile::kStep>(args.weight + first_expert * args.weight_stride + k, args.weight_stride,
                                          args.num_experts - first_expert, end - k, w);
    __syncthreads();
#pragma unroll 2
    for (int j = 0; j < Tile::kStep; j += 4) {
      float4 weights[kExperts];
#pragma unroll
      for (int e = 0; e < kExperts; ++e) weights[e] = *reinterpret_cast<const float4*>(&w[col + Tile::kCols * e][j]);
#pragma unroll
      for (int t = 0; t < kTokens; ++t) {
        const float4 in = *reinterpret_cast<const float4*>(&x[row + Tile::kRows * t][j]);
#pragma unroll
        for (int e = 0; e < kExperts; ++e) {
          float sum = fmaf(in.x, weights[e].x, sums[t][e]);
          sum = fmaf(in.y, weights[e].y, sum);
          sum = fmaf(in.z, weights[e].z, sum);
          sums[t][e] = fmaf(in.w, weights[e].w, sum);
        }
      }
    }
  }
#pragma unroll
  for (int t = 0; t < kTokens; ++t) {
    const int64_t token = first_token + row + Tile::kRows * t;
#pragma unroll
    for (int e = 0; e < kExperts; ++e) {
      const int64_t expert = first_expert + col + Tile::kCols * e;
      if (token >= num_tokens || expert >= args.num_experts) continue;
      args.partial[(part * args.rows + token) * args.num_experts + expert] = sums[t][e];
    }
  }
}

// Roofline: flops = 2 * tokens * experts * k at the rate of the ordinary cores; bytes = weight * tokens / 64 + tokens *
// k * 4 * experts / 64, from the L2 cache but for the first, and what is kept of the parts.
__global__ void __launch_bounds__(kThreads, 3) RouterLogitsKernel(const StepCounts* counts, LogitArgs args) {
  BeginKernel();
  const int64_t num_tokens = NumTokens(counts, args.rows);
  const int64_t first_token = static_cast<int64_t>(blockIdx.y) * ManyTokens::kTokens;
  if (first_token >= num_tokens) return;
  AddUpLogits<ManyTokens>(args, first_token, num_tokens, static_cast<int64_t>(blockIdx.x) * ManyTokens::kExperts,
                          blockIdx.z);
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

// One warp: scores of the experts, then the k best, one after the other. `sums`: [num_experts] of the block, of which
// each gets its probability, in units.
__device__ void RouteToken(int64_t token, int64_t rows, const RouterArgs& args, const float* partial, unsigned* sums,
                           const RoutingArrays& out) {
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
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
    // Past the L1 cache: other blocks of this launch may have written them.
    for (int s = 0; s < kRouterSplits; ++s) logit += __ldcg(&partial[(s * rows + token) * num_experts + expert]);
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
    atomicAdd(&sums[expert], static_cast<unsigned>(rintf(probability * kProbabilityUnits)));
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

// Sums over tokens, of the probabilities and of the squared logsumexps: each tile adds its own, and the block that
// comes last hands them out. `sums`: of the tile.
__device__ void SumOverTokens(const unsigned* sums, int64_t num_tokens, int32_t num_experts, RouterState* state,
                              const RoutingArrays& out) {
  __shared__ double squares[kWarps];
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  const int64_t num_tiles = CeilDiv(num_tokens, kRouteTokens);
  if (num_tiles > 1) {
    for (int32_t e = threadIdx.x; e < num_experts; e += kThreads) {
      atomicAdd(&state->probability_sums[e], static_cast<unsigned long long>(sums[e]));
    }
    if (!IsLastBlock(&state->routed, static_cast<int32_t>(num_tiles))) return;
  }
  for (int32_t e = threadIdx.x; e < num_experts; e += kThreads) {
    unsigned long long sum = sums[e];
    if (num_tiles > 1) {
      sum = __ldcg(&state->probability_sums[e]);
      state->probability_sums[e] = 0;
    }
    out.probability_sums[e] = static_cast<float>(sum) / kProbabilityUnits;
  }
  double square = 0.0;
  for (int64_t t = threadIdx.x; t < num_tokens; t += kThreads) {
    const double logsumexp = __ldcg(&out.logsumexps[t]);
    square += logsumexp * logsumexp;
  }
  for (int distance = kWarp / 2; distance > 0; distance /= 2) square += __shfl_xor_sync(kAllLanes, square, distance);
  if (lane == 0) squares[warp] = square;
  __syncthreads();
  if (threadIdx.x != 0) return;
  for (int w = 1; w < kWarps; ++w) square += squares[w];
  *out.squared_logsumexp_sum = square;
}

// One block routes tile `tile` of kRouteTokens tokens. Roofline: bytes = tokens * experts * 4 * splits, all in the L2
// cache; latency of k warp reductions.
__device__ __forceinline__ void RouteTile(int64_t tile, int64_t num_tokens, int64_t rows, const RouterArgs& args,
                                          const float* partial, RouterState* state, const RoutingArrays& out) {
  __shared__ unsigned sums[kMaxExperts];
  for (int32_t e = threadIdx.x; e < args.num_experts; e += kThreads) sums[e] = 0;
  __syncthreads();
  const int64_t token = tile * kRouteTokens + threadIdx.x / kWarp;
  if (token < num_tokens) RouteToken(token, rows, args, partial, sums, out);
  __syncthreads();
  SumOverTokens(sums, num_tokens, args.num_experts, state, out);
}

__global__ void RouteKernel(const StepCounts* counts, int64_t rows, RouterArgs args, const float* partial,
                            RouterState* state, RoutingArrays out) {
  BeginKernel();
  const int64_t num_tokens = NumTokens(counts, rows);
  if (blockIdx.x >= CeilDiv(num_tokens, kRouteTokens)) return;
  RouteTile(blockIdx.x, num_tokens, rows, args, partial, state, out);
}

// Roofline: latency of k / kRouterSplits products and of one RouteTile; bytes = weight * tokens / 8, from the L2 cache
// but for the first.
__global__ void __launch_bounds__(kThreads, 2)
    RouteFewKernel(const StepCounts* counts, LogitArgs logits, RouterArgs args, RouterState* state, RoutingArrays out) {
  BeginKernel();
  const int64_t num_tokens = NumTokens(counts, logits.rows), tile = blockIdx.z;
  if (tile * kRouteTokens >= num_tokens) return;
  AddUpLogits<FewTokens>(logits, tile * kRouteTokens, num_tokens,
                         static_cast<int64_t>(blockIdx.x) * FewTokens::kExperts, blockIdx.y);
  if (!IsLastBlock(&state->arrived[tile], static_cast<int32_t>(gridDim.x * gridDim.y))) return;
  RouteTile(tile, num_tokens, logits.rows, args, logits.partial, state, out);
}

}  // namespace

int64_t RouterScratchBytes(int64_t rows, int64_t num_experts) {
  return static_cast<int64_t>(sizeof(RouterState)) + kRouterSplits * rows * num_experts * 4;
}

void LaunchRoute(const StepCounts* counts, const float* in, int64_t rows, int64_t cols, const float* weight,
                 int64_t weight_stride, const RouterArgs& args, void* scratch, RoutingArrays out,
                 cudaStream_t stream) {
  RouterState* const state = static_cast<RouterState*>(scratch);
  float* const partial = reinterpret_cast<float*>(state + 1);
  const LogitArgs logits = {in, rows, cols, weight, weight_stride, args.num_experts, partial};
  const int64_t expert_blocks = CeilDiv(args.num_experts, FewTokens::kExperts), tiles = CeilDiv(rows, kRouteTokens);
  const size_t shared_bytes = args.num_groups > 1 ? sizeof(float) * kWarps * (args.num_experts + args.num_groups) : 0;
  if (expert_blocks * kRouterSplits * tiles <= kMaxFewBlocks) {
    Launch(RouteFewKernel, dim3(expert_blocks, kRouterSplits, tiles), dim3(kThreads), shared_bytes, stream, counts,
           logits, args, state, out);
    return;
  }
  const dim3 grid(CeilDiv(args.num_experts, ManyTokens::kExperts), CeilDiv(rows, ManyTokens::kTokens), kRouterSplits);
  Launch(RouterLogitsKernel, grid, dim3(kThreads), 0, stream, counts, logits);
  Launch(RouteKernel, dim3(tiles), dim3(kThreads), shared_bytes, stream, counts, rows, args, partial, state, out);
}

}  // namespace switchyard::cuda
