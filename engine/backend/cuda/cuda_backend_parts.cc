// Operations with one weight per head or per attention expert: what latent attention and mixtures of attention heads
// have beside attention itself.
#include "engine/backend/cuda/cuda_backend_impl.h"

namespace switchyard::cuda {
namespace {

// What all parts share, and the addresses of their weights.
struct Parts {
  explicit Parts(std::span<const std::unique_ptr<Weight>> weights) : first(Cuda(*weights[0])) {
    CHECK(weights.size() <= kMaxParts);  // CheckServed has said so
    for (size_t p = 0; p < weights.size(); ++p) {
      const CudaWeight& weight = Cuda(*weights[p]);
      CHECK(weight.out == first.out && weight.in == first.in && weight.bias.as<void>() == nullptr);
      addresses[p] = weight.data.as<void>();
    }
    gemm.weight_stride = first.stride;
    gemm.in_cols = first.in;
    gemm.out_cols = first.out;
    gemm.num_parts = static_cast<int32_t>(weights.size());
  }

  const CudaWeight& first;
  PartGemm gemm;
  const void* addresses[kMaxParts] = {};
};

SpreadSizes SizesOf(const AttentionShape& shape) {
  return {shape.num_kv_heads, shape.num_heads / shape.num_kv_heads, shape.head_dim};
}

}  // namespace

void CudaBackend::LinearPerHead(Matrix in, std::span<const std::unique_ptr<Weight>> heads, Matrix out) {
  const int64_t rows = LaunchRows(out), num_heads = static_cast<int64_t>(heads.size());
  Parts parts(heads);
  parts.gemm.in = activations_.ReadF32(in, rows);
  parts.gemm.in_stride = in.cols;
  parts.gemm.in_part = in.cols / num_heads;
  activations_.ReadF32(out, rows);  // what follows the front of a part stays
  parts.gemm.out = activations_.Write(out, Activations::kF32).f32;
  parts.gemm.out_stride = out.cols;
  parts.gemm.out_part = out.cols / num_heads;
  parts.gemm.dense_rows = rows;
  LaunchPartGemm(parts.gemm, parts.addresses, parts.first.dtype, ChooseTileTokens(rows, 1), num_multiprocessors_,
                 stream_);
}

void CudaBackend::LinearPerExpert(Matrix in, bool in_is_grouped, std::span<const std::unique_ptr<Weight>> experts,
                                  const ExpertBatches& batches, Matrix rows_out) {
  if (!failure_.ok()) return;
  Parts parts(experts);
  parts.gemm.in = activations_.ReadF32(in, in_is_grouped ? in.rows : LaunchRows(in));
  parts.gemm.in_stride = in.cols;
  const BatchMemory& memory = batches_.at(batches.expert_offsets);
  if (!in_is_grouped) parts.gemm.row_to_source = memory.device.row_to_token;
  parts.gemm.out = activations_.Write(rows_out, Activations::kF32).f32;
  parts.gemm.out_stride = rows_out.cols;
  parts.gemm.plan = memory.plan;
  LaunchPartGemm(parts.gemm, parts.addresses, parts.first.dtype, plan_tile_tokens_, num_multiprocessors_, stream_);
}

void CudaBackend::SpreadHeads(const AttentionShape& shape, Matrix rows, const ExpertBatches& batches, Matrix kv,
                              Matrix qkv) {
  const int64_t tokens = LaunchRows(qkv);
  const float* const expert_rows = activations_.ReadF32(rows, rows.rows);
  const float* const keys_and_values = activations_.ReadF32(kv, tokens);
  LaunchSpreadHeads(Counts(), SizesOf(shape), expert_rows, batches_.at(batches.expert_offsets).device.choice_to_row,
                    keys_and_values, tokens, activations_.Write(qkv, Activations::kF32).f32, stream_);
}

void CudaBackend::CollectHeads(const AttentionShape& shape, Matrix attended, const ExpertBatches& batches,
                               Matrix rows) {
  const int64_t tokens = LaunchRows(attended);
  const float* const from = activations_.ReadF32(attended, tokens);
  LaunchCollectHeads(Counts(), SizesOf(shape), from, batches_.at(batches.expert_offsets).device.choice_to_row, tokens,
                     activations_.Write(rows, Activations::kF32).f32, stream_);
}

}  // namespace switchyard::cuda
