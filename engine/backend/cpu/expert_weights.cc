#include <algorithm>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/backend/cpu/load_units.h"
#include "engine/backend/cpu/pack_tile.h"
#include "engine/backend/cpu/weights.h"
#include "engine/base/status_macros.h"

namespace switchyard::cpu {
namespace {

// Counts bad elements too. `size` elements of a [1, size] reader.
absl::Status ReadExpertBias(const TensorReader* reader, int64_t size, float* out, int64_t* num_nonfinite) {
  if (reader == nullptr || reader->rows() * reader->cols() != size) {
    return absl::InvalidArgumentError(absl::StrCat("an expert's bias is missing or has not ", size, " elements"));
  }
  RETURN_IF_ERROR(reader->ReadRows(0, reader->rows(), DType::kF32, out));
  *num_nonfinite += CountNonfinite(out, size, DType::kF32);
  return absl::OkStatus();
}

absl::Status LoadExpertBiases(std::span<const ExpertReaders> experts, CpuExperts* weights) {
  const int64_t panels = weights->up_panels();
  ASSIGN_OR_RETURN(weights->up_bias, Buffer::Allocate(weights->num_experts * panels * kPanelCols * 4, "expert biases"));
  ASSIGN_OR_RETURN(weights->down_bias, Buffer::Allocate(weights->num_experts * weights->hidden * 4, "expert biases"));
  std::vector<float> side(static_cast<size_t>(weights->intermediate));
  for (int64_t e = 0; e < weights->num_experts; ++e) {
    const ExpertReaders& expert = experts[static_cast<size_t>(e)];
    float* const to = weights->up_bias.as<float>() + e * panels * kPanelCols;
    if (!weights->gated()) {
      RETURN_IF_ERROR(ReadExpertBias(expert.up_bias, weights->intermediate, to, &weights->nonfinite));
    } else {
      for (int tile = 0; tile < 2; ++tile) {
        RETURN_IF_ERROR(ReadExpertBias(tile == 0 ? expert.gate_bias : expert.up_bias, weights->intermediate,
                                       side.data(), &weights->nonfinite));
        for (int64_t i = 0; i < weights->intermediate; ++i) {
          to[i / kTileCols * kPanelCols + tile * kTileCols + i % kTileCols] = side[static_cast<size_t>(i)];
        }
      }
    }
    RETURN_IF_ERROR(ReadExpertBias(expert.down_bias, weights->hidden,
                                   weights->down_bias.as<float>() + e * weights->hidden, &weights->nonfinite));
  }
  return absl::OkStatus();
}

// The form that the matrices of all experts share, if panels can be made of it; else none.
QuantizedForm FormOf(std::span<const ExpertReaders> experts) {
  const QuantizedForm form = experts[0].up->quantized();
  for (const ExpertReaders& expert : experts) {
    for (const TensorReader* matrix : {expert.gate, expert.up, expert.down}) {
      if (matrix != nullptr && matrix->quantized() != form) return {};
    }
  }
  return form.format == QuantizedFormat::kFp8 && form.block_cols % kChunkK != 0 ? QuantizedForm{} : form;
}

// Rows [first, first + count) of a matrix are the columns of one tile.
struct TileRows {
  const TensorReader* matrix = nullptr;
  int64_t first = 0;
  int64_t count = 0;
};

// Panel p of an expert, its up panels before its down panels.
TileRows RowsOfTile(const CpuExperts& weights, const ExpertReaders& expert, int64_t p, int tile) {
  TileRows rows;
  if (p < weights.up_panels() && weights.gated()) {
    rows = {tile == 0 ? expert.gate : expert.up, p * kTileCols};
  } else if (p < weights.up_panels()) {
    rows = {expert.up, p * kPanelCols + tile * kTileCols};
  } else {
    rows = {expert.down, (p - weights.up_panels()) * kPanelCols + tile * kTileCols};
  }
  rows.count = std::clamp<int64_t>(rows.matrix->rows() - rows.first, 0, kTileCols);
  return rows;
}

absl::Status LoadTile(const Kernels& kernels, const TileRows& rows, DType dtype, char* staging, char* panel, int tile,
                      int64_t* num_nonfinite) {
  const int64_t in = rows.matrix->cols();
  if (rows.count > 0) RETURN_IF_ERROR(rows.matrix->ReadRows(rows.first, rows.count, dtype, staging));
  *num_nonfinite += PackTile(kernels, staging, static_cast<int>(rows.count), in, dtype, panel, tile);
  return absl::OkStatus();
}

// Where in staging memory the scales of a tile's rows are; their codes come first.
int64_t ScalesOffset(const QuantizedForm& form, int64_t in) { return CeilDiv(kTileCols * form.CodeBytes(in), 64) * 64; }

absl::Status LoadQuantizedTile(const TileRows& rows, const QuantizedForm& form, char* staging, uint8_t* panel,
                               int tile) {
  const int64_t in = rows.matrix->cols();
  uint8_t* const codes = reinterpret_cast<uint8_t*>(staging);
  char* const scales = staging + ScalesOffset(form, in);
  if (rows.count > 0) RETURN_IF_ERROR(rows.matrix->ReadQuantized(rows.first, rows.count, codes, scales));
  PackQuantizedTile(codes, scales, static_cast<int>(rows.count), in, form, panel, tile);
  return absl::OkStatus();
}

// Of a quantized panel over `in` inputs, as they will be multiplied.
int64_t CountNonfiniteOfPanel(ExpandChunk expand, QuantizedFormat format, const uint8_t* panel, int64_t in,
                              char* staging) {
  int64_t found = 0;
  for (int64_t k = 0; k < in; k += kChunkK, panel += ChunkBytes(format)) {
    const int64_t steps = std::min<int64_t>(KSteps(in - k), kChunkSteps);
    expand(panel, steps, reinterpret_cast<uint16_t*>(staging));
    found += CountNonfinite(staging, steps * 2 * kTileElements, DType::kBF16);
  }
  return found;
}

// Sizes and forms, without memory.
std::unique_ptr<CpuExperts> DescribeExperts(std::span<const ExpertReaders> experts, DType dtype, bool keep_quantized) {
  auto weights = std::make_unique<CpuExperts>();
  weights->num_experts = static_cast<int64_t>(experts.size());
  weights->intermediate = experts[0].up->rows();
  weights->hidden = experts[0].up->cols();
  weights->form = experts[0].form;
  weights->dtype = dtype == DType::kF32 ? DType::kF32 : DType::kBF16;
  if (keep_quantized && weights->dtype == DType::kBF16) weights->quantized = FormOf(experts);
  return weights;
}

absl::Status CheckShapes(std::span<const ExpertReaders> experts, const CpuExperts& weights) {
  for (const ExpertReaders& expert : experts) {
    const auto has_shape = [](const TensorReader* reader, int64_t rows, int64_t cols) {
      return reader != nullptr && reader->rows() == rows && reader->cols() == cols;
    };
    const bool fits = has_shape(expert.up, weights.intermediate, weights.hidden) &&
                      has_shape(expert.down, weights.hidden, weights.intermediate) &&
                      (!weights.gated() || has_shape(expert.gate, weights.intermediate, weights.hidden));
    if (!fits) return absl::InvalidArgumentError("experts of one layer differ in shape");
  }
  return absl::OkStatus();
}

// What LoadPanel needs of memory for one tile's rows, or for one expanded chunk.
int64_t StagingBytes(const CpuExperts& weights) {
  const int64_t in = std::max(weights.hidden, weights.intermediate);
  const QuantizedForm& form = weights.quantized;
  if (form.format == QuantizedFormat::kNone) return kTileCols * in * DTypeBytes(weights.dtype);
  const int64_t rows = ScalesOffset(form, in) + kTileCols * form.ScalesPerRow(in) * form.ScaleBytes();
  return CeilDiv(std::max<int64_t>(rows, kChunkElements * 2), 64) * 64;
}

// Panel p of an expert, its up panels before its down panels.
absl::Status LoadPanel(const Kernels& kernels, const CpuExperts& weights, const ExpertReaders& expert, int64_t p,
                       char* staging, char* panel, int64_t* num_nonfinite) {
  const QuantizedForm& form = weights.quantized;
  for (int tile = 0; tile < 2; ++tile) {
    const TileRows rows = RowsOfTile(weights, expert, p, tile);
    if (form.format == QuantizedFormat::kNone) {
      RETURN_IF_ERROR(LoadTile(kernels, rows, weights.dtype, staging, panel, tile, num_nonfinite));
    } else {
      RETURN_IF_ERROR(LoadQuantizedTile(rows, form, staging, reinterpret_cast<uint8_t*>(panel), tile));
    }
  }
  if (form.format == QuantizedFormat::kNone) return absl::OkStatus();
  *num_nonfinite +=
      CountNonfiniteOfPanel(ExpandOf(kernels, form.format), form.format, reinterpret_cast<const uint8_t*>(panel),
                            p < weights.up_panels() ? weights.hidden : weights.intermediate, staging);
  return absl::OkStatus();
}

}  // namespace

ExpertMemory PlanCpuExperts(std::span<const ExpertReaders> experts, DType dtype, bool keep_quantized) {
  const std::unique_ptr<CpuExperts> weights = DescribeExperts(experts, dtype, keep_quantized);
  return {weights->quantized.format, weights->num_experts * weights->expert_bytes()};
}

absl::StatusOr<std::unique_ptr<CpuExperts>> LoadCpuExperts(Context& context, std::span<const ExpertReaders> experts,
                                                           DType dtype, bool keep_quantized) {
  if (experts.empty()) return absl::InvalidArgumentError("a layer has no experts");
  std::unique_ptr<CpuExperts> weights = DescribeExperts(experts, dtype, keep_quantized);
  const CpuExperts& w = *weights;
  RETURN_IF_ERROR(CheckShapes(experts, w));
  ASSIGN_OR_RETURN(weights->data, Buffer::Allocate(w.num_experts * w.expert_bytes(), "experts"));
  context.sizes.expert_hidden = std::max(context.sizes.expert_hidden, w.hidden);
  context.sizes.expert_intermediate = std::max(context.sizes.expert_intermediate, w.intermediate);
  context.sizes.num_experts = std::max(context.sizes.num_experts, w.num_experts);
  if (w.form.biases) RETURN_IF_ERROR(LoadExpertBiases(experts, weights.get()));
  const int64_t panels = w.up_panels() + w.down_panels();
  // All workers in one or two experts: readers of transposed matrices keep no more of them at hand.
  const int64_t run = std::min(UnitsPerHugePage(w.expert_bytes() / panels), panels / context.pool.num_threads());
  RETURN_IF_ERROR(LoadUnits(context, w.num_experts * panels, run, StagingBytes(w), &weights->nonfinite,
                            [&](int64_t unit, char* staging, int64_t* num_nonfinite) {
                              const int64_t e = unit / panels, p = unit % panels;
                              const char* const panel =
                                  p < w.up_panels() ? w.up_panel(e, p) : w.down_panel(e, p - w.up_panels());
                              return LoadPanel(context.kernels, w, experts[static_cast<size_t>(e)], p, staging,
                                               const_cast<char*>(panel), num_nonfinite);
                            }));
  return weights;
}

}  // namespace switchyard::cpu
