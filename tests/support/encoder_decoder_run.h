// An encoder-decoder of a golden checkpoint: runs its two prompts and measures how far logits and routing are from the
// golden ones. Has room for three sequences of them.
#ifndef SWITCHYARD_TESTS_SUPPORT_ENCODER_DECODER_RUN_H_
#define SWITCHYARD_TESTS_SUPPORT_ENCODER_DECODER_RUN_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/backend/backend.h"
#include "engine/model/encoder_decoder.h"
#include "tests/support/golden_answers.h"

namespace switchyard::testing {

class EncoderDecoderRun {
 public:
  static constexpr int32_t kNumSequences = 3;

  // UNIMPLEMENTED: the backend does not serve the model. Other errors as EncoderDecoder::Load has them. `backend`
  // outlives this.
  static absl::StatusOr<std::unique_ptr<EncoderDecoderRun>> Create(const ModelConfig& config, const Weights& weights,
                                                                   const std::string& golden_file, DType dtype,
                                                                   Backend* backend);

  const EncoderDecoder& model() const { return *model_; }
  int32_t vocab_size() const { return config_.vocab_size; }
  const std::vector<int32_t>& ids() const { return ids_; }  // the encoder's, then the decoder's
  int32_t num_encoded() const { return num_encoded_; }
  int32_t num_decoded() const { return length() - num_encoded_; }
  int32_t length() const { return static_cast<int32_t>(ids_.size()); }

  // Positions [first, first + count) of sequence 0, 1 or 2, in rows from first_row on; `prompt` tokens of the decoder
  // count for the experts' capacity. Lives as long as this.
  AttentionSlice Slice(int64_t first_row, int32_t first, int32_t count, int sequence, int32_t prompt) const;
  std::vector<int32_t> Part(int32_t first, int32_t count) const;

  // The logits of every row of the decoder [rows, vocab_size].
  absl::StatusOr<std::vector<float>> RunStep(const std::vector<int32_t>& ids,
                                             const std::vector<AttentionSlice>& slices);

  // Both prompts in one step, and the experts of every token.
  absl::StatusOr<GoldenErrors> RunAtOnce();
  // The decoder's tokens in chunks of these sizes, the first together with the encoder, as if all but one had been
  // generated one by one: compared with the golden logits of that. REQUIRES: their sum is num_decoded().
  absl::StatusOr<GoldenErrors> RunGenerated(const std::vector<int>& chunks);

 private:
  EncoderDecoderRun(const ModelConfig& config, const std::string& golden_file, Backend* backend);

  absl::StatusOr<std::unique_ptr<KvCache>> AllocateCache(DType dtype) const;
  void CompareRouting(GoldenErrors* errors) const;

  const ModelConfig config_;
  Backend* const backend_;
  const GoldenAnswers golden_;
  std::vector<int32_t> ids_;
  int32_t num_encoded_ = 0;
  std::vector<int32_t> tables_[kNumSequences];  // blocks in no order
  std::unique_ptr<KvCache> cache_;
  std::unique_ptr<EncoderDecoder> model_;
};

}  // namespace switchyard::testing

#endif  // SWITCHYARD_TESTS_SUPPORT_ENCODER_DECODER_RUN_H_
