#include "tests/bench/gpu/moe_cublas.h"

#include <algorithm>

namespace switchyard::bench {
namespace {

cuda::Planes Bf16Planes(uint16_t* data, int64_t stride) { return {nullptr, data, stride}; }

void Stamp(const ExpertMatrices& experts, RoutedBatch* batch, int tile_tokens, bool end) {
  cuda::LaunchStampExperts(batch->device().expert_offsets, experts.num_experts, end, batch->Plan(tile_tokens),
                           Stream());
}

void RunActivation(const ExpertMatrices& experts, const uint16_t* gate_up, int64_t rows, uint16_t* product) {
  cuda::GateUpInput in;
  in.bf16 = gate_up;
  in.stride = experts.gate_up_rows;
  in.interleaved = true;
  cuda::LaunchSiluMul(in, rows, experts.intermediate_stride, Bf16Planes(product, experts.intermediate_stride),
                      Stream());
}

}  // namespace

CublasGrouped::CublasGrouped(int32_t num_experts) : offsets_(num_experts + 1), pointers_(2 * 3 * num_experts) {}

int64_t CublasGrouped::ScratchElements(const ExpertMatrices& experts, int64_t rows) {
  return rows * (std::max(experts.hidden_stride, experts.down_rows) + experts.gate_up_rows);
}

void CublasGrouped::Multiply(int32_t num_experts, const uint16_t* weight, int64_t m, int64_t k, const uint16_t* in,
                             uint16_t* out, const void** pointers) {
  const void** const weights = pointers;
  const void** const inputs = weights + num_experts;
  const void** const outputs = inputs + num_experts;
  n_.clear();
  for (int32_t e = 0; e < num_experts; ++e) {
    const int64_t first = offsets_.get()[e], rows = offsets_.get()[e + 1] - first;
    if (rows == 0) continue;
    weights[n_.size()] = weight + e * m * k;
    inputs[n_.size()] = in + first * k;
    outputs[n_.size()] = out + first * m;
    n_.push_back(static_cast<int>(rows));
  }
  const size_t groups = n_.size();
  m_.assign(groups, static_cast<int>(m));
  k_.assign(groups, static_cast<int>(k));
  single_.assign(groups, 1);
  one_.assign(groups, 1.0f);
  zero_.assign(groups, 0.0f);
  transposed_.assign(groups, CUBLAS_OP_T);
  plain_.assign(groups, CUBLAS_OP_N);
  CUBLAS_OK(cublasGemmGroupedBatchedEx(TheDevice().cublas, transposed_.data(), plain_.data(), m_.data(), n_.data(),
                                       k_.data(), one_.data(), weights, CUDA_R_16BF, k_.data(), inputs, CUDA_R_16BF,
                                       k_.data(), zero_.data(), const_cast<void* const*>(outputs), CUDA_R_16BF,
                                       m_.data(), static_cast<int>(groups), single_.data(), CUBLAS_COMPUTE_32F));
}

// Scratch: gathered inputs, later the outputs | gate and up.
void CublasGrouped::Run(const ExpertMatrices& experts, RoutedBatch* batch, int tile_tokens, MoeBuffers* buffers,
                        uint16_t* scratch) {
  const int64_t rows = static_cast<int64_t>(batch->draw().ids.size());
  uint16_t* const gathered = scratch;
  uint16_t* const gate_up = scratch + rows * std::max(experts.hidden_stride, experts.down_rows);
  const void** const pointers = pointers_.get();
  Stamp(experts, batch, tile_tokens, false);
  cuda::LaunchGatherRows(buffers->h.get(), DType::kBF16, experts.hidden, experts.hidden_stride,
                         batch->device().row_to_token, nullptr, rows, experts.hidden_stride, gathered, Stream());
  // The sizes of the groups have to reach the host.
  CUDA_OK(cudaMemcpyAsync(offsets_.get(), batch->device().expert_offsets, static_cast<size_t>(offsets_.bytes()),
                          cudaMemcpyDeviceToHost, Stream()));
  CUDA_OK(cudaStreamSynchronize(Stream()));
  Multiply(experts.num_experts, experts.gate_up.get(), experts.gate_up_rows, experts.hidden_stride, gathered,
           gate_up, pointers);
  RunActivation(experts, gate_up, rows, buffers->product.get());
  Multiply(experts.num_experts, experts.down.get(), experts.down_rows, experts.intermediate_stride,
           buffers->product.get(), gathered, pointers + 3 * experts.num_experts);
  cuda::LaunchGatherRows(gathered, DType::kBF16, experts.hidden, experts.down_rows, nullptr, nullptr, rows,
                         experts.hidden_stride, buffers->rows_out.get(), Stream());
  Stamp(experts, batch, tile_tokens, true);
}

int64_t PaddedScratchElements(const ExpertMatrices& experts, int64_t tokens) {
  return experts.num_experts * tokens *
         (std::max(experts.gate_up_rows, experts.down_rows) + experts.intermediate_stride);
}

void RunCublasPadded(const ExpertMatrices& experts, RoutedBatch* batch, int tile_tokens, MoeBuffers* buffers,
                     uint16_t* scratch) {
  const int64_t tokens = batch->num_tokens(), rows = experts.num_experts * tokens;
  uint16_t* const first = scratch;
  uint16_t* const product = first + rows * std::max(experts.gate_up_rows, experts.down_rows);
  const auto multiply = [&](const uint16_t* weight, int64_t m, int64_t k, const uint16_t* in, int64_t in_step) {
    const float one = 1.0f, zero = 0.0f;
    CUBLAS_OK(cublasGemmStridedBatchedEx(
        TheDevice().cublas, CUBLAS_OP_T, CUBLAS_OP_N, static_cast<int>(m), static_cast<int>(tokens),
        static_cast<int>(k), &one, weight, CUDA_R_16BF, static_cast<int>(k), m * k, in, CUDA_R_16BF,
        static_cast<int>(k), in_step, &zero, first, CUDA_R_16BF, static_cast<int>(m), m * tokens, experts.num_experts,
        CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT));
  };
  Stamp(experts, batch, tile_tokens, false);
  multiply(experts.gate_up.get(), experts.gate_up_rows, experts.hidden_stride, buffers->h.get(), 0);
  RunActivation(experts, first, rows, product);
  multiply(experts.down.get(), experts.down_rows, experts.intermediate_stride, product,
           tokens * experts.intermediate_stride);
  cuda::LaunchGatherPadded(first, DType::kBF16, experts.down_rows, tokens, batch->device().expert_offsets,
                           experts.num_experts, batch->device().row_to_token,
                           static_cast<int64_t>(batch->draw().ids.size()), experts.hidden,
                           Bf16Planes(buffers->rows_out.get(), experts.hidden_stride), experts.hidden, Stream());
  Stamp(experts, batch, tile_tokens, true);
}

}  // namespace switchyard::bench
