// A decoder of a golden checkpoint: runs its prompt and measures how far logits and routing are from the golden ones.
#ifndef SWITCHYARD_TESTS_SUPPORT_GOLDEN_RUN_H_
#define SWITCHYARD_TESTS_SUPPORT_GOLDEN_RUN_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/backend/backend.h"
#include "engine/model/transformer.h"
#include "tests/support/golden_answers.h"

namespace switchyard::testing {

class GoldenRun {
 public:
  // UNIMPLEMENTED: the backend does not serve the model. Other errors as Transformer::Load has them. `backend` outlives
  // this.
  static absl::StatusOr<std::unique_ptr<GoldenRun>> Create(const ModelConfig& config, const Weights& weights,
                                                           const std::string& golden_file, DType dtype,
                                                           Backend* backend);

  const std::vector<int32_t>& ids() const { return ids_; }
  int32_t length() const { return static_cast<int32_t>(ids_.size()); }
  const Transformer& model() const { return *model_; }

  // Runs the prompt in chunks of these sizes, one after the other. REQUIRES: their sum is length().
  absl::StatusOr<GoldenErrors> RunChunks(const std::vector<int>& chunks);
  // The logits of every row of a step [num_tokens, vocab_size].
  absl::StatusOr<std::vector<float>> RunStep(const std::vector<int32_t>& ids,
                                             const std::vector<AttentionSlice>& slices);

 private:
  GoldenRun(const ModelConfig& config, const std::string& golden_file, Backend* backend);

  void CompareRouting(int32_t position, int32_t size, GoldenErrors* errors) const;

  const ModelConfig config_;
  Backend* const backend_;
  const GoldenAnswers golden_;
  const std::vector<int32_t> ids_;
  std::unique_ptr<KvCache> cache_;
  std::unique_ptr<Transformer> model_;
};

}  // namespace switchyard::testing

#endif  // SWITCHYARD_TESTS_SUPPORT_GOLDEN_RUN_H_
