#include "engine/backend/cpu/linear.h"

#include <algorithm>
#include <tuple>

#include "engine/base/status_macros.h"

namespace switchyard::cpu {
namespace {

// From here on the product is bound by FLOP even if every thread reads all weights.
constexpr int64_t kMinRowsPerThread = 192;

// A thread's share: rows [first_row, last_row) x panels [first_panel, last_panel).
struct Share {
  int64_t first_row, last_row, first_panel, last_panel;
};

// By panels, so that each weight byte is read by one thread; by rows when there are too few panels to go round.
Share ShareOf(int thread, int num_threads, int64_t num_rows, int64_t num_panels) {
  if (num_panels >= 4 * num_threads || num_rows <= 2 * kRowGroup) {
    const auto [first, last] = WorkerPool::Part(num_panels, thread, num_threads);
    return {0, num_rows, first, last};
  }
  const auto [first, last] = WorkerPool::Part(CeilDiv(num_rows, kRowGroup), thread, num_threads);
  return {std::min(num_rows, first * kRowGroup), std::min(num_rows, last * kRowGroup), 0, num_panels};
}

// Rounds this thread's part of the chunk to bfloat16: whole rows, or columns of all rows when rows are few.
void PackShare(const Kernels& kernels, const float* in, int64_t num_rows, int64_t cols, int thread, int num_threads,
               uint16_t* packed) {
  const int64_t steps = KSteps(cols);
  int64_t first_row = 0, last_row = num_rows, first_step = 0, last_step = steps;
  if (num_rows >= 4 * num_threads) {
    std::tie(first_row, last_row) = WorkerPool::Part(num_rows, thread, num_threads);
  } else {
    std::tie(first_step, last_step) = WorkerPool::Part(steps, thread, num_threads);
  }
  for (int64_t r = first_row; r < last_row; ++r) {
    uint16_t* const to = packed + r / kRowGroup * steps * kTileElements + r % kRowGroup * kStepK;
    kernels.pack_row(in + r * cols, cols, first_step, last_step, to);
  }
}

// This thread's panels times `rows` (fp32: pointers to each; bfloat16: packed), stored at `out`, `stride` floats apart.
void MultiplyPanels(const Kernels& kernels, const CpuWeight& weight, const float* const* rows, const uint16_t* packed,
                    int num_rows, int64_t first_panel, int64_t last_panel, bool add, float* c, float* out,
                    int64_t stride) {
  for (int64_t p = first_panel; p < last_panel; ++p) {
    if (weight.dtype == DType::kBF16) {
      kernels.gemm_bf16(packed, num_rows, reinterpret_cast<const uint16_t*>(weight.panel(p)), KSteps(weight.in), c);
    } else {
      kernels.gemm_f32(rows, num_rows, reinterpret_cast<const float*>(weight.panel(p)), weight.in, c);
    }
    const int64_t first_col = p * kPanelCols;
    const int cols = static_cast<int>(std::min<int64_t>(kPanelCols, weight.out - first_col));
    const float* const bias = weight.bias_or_null();
    kernels.store_panel(c, num_rows, cols, bias == nullptr ? nullptr : bias + first_col, add, out + first_col, stride);
  }
}

// Each thread takes its own rows through all panels: no thread waits for, or reads rows packed by, another.
void LinearByRows(Context& context, const float* in, int64_t num_rows, const CpuWeight& weight, bool add, float* out,
                  int thread) {
  const auto [first, last] = WorkerPool::Part(CeilDiv(num_rows, kRowGroup), thread, context.pool.num_threads());
  uint16_t* const packed = context.PackedRows(thread);
  const int64_t end = std::min(num_rows, last * kRowGroup);
  for (int64_t chunk = first * kRowGroup; chunk < end; chunk += kChunkRows) {
    const int64_t chunk_rows = std::min(kChunkRows, end - chunk);
    PackShare(context.kernels, in + chunk * weight.in, chunk_rows, weight.in, 0, 1, packed);
    MultiplyPanels(context.kernels, weight, nullptr, packed, static_cast<int>(chunk_rows), 0, weight.num_panels(), add,
                   context.PanelResults(thread), out + chunk * weight.out, weight.out);
  }
}

}  // namespace

void Linear(Context& context, const float* in, int64_t num_rows, const CpuWeight& weight, bool add, float* out) {
  const bool bf16 = weight.dtype == DType::kBF16;
  const int num_threads = context.pool.num_threads();
  CHECK(!bf16 || weight.in <= context.scratch.sizes.linear_in);
  CHECK(context.scratch.thread.bytes() > 0);
  if (bf16 && num_rows >= kMinRowsPerThread * num_threads) {
    context.pool.Run([&](int thread) { LinearByRows(context, in, num_rows, weight, add, out, thread); });
    return;
  }
  uint16_t* const packed = context.PackedRows(0);
  context.pool.Run([&](int thread) {
    const float** const rows = context.RowPointers(thread);
    for (int64_t chunk = 0; chunk < num_rows; chunk += kChunkRows) {
      const int64_t chunk_rows = std::min(kChunkRows, num_rows - chunk);
      const float* const chunk_in = in + chunk * weight.in;
      if (bf16) {
        if (chunk > 0) context.pool.Barrier();  // the packed rows of the chunk before are still in use
        PackShare(context.kernels, chunk_in, chunk_rows, weight.in, thread, num_threads, packed);
        context.pool.Barrier();
      }
      const Share share = ShareOf(thread, num_threads, chunk_rows, weight.num_panels());
      const int share_rows = static_cast<int>(share.last_row - share.first_row);
      if (share_rows <= 0) continue;
      for (int r = 0; r < share_rows; ++r) rows[r] = chunk_in + (share.first_row + r) * weight.in;
      MultiplyPanels(context.kernels, weight, rows, packed + share.first_row * KSteps(weight.in) * kStepK, share_rows,
                     share.first_panel, share.last_panel, add, context.PanelResults(thread),
                     out + (chunk + share.first_row) * weight.out, weight.out);
    }
  });
}

namespace {

// Panels [first, last) of `weight` times any rows, gathered by this thread for itself, kChunkRows at a time.
// row_at(r) and out_at(r): where row r is read and written.
template <typename RowAt, typename OutAt>
void MultiplyGathered(Context& context, const CpuWeight& weight, int64_t num_rows, int64_t first, int64_t last,
                      int thread, int64_t out_stride, const RowAt& row_at, const OutAt& out_at) {
  const float** const rows = context.RowPointers(thread);
  uint16_t* const packed = context.PackedRows(thread);
  const int64_t steps = KSteps(weight.in);
  for (int64_t chunk = 0; chunk < num_rows; chunk += kChunkRows) {
    const int chunk_rows = static_cast<int>(std::min(kChunkRows, num_rows - chunk));
    for (int r = 0; r < chunk_rows; ++r) {
      rows[r] = row_at(chunk + r);
      if (weight.dtype != DType::kBF16) continue;  // fp32 kernels read the rows where they are
      context.kernels.pack_row(rows[r], weight.in, 0, steps,
                               packed + r / kRowGroup * steps * kTileElements + r % kRowGroup * kStepK);
    }
    MultiplyPanels(context.kernels, weight, rows, packed, chunk_rows, first, last, false, context.PanelResults(thread),
                   out_at(chunk), out_stride);
  }
}

}  // namespace

void LinearPerHead(Context& context, const float* in, int64_t in_width, int64_t num_rows,
                   std::span<const std::unique_ptr<Weight>> heads, float* out, int64_t out_width) {
  const int64_t num_heads = static_cast<int64_t>(heads.size());
  const int64_t in_part = in_width / num_heads, out_part = out_width / num_heads;
  context.pool.Run([&](int thread) {
    const auto [first, last] = WorkerPool::Part(num_heads, thread, context.pool.num_threads());
    for (int64_t n = first; n < last; ++n) {
      const CpuWeight& weight = static_cast<const CpuWeight&>(*heads[static_cast<size_t>(n)]);
      CHECK(weight.in <= in_part && weight.out <= out_part);
      MultiplyGathered(
          context, weight, num_rows, 0, weight.num_panels(), thread, out_width,
          [&](int64_t r) { return in + r * in_width + n * in_part; },
          [&](int64_t r) { return out + r * out_width + n * out_part; });
    }
  });
}

void LinearPerExpert(Context& context, const float* in, bool in_is_grouped,
                     std::span<const std::unique_ptr<Weight>> experts, const ExpertBatches& batches, float* rows_out) {
  CHECK(static_cast<int32_t>(experts.size()) == batches.num_experts);
  context.pool.Run([&](int thread) {
    for (int32_t e = 0; e < batches.num_experts; ++e) {
      const CpuWeight& weight = static_cast<const CpuWeight&>(*experts[static_cast<size_t>(e)]);
      const int64_t begin = batches.expert_offsets[e], num_rows = batches.expert_offsets[e + 1] - begin;
      const auto [first, last] = WorkerPool::Part(weight.num_panels(), thread, context.pool.num_threads());
      if (num_rows == 0 || first == last) continue;
      MultiplyGathered(
          context, weight, num_rows, first, last, thread, weight.out,
          [&](int64_t r) { return in + (in_is_grouped ? begin + r : batches.row_to_token[begin + r]) * weight.in; },
          [&](int64_t r) { return rows_out + (begin + r) * weight.out; });
    }
  });
}

}  // namespace switchyard::cpu
