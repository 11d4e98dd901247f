#include "tests/bench/gpu/moe_layer.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <limits>

#include "engine/backend/cuda/tensor_map.h"
#include "engine/backend/cuda/wgmma_gemm.h"
#include "tests/bench/gpu/bench_kernels.h"

namespace switchyard::bench {
namespace {

using cuda::RoundUp;

constexpr float kWeightSigma = 0.02f;

cuda::Planes Bf16Planes(uint16_t* data, int64_t stride) { return {nullptr, data, stride}; }

// Tokens whose results are compared: the first, the last and some between.
std::vector<int32_t> SampleTokens(int64_t num_tokens) {
  std::vector<int32_t> tokens;
  for (int64_t i = 0; i < 6; ++i) tokens.push_back(static_cast<int32_t>(i * (num_tokens - 1) / 5));
  tokens.erase(std::unique(tokens.begin(), tokens.end()), tokens.end());
  return tokens;
}

// silu(gate) * up of rows whose features lie as in an expert's matrix.
std::vector<float> Activate(const std::vector<float>& gate_up, int64_t rows, int64_t in_stride, int64_t features) {
  std::vector<float> product;
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t f = 0; f < features; ++f) {
      const float gate = gate_up[static_cast<size_t>(r * in_stride + cuda::GateUpRow(f, 0))];
      const float up = gate_up[static_cast<size_t>(r * in_stride + cuda::GateUpRow(f, 1))];
      product.push_back(gate / (1.0f + std::exp(-gate)) * up);
    }
  }
  return product;
}

}  // namespace

void MapWeight(const void* weight, int64_t rows, int64_t k, CUtensorMap* map) {
  static const cuda::TensorMapEncoder encode = cuda::FindTensorMapEncoder();
  const int error = encode == nullptr ? -1 : static_cast<int>(cuda::MakeWeightMap(encode, weight, rows, k, map));
  if (error == 0) return;
  std::fprintf(stderr, "cuTensorMapEncodeTiled: CUDA driver error %d\n", error);
  std::exit(1);
}

double RelativeL2(const std::vector<float>& values, const std::vector<float>& reference) {
  double error = 0.0, norm = 0.0;
  for (size_t i = 0; i < reference.size(); ++i) {
    const double difference = static_cast<double>(values[i]) - static_cast<double>(reference[i]);
    error += difference * difference;
    norm += static_cast<double>(reference[i]) * static_cast<double>(reference[i]);
  }
  const double result = std::sqrt(error / norm);
  return std::isfinite(result) ? result : std::numeric_limits<double>::infinity();
}

// ---- dense ----

DenseMatrix::DenseMatrix(int64_t out_features, int64_t in_features, uint64_t seed)
    : out(out_features), in(in_features), rows(RoundUp(out_features, cuda::kWideTileOut)),
      stride(RoundUp(in_features, cuda::kTileK)), data(rows * stride) {
  FillNormalBf16(data.get(), out, rows, in, stride, kWeightSigma, seed);
}

void RunDense(const DenseMatrix& weight, const uint16_t* in, int64_t rows, int tile_tokens, cuda::GemmOutput output,
              float* out) {
  cuda::GroupedGemm gemm;
  gemm.weight = weight.data.get();
  gemm.weight_rows = weight.rows;
  gemm.k = gemm.in_stride = weight.stride;
  gemm.out_cols = gemm.out_stride = weight.out;
  gemm.in = in;
  gemm.in_cols = weight.in;
  gemm.output = output;
  gemm.out.f32 = out;
  gemm.dense_rows = rows;
  gemm.max_tiles = cuda::CeilDiv(rows, tile_tokens);
  cuda::LaunchGemmBf16(gemm, tile_tokens, TheDevice().num_multiprocessors, Stream());
}

void RunDenseCublas(const DenseMatrix& weight, const uint16_t* in, int64_t rows, float* out) {
  const float one = 1.0f, zero = 0.0f;
  const int m = static_cast<int>(weight.rows), n = static_cast<int>(rows), k = static_cast<int>(weight.stride);
  CUBLAS_OK(cublasGemmEx(TheDevice().cublas, CUBLAS_OP_T, CUBLAS_OP_N, m, n, k, &one, weight.data.get(), CUDA_R_16BF, k,
                         in, CUDA_R_16BF, k, &zero, out, CUDA_R_32F, m, CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT));
}

