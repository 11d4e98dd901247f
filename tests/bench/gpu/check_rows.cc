// rowwise.cu and expert_rows.cu against plain loops.
#include "engine/backend/cuda/kernels.h"
#include "tests/bench/gpu/bench_kernels.h"
#include "tests/bench/gpu/check.h"
#include "tests/bench/gpu/moe_layer.h"

namespace switchyard::bench {
namespace {

using cuda::Planes;

constexpr int64_t kRows = 5, kCols = 300, kStride = 320;
constexpr double kEps = 1e-6;

size_t At(int64_t row, int64_t col) { return static_cast<size_t>(row * kCols + col); }

// Runs `launch` into both planes and compares them.
template <typename Launch>
void CheckPlanes(Bench* bench, const char* name, const std::vector<float>& reference, const Launch& launch) {
  const Array<float> f32 = Poisoned<float>(kRows * kCols);
  const Array<uint16_t> bf16 = Poisoned<uint16_t>(kRows * kStride);
  launch(Planes{f32.get(), bf16.get(), kStride});
  bench->Check(name, RelativeL2(f32.ToHost(), reference), kF32Limit);
  bench->Check(std::string(name) + ", bf16 plane",
               RelativeL2(ToFloat(bf16.ToHost()), Padded(reference, kCols, kStride)), kBf16Limit);
}

std::vector<float> Norm(const std::vector<float>& in, const std::vector<float>& weight, const std::vector<float>& bias,
                        bool centered) {
  std::vector<float> out;
  for (int64_t r = 0; r < kRows; ++r) {
    double mean = 0.0, squares = 0.0;
    for (int64_t c = 0; centered && c < kCols; ++c) mean += static_cast<double>(in[At(r, c)]) / kCols;
    for (int64_t c = 0; c < kCols; ++c) squares += std::pow(static_cast<double>(in[At(r, c)]) - mean, 2);
    const double scale = 1.0 / std::sqrt(squares / kCols + kEps);
    for (int64_t c = 0; c < kCols; ++c) {
      const size_t i = static_cast<size_t>(c);
      out.push_back(static_cast<float>((static_cast<double>(in[At(r, c)]) - mean) * scale) * weight[i] +
                    (centered ? bias[i] : 0.0f));
    }
  }
  return out;
}

void CheckNorms(Bench* bench, const std::vector<float>& in, const Array<float>& x) {
  const std::vector<float> weight = NormalValues(kCols, 2), bias = NormalValues(kCols, 3);
  const Array<float> w(weight), b(bias);
  CheckPlanes(bench, "rms norm", Norm(in, weight, bias, false), [&](Planes out) {
    cuda::LaunchRmsNorm(x.get(), w.get(), static_cast<float>(kEps), kRows, kCols, out, Stream());
  });
  CheckPlanes(bench, "layer norm", Norm(in, weight, bias, true), [&](Planes out) {
    cuda::LaunchLayerNorm(x.get(), w.get(), b.get(), static_cast<float>(kEps), kRows, kCols, out, Stream());
  });
}

void CheckSiluMul(Bench* bench) {
  constexpr int64_t kInStride = 640;
  const std::vector<float> values = NormalValues(kRows * kInStride, 4);
  const Array<float> f32(values);
  const Array<uint16_t> bf16(ToBf16(values));
  for (const bool interleaved : {false, true}) {
    std::vector<float> reference;
    for (int64_t r = 0; r < kRows; ++r) {
      for (int64_t c = 0; c < kCols; ++c) {
        const float gate = values[static_cast<size_t>(r * kInStride + (interleaved ? cuda::GateUpRow(c, 0) : c))];
        const float up = values[static_cast<size_t>(r * kInStride + (interleaved ? cuda::GateUpRow(c, 1) : kCols + c))];
        reference.push_back(gate / (1.0f + std::exp(-gate)) * up);
      }
    }
    for (const bool from_bf16 : {false, true}) {
      cuda::GateUpInput in;
      in.stride = kInStride;
      in.interleaved = interleaved;
      if (from_bf16) {
        in.bf16 = bf16.get();
      } else {
        in.f32 = f32.get();
      }
      CheckPlanes(bench, interleaved ? "silu mul, interleaved" : "silu mul", reference,
                  [&](Planes out) { cuda::LaunchSiluMul(in, kRows, kCols, out, Stream()); });
    }
  }
}

void CheckCopies(Bench* bench, const std::vector<float>& in, const Array<float>& x) {
  const Array<uint16_t> bf16 = Poisoned<uint16_t>(kRows * kStride);
  cuda::LaunchToBf16(x.get(), kRows, kCols, bf16.get(), kStride, Stream());
  bench->Check("to bf16", RelativeL2(ToFloat(bf16.ToHost()), Padded(in, kCols, kStride)), kF32Limit);
  const Array<float> back = Poisoned<float>(kRows * kCols);
  cuda::LaunchToF32(bf16.get(), kStride, kRows, kCols, back.get(), Stream());
  bench->Check("to f32", RelativeL2(back.ToHost(), in), kF32Limit);

  // Ids 4, 2, 0, 3, 1 into a table of five rows; then rows 3 and 1 of the result.
  const std::vector<int32_t> ids = {4, 2, 0, 3, 1};
  const Array<int32_t> id_array(ids), chosen(std::vector<int32_t>{3, 1});
  const Array<cuda::StepCounts> counts(std::vector<cuda::StepCounts>{{kRows, 2, 0}});
  cuda::DeviceStep step = {};
  step.counts = counts.get();
  step.ids = id_array.get();
  step.logit_rows = chosen.get();
  std::vector<float> rows, selected;
  for (const int32_t id : ids) rows.insert(rows.end(), in.begin() + id * kCols, in.begin() + (id + 1) * kCols);
  for (const int32_t r : {3, 1}) selected.insert(selected.end(), in.begin() + r * kCols, in.begin() + (r + 1) * kCols);
  for (const bool from_bf16 : {false, true}) {
    const Array<float> out = Poisoned<float>(kRows * kCols);
    cuda::LaunchEmbed(step, kRows, from_bf16 ? static_cast<const void*>(bf16.get()) : x.get(), from_bf16,
                      from_bf16 ? kStride : kCols, kCols, out.get(), Stream());
    bench->Check("embed", RelativeL2(out.ToHost(), rows), kF32Limit);
  }
  const Array<float> out = Poisoned<float>(2 * kCols);
  cuda::LaunchSelectRows(step, x.get(), 2, kCols, out.get(), Stream());
  bench->Check("select rows", RelativeL2(out.ToHost(), selected), kF32Limit);
}

void CheckScaleAndGate(Bench* bench, const std::vector<float>& in, const Array<float>& x) {
  const std::vector<float> gate = NormalValues(kCols, 5), values = NormalValues(kRows * kCols, 6);
  const Array<float> g(gate), v(values), out(in);
  std::vector<float> reference = in;
  for (int64_t r = 0; r < kRows; ++r) {
    double sum = 0.0;
    for (int64_t c = 0; c < kCols; ++c) {
      sum += static_cast<double>(in[At(r, c)]) * static_cast<double>(gate[static_cast<size_t>(c)]);
    }
    for (int64_t c = 0; c < kCols; ++c) {
      reference[At(r, c)] += values[At(r, c)] / (1.0f + static_cast<float>(std::exp(-sum)));
    }
  }
  cuda::LaunchAddGated(x.get(), g.get(), kCols, v.get(), kRows, kCols, out.get(), Stream());
  bench->Check("add gated", RelativeL2(out.ToHost(), reference), kF32Limit);
  for (float& value : reference) value *= 0.5f;
  cuda::LaunchScale(0.5f, kRows * kCols, out.get(), Stream());
  bench->Check("scale", RelativeL2(out.ToHost(), reference), kF32Limit);
}

void CheckCounts(Bench* bench) {
  std::vector<float> values = NormalValues(5000, 7);
  values[7] = NAN;
  values[4999] = INFINITY;
  const Array<float> f32(values);
  const Array<uint16_t> bf16(ToBf16(values));
  const Array<unsigned long long> found(1);
  Clear(found.get(), found.bytes());
  cuda::LaunchCountNonfinite(f32.get(), false, f32.size(), found.get(), Stream());
  cuda::LaunchCountNonfinite(bf16.get(), true, bf16.size(), found.get(), Stream());
  bench->Check("count nonfinite", std::abs(static_cast<double>(found.ToHost()[0]) - 4.0), 0.5);
}

// Rows 0, 1 are of expert 0 (tokens 2, 4), row 2 of expert 2 (token 1); expert 1 has none.
void CheckExpertRows(Bench* bench, const std::vector<float>& in, const Array<float>& x) {
  const std::vector<int32_t> tokens = {2, 4, 1}, experts = {0, 0, 2};
  const std::vector<float> weights = {0.5f, 2.0f, -1.0f};
  const Array<int32_t> row_to_token(tokens), offsets(std::vector<int32_t>{0, 2, 2, 3});
  const Array<float> row_weights(weights);
  const int32_t* const num_rows = offsets.get() + 3;
  const Array<uint16_t> bits(ToBf16(in));
  std::vector<float> gathered, weighed, padded;
  const std::vector<float> all = NormalValues(3 * kRows * kCols, 8);  // [experts][tokens]
  for (size_t r = 0; r < tokens.size(); ++r) {
    for (int64_t c = 0; c < kCols; ++c) {
      gathered.push_back(in[At(tokens[r], c)]);
      weighed.push_back(in[At(tokens[r], c)] * weights[r]);
      padded.push_back(all[At(experts[r] * kRows + tokens[r], c)]);
    }
  }
  const auto wide = [](const std::vector<float>& values) { return Padded(values, kCols, kStride); };
  const Array<float> out = Poisoned<float>(3 * kStride);
  const Array<uint16_t> out_bf16 = Poisoned<uint16_t>(3 * kStride);
  cuda::LaunchGatherRows(x.get(), DType::kF32, kCols, kCols, row_to_token.get(), num_rows, 3, kStride, out.get(),
                         Stream());
  bench->Check("gather rows", RelativeL2(out.ToHost(), wide(gathered)), kF32Limit);
  cuda::LaunchGatherRows(bits.get(), DType::kBF16, kCols, kCols, row_to_token.get(), num_rows, 3, kStride,
                         out_bf16.get(), Stream());
  bench->Check("gather rows, bf16", RelativeL2(ToFloat(out_bf16.ToHost()), wide(gathered)), kF32Limit);
  cuda::LaunchWeighRows(x.get(), kCols, row_to_token.get(), row_weights.get(), num_rows, 3, DType::kF32, kStride,
                        out.get(), Stream());
  bench->Check("weigh rows", RelativeL2(out.ToHost(), wide(weighed)), kF32Limit);
  cuda::LaunchWeighRows(x.get(), kCols, row_to_token.get(), row_weights.get(), num_rows, 3, DType::kBF16, kStride,
                        out_bf16.get(), Stream());
  bench->Check("weigh rows, bf16", RelativeL2(ToFloat(out_bf16.ToHost()), wide(weighed)), kBf16Limit);
  const Array<float> all_f32(all);
  const Array<uint16_t> all_bf16(ToBf16(all));
  cuda::LaunchGatherPadded(all_f32.get(), DType::kF32, kCols, kRows, offsets.get(), 3, row_to_token.get(), 3, kCols,
                           {out.get(), nullptr, 0}, kStride, Stream());
  bench->Check("gather padded", RelativeL2(out.ToHost(), wide(padded)), kF32Limit);
  cuda::LaunchGatherPadded(all_bf16.get(), DType::kBF16, kCols, kRows, offsets.get(), 3, row_to_token.get(), 3, kCols,
                           {nullptr, out_bf16.get(), kStride}, kStride, Stream());
  bench->Check("gather padded, bf16", RelativeL2(ToFloat(out_bf16.ToHost()), wide(padded)), kF32Limit);
}

// The benchmark's own data: deviation, padding, and that elements differ.
void CheckFill(Bench* bench) {
  constexpr int64_t kFillRows = 20, kPaddedRows = 24;
  const Array<uint16_t> bf16 = Poisoned<uint16_t>(kPaddedRows * kStride);
  FillNormalBf16(bf16.get(), kFillRows, kPaddedRows, kCols, kStride, 0.5f, 9);
  const std::vector<float> values = ToFloat(bf16.ToHost());
  double squares = 0.0, padding = 0.0;
  for (size_t i = 0; i < values.size(); ++i) {
    const bool real = static_cast<int64_t>(i) / kStride < kFillRows && static_cast<int64_t>(i) % kStride < kCols;
    (real ? squares : padding) += static_cast<double>(values[i]) * static_cast<double>(values[i]);
  }
  bench->Check("fill, deviation", std::abs(std::sqrt(squares / (kFillRows * kCols)) / 0.5 - 1.0), 0.05);
  bench->Check("fill, padding", std::isfinite(padding) ? padding : 1.0, 1e-30);
}

}  // namespace

void CheckRowKernels(Bench* bench) {
  const std::vector<float> in = NormalValues(kRows * kCols, 1);
  const Array<float> x(in);
  CheckFill(bench);
  CheckNorms(bench, in, x);
  CheckSiluMul(bench);
  CheckCopies(bench, in, x);
  CheckScaleAndGate(bench, in, x);
  CheckCounts(bench);
  CheckExpertRows(bench, in, x);
}

}  // namespace switchyard::bench
