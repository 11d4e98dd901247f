// An image classifier as an Engine, so that what schedules token sequences serves images, too.
//
// An image is a sequence of `tokens_per_image` tokens, its patches, whose ids mean nothing; the values are in
// SequenceSlice::image. It runs at once in one step, and the "next token" is its likeliest class, with all logits in
// SampledToken::logits. There is no KV cache: a block of the pool is a place in the step, as large as an image.
//
//   slices {image A} {image B}  --Launch-->  Classify([A, B])  --Collect-->  tokens {class, logits} {class, logits}
#ifndef SWITCHYARD_ENGINE_VISION_CLASSIFIER_ENGINE_H_
#define SWITCHYARD_ENGINE_VISION_CLASSIFIER_ENGINE_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "engine/engine.h"
#include "engine/vision/image_classifier.h"

namespace switchyard {

// Errors as ImageClassifier::Load. Its Launch: INTERNAL for a slice that is not one whole image.
absl::StatusOr<std::unique_ptr<Engine>> CreateClassifierEngine(const std::string& folder,
                                                               const ImageClassifierOptions& options);

}  // namespace switchyard

#endif  // SWITCHYARD_ENGINE_VISION_CLASSIFIER_ENGINE_H_