// ---- data ----

ExpertMatrices::ExpertMatrices(const Model& model, uint64_t seed)
    : hidden(model.hidden_size), intermediate(model.moe_intermediate_size),
      gate_up_rows(RoundUp(cuda::GateUpRows(intermediate), cuda::kWideTileOut)),
      hidden_stride(RoundUp(hidden, cuda::kTileK)), down_rows(RoundUp(hidden, cuda::kWideTileOut)),
      intermediate_stride(RoundUp(intermediate, cuda::kTileK)), num_experts(model.num_experts),
      gate_up(num_experts * gate_up_rows * hidden_stride), down(num_experts * down_rows * intermediate_stride),
      router(num_experts * hidden) {
  for (int64_t e = 0; e < num_experts; ++e) {
    const uint64_t expert_seed = seed * 4096 + static_cast<uint64_t>(e) * 2;
    FillNormalBf16(gate_up.get() + e * gate_up_rows * hidden_stride, cuda::GateUpRows(intermediate), gate_up_rows,
                   hidden, hidden_stride, kWeightSigma, expert_seed);
    FillNormalBf16(down.get() + e * down_rows * intermediate_stride, hidden, down_rows, intermediate,
                   intermediate_stride, kWeightSigma, expert_seed + 1);
  }
  FillNormalF32(router.get(), router.size(), 0.0f, kWeightSigma, seed * 4096 + 4095);
  if (!TheDevice().has_wgmma) return;
  MapWeight(gate_up.get(), num_experts * gate_up_rows, hidden_stride, &gate_up_map);
  MapWeight(down.get(), num_experts * down_rows, intermediate_stride, &down_map);
}

int64_t ExpertMatrices::Bytes(const Model& model) {
  return model.num_experts * (model.expert_parameters() * 2 + model.hidden_size * 4);
}

RoutedBatch::RoutedBatch(const Model& model, int64_t max_tokens)
    : num_experts_(model.num_experts), top_k_(model.top_k), max_rows_(max_tokens * model.top_k),
      memory_(num_experts_ + 1 + 2 * max_rows_) {
  int32_t* const base = memory_.get();
  device_ = {base, base + num_experts_ + 1, base + num_experts_ + 1 + max_rows_, nullptr};
}

void RoutedBatch::Use(RoutingDraw draw) {
  draw_ = std::move(draw);
  ids_ = Array<int32_t>(draw_.ids);
  weights_ = Array<float>(draw_.weights);
}

cuda::ExpertPlan RoutedBatch::Plan(int tile_tokens) {
  PlanMemory& memory = plans_[tile_tokens];
  if (memory.tiles.size() == 0) {
    memory.tiles = Array<cuda::ExpertTile>(cuda::MaxExpertTiles(max_rows_, num_experts_, tile_tokens) + 1);
    memory.num_tiles = Array<int32_t>(1);
    memory.times = Array<unsigned long long>(2 * num_experts_);
  }
  return {memory.tiles.get(), memory.num_tiles.get(), memory.times.get(), memory.times.get() + num_experts_};
}

void RoutedBatch::Group(int tile_tokens, const int32_t* ids, int64_t tokens, const cuda::StepCounts* counts) {
  cuda::LaunchGroupByExpert(counts, ids, nullptr, tokens, top_k_, num_experts_, tile_tokens, Plan(tile_tokens), device_,
                            Stream());
}

std::vector<int32_t> RoutedBatch::Offsets() const {
  std::vector<int32_t> offsets(static_cast<size_t>(num_experts_) + 1);
  Copy(offsets.data(), device_.expert_offsets, static_cast<int64_t>(offsets.size()) * 4);
  return offsets;
}

