// The products, the router and attention against plain loops. The sections of the benchmark, run on tiny shapes after
// this, check the rest: cuBLAS, whole layers, and steps.
#include <algorithm>
#include <set>

#include "engine/backend/cuda/wgmma_gemm.h"
#include "tests/bench/gpu/attention_layer.h"
#include "tests/bench/gpu/bench_kernels.h"
#include "tests/bench/gpu/check.h"
#include "tests/bench/gpu/moe_layer.h"

namespace switchyard::bench {
namespace {

using cuda::GemmOutput;
using cuda::Planes;

// ---- products ----

constexpr int32_t kExperts = 3;
constexpr int64_t kK = 128, kOut = 200, kPaddedOut = 256;  // of the weights; kSiluMul gives kOut / 2
// Rows of the experts: none, few, and more than one tile of 128.
const std::vector<int32_t> kOffsets = {0, 0, 13, 150};

struct GemmData {
  int64_t rows = kOffsets.back();
  std::vector<float> weight = NormalValues(kExperts * kPaddedOut * kK, 20);
  std::vector<float> in = NormalValues(rows * kK, 21);
  std::vector<float> before = NormalValues(rows * kOut, 22);

  int32_t ExpertOf(int64_t row) const {
    int32_t e = 0;
    while (row >= kOffsets[static_cast<size_t>(e) + 1]) ++e;
    return e;
  }
  // Input row of a row: a permutation, so that the gather shows.
  int32_t SourceOf(int64_t row) const { return static_cast<int32_t>((row * 7) % rows); }
  float Product(int32_t expert, int64_t source, int64_t out) const {
    double sum = 0.0;
    for (int64_t k = 0; k < kK; ++k) {
      sum += static_cast<double>(weight[static_cast<size_t>((expert * kPaddedOut + out) * kK + k)]) *
             static_cast<double>(in[static_cast<size_t>(source * kK + k)]);
    }
    return static_cast<float>(sum);
  }
  std::vector<float> Reference(GemmOutput output, bool dense) const {
    std::vector<float> values;
    for (int64_t r = 0; r < rows; ++r) {
      const int32_t expert = dense ? 0 : ExpertOf(r);
      const int64_t source = dense ? r : SourceOf(r);
      const int64_t cols = output == GemmOutput::kSiluMul ? kOut / 2 : kOut;
      for (int64_t c = 0; c < cols; ++c) {
        if (output == GemmOutput::kSiluMul) {
          // Scaled down by k as the weights are not: silu of large gates would only pass the sign on.
          const float gate = Product(expert, source, cuda::GateUpRow(c, 0));
          values.push_back(gate / (1.0f + std::exp(-gate)) * Product(expert, source, cuda::GateUpRow(c, 1)));
        } else {
          const float add = output == GemmOutput::kAdd ? before[static_cast<size_t>(r * kOut + c)] : 0.0f;
          values.push_back(add + Product(expert, source, c));
        }
      }
    }
    return values;
  }
};

// Fewer, or more, than there are blocks of weight rows.
constexpr int kFewMultiprocessors = 2, kManyMultiprocessors = 1000;

struct Plan {
  Array<cuda::ExpertTile> tiles;
  Array<int32_t> num_tiles;
  Array<unsigned long long> times{2 * kExperts};

