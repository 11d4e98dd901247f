// The front door of image classifiers: images in, logits out. Knows nothing of requests, gRPC or metrics.
//
//   ASSIGN_OR_RETURN(auto classifier, ImageClassifier::Load(folder, options));
//   RETURN_IF_ERROR(classifier->Classify(images, n, logits, &stats));
//
// Guarantee: an image's logits depend on that image only, not on the others of the call (bitwise on the CPU).
//
// Threads: one call at a time. The classifier's worker threads are private to it.
#ifndef SWITCHYARD_ENGINE_VISION_IMAGE_CLASSIFIER_H_
#define SWITCHYARD_ENGINE_VISION_IMAGE_CLASSIFIER_H_

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/backend/backend.h"
#include "engine/base/dtype.h"
#include "engine/step.h"
#include "engine/vision/vision_config.h"
#include "engine/vision/vision_transformer.h"

namespace switchyard {

struct ImageClassifierOptions {
  bool dummy_weights = false;  // random ones; the folder then needs no more than a config.json
  uint64_t seed = 0;           // of dummy weights
  std::string dtype = "auto";  // auto (the checkpoint's) | float32 | bfloat16
  BackendOptions backend;
  int32_t max_batch = 8;       // images per call; sizes buffers
};

// Facts about the loaded model that a server shows, checks against and sizes by.
struct ImageClassifierInfo {
  std::string backend;                // e.g. "cpu (amx, 2 threads)"
  std::vector<std::string> expert_gemms;  // who may multiply the experts: see ExpertGemmCount
  std::string backend_reason;         // why this one runs, e.g. "asked for"
  DType dtype = DType::kF32;
  int64_t num_parameters = 0;
  int64_t num_active_parameters = 0;  // per token
  int64_t weight_bytes = 0;           // in memory
  int64_t num_nonfinite_weights = 0;  // NaN or infinite: a damaged checkpoint
  int32_t image_size = 0;             // pixels of a side
  int32_t num_channels = 0;
  int32_t num_classes = 0;
  int32_t tokens_per_image = 0;
  int32_t num_layers = 0;
  std::vector<int32_t> moe_layers;    // layer index of each MoE layer: position i in StepStats::moe_layers
  int32_t num_experts = 0;
  int32_t top_k = 0;
  int32_t expert_capacity = 0;        // choices of one image's tokens that an expert runs; 0 = all
  int32_t max_batch = 0;
  double load_seconds = 0.0;
};

class ImageClassifier {
 public:
  // INVALID_ARGUMENT: config, weights or options are wrong; the message lists every problem found.
  // NOT_FOUND: no such folder, or no config or weights in it.
  // UNIMPLEMENTED: another model_type, or a block that the device does not compute.
  // RESOURCE_EXHAUSTED: not enough memory or threads; checked before the first weight is read.
  // FAILED_PRECONDITION: the asked-for device or instruction set is not there.
  // DATA_LOSS: a file changed or could not be read while it was loaded.
  static absl::StatusOr<std::unique_ptr<ImageClassifier>> Load(const std::string& folder,
                                                               const ImageClassifierOptions& options);

  const ImageClassifierInfo& info() const { return info_; }

  // images: [n, image_size, image_size, 3] in [-1, 1], rows of pixels from the top, RGB. logits: [n, num_classes].
  // `stats` may be null; its tokens are those of all images, the class tokens too. An image that is not finite has
  // logits that may not be, and changes no other's.
  // INVALID_ARGUMENT: n is not from 1 to max_batch, or a size is wrong. INTERNAL: the device failed, with its words;
  // every later call fails the same way.
  absl::Status Classify(std::span<const float> images, int32_t n, std::span<float> logits, StepStats* stats);

  // What the routers decided in the last call that succeeded.
  std::span<const std::unique_ptr<MoeLayer>> moe_layers() const { return model_->moe_layers(); }

 private:
  ImageClassifier() = default;

  absl::Status CheckCall(std::span<const float> images, int32_t n, std::span<float> logits) const;

  VisionConfig config_;
  ImageClassifierInfo info_;
  std::unique_ptr<Backend> backend_;
  std::unique_ptr<VisionTransformer> model_;
  std::vector<float> patches_;  // of max_batch images
};

}  // namespace switchyard

#endif  // SWITCHYARD_ENGINE_VISION_IMAGE_CLASSIFIER_H_