MoeBuffers::MoeBuffers(const Model& model, int64_t max_tokens)
    : h(max_tokens * RoundUp(model.hidden_size, cuda::kTileK)), h_f32(max_tokens * model.hidden_size),
      x0(max_tokens * model.hidden_size), x(max_tokens * model.hidden_size),
      product(max_tokens * model.top_k * RoundUp(model.moe_intermediate_size, cuda::kTileK)),
      rows_out(max_tokens * model.top_k * RoundUp(model.hidden_size, cuda::kTileK)),
      router_scratch(cuda::RouterScratchBytes(max_tokens, model.num_experts)),
      routing_memory_(2 * max_tokens * model.top_k + 2 * max_tokens + model.num_experts), squared_logsumexp_sum_(1) {
  Clear(router_scratch.get(), router_scratch.bytes());
  const int64_t stride = RoundUp(model.hidden_size, cuda::kTileK);
  FillNormalBf16(h.get(), max_tokens, max_tokens, model.hidden_size, stride, 1.0f, 71);
  cuda::LaunchToF32(h.get(), stride, max_tokens, model.hidden_size, h_f32.get(), Stream());
  FillNormalF32(x0.get(), x0.size(), 0.0f, 1.0f, 72);
  ResetX();
  const int64_t choices = max_tokens * model.top_k;
  float* const base = routing_memory_.get();
  routing.expert_ids = reinterpret_cast<int32_t*>(base);
  routing.expert_weights = base + choices;
  routing.margins = base + 2 * choices;
  routing.logsumexps = routing.margins + max_tokens;
  routing.probability_sums = routing.logsumexps + max_tokens;
  routing.squared_logsumexp_sum = squared_logsumexp_sum_.get();
}

void MoeBuffers::ResetX() {
  CUDA_OK(cudaMemcpyAsync(x.get(), x0.get(), static_cast<size_t>(x.bytes()), cudaMemcpyDeviceToDevice, Stream()));
}

void MoeBuffers::PoisonRows() {
  Poison(product.get(), product.bytes());
  Poison(rows_out.get(), rows_out.bytes());
}

// ---- the layer ----

void RunRoute(const Model& model, const ExpertMatrices& experts, int64_t tokens, MoeBuffers* buffers,
              const cuda::StepCounts* counts) {
  cuda::RouterArgs args;
  args.num_experts = model.num_experts;
  args.top_k = model.top_k;
  args.normalize = model.norm_topk_prob;
  cuda::LaunchRoute(counts, buffers->h_f32.get(), tokens, model.hidden_size, experts.router.get(), model.hidden_size,
                    args, buffers->router_scratch.get(), buffers->routing, Stream());
}

namespace {

void RunProduct(const cuda::GroupedGemm& gemm, const CUtensorMap& map, int tile_tokens, ExpertKernel kernel) {
  if (kernel == ExpertKernel::kWgmma) {
    cuda::LaunchWgmmaGemm(gemm, map, tile_tokens, TheDevice().num_multiprocessors, Stream());
  } else {
    cuda::LaunchGemmBf16(gemm, tile_tokens, TheDevice().num_multiprocessors, Stream());
  }
}

}  // namespace

void RunGateUp(const ExpertMatrices& experts, RoutedBatch* batch, int64_t max_rows, int tile_tokens,
               MoeBuffers* buffers, ExpertKernel kernel) {
  cuda::GroupedGemm gemm;
  gemm.weight = experts.gate_up.get();
  gemm.weight_rows = experts.gate_up_rows;
  gemm.k = gemm.in_stride = experts.hidden_stride;
  gemm.out_cols = experts.intermediate;
  gemm.in = buffers->h.get();
  gemm.in_cols = experts.hidden;
  gemm.row_to_source = batch->device().row_to_token;
  gemm.output = cuda::GemmOutput::kSiluMul;
  gemm.out = Bf16Planes(buffers->product.get(), experts.intermediate_stride);
  gemm.out_stride = experts.intermediate_stride;
  gemm.plan = batch->Plan(tile_tokens);
  gemm.max_tiles = cuda::MaxExpertTiles(max_rows, experts.num_experts, tile_tokens);
  RunProduct(gemm, experts.gate_up_map, tile_tokens, kernel);
}

void RunDown(const ExpertMatrices& experts, RoutedBatch* batch, int64_t max_rows, int tile_tokens,
             MoeBuffers* buffers, ExpertKernel kernel) {
  cuda::GroupedGemm gemm;
  gemm.weight = experts.down.get();
  gemm.weight_rows = experts.down_rows;
  gemm.k = gemm.in_stride = experts.intermediate_stride;
  gemm.out_cols = experts.hidden;
  gemm.in = buffers->product.get();
  gemm.in_cols = experts.intermediate;
  gemm.out = Bf16Planes(buffers->rows_out.get(), experts.hidden_stride);
  gemm.out_stride = experts.hidden;
  gemm.plan = batch->Plan(tile_tokens);
  gemm.max_tiles = cuda::MaxExpertTiles(max_rows, experts.num_experts, tile_tokens);
  RunProduct(gemm, experts.down_map, tile_tokens, kernel);
}

