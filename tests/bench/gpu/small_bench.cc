// The kernels between the products: each a few microseconds, but a dozen of them per layer.
#include "tests/bench/gpu/attention_layer.h"
#include "tests/bench/gpu/bench.h"
#include "tests/bench/gpu/bench_kernels.h"
#include "tests/bench/gpu/device.h"
#include "tests/bench/gpu/moe_layer.h"

namespace switchyard::bench {
namespace {

constexpr int64_t kContext = 1024;

struct Kernel {
  Candidate candidate;
  double bytes;
};

void MeasureKernel(Bench* bench, const Model& model, int64_t rows, const Kernel& kernel) {
  Result result;
  result.section = "small";
  result.name = model.name + " rows=" + std::to_string(rows);
  result.provider = kernel.candidate.name;
  result.us = TimeSideBySide({kernel.candidate}, {1, bench->budget() / 4, bench->options.tiny ? 1 : 20})[0];
  result.bytes = kernel.bytes;
  result.floor_us = bench->limits.FloorUs(result.bytes, 0.0);
  bench->report.Add(std::move(result));
}

void MeasureRows(Bench* bench, const Model& model, int64_t rows) {
  const bool tiny = bench->options.tiny;
  StepData step(rows, 1, tiny ? 20 : kContext, model.vocab_size, 100);
  const KvMemory kv(KvElements(model, step.num_blocks()));
  const AttentionLayer attention(model);
  const cuda::AttentionArgs args = attention.Args(kv, step.num_blocks(), 0);
  const int64_t d = model.hidden_size, stride = cuda::RoundUp(d, cuda::kTileK);
  MoeBuffers buffers(model, rows);
  Model routed = model;  // without the experts' own matrices
  routed.moe_intermediate_size = 8;
  const ExpertMatrices experts(routed, 101);
  RoutedBatch batch(model, rows);
  batch.Use(DrawRouting(model, rows, Skew::kUniform, 0));
  const int tile = cuda::ChooseTileTokens(rows * model.top_k, model.num_experts);
  batch.Group(tile);
  FillNormalBf16(buffers.rows_out.get(), 1, 1, buffers.rows_out.size(), buffers.rows_out.size(), 1.0f, 102);
  const Array<uint16_t> table(model.vocab_size * d);
  FillNormalBf16(table.get(), 1, 1, table.size(), table.size(), 0.02f, 103);
  const Array<float> norm(d), qkv(rows * model.qkv_size()), out(rows * d);
  const Array<float> gate_up(rows * 2 * model.moe_intermediate_size);
  FillNormalF32(norm.get(), d, 1.0f, 0.1f, 104);
  FillNormalF32(qkv.get(), qkv.size(), 0.0f, 1.0f, 105);
  FillNormalF32(gate_up.get(), gate_up.size(), 0.0f, 1.0f, 106);
  cuda::GateUpInput silu_in;
  silu_in.f32 = gate_up.get();
  silu_in.stride = 2 * model.moe_intermediate_size;
  const cuda::Planes product = {nullptr, buffers.product.get(),
                                cuda::RoundUp(model.moe_intermediate_size, cuda::kTileK)};

  const double r = static_cast<double>(rows), cols = static_cast<double>(d);
  const double choices = r * model.top_k, experts_d = static_cast<double>(model.num_experts) * cols;
  const std::vector<Kernel> kernels = {
      {{"embed", [&](int) { cuda::LaunchEmbed(step.device(), rows, table.get(), true, d, d, out.get(), Stream()); }},
       r * cols * 6},
      {{"rms_norm", [&](int) {
          cuda::LaunchRmsNorm(buffers.x.get(), norm.get(), 1e-6f, rows, d, {out.get(), buffers.h.get(), stride},
                              Stream());
        }},
       r * cols * 10},
      {{"prepare_qkv", [&](int) { cuda::LaunchPrepareQkv(step.device(), args, rows, qkv.get(), Stream()); }},
       r * (8.0 * static_cast<double>(model.qkv_size()) + 4.0 * static_cast<double>(model.kv_size()))},
      {{"route", [&](int) { RunRoute(model, experts, rows, &buffers); }}, 4 * (r * cols + experts_d)},
      {{"group_by_expert", [&](int) { batch.Group(tile); }}, choices * 12},
      {{"combine", [&](int) { RunCombine(model, batch, batch.weights(), rows, &buffers); }},
       r * cols * 8 + choices * cols * 2},
      {{"silu_mul", [&](int) {
          cuda::LaunchSiluMul(silu_in, rows, model.moe_intermediate_size, product, Stream());
        }},
       r * 10.0 * static_cast<double>(model.moe_intermediate_size)},
      {{"select_rows", [&](int) {
          cuda::LaunchSelectRows(step.device(), buffers.x.get(), rows, d, out.get(), Stream());
        }},
       r * cols * 8}};
  for (const Kernel& kernel : kernels) MeasureKernel(bench, model, rows, kernel);
}

// Logits as of a model: most near their mean, a few far above it. The floor is reading them once.
void MeasureSampling(Bench* bench, const Model& model, int64_t rows) {
  const int64_t ids = model.vocab_size;
  const Array<float> logits(rows * ids);
  FillNormalF32(logits.get(), logits.size(), 0.0f, 2.5f, 107);
  const Array<cuda::StepCounts> counts(std::vector<cuda::StepCounts>{{0, 0, 0, static_cast<int32_t>(rows)}});
  const Array<int32_t> tokens(rows);
  struct Case {
    const char* name;
    float temperature, top_p;
    int32_t top_k;
  };
  for (const Case& c : {Case{"sample greedy", 0.0f, 1.0f, 0}, Case{"sample all", 0.7f, 1.0f, 0},
                        Case{"sample top-p", 0.7f, 0.9f, 0}, Case{"sample top-k", 0.7f, 1.0f, 50},
                        Case{"sample flat top-p", 5.0f, 0.9f, 0}}) {
    std::vector<RowSampling> sampling(static_cast<size_t>(rows));
    for (size_t r = 0; r < sampling.size(); ++r) {
      sampling[r] = {.seed = r, .position = 1, .temperature = c.temperature, .top_p = c.top_p, .min_p = 0.0f,
                     .top_k = c.top_k};
    }
    const Array<RowSampling> on_device(sampling);
    cuda::DeviceStep step = {};
    step.counts = counts.get();
    step.sampling = on_device.get();
    const auto run = [&](int) {
      cuda::LaunchSampleTokens(step, logits.get(), rows, ids, ids, tokens.get(), Stream());
    };
    MeasureKernel(bench, model, rows, {{c.name, run}, 4.0 * static_cast<double>(rows * ids)});
  }
}

}  // namespace

void MeasureSmall(Bench* bench) {
  bench->report.Heading("small kernels (their inputs may stay in the L2 cache, as in a step)");
  for (const Model& model : bench->models()) {
    for (const int64_t rows : bench->options.tiny ? std::vector<int64_t>{1, 9} : std::vector<int64_t>{1, 64, 2048}) {
      MeasureRows(bench, model, rows);
      if (rows <= 64) MeasureSampling(bench, model, rows);
    }
  }
}

}  // namespace switchyard::bench