  explicit Plan(int tile_tokens) {
    std::vector<cuda::ExpertTile> list;
    for (int32_t e = 0; e < kExperts; ++e) {
      const int32_t first = kOffsets[static_cast<size_t>(e)], end = kOffsets[static_cast<size_t>(e) + 1];
      const int32_t first_tile = static_cast<int32_t>(list.size());
      const int32_t count = static_cast<int32_t>(cuda::CeilDiv(end - first, tile_tokens));
      for (int32_t row = first; row < end; row += tile_tokens) {
        list.push_back({e, row, std::min(tile_tokens, end - row), first_tile, count});
      }
    }
    num_tiles = Array<int32_t>(std::vector<int32_t>{static_cast<int32_t>(list.size())});
    tiles = Array<cuda::ExpertTile>(list);
    Clear(times.get(), times.bytes());
  }
  cuda::ExpertPlan Get() const { return {tiles.get(), num_tiles.get(), times.get(), times.get() + kExperts}; }
};

// Returns what was written. `multiprocessors` decides how wide the bf16 kernel's blocks are.
std::vector<float> CheckGemm(Bench* bench, const GemmData& data, int tile_tokens, int multiprocessors,
                             GemmOutput output, bool dense, bool bf16, const std::vector<float>& reference) {
  const Plan plan(tile_tokens);
  const Array<uint16_t> weight_bf16(ToBf16(data.weight)), in_bf16(ToBf16(data.in));
  const Array<float> weight_f32(data.weight), in_f32(data.in);
  std::vector<int32_t> sources;
  for (int64_t r = 0; r < data.rows; ++r) sources.push_back(data.SourceOf(r));
  const Array<int32_t> row_to_source(sources);
  const Array<float> out = output == GemmOutput::kAdd ? Array<float>(data.before) : Poisoned<float>(data.rows * kOut);
  cuda::GroupedGemm gemm;
  gemm.weight = bf16 ? static_cast<const void*>(weight_bf16.get()) : weight_f32.get();
  gemm.weight_rows = kPaddedOut;
  gemm.k = gemm.in_stride = gemm.in_cols = kK;
  gemm.out_cols = gemm.out_stride = output == GemmOutput::kSiluMul ? kOut / 2 : kOut;
  gemm.in = bf16 ? static_cast<const void*>(in_bf16.get()) : in_f32.get();
  gemm.output = output;
  gemm.out = {out.get(), nullptr, 0};
  if (dense) {
    gemm.dense_rows = data.rows;
    gemm.max_tiles = cuda::CeilDiv(data.rows, tile_tokens);
  } else {
    gemm.row_to_source = row_to_source.get();
    gemm.plan = plan.Get();
    gemm.max_tiles = cuda::MaxExpertTiles(data.rows, kExperts, tile_tokens);
  }
  if (bf16) {
    cuda::LaunchGemmBf16(gemm, tile_tokens, multiprocessors, Stream());
  } else {
    cuda::LaunchGemmF32(gemm, tile_tokens, Stream());
  }
  std::vector<float> values = out.ToHost();
  values.resize(reference.size());
  const char* const names[] = {"assign", "add", "silu mul"};
  bench->Check(std::string(bf16 ? "gemm bf16 " : "gemm f32 ") + names[static_cast<int>(output)] +
                   (dense ? ", dense, tile " : ", grouped, tile ") + std::to_string(tile_tokens) +
                   (multiprocessors == kManyMultiprocessors ? ", narrow" : ""),
               RelativeL2(values, reference), kF32Limit);
  return values;
}

// What a row's bits must not depend on: the tokens of a tile, and the weight rows of a block.
void CheckGemmTiles(Bench* bench, const GemmData& data, GemmOutput output, bool dense,
                    const std::vector<float>& reference) {
  std::vector<float> first;
  bool equal = true;
  const auto check = [&](int tile, int multiprocessors) {
    std::vector<float> values = CheckGemm(bench, data, tile, multiprocessors, output, dense, true, reference);
    if (first.empty()) first = values;
    equal = equal && values == first;
  };
  for (const int tile : {8, 16, 32, 64, 128}) check(tile, kFewMultiprocessors);
  for (const int tile : {8, 16, 32}) check(tile, kManyMultiprocessors);
  bench->Check("gemm bf16, the same bits with every tile", equal ? 0.0 : 1.0);
}

// The Hopper kernel writes bf16 and takes planned tiles only. Returns what it wrote.
std::vector<uint16_t> CheckWgmma(Bench* bench, const GemmData& data, int tile_tokens, GemmOutput output,
                                 const std::vector<float>& reference) {
  const bool silu = output == GemmOutput::kSiluMul;
  const int64_t cols = silu ? kOut / 2 : kOut, stride = cuda::RoundUp(cols, cuda::kTileK);
  const Plan plan(tile_tokens);
  const Array<uint16_t> weight(ToBf16(data.weight)), in(ToBf16(data.in)), out = Poisoned<uint16_t>(data.rows * stride);
  std::vector<int32_t> sources;
  for (int64_t r = 0; r < data.rows; ++r) sources.push_back(data.SourceOf(r));
  const Array<int32_t> row_to_source(sources);
  cuda::GroupedGemm gemm;
  gemm.weight = weight.get();
  gemm.weight_rows = kPaddedOut;
  gemm.k = gemm.in_stride = gemm.in_cols = kK;
  gemm.out_cols = cols;
  gemm.in = in.get();
  gemm.row_to_source = row_to_source.get();
  gemm.output = output;
  gemm.out = {nullptr, out.get(), stride};
  gemm.plan = plan.Get();
  gemm.max_tiles = cuda::MaxExpertTiles(data.rows, kExperts, tile_tokens);
  CUtensorMap map;
  MapWeight(weight.get(), kExperts * kPaddedOut, kK, &map);
  cuda::LaunchWgmmaGemm(gemm, map, tile_tokens, TheDevice().num_multiprocessors, Stream());
  // These weights' rows beyond kOut are not zeros, so only real columns count.
  const std::vector<uint16_t> bits = out.ToHost();
  const std::vector<float> padded = ToFloat(bits);
  std::vector<float> values;
  for (int64_t r = 0; r < data.rows; ++r) {
    values.insert(values.end(), padded.begin() + r * stride, padded.begin() + r * stride + cols);
  }
  bench->Check(std::string("gemm wgmma ") + (silu ? "silu mul" : "assign") + ", tile " + std::to_string(tile_tokens),
               RelativeL2(values, reference), kBf16Limit);
  return bits;
}

// What a row's bits must not depend on.
void CheckWgmmaTiles(Bench* bench, const GemmData& data, GemmOutput output, const std::vector<float>& reference) {
  std::vector<uint16_t> first;
  bool equal = true;
  for (const int tile : cuda::kWgmmaTileTokens) {
    std::vector<uint16_t> bits = CheckWgmma(bench, data, tile, output, reference);
    if (first.empty()) first = bits;
    equal = equal && bits == first;
  }
  bench->Check("gemm wgmma, the same bits with every tile", equal ? 0.0 : 1.0);
}

void CheckGemms(Bench* bench) {
  GemmData data;
  for (float& value : data.in) value *= 0.125f;  // a power of two: stays exact
  for (const GemmOutput output : {GemmOutput::kAssign, GemmOutput::kAdd, GemmOutput::kSiluMul}) {
    for (const bool dense : {true, false}) {
      const std::vector<float> reference = data.Reference(output, dense);
      CheckGemmTiles(bench, data, output, dense, reference);
      CheckGemm(bench, data, 32, kFewMultiprocessors, output, dense, false, reference);
      if (!TheDevice().has_wgmma || dense || output == GemmOutput::kAdd) continue;
      CheckWgmmaTiles(bench, data, output, reference);
    }
  }
  // The reference that the sections use.
  const std::vector<int32_t> rows = {0, 60, 149};
  std::vector<float> reference;
  for (const int32_t row : rows) {
    for (int64_t c = 0; c < kOut; ++c) reference.push_back(data.Product(2, row, c));
  }
  const Array<uint16_t> weight(ToBf16(data.weight));
  const Array<float> in(data.in), out = Poisoned<float>(3 * kOut);
  const Array<int32_t> matrices(std::vector<int32_t>{2, 2, 2}), sources(rows);
  ReferenceLinear(weight.get(), matrices.get(), kPaddedOut * kK, kK, in.get(), sources.get(), kK, 3, kK, kOut,
                  out.get());
  bench->Check("reference linear", RelativeL2(out.ToHost(), reference), kF32Limit);
}

// ---- router ----

void CheckRouter(Bench* bench, int64_t num_tokens) {
  Model model = TinyModel();
  model.num_experts = 40;  // more than a warp
  model.top_k = 3;
  const ExpertMatrices experts(model, 30);
  MoeBuffers buffers(model, num_tokens);
  RunRoute(model, experts, num_tokens - 1, &buffers);  // leaves its counters as it found them
  RunRoute(model, experts, num_tokens, &buffers);
  Synchronize();
  const std::vector<float> h = buffers.h_f32.ToHost(), w = experts.router.ToHost();
  std::vector<int32_t> ids;
  std::vector<float> weights, sums(static_cast<size_t>(model.num_experts));
  double squares = 0.0;
  for (int64_t t = 0; t < num_tokens; ++t) {
    std::vector<double> p;
    double total = 0.0;
    for (int64_t e = 0; e < model.num_experts; ++e) {
      double logit = 0.0;
      for (int64_t k = 0; k < model.hidden_size; ++k) {
        logit += static_cast<double>(h[static_cast<size_t>(t * model.hidden_size + k)]) *
                 static_cast<double>(w[static_cast<size_t>(e * model.hidden_size + k)]);
      }
      p.push_back(std::exp(logit));
      total += p.back();
    }
    for (size_t e = 0; e < p.size(); ++e) sums[e] += static_cast<float>(p[e] / total);
    squares += std::log(total) * std::log(total);
    double chosen = 0.0;
    const size_t first = ids.size();
    for (int32_t j = 0; j < model.top_k; ++j) {
      const auto best = std::max_element(p.begin(), p.end());
      ids.push_back(static_cast<int32_t>(best - p.begin()));
      weights.push_back(static_cast<float>(*best));
      chosen += *best;
      *best = 0.0;
    }
    for (size_t j = first; j < weights.size(); ++j) weights[j] /= static_cast<float>(chosen);
  }
  const int64_t choices = num_tokens * model.top_k;
  std::vector<int32_t> found(static_cast<size_t>(choices));
  std::vector<float> found_weights(found.size());
  Copy(found.data(), buffers.routing.expert_ids, choices * 4);
  Copy(found_weights.data(), buffers.routing.expert_weights, choices * 4);
  const std::string name = "route, " + std::to_string(num_tokens) + " tokens, ";
  bench->Check(name + "ids", found == ids ? 0.0 : 1.0);
  bench->Check(name + "weights", RelativeL2(found_weights, weights), 1e-4);
  std::vector<float> found_sums(sums.size());
  Copy(found_sums.data(), buffers.routing.probability_sums, model.num_experts * 4);
  bench->Check(name + "probability sums", RelativeL2(found_sums, sums), 1e-4);
  double found_squares = 0.0;
  Copy(&found_squares, buffers.routing.squared_logsumexp_sum, sizeof(found_squares));
  bench->Check(name + "squared logsumexps", std::abs(found_squares / squares - 1.0), 1e-4);
}

// Offsets, permutation and order inside each expert, against a stable sort.
void CheckGrouping(Bench* bench) {
  const Model model = TinyModel();
  constexpr int64_t kTokens = 700;  // more choices than threads
  RoutedBatch batch(model, kTokens);
  batch.Use(DrawRouting(model, kTokens, Skew::kZipf, 1));
  batch.Group(16);
  cuda::LaunchStampExperts(batch.device().expert_offsets, model.num_experts, false, batch.Plan(16), Stream());
  cuda::LaunchStampExperts(batch.device().expert_offsets, model.num_experts, true, batch.Plan(16), Stream());
  Synchronize();
  const std::vector<int32_t>& ids = batch.draw().ids;
  std::vector<int32_t> order(ids.size()), offsets = {0}, to_token;
  for (size_t i = 0; i < order.size(); ++i) order[i] = static_cast<int32_t>(i);
  std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
    return ids[static_cast<size_t>(a)] < ids[static_cast<size_t>(b)];
  });
  for (int32_t e = 0; e < model.num_experts; ++e) {
    offsets.push_back(offsets.back() + static_cast<int32_t>(std::count(ids.begin(), ids.end(), e)));
  }
  for (const int32_t choice : order) to_token.push_back(choice / model.top_k);
  std::vector<int32_t> found(to_token.size()), found_offsets(offsets.size());
  Copy(found.data(), batch.device().row_to_token, kTokens * model.top_k * 4);
  Copy(found_offsets.data(), batch.device().expert_offsets, (model.num_experts + 1) * 4);
  bench->Check("group by expert, rows", found == to_token ? 0.0 : 1.0);
  bench->Check("group by expert, offsets", found_offsets == offsets ? 0.0 : 1.0);
  std::vector<unsigned long long> starts(static_cast<size_t>(model.num_experts)), ends(starts.size());
  Copy(starts.data(), batch.Plan(16).first_start, model.num_experts * 8);
  Copy(ends.data(), batch.Plan(16).last_end, model.num_experts * 8);
  int wrong = 0;
  for (size_t e = 0; e < ends.size(); ++e) {
    const bool used = offsets[e] < offsets[e + 1];
    wrong += used ? ends[e] < starts[e] || ends[e] == 0 : ends[e] != 0;
  }
  bench->Check("group by expert, stamps", wrong);
}