void RunCombine(const Model& model, const RoutedBatch& batch, const float* weights, int64_t tokens,
                MoeBuffers* buffers, const cuda::StepCounts* counts) {
  cuda::LaunchCombine(counts, nullptr, buffers->rows_out.get(), RoundUp(model.hidden_size, cuda::kTileK), weights,
                      batch.device().choice_to_row, tokens, model.top_k, model.hidden_size, buffers->x.get(),
                      Stream());
}

// ---- reference ----

namespace {

bool AllWritten(const MoeBuffers& buffers, int64_t elements) {
  Array<unsigned long long> bad(1);
  Clear(bad.get(), bad.bytes());
  cuda::LaunchCountNonfinite(buffers.rows_out.get(), true, elements, bad.get(), Stream());
  return bad.ToHost()[0] == 0;
}

// Results of the experts for every choice of `tokens`: [tokens * top_k][hidden].
std::vector<float> ReferenceRows(const Model& model, const ExpertMatrices& experts, const RoutedBatch& batch,
                                 const MoeBuffers& buffers, const std::vector<int32_t>& tokens) {
  std::vector<int32_t> matrices, sources, order;
  for (const int32_t token : tokens) {
    for (int32_t j = 0; j < model.top_k; ++j) {
      order.push_back(static_cast<int32_t>(order.size()));
      matrices.push_back(batch.draw().ids[static_cast<size_t>(token * model.top_k + j)]);
      sources.push_back(token);
    }
  }
  const int64_t rows = static_cast<int64_t>(order.size());
  const Array<int32_t> expert_of(matrices), source_of(sources), row_of(order);
  const Array<float> gate_up(rows * experts.gate_up_rows), out(rows * experts.hidden);
  ReferenceLinear(experts.gate_up.get(), expert_of.get(), experts.gate_up_rows * experts.hidden_stride,
                  experts.hidden_stride, buffers.h_f32.get(), source_of.get(), experts.hidden, rows, experts.hidden,
                  experts.gate_up_rows, gate_up.get());
  const Array<float> product(Activate(gate_up.ToHost(), rows, experts.gate_up_rows, experts.intermediate));
  ReferenceLinear(experts.down.get(), expert_of.get(), experts.down_rows * experts.intermediate_stride,
                  experts.intermediate_stride, product.get(), row_of.get(), experts.intermediate, rows,
                  experts.intermediate, experts.hidden, out.get());
  return out.ToHost();
}

}  // namespace

double MoeError(const Model& model, const ExpertMatrices& experts, const RoutedBatch& batch,
                const MoeBuffers& buffers) {
  if (!AllWritten(buffers, static_cast<int64_t>(batch.draw().ids.size()) * experts.hidden_stride)) {
    return std::numeric_limits<double>::infinity();
  }
  const std::vector<int32_t> tokens = SampleTokens(batch.num_tokens());
  const std::vector<float> rows = ReferenceRows(model, experts, batch, buffers, tokens);
  const size_t hidden = static_cast<size_t>(experts.hidden), k = static_cast<size_t>(model.top_k);
  std::vector<float> values(tokens.size() * hidden), x0(values.size()), reference;
  for (size_t i = 0; i < tokens.size(); ++i) {
    const int64_t from = tokens[i] * experts.hidden;
    Copy(values.data() + i * hidden, buffers.x.get() + from, experts.hidden * 4);
    Copy(x0.data() + i * hidden, buffers.x0.get() + from, experts.hidden * 4);
  }
  for (size_t i = 0; i < values.size(); ++i) {
    const size_t token = static_cast<size_t>(tokens[i / hidden]);
    double sum = 0.0;
    for (size_t j = 0; j < k; ++j) {
      sum += static_cast<double>(batch.draw().weights[token * k + j]) *
             static_cast<double>(rows[(i / hidden * k + j) * hidden + i % hidden]);
    }
    reference.push_back(static_cast<float>(sum));
    values[i] -= x0[i];  // only what the layer added
  }
  return RelativeL2(values, reference);
}

}  // namespace switchyard::bench
