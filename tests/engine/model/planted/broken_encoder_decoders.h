// An encoder-decoder's backend on the CPU that does one thing wrong. `inner` outlives it.
#ifndef SWITCHYARD_TESTS_ENGINE_MODEL_PLANTED_BROKEN_ENCODER_DECODERS_H_
#define SWITCHYARD_TESTS_ENGINE_MODEL_PLANTED_BROKEN_ENCODER_DECODERS_H_

#include <cstdint>
#include <memory>

#include "engine/backend/backend.h"

namespace switchyard::testing {

enum class EncoderDecoderFault : uint8_t {
  kBiasInFirstLayerOnly,  // of the decoder; the others have none
  kCrossAttentionBiased,  // by the distance of positions, as the decoder's own attention
  kCrossAttentionToItself,
  kEncoderIsCausal,
  kNormsSubtractTheMean,
  kLastComeFirst,          // the expert's places go to the last tokens that want them
  kDroppedBecomeZero,      // instead of passing the layer by
  kDroppedKeepTheirInput,  // what their expert would have read, times its weight, is added
};

std::unique_ptr<Backend> MakeBrokenEncoderDecoder(Backend* inner, EncoderDecoderFault fault);

}  // namespace switchyard::testing

#endif  // SWITCHYARD_TESTS_ENGINE_MODEL_PLANTED_BROKEN_ENCODER_DECODERS_H_