// ---- attention ----

// One (row, head) in double precision from the cache.
std::vector<double> AttendOnHost(const std::vector<float>& q, const std::vector<float>& keys,
                                 const std::vector<float>& values, const cuda::AttentionArgs& args,
                                 const std::vector<int32_t>& table, int32_t length, int32_t kv_head) {
  std::vector<double> out(static_cast<size_t>(args.head_dim));
  double total = 0.0;
  for (int32_t key = 0; key < length; ++key) {
    const int64_t block = table[static_cast<size_t>(key / kBlockSize)];
    const size_t at = static_cast<size_t>(((block * args.num_kv_heads + kv_head) * kBlockSize + key % kBlockSize) *
                                          args.dim_pad);
    double score = 0.0;
    for (size_t d = 0; d < out.size(); ++d) score += static_cast<double>(q[d]) * static_cast<double>(keys[at + d]);
    const double weight = std::exp(score * static_cast<double>(args.scale));
    total += weight;
    for (size_t d = 0; d < out.size(); ++d) out[d] += weight * static_cast<double>(values[at + d]);
  }
  for (double& value : out) value /= total;
  return out;
}

// Writes the step's keys and values with PrepareQkv, attends, and compares both with the host's.
void CheckAttention(Bench* bench, int64_t sequences, int64_t new_tokens, int64_t context) {
  const Model model = TinyModel();
  StepData step(sequences, new_tokens, context, model.vocab_size, 40);
  const KvMemory kv(KvElements(model, step.num_blocks()));
  const AttentionLayer layer(model);
  cuda::AttentionArgs args = layer.Args(kv, step.num_blocks(), 0);
  const std::vector<float> input = NormalValues(step.rows() * model.qkv_size(), 41);
  const Array<float> qkv(input), out = Poisoned<float>(step.rows() * model.q_size());
  const Array<uint16_t> out_bf16 = Poisoned<uint16_t>(step.rows() * 128);
  cuda::LaunchPrepareQkv(step.device(), args, step.rows(), qkv.get(), Stream());
  const DecodeMemory memory(cuda::DecodePartialFloats(2, args, cuda::CeilDiv(context, cuda::kKeyChunk)));
  RunAttention(&step, args, qkv.get(), memory, {out.get(), out_bf16.get(), 128});

  std::vector<int32_t> tables(static_cast<size_t>(step.num_blocks()));
  Copy(tables.data(), step.device().tables, step.num_blocks() * 4);
  const std::vector<float> keys = ToFloat(kv.keys.ToHost()), values = ToFloat(kv.values.ToHost());
  const std::vector<float> prepared = qkv.ToHost();
  const size_t blocks = tables.size() / static_cast<size_t>(sequences);
  std::vector<float> reference, stored, expected;
  for (int64_t r = 0; r < step.rows(); ++r) {
    const int64_t s = r / new_tokens;
    const int32_t position = static_cast<int32_t>(context - new_tokens + r % new_tokens);
    const std::vector<int32_t> table(tables.begin() + s * static_cast<int64_t>(blocks),
                                     tables.begin() + (s + 1) * static_cast<int64_t>(blocks));
    for (int32_t head = 0; head < model.num_attention_heads; ++head) {
      const auto q = prepared.begin() + r * model.qkv_size() + head * model.head_dim;
      for (const double value : AttendOnHost({q, q + model.head_dim}, keys, values, args, table, position + 1,
                                             head / (args.num_heads / args.num_kv_heads))) {
        reference.push_back(static_cast<float>(value));
      }
    }
    // The value that the cache must hold now.
    const int64_t block = table[static_cast<size_t>(position / kBlockSize)];
    for (int d = 0; d < model.head_dim; ++d) {
      stored.push_back(values[static_cast<size_t>((block * args.num_kv_heads * kBlockSize + position % kBlockSize) *
                                                      args.dim_pad + d)]);
      expected.push_back(input[static_cast<size_t>(r * model.qkv_size() + model.q_size() + model.kv_size() + d)]);
    }
  }
  const std::string name = (step.is_decode() ? "decode " : "prefill ") + std::to_string(context);
  bench->Check("attention " + name, RelativeL2(out.ToHost(), reference), kBf16Limit);
  bench->Check("attention " + name + ", reference", AttentionError(step, args, qkv.get(), out.get()), kBf16Limit);
  bench->Check("prepare qkv " + name + ", stored values", RelativeL2(stored, expected), kF32Limit);
}

