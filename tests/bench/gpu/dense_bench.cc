// The dense products of a step: q, k and v; the output of attention; the logits.
#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "tests/bench/gpu/bench.h"
#include "tests/bench/gpu/bench_kernels.h"
#include "tests/bench/gpu/device.h"
#include "tests/bench/gpu/moe_layer.h"

namespace switchyard::bench {
namespace {

constexpr int kSets = 4;

struct Shape {
  std::string name;
  int64_t out;
  int64_t in;
};

std::vector<float> Reference(const DenseMatrix& weight, const uint16_t* in, int64_t rows,
                             const std::vector<int32_t>& samples) {
  const Array<float> wide(rows * weight.in), out(static_cast<int64_t>(samples.size()) * weight.out);
  cuda::LaunchToF32(in, weight.stride, rows, weight.in, wide.get(), Stream());
  const Array<int32_t> sources(samples), zeros(std::vector<int32_t>(samples.size(), 0));
  ReferenceLinear(weight.data.get(), zeros.get(), 0, weight.stride, wide.get(), sources.get(), weight.in,
                  static_cast<int64_t>(samples.size()), weight.in, weight.out, out.get());
  return out.ToHost();
}

// Rows `samples` of a result with rows of `stride` elements.
std::vector<float> RowsOf(const float* result, int64_t stride, int64_t cols, const std::vector<int32_t>& samples) {
  std::vector<float> values(samples.size() * static_cast<size_t>(cols));
  for (size_t i = 0; i < samples.size(); ++i) {
    Copy(values.data() + i * static_cast<size_t>(cols), result + samples[i] * stride, cols * 4);
  }
  return values;
}

void MeasureShape(Bench* bench, const Shape& shape, int64_t rows) {
  std::vector<DenseMatrix> weights;
  for (int set = 0; set < kSets; ++set) weights.emplace_back(shape.out, shape.in, static_cast<uint64_t>(set) + 50);
  const Array<uint16_t> in(rows * weights[0].stride);
  FillNormalBf16(in.get(), rows, rows, shape.in, weights[0].stride, 1.0f, 60);
  const Array<float> out(rows * weights[0].rows);
  const auto weight_of = [&](int call) -> const DenseMatrix& { return weights[static_cast<size_t>(call % kSets)]; };

  std::vector<Candidate> candidates;
  const int chosen = cuda::ChooseTileTokens(rows, 1);
  for (const int tile : {8, 16, 32, 64, 128}) {
    if (tile != chosen && (tile * 4 < std::min<int64_t>(rows, 256) || tile > 4 * rows)) continue;
    candidates.push_back({"native/" + std::to_string(tile) + (tile == chosen ? "*" : ""), [&, tile](int call) {
                            RunDense(weight_of(call), in.get(), rows, tile, cuda::GemmOutput::kAssign, out.get());
                          }});
  }
  candidates.push_back({"cublas", [&](int call) { RunDenseCublas(weight_of(call), in.get(), rows, out.get()); }});

  const std::string name = shape.name + " rows=" + std::to_string(rows);
  std::vector<int32_t> samples = {0, static_cast<int32_t>(rows / 2), static_cast<int32_t>(rows - 1)};
  const std::vector<float> reference = Reference(weights[0], in.get(), rows, samples);
  for (const Candidate& candidate : candidates) {
    Poison(out.get(), out.bytes());
    candidate.run(0);
    const int64_t stride = candidate.name == "cublas" ? weights[0].rows : shape.out;
    bench->Check("dense " + name + " " + candidate.name,
                 RelativeL2(RowsOf(out.get(), stride, shape.out, samples), reference));
  }
  const std::vector<Spread> times = TimeSideBySide(candidates, bench->Plan(kSets));
  for (size_t i = 0; i < candidates.size(); ++i) {
    Result result;
    result.section = "dense";
    result.name = name;
    result.provider = candidates[i].name;
    result.us = times[i];
    result.bytes = static_cast<double>(shape.out * shape.in * 2 + rows * (shape.in * 2 + shape.out * 4));
    result.flops = 2.0 * static_cast<double>(rows * shape.out * shape.in);
    result.floor_us = bench->limits.FloorUs(result.bytes, result.flops);
    bench->report.Add(std::move(result));
  }
}

}  // namespace

void MeasureDense(Bench* bench) {
  bench->report.Heading("dense products (* what the backend chooses)");
  const std::vector<int64_t> all = bench->options.tiny    ? std::vector<int64_t>{1, 9}
                                   : bench->options.quick ? std::vector<int64_t>{1, 32}
                                                          : std::vector<int64_t>{1, 8, 32, 128, 2048};
  for (const Model& model : bench->models()) {
    const Shape shapes[] = {{model.name + " qkv", model.qkv_size(), model.hidden_size},
                            {model.name + " o", model.hidden_size, model.q_size()},
                            {model.name + " lm_head", model.vocab_size, model.hidden_size}};
    for (const Shape& shape : shapes) {
      for (const int64_t rows : all) {
        // A step asks for the logits of a few rows only.
        if (shape.out != model.vocab_size || rows <= 256) MeasureShape(bench, shape, rows);
      }
    }
  }
}

}  // namespace switchyard::bench
