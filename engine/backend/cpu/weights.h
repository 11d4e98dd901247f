// Weights in device memory: reading them through TensorReaders and packing them into panels (layout.h).
//
// Loading reads 32 rows at a time on all workers and writes each packed byte once, so it takes about as long as
// reading the file.
#ifndef SWITCHYARD_ENGINE_BACKEND_CPU_WEIGHTS_H_
#define SWITCHYARD_ENGINE_BACKEND_CPU_WEIGHTS_H_

#include <cstdint>
#include <memory>
#include <span>

#include "absl/status/statusor.h"
#include "engine/backend/backend.h"
#include "engine/backend/cpu/context.h"
#include "engine/backend/cpu/memory.h"

namespace switchyard::cpu {

// kLinear and kRouter: panels. kEmbedding: row-major in `dtype`. kVector: row-major fp32.
class CpuWeight final : public Weight {
 public:
  int64_t out_features() const override { return out; }
  int64_t bytes() const override { return data.bytes() + bias.bytes(); }
  int64_t num_nonfinite() const override { return nonfinite; }

  int64_t num_panels() const { return CeilDiv(out, kPanelCols); }
  const char* panel(int64_t p) const { return data.as<char>() + p * PanelBytes(in, dtype); }
  const float* bias_or_null() const { return has_bias ? bias.as<float>() : nullptr; }

  int64_t out = 0;
  int64_t in = 0;
  DType dtype = DType::kF32;
  bool has_bias = false;
  Buffer data;
  Buffer bias;  // fp32 [out]
  int64_t nonfinite = 0;
};

// Each expert: up panels, then down panels, quantized ones where the checkpoint's are kept (layout.h). Where there is a
// gate, an up panel is 16 columns of gate and of up side by side, and their number is even.
class CpuExperts final : public ExpertWeights {
 public:
  int64_t bytes() const override { return data.bytes() + up_bias.bytes() + down_bias.bytes(); }
  int64_t num_nonfinite() const override { return nonfinite; }

  bool gated() const { return IsGated(form.activation); }
  // Columns of the intermediate that one up panel makes.
  int64_t up_panel_cols() const { return gated() ? kTileCols : kPanelCols; }
  int64_t up_panels() const { return CeilDiv(intermediate, kPanelCols) * (gated() ? 2 : 1); }
  int64_t down_panels() const { return CeilDiv(hidden, kPanelCols); }
  int64_t panel_bytes(int64_t in) const {
    return quantized.format == QuantizedFormat::kNone ? PanelBytes(in, dtype)
                                                      : QuantizedPanelBytes(in, quantized.format);
  }
  int64_t up_bytes() const { return up_panels() * panel_bytes(hidden); }
  int64_t expert_bytes() const { return up_bytes() + down_panels() * panel_bytes(intermediate); }
  const char* up_panel(int64_t expert, int64_t p) const {
    return data.as<char>() + expert * expert_bytes() + p * panel_bytes(hidden);
  }
  const char* down_panel(int64_t expert, int64_t p) const {
    return data.as<char>() + expert * expert_bytes() + up_bytes() + p * panel_bytes(intermediate);
  }

  // Null without biases.
  const float* up_panel_bias(int64_t expert, int64_t p) const {
    return form.biases ? up_bias.as<float>() + (expert * up_panels() + p) * kPanelCols : nullptr;
  }
  const float* down_panel_bias(int64_t expert, int64_t p) const {
    return form.biases ? down_bias.as<float>() + expert * hidden + p * kPanelCols : nullptr;
  }

  int64_t num_experts = 0;
  int64_t hidden = 0;
  int64_t intermediate = 0;
  ExpertForm form;
  DType dtype = DType::kF32;  // of the products' operands
  QuantizedForm quantized;    // of the panels; kNone: they are of `dtype`
  Buffer data;
  Buffer up_bias;  // fp32 [num_experts][up_panels][32], as the panels' columns
  Buffer down_bias;     // fp32 [num_experts][hidden]
  int64_t nonfinite = 0;
};

// INVALID_ARGUMENT: parts disagree about their columns, a bias about its part's rows, or experts about their shapes.
// RESOURCE_EXHAUSTED, and what ReadRows returns.
absl::StatusOr<std::unique_ptr<CpuWeight>> LoadCpuWeight(Context& context, std::span<const TensorReader* const> parts,
                                                         std::span<const TensorReader* const> biases, DType dtype,
                                                         WeightUse use);
absl::StatusOr<std::unique_ptr<CpuExperts>> LoadCpuExperts(Context& context, std::span<const ExpertReaders> experts,
                                                           DType dtype, bool keep_quantized);

// See Backend::PlanExperts: in bfloat16, experts that are all mxfp4, or all fp8 with scales of 128 columns or a
// multiple, stay so. REQUIRES: there is one.
ExpertMemory PlanCpuExperts(std::span<const ExpertReaders> experts, DType dtype, bool keep_quantized);

inline ExpandChunk ExpandOf(const Kernels& kernels, QuantizedFormat format) {
  return format == QuantizedFormat::kMxfp4 ? kernels.expand_mxfp4 : kernels.expand_fp8;
}

}  // namespace switchyard::cpu

#endif  // SWITCHYARD_ENGINE_BACKEND_CPU_WEIGHTS_H_