// RoPE and per-head norm of PrepareQkv at one position.
void CheckPrepare(Bench* bench) {
  const Model model = TinyModel();
  constexpr int64_t kPosition = 1000;
  StepData step(1, 1, kPosition + 1, model.vocab_size, 50);
  const KvMemory kv(KvElements(model, step.num_blocks()));
  const AttentionLayer layer(model);
  const cuda::AttentionArgs args = layer.Args(kv, step.num_blocks(), 0);
  const std::vector<float> input = NormalValues(model.qkv_size(), 51);
  const Array<float> qkv(input);
  std::vector<float> norm(static_cast<size_t>(model.head_dim));
  Copy(norm.data(), args.q_norm, model.head_dim * 4);
  cuda::LaunchPrepareQkv(step.device(), args, 1, qkv.get(), Stream());
  const int pairs = args.rotated_pairs;
  std::vector<float> reference;
  for (int32_t head = 0; head < model.num_attention_heads; ++head) {
    std::vector<double> x;
    double squares = 0.0;
    for (int d = 0; d < model.head_dim; ++d) {
      x.push_back(static_cast<double>(input[static_cast<size_t>(head * model.head_dim + d)]));
      squares += x.back() * x.back();
    }
    for (size_t d = 0; d < x.size(); ++d) {
      const double mean = squares / model.head_dim;
      x[d] *= static_cast<double>(norm[d]) / std::sqrt(mean + static_cast<double>(args.qk_norm_eps));
    }
    for (int d = 0; d < model.head_dim; ++d) {
      const size_t m = static_cast<size_t>(d % pairs), other = m + static_cast<size_t>(d < pairs ? pairs : 0);
      const double angle = kPosition * static_cast<double>(static_cast<float>(
                                           std::pow(10000.0, -2.0 * static_cast<double>(m) / model.head_dim)));
      const double sign = d < pairs ? -1.0 : 1.0;
      reference.push_back(static_cast<float>(x[static_cast<size_t>(d)] * std::cos(angle) +
                                             sign * x[other] * std::sin(angle)));
    }
  }
  std::vector<float> q = qkv.ToHost();
  q.resize(reference.size());
  bench->Check("prepare qkv, norm and rope", RelativeL2(q, reference), 1e-4);
}

