// Operations on rows of activations.
#include "engine/backend/cuda/cuda_backend_impl.h"
#include "engine/backend/cuda/expert_products.h"

namespace switchyard::cuda {

void CudaBackend::Embed(std::span<const int32_t> ids, const Weight& table, Matrix out) {
  const CudaWeight& weight = Cuda(table);
  const bool announced = in_step_ && ids.data() == announced_.ids.data() && ids.size() == announced_.ids.size();
  if (!announced) UploadSingle({.ids = ids, .slices = {}, .logit_rows = {}}, kKvBlockUnit);
  LaunchEmbed((announced ? step_ : single_).device(), LaunchRows(out), weight.data.as<void>(),
              weight.dtype == DType::kBF16, weight.stride, weight.in, activations_.Write(out, Activations::kF32).f32,
              stream_);
}

void CudaBackend::RmsNorm(Matrix in, const Weight& weight, float eps, Matrix out) {
  const int64_t rows = LaunchRows(in);
  const float* const from = activations_.ReadF32(in, rows);
  LaunchRmsNorm(from, Vector(&weight), eps, rows, in.cols, activations_.Write(out, PlanesForReaders()), stream_);
}

void CudaBackend::LayerNorm(Matrix in, const Weight& weight, const Weight* bias, float eps, Matrix out) {
  const int64_t rows = LaunchRows(in);
  const float* const from = activations_.ReadF32(in, rows);
  LaunchLayerNorm(from, Vector(&weight), Vector(bias), eps, rows, in.cols,
                  activations_.Write(out, PlanesForReaders()), stream_);
}

void CudaBackend::Activate(Activation activation, Matrix matrix) {
  const int64_t rows = LaunchRows(matrix);
  float* const values = activations_.ReadF32(matrix, rows);
  activations_.Write(matrix, Activations::kF32);
  LaunchActivate(UngatedOf(activation), rows * matrix.cols, values, stream_);
}

void CudaBackend::Scale(float factor, Matrix matrix) {
  const int64_t rows = LaunchRows(matrix);
  float* const values = activations_.ReadF32(matrix, rows);
  activations_.Write(matrix, Activations::kF32);
  LaunchScale(factor, rows * matrix.cols, values, stream_);
}

void CudaBackend::AddBias(const Weight& bias, Matrix matrix) {
  const int64_t rows = LaunchRows(matrix);
  float* const values = activations_.ReadF32(matrix, rows);
  activations_.Write(matrix, Activations::kF32);
  LaunchAddBias(Vector(&bias), rows, matrix.cols, values, stream_);
}

void CudaBackend::Linear(Matrix in, const Weight& weight, OutputMode mode, Matrix out) {
  const CudaWeight& w = Cuda(weight);
  const int64_t rows = LaunchRows(out);
  GroupedGemm gemm;
  gemm.weight = w.data.as<void>();
  gemm.weight_rows = w.rows;
  gemm.k = w.stride;
  gemm.out_cols = w.out;
  gemm.in_cols = w.in;
  gemm.bias = w.bias.as<float>();
  gemm.output = mode == OutputMode::kAdd ? GemmOutput::kAdd : GemmOutput::kAssign;
  gemm.dense_rows = rows;
  if (mode == OutputMode::kAdd) activations_.ReadF32(out, rows);
  const int tile_tokens = ChooseTileTokens(rows, 1);
  gemm.max_tiles = CeilDiv(rows, tile_tokens);
  gemm.out_stride = out.cols;
  if (w.dtype == DType::kBF16) {
    const Activations::Bf16View view = activations_.ReadBf16(in, rows);
    gemm.in = view.data;
    gemm.in_stride = view.stride;
    gemm.out = activations_.Write(out, Activations::kF32);
    gemm.out.stride = 0;
    LaunchGemmBf16(gemm, tile_tokens, num_multiprocessors_, stream_);
  } else {
    gemm.in = activations_.ReadF32(in, rows);
    gemm.in_stride = in.cols;
    gemm.out = activations_.Write(out, Activations::kF32);
    LaunchGemmF32(gemm, tile_tokens, stream_);
  }
}

void CudaBackend::SiluMul(Matrix gate_up, Matrix out) {
  const int64_t rows = LaunchRows(out);
  GateUpInput in;
  in.f32 = activations_.ReadF32(gate_up, rows);
  in.stride = gate_up.cols;
  LaunchSiluMul(in, rows, out.cols, activations_.Write(out, PlanesForReaders()), stream_);
}

void CudaBackend::AddGated(Matrix in, const Weight& gate, Matrix values, Matrix out) {
  const int64_t rows = LaunchRows(out);
  const float* const from = activations_.ReadF32(in, rows);
  const float* const added = activations_.ReadF32(values, rows);
  float* const sums = activations_.ReadF32(out, rows);
  activations_.Write(out, Activations::kF32);
  LaunchAddGated(from, Vector(&gate), in.cols, added, rows, out.cols, sums, stream_);
}

void CudaBackend::SelectRows(Matrix in, std::span<const int32_t> rows, Matrix out) {
  const bool announced =
      in_step_ && rows.data() == announced_.logit_rows.data() && rows.size() == announced_.logit_rows.size();
  if (!announced) UploadSingle({.ids = {}, .slices = {}, .logit_rows = rows}, kKvBlockUnit);
  const float* const from = activations_.ReadF32(in, LaunchRows(in));
  LaunchSelectRows((announced ? step_ : single_).device(), from, LaunchRows(out), in.cols,
                   activations_.Write(out, Activations::kF32).f32, stream_);
}

}  // namespace switchyard::cuda
