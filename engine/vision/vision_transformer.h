// V-MoE's forward pass (Riquelme et al., 2106.05974) over the seam: patches, an encoder with MoE blocks, a head.
//
//   images -> rows of patches -> + positions -> layers: norm, attention over the image, norm, MLP or MoE
//          -> the class tokens' rows -> norm -> tanh(Dense), if there is one -> head
//
// Every row sees the rows of its own image only, in attention and in the experts' capacity, so that an image's logits
// never depend on the others. Buffers are sized once for the largest batch.
#ifndef SWITCHYARD_ENGINE_VISION_VISION_TRANSFORMER_H_
#define SWITCHYARD_ENGINE_VISION_VISION_TRANSFORMER_H_

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/backend/backend.h"
#include "engine/checkpoint/named_tensors.h"
#include "engine/moe/moe_layer.h"
#include "engine/vision/vision_config.h"

namespace switchyard {

class VisionTransformer {
 public:
  // Memory that Load takes beside the weights, without what the backend needs for itself.
  static int64_t ActivationBytes(const VisionConfig& config, int32_t max_images);

  // UNIMPLEMENTED: names what the backend does not compute of this model. To be called before anything is allocated.
  static absl::Status CheckServed(const VisionConfig& config, const Backend& backend);

  // Reads all weights into the backend, rounded to `dtype` (norms, routers and positions stay fp32).
  // REQUIRES: CheckServed; weights of VisionTensors(config). INVALID_ARGUMENT: sizes beyond what the backend takes.
  // DATA_LOSS: a weight file changed or could not be read. RESOURCE_EXHAUSTED: no memory.
  static absl::StatusOr<std::unique_ptr<VisionTransformer>> Load(const VisionConfig& config,
                                                                 const NamedTensors& weights, DType dtype,
                                                                 int32_t max_images, Backend* backend);

  // patches: rows as CutPatches makes them. Returns logits [num_images, num_classes], host-readable after the backend's
  // Wait(). REQUIRES: 1 to max_images images.
  Matrix Forward(std::span<const float> patches);

  // MoE layers in layer order, for stats after Wait().
  std::span<const std::unique_ptr<MoeLayer>> moe_layers() const { return moe_layers_; }
  int64_t weight_bytes() const { return weight_bytes_; }
  int64_t num_nonfinite_weights() const { return num_nonfinite_weights_; }  // NaN or infinite in memory; 0 is healthy

 private:
  struct Norm {
    std::unique_ptr<Weight> weight;
    std::unique_ptr<Weight> bias;
  };
  struct Layer {
    Norm attention_norm;
    std::unique_ptr<Weight> qkv;
    std::unique_ptr<Weight> output;
    Norm mlp_norm;
    MoeLayer* moe = nullptr;  // or
    PlainMlp dense;
  };
  class Loader;

  VisionTransformer(const VisionConfig& config, Backend* backend);

  absl::Status AllocateBuffers(DType dtype, int32_t max_images);
  void ListImages(int32_t max_images);
  void Normalize(Matrix in, const Norm& norm, Matrix out);
  Matrix Classify(Matrix x, int64_t num_images);

  const VisionConfig config_;
  const AttentionShape shape_;
  Backend* const backend_;
  std::unique_ptr<Weight> patch_embedding_;
  std::unique_ptr<Weight> positions_;  // [tokens_per_image, hidden], with what all images add to them
  std::vector<Layer> layers_;
  std::vector<std::unique_ptr<MoeLayer>> moe_layers_;
  Norm final_norm_;
  std::unique_ptr<Weight> pre_logits_;  // null: none
  std::unique_ptr<Weight> head_;
  int64_t weight_bytes_ = 0;
  int64_t num_nonfinite_weights_ = 0;

  // For the largest batch; a batch uses the front.
  std::vector<int32_t> position_ids_;    // 0 .. tokens_per_image - 1, image after image
  std::vector<AttentionSlice> slices_;   // one per image
  std::vector<RowGroup> groups_;         // likewise
  std::vector<int32_t> class_rows_;      // of each image's class token
  Matrix patches_;         // [max_tokens, patch_pixels]
  Matrix x_;               // [max_tokens, hidden] the residual stream
  Matrix h_;               // [max_tokens, hidden] normalised input of a block
  Matrix qkv_;             // [max_tokens, 3 hidden]
  Matrix attended_;        // [max_tokens, hidden]
  Matrix class_tokens_;    // [max_images, hidden]
  Matrix representation_;  // [max_images, representation_size]
  Matrix logits_;          // [max_images, num_classes]
  FeedForwardScratch scratch_;
};

}  // namespace switchyard

#endif  // SWITCHYARD_ENGINE_VISION_VISION_TRANSFORMER_H_
