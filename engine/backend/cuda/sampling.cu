// The token of each row of logits, one block per row. Roofline: bytes = rows * num_ids * 4 from HBM; passes after the
// first read the L2 cache, where one multiprocessor gets 64 bytes per clock: 6 us per pass over 150,000 ids. Greedy
// takes one pass, a draw from all ids three, top-k and top-p four, and some thirty more where more than kMaxCandidates
// tokens may be kept.
//
// The same token as Sampler draws: all sums are of integers (token_weight.h), so their order does not matter. Nothing
// is sorted. A *key* is a logit as an integer of the same order; the tokens that top-k or top-p keep are those above
// some key and the first few of those that have it, and that key is found by bisection, as are the key and then the id
// of the token that holds the drawn unit.
#include <ptx.cuh>

#include "engine/backend/cuda/kernels.h"
#include "engine/backend/cuda/warp.cuh"
#include "engine/sampling/token_weight.h"

namespace switchyard::cuda {
namespace {

constexpr int kMaxThreads = 1024;
constexpr int kIdsPerThread = 32;
constexpr int kBuckets = 2048;
constexpr int kMaxCandidates = 16384;
constexpr size_t kSharedBytes = kMaxCandidates * sizeof(uint32_t);

__device__ __forceinline__ uint32_t KeyOf(float logit) {
  const uint32_t bits = __float_as_uint(logit == 0.0f ? 0.0f : logit);  // -0 equals 0
  return (bits >> 31) != 0 ? ~bits : bits | 0x80000000u;
}
__device__ __forceinline__ float LogitOf(uint32_t key) {
  return __uint_as_float((key >> 31) != 0 ? key & 0x7fffffffu : ~key);
}

struct Sum {
  __device__ static uint64_t Of(uint64_t a, uint64_t b) { return a + b; }
};
struct Largest {
  __device__ static uint64_t Of(uint64_t a, uint64_t b) { return a > b ? a : b; }
};

// The values of all threads as one, in every thread. Waits for the block before and after they are exchanged.
template <typename Operation>
__device__ uint64_t OfBlock(uint64_t value) {
  __shared__ uint64_t of_warps[kMaxThreads / kWarp];
  for (int distance = kWarp / 2; distance > 0; distance /= 2) {
    value = Operation::Of(value, __shfl_xor_sync(kAllLanes, value, distance));
  }
  __syncthreads();  // the last values may still be read
  if (threadIdx.x % kWarp == 0) of_warps[threadIdx.x / kWarp] = value;
  __syncthreads();
  value = of_warps[0];
  for (int w = 1; w < static_cast<int>(blockDim.x) / kWarp; ++w) value = Operation::Of(value, of_warps[w]);
  return value;
}

// The sum of value(i) over first <= i < last.
template <typename Value>
__device__ __forceinline__ uint64_t SumOver(int32_t first, int32_t last, const Value& value) {
  uint64_t sum = 0;
#pragma unroll 4
  for (int32_t i = first + static_cast<int32_t>(threadIdx.x); i < last; i += static_cast<int32_t>(blockDim.x)) {
    sum += value(i);
  }
  return OfBlock<Sum>(sum);
}

// The i whose share [sum of value before i, sum with i) of all `count` values holds `unit`.
template <typename Value>
__device__ int32_t FindHolder(int32_t count, uint64_t unit, const Value& value) {
  int32_t first = 0, last = count;
  while (last - first > 1) {
    const int32_t middle = first + (last - first) / 2;
    const uint64_t sum = SumOver(first, middle, value);
    if (unit < sum) {
      last = middle;
    } else {
      unit -= sum;
      first = middle;
    }
  }
  return first;
}

// Keys of tokens in any order: in shared memory, or where that has no room, those of all logits of the row.
struct Keys {
  const uint32_t* in_shared;
  const float* logits;
  int32_t count;
  uint32_t lowest;
  uint32_t highest;

