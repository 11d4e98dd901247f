#include "engine/backend/cuda/expert_products.h"

namespace switchyard::cuda {

Ungated UngatedOf(Activation activation) {
  switch (activation) {
    case Activation::kSilu:
    case Activation::kClampedSwiglu: break;
    case Activation::kRelu: return Ungated::kRelu;
    case Activation::kGeluTanh: return Ungated::kGeluTanh;
    case Activation::kTanh: return Ungated::kTanh;
  }
  return Ungated::kNone;
}

int64_t ProductBytes(const ExpertSizes& experts, int64_t max_rows) {
  return max_rows * experts.intermediate_stride * DTypeBytes(experts.dtype);
}

ExpertProducts MakeExpertProducts(const CudaExperts& experts, const ExpertBatch& batch, void* scratch) {
  GroupedGemm gate_up;
  gate_up.weight = experts.gate_up.as<void>();
  gate_up.weight_rows = experts.gate_up_rows;
  gate_up.k = experts.hidden_stride;
  gate_up.out_cols = experts.intermediate;
  gate_up.in = batch.in;
  gate_up.in_stride = batch.in_stride;
  gate_up.in_cols = experts.hidden;
  gate_up.row_to_source = batch.in_by_row ? nullptr : batch.device.row_to_token;
  gate_up.bias = experts.gate_up_bias.as<float>();
  if (experts.form.activation == Activation::kClampedSwiglu) gate_up.swiglu_limit = experts.form.limit;
  gate_up.activation = UngatedOf(experts.form.activation);
  gate_up.output = IsGated(experts.form.activation) ? GemmOutput::kSiluMul : GemmOutput::kAssign;
  if (experts.dtype == DType::kBF16) {
    gate_up.out.bf16 = static_cast<uint16_t*>(scratch);
  } else {
    gate_up.out.f32 = static_cast<float*>(scratch);
  }
  gate_up.out.stride = gate_up.out_stride = experts.intermediate_stride;
  gate_up.plan = batch.plan;
  gate_up.max_tiles = MaxExpertTiles(batch.max_rows, experts.num_experts, batch.tile_tokens);

  GroupedGemm down = gate_up;
  down.weight = experts.down.as<void>();
  down.weight_rows = experts.down_rows;
  down.k = down.in_stride = experts.intermediate_stride;
  down.out_cols = experts.hidden;
  down.in = scratch;
  down.bias = experts.down_bias.as<float>();
  down.in_cols = experts.intermediate;
  down.row_to_source = nullptr;
  down.output = GemmOutput::kAssign;
  down.activation = Ungated::kNone;
  down.out = batch.out;
  down.out_stride = batch.out_stride;
  return {gate_up, down};
}

}  // namespace switchyard::cuda
