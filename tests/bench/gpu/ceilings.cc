// What this device can do at most: bytes read per second, and bf16 products per second.
#include <cmath>

#include "tests/bench/gpu/bench.h"
#include "tests/bench/gpu/bench_kernels.h"
#include "tests/bench/gpu/device.h"
#include "tests/bench/gpu/moe_layer.h"

namespace switchyard::bench {
namespace {

void MeasureBandwidth(Bench* bench) {
  const int64_t bytes = bench->options.tiny ? 1 << 16 : int64_t{6} << 30;
  const Array<uint16_t> data(bytes / 2);
  const Array<uint32_t> sink(1);
  FillNormalBf16(data.get(), 1, 1, bytes / 2, bytes / 2, 0.02f, 3);
  const std::vector<Candidate> candidates = {{"read", [&](int) { ReadAll(data.get(), bytes, sink.get()); }}};
  TimingPlan plan = bench->Plan(1);
  plan.max_calls = 4;
  plan.seconds *= 4;
  Result result;
  result.section = "ceilings";
  result.name = "read " + std::to_string(bytes >> 20) + " MiB";
  result.provider = "own kernel";
  result.us = TimeSideBySide(candidates, plan)[0];
  result.bytes = static_cast<double>(bytes);
  bench->limits.bandwidth = result.bytes / (1e-6 * result.us.median);
  bench->report.Add(result);
}

void MeasureGemm(Bench* bench) {
  const int64_t n = bench->options.tiny ? 64 : 8192;
  constexpr int kSets = 2;  // 128 MiB each: more than the L2 cache
  std::vector<Array<uint16_t>> a, b;
  for (int i = 0; i < kSets; ++i) {
    for (std::vector<Array<uint16_t>>* matrices : {&a, &b}) {
      matrices->emplace_back(n * n);
      FillNormalBf16(matrices->back().get(), n, n, n, n, 1.0f, static_cast<uint64_t>(10 + i));
    }
  }
  const Array<uint16_t> c(n * n);
  const float one = 1.0f, zero = 0.0f;
  const auto multiply = [&](int call) {
    const int size = static_cast<int>(n);
    const size_t set = static_cast<size_t>(call % kSets);
    CUBLAS_OK(cublasGemmEx(TheDevice().cublas, CUBLAS_OP_T, CUBLAS_OP_N, size, size, size, &one, a[set].get(),
                           CUDA_R_16BF, size, b[set].get(), CUDA_R_16BF, size, &zero, c.get(), CUDA_R_16BF, size,
                           CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT));
  };
  TimingPlan plan = bench->Plan(kSets);
  plan.seconds *= 8;
  Result result;
  result.section = "ceilings";
  result.name = "bf16 GEMM " + std::to_string(n) + "^3";
  result.provider = "cublas";
  result.us = TimeSideBySide({{"cublas", multiply}}, plan)[0];
  result.flops = 2.0 * std::pow(static_cast<double>(n), 3);
  bench->limits.flops = result.flops / (1e-6 * result.us.median);
  bench->report.Add(result);
}

}  // namespace

void MeasureCeilings(Bench* bench) {
  bench->report.Heading("ceilings");
  MeasureBandwidth(bench);
  MeasureGemm(bench);
}

}  // namespace switchyard::bench
