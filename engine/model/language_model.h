// What the engine runs: a model that turns the tokens of a step into logits. One class per shape of model: Transformer
// (a decoder) and EncoderDecoder.
#ifndef SWITCHYARD_ENGINE_MODEL_LANGUAGE_MODEL_H_
#define SWITCHYARD_ENGINE_MODEL_LANGUAGE_MODEL_H_

#include <cstdint>
#include <memory>
#include <span>

#include "absl/status/statusor.h"
#include "engine/backend/backend.h"
#include "engine/checkpoint/weights.h"
#include "engine/config/model_config.h"
#include "engine/moe/moe_layer.h"

namespace switchyard {

struct ModelLimits {
  int32_t max_tokens = 0;       // per step
  int32_t max_logit_rows = 0;   // per step; no step has more slices
  int32_t num_valid_ids = 0;    // ids from here on are never sampled; 0: all are valid
};

class LanguageModel {
 public:
  virtual ~LanguageModel() = default;

  // Runs one step: tokens of all slices flattened in `step.ids`; the logits of `step.logit_rows` (indices into ids) are
  // what is returned, [logit_rows.size(), vocab_size], host-readable after the backend's Wait().
  virtual Matrix Forward(const StepInputs& step, KvCache* cache) = 0;

  // Of the last Forward, after the backend's Wait(): for each row of logits the token drawn as step.sampling says, -1
  // where one is not finite; null where the device draws none.
  virtual const int32_t* sampled_tokens() const = 0;

  // MoE layers in layer order, for stats after Wait().
  virtual std::span<const MoeLayer* const> moe_layers() const = 0;
  // Those of them that rows with logits pass through: all, or the decoder's.
  virtual std::span<const MoeLayer* const> decoder_moe_layers() const { return moe_layers(); }
  // Where in their routing of the last Forward this row of the step is.
  virtual int32_t DecoderRow(int32_t row) const { return row; }

  virtual int64_t weight_bytes() const = 0;
  virtual int64_t num_nonfinite_weights() const = 0;  // NaN or infinite in memory; 0 is healthy
};

// Memory that LoadLanguageModel takes beside the weights, without what the backend needs for itself.
int64_t ActivationBytes(const ModelConfig& config, const ModelLimits& limits);

// UNIMPLEMENTED: names what the backend does not compute of this model. To be called before anything is allocated.
absl::Status CheckServed(const ModelConfig& config, const Backend& backend);

// Reads all weights into the backend, rounded to `dtype` (norms and routers stay fp32). The KV cache, which scratch is
// sized by, has to be allocated before.
// REQUIRES: CheckServed. INVALID_ARGUMENT: sizes beyond what the backend takes. DATA_LOSS: a weight file changed or
// could not be read. RESOURCE_EXHAUSTED: no memory.
absl::StatusOr<std::unique_ptr<LanguageModel>> LoadLanguageModel(const ModelConfig& config, const Weights& weights,
                                                                 DType dtype, const ModelLimits& limits,
                                                                 Backend* backend);

}  // namespace switchyard

#endif  // SWITCHYARD_ENGINE_MODEL_LANGUAGE_MODEL_H_
