#include "engine/model/stack_rows.h"

#include <algorithm>

#include "engine/base/status_macros.h"

namespace switchyard {
namespace {

void Clear(RowsOfStack* rows) {
  rows->ids.clear();
  rows->slices.clear();
  rows->groups.clear();
}

void Reserve(int32_t max_tokens, int32_t max_slices, RowsOfStack* rows) {
  rows->ids.reserve(static_cast<size_t>(max_tokens));
  rows->slices.reserve(static_cast<size_t>(max_slices));
  rows->groups.reserve(static_cast<size_t>(max_slices));
}

// Appends `count` rows of a slice, from its row `skipped` on; the first `limited` of them share the experts' capacity.
void Append(std::span<const int32_t> ids, const AttentionSlice& slice, int32_t skipped, int32_t count, int32_t limited,
            RowsOfStack* rows) {
  AttentionSlice part = slice;
  part.first_row = rows->num_rows();
  part.num_tokens = count;
  part.first_position = slice.first_position + skipped;
  rows->slices.push_back(part);
  if (limited > 0) rows->groups.push_back({part.first_row, limited});
  const auto first = ids.begin() + slice.first_row + skipped;
  rows->ids.insert(rows->ids.end(), first, first + count);
}

}  // namespace

void StackRows::Reserve(int32_t max_tokens, int32_t max_slices) {
  switchyard::Reserve(max_tokens, max_slices, &encoder_);
  switchyard::Reserve(max_tokens, max_slices, &decoder_);
  logit_rows_.reserve(static_cast<size_t>(max_slices));
  decoder_row_.reserve(static_cast<size_t>(max_tokens));
}

void StackRows::Split(std::span<const int32_t> ids, std::span<const AttentionSlice> slices,
                      std::span<const int32_t> logit_rows) {
  Clear(&encoder_);
  Clear(&decoder_);
  decoder_row_.assign(ids.size(), -1);
  for (const AttentionSlice& slice : slices) {
    const int32_t encoded = std::max(slice.num_encoder_tokens - slice.first_position, 0);
    CHECK(encoded == 0 || (slice.first_position == 0 && encoded <= slice.num_tokens));
    if (encoded > 0) Append(ids, slice, 0, encoded, encoded, &encoder_);
    const int32_t decoded = slice.num_tokens - encoded;
    if (decoded == 0) continue;
    for (int32_t i = 0; i < decoded; ++i) {
      decoder_row_[static_cast<size_t>(slice.first_row + encoded + i)] = static_cast<int32_t>(decoder_.num_rows()) + i;
    }
    const int32_t limited = std::clamp(slice.prompt_end - slice.first_position - encoded, 0, decoded);
    Append(ids, slice, encoded, decoded, limited, &decoder_);
  }
  logit_rows_.clear();
  for (const int32_t row : logit_rows) logit_rows_.push_back(decoder_row(row));
}

}  // namespace switchyard