  __device__ __forceinline__ uint32_t operator[](int32_t i) const {
    return in_shared != nullptr ? in_shared[i] : KeyOf(logits[i]);
  }
};

// What weigh(key) sums to over the keys from `from` on.
template <typename Weigh>
__device__ uint64_t SumFrom(const Keys& keys, uint32_t from, const Weigh& weigh) {
  return SumOver(0, keys.count, [&](int32_t i) {
    const uint32_t key = keys[i];
    return key >= from ? weigh(key) : uint64_t{0};
  });
}

// The largest key, `low` or more, from which on the sum reaches `target`. REQUIRES: from `low` on it does.
template <typename Weigh>
__device__ uint32_t FindKey(const Keys& keys, uint32_t low, uint64_t target, const Weigh& weigh) {
  uint32_t high = keys.highest;
  while (low < high) {
    const uint32_t middle = low + (high - low + 1) / 2;
    if (SumFrom(keys, middle, weigh) >= target) {
      low = middle;
    } else {
      high = middle - 1;
    }
  }
  return low;
}

struct Row {
  const float* logits;
  int32_t num_ids;
  float lowest;  // logit
  TokenWeights weights;
  RowSampling sampling;
};

__device__ int32_t DrawFromAll(const Row& row) {
  const uint64_t least = LeastUnits(row.sampling.min_p);
  const auto units = [&](int32_t id) {
    const uint64_t weight = row.weights.Units(row.logits[id]);
    return weight >= least ? weight : uint64_t{0};
  };
  const uint64_t total = SumOver(0, row.num_ids, units);
  return FindHolder(row.num_ids, DrawUnit(row.sampling.seed, row.sampling.position, total), units);
}

// Gathers the keys of the few tokens that top-k or top-p may keep: a histogram over octaves tells from which bucket on
// no token is kept. *mass: the weight of all tokens.
__device__ Keys GatherCandidates(const Row& row, uint64_t* mass) {
  __shared__ uint32_t tokens_of[kBuckets];
  __shared__ uint32_t num_gathered, lowest;
  uint32_t* const gathered = DynamicShared<uint32_t>();
  for (int b = threadIdx.x; b < kBuckets; b += static_cast<int>(blockDim.x)) tokens_of[b] = 0;
  if (threadIdx.x == 0) {
    num_gathered = 0;
    lowest = 0xffffffffu;
  }
  __syncthreads();
  const float octaves_of_lowest = row.weights.Octaves(row.lowest);
  const float width = octaves_of_lowest < 39.0f ? octaves_of_lowest : 39.0f;  // tokens further away weigh nothing
  const float buckets_per_octave = (kBuckets - 1) / (width > 0x1p-20f ? width : 0x1p-20f);
  const auto bucket_of = [&](float logit) {
    const float bucket = row.weights.Octaves(logit) * buckets_per_octave;
    return bucket < static_cast<float>(kBuckets) ? static_cast<int32_t>(bucket) : kBuckets;
  };
  *mass = SumOver(0, row.num_ids, [&](int32_t id) {
    const int32_t bucket = bucket_of(row.logits[id]);
    if (bucket < kBuckets) atomicAdd(&tokens_of[bucket], 1u);
    return row.weights.Units(row.logits[id]);
  });

  // The first bucket with no more behind it than may be left out: tokens beyond the k first ones, or as much weight as
  // the nucleus does not need, where each token is taken for the heaviest of its bucket.
  const bool by_count = row.sampling.top_k > 0 && row.sampling.top_k < row.num_ids;
  const auto behind = [&](int32_t bucket) {
    return SumOver(bucket + 1, kBuckets, [&](int32_t b) -> uint64_t {
      if (by_count) return tokens_of[b];
      const float octaves = static_cast<float>(b) / buckets_per_octave;
      const uint64_t units = static_cast<uint64_t>(PowerOfHalf(octaves) * kUnitsOfLargest);
      return tokens_of[b] * (units + (units >> 12) + 1);  // more than rounding can hide
    });
  };
  uint64_t dispensable = *mass - NucleusTarget(row.sampling.top_p, *mass);
  const uint64_t num_bucketed = behind(-1);
  if (by_count) {
    const uint64_t wanted = static_cast<uint64_t>(row.sampling.top_k);
    dispensable = num_bucketed > wanted ? num_bucketed - wanted : 0;
  }
  int32_t first = 0, limit = kBuckets - 1;
  while (first < limit) {
    const int32_t middle = (first + limit) / 2;
    if (behind(middle) <= dispensable) {
      limit = middle;
    } else {
      first = middle + 1;
    }
  }

  Keys keys = {nullptr, row.logits, row.num_ids, KeyOf(row.lowest), KeyOf(row.weights.largest)};
  const uint64_t count = SumOver(0, limit + 1, [&](int32_t b) -> uint64_t { return tokens_of[b]; });
  if (count > kMaxCandidates) return keys;
  for (int32_t id = threadIdx.x; id < row.num_ids; id += static_cast<int32_t>(blockDim.x)) {
    const float logit = row.logits[id];
    if (bucket_of(logit) > limit) continue;
    gathered[atomicAdd(&num_gathered, 1u)] = KeyOf(logit);
    atomicMin(&lowest, KeyOf(logit));
  }
  __syncthreads();
  keys.in_shared = gathered;
  keys.count = static_cast<int32_t>(count);
  keys.lowest = lowest;
  return keys;
}

// The tokens that top-k and top-p keep: all above `key`, and of those that have it the `num_equal` of lowest ids.
struct Kept {
  uint32_t key;
  uint64_t num_equal;
};

__device__ Kept KeepMostLikely(const Row& row, const Keys& keys, uint64_t mass) {
  const auto one = [](uint32_t) { return uint64_t{1}; };
  const auto units = [&](uint32_t key) { return row.weights.Units(LogitOf(key)); };
  Kept kept = {keys.lowest, static_cast<uint64_t>(keys.count)};
  if (row.sampling.top_k > 0 && row.sampling.top_k < row.num_ids) {
    const uint64_t wanted = static_cast<uint64_t>(row.sampling.top_k < keys.count ? row.sampling.top_k : keys.count);
    kept.key = FindKey(keys, keys.lowest, wanted, one);
    kept.num_equal = wanted - SumFrom(keys, kept.key + 1, one);
    mass = SumFrom(keys, kept.key + 1, units) + kept.num_equal * units(kept.key);
  }
  if (row.sampling.top_p < 1.0f) {
    const uint64_t target = NucleusTarget(row.sampling.top_p, mass);
    kept.key = FindKey(keys, kept.key, target, units);
    const uint64_t missing = target - SumFrom(keys, kept.key + 1, units), each = units(kept.key);
    kept.num_equal = (missing + each - 1) / each;
  }
  return kept;
}

__device__ int32_t DrawTruncated(const Row& row) {
  uint64_t mass = 0;
  const Keys keys = GatherCandidates(row, &mass);
  const Kept kept = KeepMostLikely(row, keys, mass);
  const uint64_t least = LeastUnits(row.sampling.min_p);
  const auto units = [&](uint32_t key) {
    const uint64_t weight = row.weights.Units(LogitOf(key));
    return weight >= least ? weight : uint64_t{0};
  };
  const uint64_t total = SumFrom(keys, kept.key + 1, units) + kept.num_equal * units(kept.key);
  const uint64_t unit = DrawUnit(row.sampling.seed, row.sampling.position, total);
  const uint32_t drawn = FindKey(keys, kept.key, unit + 1, units);
  const uint64_t rank = (unit - SumFrom(keys, drawn + 1, units)) / units(drawn);
  return FindHolder(row.num_ids, rank, [&](int32_t id) -> uint64_t { return KeyOf(row.logits[id]) == drawn ? 1 : 0; });
}

__global__ void __launch_bounds__(kMaxThreads) SampleTokensKernel(DeviceStep step, const float* all_logits,
                                                                  int64_t cols, int32_t num_ids, int32_t* tokens) {
  BeginKernel();
  if (static_cast<int32_t>(blockIdx.x) >= step.counts->num_sampled_rows) return;
  const float* const logits = all_logits + blockIdx.x * cols;
  // The largest key, and the lowest id that has it; the lowest key.
  uint64_t best = 0, opposite = 0;
  bool finite = true;
#pragma unroll 4
  for (int32_t id = threadIdx.x; id < num_ids; id += static_cast<int32_t>(blockDim.x)) {
    const float logit = logits[id];
    finite = finite && isfinite(logit);
    const uint32_t key = KeyOf(logit);
    best = Largest::Of(best, static_cast<uint64_t>(key) << 32 | (0xffffffffu - static_cast<uint32_t>(id)));
    opposite = Largest::Of(opposite, 0xffffffffu - key);
  }
  finite = __syncthreads_and(finite);
  best = OfBlock<Largest>(best);
  const RowSampling sampling = step.sampling[blockIdx.x];
  int32_t token = static_cast<int32_t>(0xffffffffu - static_cast<uint32_t>(best));
  if (!finite) {
    token = -1;
  } else if (sampling.temperature > 0.0f) {
    const float lowest = LogitOf(0xffffffffu - static_cast<uint32_t>(OfBlock<Largest>(opposite)));
    const TokenWeights weights(LogitOf(static_cast<uint32_t>(best >> 32)), sampling.temperature);
    const Row row = {logits, num_ids, lowest, weights, sampling};
    const bool truncated = (sampling.top_k > 0 && sampling.top_k < num_ids) || sampling.top_p < 1.0f;
    token = truncated ? DrawTruncated(row) : DrawFromAll(row);
  }
  if (threadIdx.x == 0) tokens[blockIdx.x] = token;
}

}  // namespace

void LaunchSampleTokens(const DeviceStep& step, const float* logits, int64_t rows, int64_t cols, int64_t num_ids,
                        int32_t* tokens, cudaStream_t stream) {
  const int64_t warps = CeilDiv(num_ids, kWarp * kIdsPerThread);
  const int64_t threads = warps * kWarp < kMaxThreads ? warps * kWarp : kMaxThreads;
  Launch(SampleTokensKernel, dim3(rows), dim3(threads), kSharedBytes, stream, step, logits, cols,
         static_cast<int32_t>(num_ids), tokens);
}

}  // namespace switchyard::cuda
