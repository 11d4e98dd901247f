#include "engine/backend/cpu/weights.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "engine/backend/cpu/load_units.h"
#include "engine/backend/cpu/pack_tile.h"
#include "engine/base/status_macros.h"

namespace switchyard::cpu {
namespace {

// Several tensors seen as one matrix, stacked by rows.
class StackedRows {
 public:
  explicit StackedRows(std::span<const TensorReader* const> parts) : parts_(parts) {}

  int64_t rows() const {
    int64_t sum = 0;
    for (const TensorReader* part : parts_) sum += part->rows();
    return sum;
  }

  absl::Status Read(int64_t first, int64_t count, DType as, char* out) const {
    for (const TensorReader* part : parts_) {
      const int64_t here = std::min(count, part->rows() - first);
      if (here > 0 && first >= 0) {
        RETURN_IF_ERROR(part->ReadRows(first, here, as, out));
        out += here * part->cols() * DTypeBytes(as);
        first += here;
        count -= here;
      }
      first -= part->rows();
    }
    return absl::OkStatus();
  }

 private:
  std::span<const TensorReader* const> parts_;
};

absl::Status ReadPanel(const Kernels& kernels, const StackedRows& rows, int64_t p, int64_t out, int64_t in,
                       DType dtype, char* staging, int64_t* num_nonfinite, char* panel) {
  const int64_t first = p * kPanelCols;
  const int64_t count = std::min<int64_t>(kPanelCols, out - first);
  RETURN_IF_ERROR(rows.Read(first, count, dtype, staging));
  for (int tile = 0; tile < 2; ++tile) {
    const int64_t tile_rows = std::clamp<int64_t>(count - tile * kTileCols, 0, kTileCols);
    *num_nonfinite += PackTile(kernels, staging + tile * kTileCols * in * DTypeBytes(dtype),
                               static_cast<int>(tile_rows), in, dtype, panel, tile);
  }
  return absl::OkStatus();
}

absl::Status LoadPanels(Context& context, const StackedRows& rows, CpuWeight* weight) {
  const int64_t panel_bytes = PanelBytes(weight->in, weight->dtype);
  ASSIGN_OR_RETURN(weight->data, Buffer::Allocate(weight->num_panels() * panel_bytes, "a weight matrix"));
  return LoadUnits(context, weight->num_panels(), UnitsPerHugePage(panel_bytes),
                   kPanelCols * weight->in * DTypeBytes(weight->dtype), &weight->nonfinite,
                   [&](int64_t p, char* staging, int64_t* num_nonfinite) {
                     return ReadPanel(context.kernels, rows, p, weight->out, weight->in, weight->dtype, staging,
                                      num_nonfinite, weight->data.as<char>() + p * panel_bytes);
                   });
}

absl::Status LoadRowMajor(Context& context, const StackedRows& rows, CpuWeight* weight) {
  constexpr int64_t kRowsPerUnit = 64;
  const int64_t row_bytes = weight->in * DTypeBytes(weight->dtype);
  ASSIGN_OR_RETURN(weight->data, Buffer::Allocate(weight->out * row_bytes, "a weight matrix"));
  return LoadUnits(context, CeilDiv(weight->out, kRowsPerUnit), UnitsPerHugePage(kRowsPerUnit * row_bytes), 0,
                   &weight->nonfinite, [&](int64_t unit, char*, int64_t* num_nonfinite) -> absl::Status {
                     const int64_t first = unit * kRowsPerUnit;
                     const int64_t count = std::min(kRowsPerUnit, weight->out - first);
                     char* const to = weight->data.as<char>() + first * row_bytes;
                     RETURN_IF_ERROR(rows.Read(first, count, weight->dtype, to));
                     *num_nonfinite += CountNonfinite(to, count * weight->in, weight->dtype);
                     return absl::OkStatus();
                   });
}

absl::Status LoadBiases(std::span<const TensorReader* const> parts, std::span<const TensorReader* const> biases,
                        CpuWeight* weight) {
  if (biases.empty()) return absl::OkStatus();
  if (biases.size() != parts.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat("a weight of ", parts.size(), " parts has ", biases.size(), " biases"));
  }
  ASSIGN_OR_RETURN(weight->bias, Buffer::Allocate(weight->out * 4, "a bias"));
  float* to = weight->bias.as<float>();
  for (size_t i = 0; i < parts.size(); ++i) {
    if (biases[i] != nullptr) {
      if (biases[i]->rows() * biases[i]->cols() != parts[i]->rows()) {
        return absl::InvalidArgumentError(absl::StrCat("a bias of ", biases[i]->rows(), " x ", biases[i]->cols(),
                                                       " does not fit ", parts[i]->rows(), " outputs"));
      }
      RETURN_IF_ERROR(biases[i]->ReadRows(0, biases[i]->rows(), DType::kF32, to));
      weight->nonfinite += CountNonfinite(to, parts[i]->rows(), DType::kF32);
      weight->has_bias = true;
    }
    to += parts[i]->rows();
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<CpuWeight>> LoadCpuWeight(Context& context, std::span<const TensorReader* const> parts,
                                                         std::span<const TensorReader* const> biases, DType dtype,
                                                         WeightUse use) {
  if (parts.empty()) return absl::InvalidArgumentError("a weight has no parts");
  for (const TensorReader* part : parts) {
    if (part->cols() != parts[0]->cols()) {
      return absl::InvalidArgumentError(
          absl::StrCat("parts of one weight have ", parts[0]->cols(), " and ", part->cols(), " columns"));
    }
  }
  const StackedRows rows(parts);
  auto weight = std::make_unique<CpuWeight>();
  weight->out = rows.rows();
  weight->in = parts[0]->cols();
  weight->dtype = use == WeightUse::kVector || use == WeightUse::kRouter || dtype == DType::kF32 ? DType::kF32
                                                                                                  : DType::kBF16;
  const bool panels = use == WeightUse::kLinear || use == WeightUse::kRouter;
  RETURN_IF_ERROR(panels ? LoadPanels(context, rows, weight.get()) : LoadRowMajor(context, rows, weight.get()));
  RETURN_IF_ERROR(LoadBiases(parts, biases, weight.get()));
  if (panels && weight->dtype == DType::kBF16) {
    context.sizes.linear_in = std::max(context.sizes.linear_in, weight->in);
  }
  return weight;
}

}  // namespace switchyard::cpu
