// An image classifier's backend on the CPU that does one thing wrong. `inner` outlives it.
#ifndef SWITCHYARD_TESTS_ENGINE_VISION_PLANTED_BROKEN_VISION_BACKEND_H_
#define SWITCHYARD_TESTS_ENGINE_VISION_PLANTED_BROKEN_VISION_BACKEND_H_

#include <cstdint>
#include <memory>

#include "engine/backend/backend.h"

namespace switchyard::testing {

enum class VisionFault : uint8_t {
  kNone,
  kNormsKeepTheMean,    // RMS norms, with their biases
  kBlocksReadUnnormed,  // no norm before attention and MLP
  kNoFinalNorm,
  kScoresNotScaled,
  kMeanForClassToken,  // the head reads the mean of all tokens
  kNoTanh,             // before the head
  kReluInDenseLayers,
  kRanksCompete,  // a token's second choice is placed before later tokens' first choices
  kImagesShareCapacity,
  kWeightsAreOne,
};

std::unique_ptr<Backend> MakeBrokenVisionBackend(Backend* inner, VisionFault fault);

}  // namespace switchyard::testing

#endif  // SWITCHYARD_TESTS_ENGINE_VISION_PLANTED_BROKEN_VISION_BACKEND_H_
