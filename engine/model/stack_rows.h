// Which rows of a step the encoder runs and which the decoder: a step's slices, cut at the end of each prompt.
//
//   slices:   A, encoder 3 + start     B, a decode        ids: a0 a1 a2 s | b7
//   encoder:  a0 a1 a2                 decoder: s b7      the rows of each stack lie without gaps
#ifndef SWITCHYARD_ENGINE_MODEL_STACK_ROWS_H_
#define SWITCHYARD_ENGINE_MODEL_STACK_ROWS_H_

#include <cstdint>
#include <span>
#include <vector>

#include "engine/backend/backend.h"

namespace switchyard {

// The rows of one stack; `first_row` of slices and groups counts within them.
struct RowsOfStack {
  std::vector<int32_t> ids;
  std::vector<AttentionSlice> slices;
  std::vector<RowGroup> groups;  // that share the capacity of the experts: the prompt's rows of each slice

  int64_t num_rows() const { return static_cast<int64_t>(ids.size()); }
};

class StackRows {
 public:
  // Memory for the largest step, so that Split allocates nothing.
  void Reserve(int32_t max_tokens, int32_t max_slices);

  // REQUIRES: as EncoderDecoder::Forward.
  void Split(std::span<const int32_t> ids, std::span<const AttentionSlice> slices,
             std::span<const int32_t> logit_rows);

  const RowsOfStack& encoder() const { return encoder_; }
  const RowsOfStack& decoder() const { return decoder_; }
  std::span<const int32_t> logit_rows() const { return logit_rows_; }  // rows of the decoder
  int32_t decoder_row(int32_t row) const { return decoder_row_[static_cast<size_t>(row)]; }

 private:
  RowsOfStack encoder_;
  RowsOfStack decoder_;
  std::vector<int32_t> logit_rows_;
  std::vector<int32_t> decoder_row_;  // of each row of the step; -1: it is the encoder's
};

}  // namespace switchyard

#endif  // SWITCHYARD_ENGINE_MODEL_STACK_ROWS_H_
