// Attention over the KV cache: decode at several lengths, and prefill of one sequence.
#include <algorithm>
#include <memory>
#include <set>
#include <tuple>
#include <utility>

#include "tests/bench/gpu/attention_layer.h"
#include "tests/bench/gpu/bench.h"
#include "tests/bench/gpu/bench_kernels.h"
#include "tests/bench/gpu/device.h"

namespace switchyard::bench {
namespace {

constexpr int64_t kRotatedBytes = int64_t{512} << 20;  // many times the L2 cache
constexpr int64_t kMaxSets = 128;

struct Case {
  int64_t sequences;
  int64_t new_tokens;
  int64_t context;
};

std::vector<Case> CasesOf(const Options& options) {
  if (options.tiny) return {{1, 1, 70}, {3, 1, 300}, {1, 40, 40}, {2, 5, 20}};
  std::vector<Case> cases;
  for (const int64_t sequences : {1, 8, 32, 64}) {
    for (const int64_t context : {1024, 8192, 32768}) {
      if (!options.quick || context == 1024 || sequences == 32) cases.push_back({sequences, 1, context});
    }
  }
  cases.push_back({1, 2048, 2048});
  if (!options.quick) cases.push_back({1, 8192, 8192});
  return cases;
}

class AttentionSection {
 public:
  AttentionSection(Bench* bench, const Model& model)
      : bench_(bench), model_(model), layer_(model), memory_(bench->options.tiny ? 1 << 14 : kPartialFloats) {
    int64_t elements = 0;
    for (const Case& c : CasesOf(bench->options)) elements = std::max(elements, SetsOf(c) * Elements(c));
    kv_ = std::make_unique<KvMemory>(elements);
  }

  void Run(const Case& c) {
    StepData step(c.sequences, c.new_tokens, c.context, model_.vocab_size, 90);
    const Array<float> qkv(step.rows() * model_.qkv_size()), out(step.rows() * model_.q_size());
    const int64_t stride = cuda::RoundUp(model_.q_size(), cuda::kTileK);
    const Array<uint16_t> out_bf16(step.rows() * stride);
    FillNormalF32(qkv.get(), qkv.size(), 0.0f, 1.0f, 91);
    const int64_t sets = SetsOf(c);
    const auto run = [&](int call) {
      RunAttention(&step, layer_.Args(*kv_, step.num_blocks(), call % sets), qkv.get(), memory_,
                   {out.get(), out_bf16.get(), stride});
    };
    Poison(out.get(), out.bytes());
    run(0);
    const cuda::AttentionArgs args = layer_.Args(*kv_, step.num_blocks(), 0);
    bench_->Check("attention " + Name(c), AttentionError(step, args, qkv.get(), out.get()));
    Add(c, step, TimeSideBySide({{"native", run}}, bench_->Plan(static_cast<int>(sets)))[0]);
  }

 private:
  int64_t Elements(const Case& c) const {
    return KvElements(model_, c.sequences * cuda::CeilDiv(c.context, kBlockSize));
  }
  int64_t SetsOf(const Case& c) const {
    if (bench_->options.tiny) return 2;
    return std::clamp<int64_t>(cuda::CeilDiv(kRotatedBytes, Elements(c) * 4), 1, kMaxSets);
  }
  std::string Name(const Case& c) const {
    const std::string kind = c.new_tokens == 1 ? " decode B=" : " prefill B=";
    return model_.name + kind + std::to_string(c.sequences) + " context " + std::to_string(c.context);
  }

  void Add(const Case& c, const StepData& step, const Spread& us) {
    Result result;
    result.section = "attention";
    result.name = Name(c);
    result.provider = "native";
    result.us = us;
    result.bytes = static_cast<double>(c.sequences * c.context * model_.kv_size()) * 4;
    result.flops = 4.0 * step.num_pairs() * static_cast<double>(model_.q_size());
    result.floor_us = bench_->limits.FloorUs(result.bytes, result.flops);
    bench_->report.Add(std::move(result));
  }

  Bench* const bench_;
  const Model model_;
  const AttentionLayer layer_;
  const DecodeMemory memory_;
  std::unique_ptr<KvMemory> kv_;
};

}  // namespace

void MeasureAttention(Bench* bench) {
  bench->report.Heading("attention");
  std::set<std::tuple<int32_t, int32_t, int32_t>> seen;  // two of the models have the same heads
  for (const Model& model : bench->models()) {
    if (!seen.insert({model.num_attention_heads, model.num_key_value_heads, model.head_dim}).second) continue;
    AttentionSection section(bench, model);
    for (const Case& c : CasesOf(bench->options)) section.Run(c);
  }
}

}  // namespace switchyard::bench