// The kernel for fp32 caches.
void CheckAttentionF32(Bench* bench) {
  const Model model = TinyModel();
  constexpr int64_t kContext = 70;
  StepData step(1, 3, kContext, model.vocab_size, 60);
  const std::vector<float> keys = NormalValues(KvElements(model, step.num_blocks()), 61);
  const std::vector<float> values = NormalValues(KvElements(model, step.num_blocks()), 62);
  const Array<float> key_array(keys), value_array(values);
  const AttentionLayer layer(model);
  const KvMemory unused(2);
  cuda::AttentionArgs args = layer.Args(unused, step.num_blocks(), 0);
  args.cache_is_bf16 = false;
  args.keys = key_array.get();
  args.values = value_array.get();
  const std::vector<float> input = NormalValues(step.rows() * model.qkv_size(), 63);
  const Array<float> qkv(input), out = Poisoned<float>(step.rows() * model.q_size());
  cuda::LaunchAttentionF32(step.device(), args, step.rows(), qkv.get(), {out.get(), nullptr, 0}, Stream());
  std::vector<int32_t> table(static_cast<size_t>(step.num_blocks()));
  Copy(table.data(), step.device().tables, step.num_blocks() * 4);
  std::vector<float> reference;
  for (int64_t r = 0; r < step.rows(); ++r) {
    for (int32_t head = 0; head < model.num_attention_heads; ++head) {
      const auto q = input.begin() + r * model.qkv_size() + head * model.head_dim;
      for (const double value :
           AttendOnHost({q, q + model.head_dim}, keys, values, args, table,
                        static_cast<int32_t>(kContext - step.rows() + r + 1),
                        head / (args.num_heads / args.num_kv_heads))) {
        reference.push_back(static_cast<float>(value));
      }
    }
  }
  bench->Check("attention f32", RelativeL2(out.ToHost(), reference), kF32Limit);
}

}  // namespace

void CheckKernels(Bench* bench) {
  CheckRowKernels(bench);
  CheckGemms(bench);
  for (const int64_t num_tokens : {5, 37, 300}) CheckRouter(bench, num_tokens);
  CheckGrouping(bench);
  CheckPrepare(bench);
  CheckAttentionF32(bench);
  CheckAttention(bench, 5, 1, 21);
  CheckAttention(bench, 3, 1, 700);
  CheckAttention(bench, 2, 45, 45);
  CheckAttention(bench, 1, 70, 300);
}

}  // namespace switchyard::bench
