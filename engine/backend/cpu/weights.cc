#include "engine/backend/cpu/weights.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/base/mutex.h"
#include "engine/base/status_macros.h"

namespace switchyard::cpu {
namespace {

// The first error of a parallel load; afterwards the other units are skipped.
class FirstError {
 public:
  void Add(absl::Status status) {
    if (status.ok()) return;
    MutexLock lock(&mutex_);
    if (status_.ok()) status_ = std::move(status);
    failed_.store(true, std::memory_order_relaxed);
  }
  bool failed() const { return failed_.load(std::memory_order_relaxed); }
  absl::Status Take() {
    MutexLock lock(&mutex_);
    return status_;
  }

 private:
  Mutex mutex_;
  absl::Status status_ ABSL_GUARDED_BY(mutex_);
  std::atomic<bool> failed_{false};
};

// Rows of one tile on their way into it: `num_rows` of 16 columns' weights, row-major [num_rows][in].
void PackTileF32(const float* rows, int num_rows, int64_t in, float* panel, int first_col) {
  for (int64_t k = 0; k < in; ++k) {
    float* to = panel + k * kPanelCols + first_col;
    for (int c = 0; c < num_rows; ++c) to[c] = rows[c * in + k];
    for (int c = num_rows; c < kTileCols; ++c) to[c] = 0.0f;
  }
}

void PackTileBf16(const Kernels& kernels, const uint16_t* rows, int num_rows, int64_t in, uint16_t* panel, int tile) {
  const int64_t steps = KSteps(in);
  uint16_t* const to = panel + tile * steps * kTileElements;
  // Full steps of full tiles, and what is left at the edges.
  const int64_t full = num_rows == kTileCols ? in / kStepK : 0;
  kernels.pack_tile_bf16(rows, in, full, to);
  for (int64_t k = full * kStepK; k < steps * kStepK; ++k) {
    uint16_t* const pairs = to + k / kStepK * kTileElements + k % kStepK / 2 * 2 * kTileCols + k % 2;
    for (int c = 0; c < kTileCols; ++c) pairs[2 * c] = c < num_rows && k < in ? rows[c * in + k] : uint16_t{0};
  }
}

void PackTile(const Kernels& kernels, const char* rows, int num_rows, int64_t in, DType dtype, char* panel,
              int tile) {
  if (dtype == DType::kF32) {
    PackTileF32(reinterpret_cast<const float*>(rows), num_rows, in, reinterpret_cast<float*>(panel), tile * kTileCols);
  } else {
    PackTileBf16(kernels, reinterpret_cast<const uint16_t*>(rows), num_rows, in, reinterpret_cast<uint16_t*>(panel),
                 tile);
  }
}

// How many elements have all bits of `exponent` set. Counted in blocks so small that the count fits an element, which
// lets the compiler count as many at once as there are in a register.
template <typename Bits>
int64_t CountAllSet(const Bits* bits, int64_t count, Bits exponent) {
  constexpr int64_t kBlock = 1 << 14;
  int64_t found = 0;
  for (int64_t first = 0; first < count; first += kBlock) {
    Bits in_block = 0;
    const int64_t end = std::min(count, first + kBlock);
    for (int64_t i = first; i < end; ++i) in_block += (bits[i] & exponent) == exponent ? 1 : 0;
    found += in_block;
  }
  return found;
}

// NaN and infinities: all bits of the exponent are set. The elements were just read, so this costs no memory traffic.
int64_t CountNonfinite(const void* elements, int64_t count, DType dtype) {
  if (dtype == DType::kF32) return CountAllSet<uint32_t>(static_cast<const uint32_t*>(elements), count, 0x7f800000u);
  return CountAllSet<uint16_t>(static_cast<const uint16_t*>(elements), count, 0x7f80u);
}

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

// Memory for `bytes` per worker while loading.
absl::StatusOr<Buffer> AllocateStaging(const Context& context, int64_t bytes) {
  return Buffer::Allocate(bytes * context.pool.num_threads(), "staging for weights");
}

// Runs unit(i, staging, &num_nonfinite) for i in [0, count) on the workers until one fails; adds up the last.
template <typename Unit>
absl::Status LoadUnits(Context& context, int64_t count, int64_t staging_bytes, int64_t* num_nonfinite,
                       const Unit& unit) {
  ASSIGN_OR_RETURN(const Buffer staging, AllocateStaging(context, staging_bytes));
  FirstError error;
  std::atomic<int64_t> next{0}, nonfinite{0};
  context.pool.Run([&](int thread) {
    char* const mine = staging.template as<char>() + thread * staging_bytes;
    for (int64_t i = next.fetch_add(1, std::memory_order_relaxed); i < count && !error.failed();
         i = next.fetch_add(1, std::memory_order_relaxed)) {
      int64_t found = 0;
      error.Add(unit(i, mine, &found));
      nonfinite.fetch_add(found, std::memory_order_relaxed);
    }
  });
  *num_nonfinite += nonfinite.load();
  return error.Take();
}

absl::Status ReadPanel(const Kernels& kernels, const StackedRows& rows, int64_t p, int64_t out, int64_t in,
                       DType dtype, char* staging, int64_t* num_nonfinite, char* panel) {
  const int64_t first = p * kPanelCols;
  const int64_t count = std::min<int64_t>(kPanelCols, out - first);
  RETURN_IF_ERROR(rows.Read(first, count, dtype, staging));
  *num_nonfinite += CountNonfinite(staging, count * in, dtype);
  const int64_t row_bytes = in * DTypeBytes(dtype);
  PackTile(kernels, staging, static_cast<int>(std::min<int64_t>(count, kTileCols)), in, dtype, panel, 0);
  PackTile(kernels, staging + kTileCols * row_bytes, static_cast<int>(std::max<int64_t>(count - kTileCols, 0)), in,
           dtype, panel, 1);
  return absl::OkStatus();
}

absl::Status LoadPanels(Context& context, const StackedRows& rows, CpuWeight* weight) {
  const int64_t panel_bytes = PanelBytes(weight->in, weight->dtype);
  ASSIGN_OR_RETURN(weight->data, Buffer::Allocate(weight->num_panels() * panel_bytes, "a weight matrix"));
  return LoadUnits(context, weight->num_panels(), kPanelCols * weight->in * DTypeBytes(weight->dtype),
                   &weight->nonfinite, [&](int64_t p, char* staging, int64_t* num_nonfinite) {
                     return ReadPanel(context.kernels, rows, p, weight->out, weight->in, weight->dtype, staging,
                                      num_nonfinite, weight->data.as<char>() + p * panel_bytes);
                   });
}

absl::Status LoadRowMajor(Context& context, const StackedRows& rows, CpuWeight* weight) {
  constexpr int64_t kRowsPerUnit = 64;
  const int64_t row_bytes = weight->in * DTypeBytes(weight->dtype);
  ASSIGN_OR_RETURN(weight->data, Buffer::Allocate(weight->out * row_bytes, "a weight matrix"));
  return LoadUnits(context, CeilDiv(weight->out, kRowsPerUnit), 0, &weight->nonfinite,
                   [&](int64_t unit, char*, int64_t* num_nonfinite) -> absl::Status {
                     const int64_t first = unit * kRowsPerUnit;
                     const int64_t count = std::min(kRowsPerUnit, weight->out - first);
                     char* const to = weight->data.as<char>() + first * row_bytes;
                     RETURN_IF_ERROR(rows.Read(first, count, weight->dtype, to));
                     *num_nonfinite = CountNonfinite(to, count * weight->in, weight->dtype);
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
  ASSIGN_OR_RETURN(weights->up_bias,
                   Buffer::Allocate(weights->num_experts * panels * kPanelCols * 4, "expert biases"));
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

absl::StatusOr<std::unique_ptr<CpuExperts>> LoadCpuExperts(Context& context, std::span<const ExpertReaders> experts,
                                                           DType dtype) {
  if (experts.empty()) return absl::InvalidArgumentError("a layer has no experts");
  auto weights = std::make_unique<CpuExperts>();
  weights->num_experts = static_cast<int64_t>(experts.size());
  weights->intermediate = experts[0].up->rows();
  weights->hidden = experts[0].up->cols();
  weights->form = experts[0].form;
  weights->dtype = dtype == DType::kF32 ? DType::kF32 : DType::kBF16;
  for (const ExpertReaders& expert : experts) {
    const auto has_shape = [](const TensorReader* reader, int64_t rows, int64_t cols) {
      return reader != nullptr && reader->rows() == rows && reader->cols() == cols;
    };
    const bool fits = has_shape(expert.up, weights->intermediate, weights->hidden) &&
                      has_shape(expert.down, weights->hidden, weights->intermediate) &&
                      (!weights->gated() || has_shape(expert.gate, weights->intermediate, weights->hidden));
    if (!fits) return absl::InvalidArgumentError("experts of one layer differ in shape");
  }
  ASSIGN_OR_RETURN(weights->data, Buffer::Allocate(weights->num_experts * weights->expert_bytes(), "experts"));
  context.sizes.expert_hidden = std::max(context.sizes.expert_hidden, weights->hidden);
  context.sizes.expert_intermediate = std::max(context.sizes.expert_intermediate, weights->intermediate);
  context.sizes.num_experts = std::max(context.sizes.num_experts, weights->num_experts);

  if (weights->form.biases) RETURN_IF_ERROR(LoadExpertBiases(experts, weights.get()));
  const CpuExperts& w = *weights;
  const int64_t units_per_expert = w.up_panels() + w.down_panels();
  const int64_t staging_bytes = kPanelCols * std::max(w.hidden, w.intermediate) * DTypeBytes(w.dtype);
  RETURN_IF_ERROR(LoadUnits(
      context, w.num_experts * units_per_expert, staging_bytes, &weights->nonfinite,
      [&](int64_t unit, char* staging, int64_t* num_nonfinite) -> absl::Status {
        const int64_t e = unit / units_per_expert;
        const int64_t p = unit % units_per_expert;
        if (p >= w.up_panels()) {
          const TensorReader* const down[] = {experts[e].down};
          const int64_t down_p = p - w.up_panels();
          return ReadPanel(context.kernels, StackedRows(down), down_p, w.hidden, w.intermediate, w.dtype, staging,
                           num_nonfinite, const_cast<char*>(w.down_panel(e, down_p)));
        }
        if (!w.gated()) {
          const TensorReader* const up[] = {experts[e].up};
          return ReadPanel(context.kernels, StackedRows(up), p, w.intermediate, w.hidden, w.dtype, staging,
                           num_nonfinite, const_cast<char*>(w.up_panel(e, p)));
        }
        const TensorReader* const sides[] = {experts[e].gate, experts[e].up};
        const int64_t first = p * kTileCols;
        const int64_t count = std::clamp<int64_t>(w.intermediate - first, 0, kTileCols);
        for (int tile = 0; tile < 2; ++tile) {
          if (count > 0) RETURN_IF_ERROR(sides[tile]->ReadRows(first, count, w.dtype, staging));
          *num_nonfinite += CountNonfinite(staging, count * w.hidden, w.dtype);
          PackTile(context.kernels, staging, static_cast<int>(count), w.hidden, w.dtype,
                   const_cast<char*>(w.up_panel(e, p)), tile);
        }
        return absl::OkStatus();
      }));
  return weights;
}

}  // namespace switchyard::cpu
