#include "engine/model/language_model.h"

#include "engine/model/encoder_decoder.h"
#include "engine/model/transformer.h"

namespace switchyard {

int64_t ActivationBytes(const ModelConfig& config, const ModelLimits& limits) {
  return config.num_encoder_layers > 0 ? EncoderDecoder::ActivationBytes(config, limits)
                                       : Transformer::ActivationBytes(config, limits);
}

absl::Status CheckServed(const ModelConfig& config, const Backend& backend) {
  return config.num_encoder_layers > 0 ? EncoderDecoder::CheckServed(config, backend)
                                       : Transformer::CheckServed(config, backend);
}

absl::StatusOr<std::unique_ptr<LanguageModel>> LoadLanguageModel(const ModelConfig& config, const Weights& weights,
                                                                 DType dtype, const ModelLimits& limits,
                                                                 Backend* backend) {
  if (config.num_encoder_layers > 0) return EncoderDecoder::Load(config, weights, dtype, limits, backend);
  return Transformer::Load(config, weights, dtype, limits, backend);
}

}  // namespace switchyard
