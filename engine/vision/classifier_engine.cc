#include "engine/vision/classifier_engine.h"

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "engine/base/status_macros.h"

namespace switchyard {
namespace {

ModelFacts ToModelFacts(const ImageClassifierInfo& info) {
  ModelFacts facts;
  facts.architecture = "vmoe";
  facts.backend = info.backend;
  facts.expert_gemms = info.expert_gemms;
  facts.backend_reason = info.backend_reason;
  facts.dtype = info.dtype;
  facts.expert_dtype = DTypeName(info.dtype);
  facts.num_parameters = info.num_parameters;
  facts.num_active_parameters = info.num_active_parameters;
  facts.weight_bytes = info.weight_bytes;
  facts.num_nonfinite_weights = info.num_nonfinite_weights;
  facts.max_model_len = info.tokens_per_image + 1;  // and the class
  facts.num_layers = info.num_layers;
  facts.moe_layers = info.moe_layers;
  facts.num_experts = info.num_experts;
  facts.top_k = info.top_k;
  facts.block_size = facts.max_model_len;
  facts.num_kv_blocks = info.max_batch;
  facts.load_seconds = info.load_seconds;
  facts.num_classes = info.num_classes;
  facts.image_size = info.image_size;
  facts.tokens_per_image = info.tokens_per_image;
  return facts;
}

class ClassifierEngine final : public Engine {
 public:
  explicit ClassifierEngine(std::unique_ptr<ImageClassifier> classifier)
      : classifier_(std::move(classifier)),
        facts_(ToModelFacts(classifier_->info())),
        image_values_(static_cast<size_t>(facts_.image_size) * static_cast<size_t>(facts_.image_size) *
                      static_cast<size_t>(classifier_->info().num_channels)),
        images_(image_values_ * static_cast<size_t>(facts_.num_kv_blocks)),
        logits_(static_cast<size_t>(facts_.num_classes) * static_cast<size_t>(facts_.num_kv_blocks)) {}

  const ModelFacts& facts() const override { return facts_; }

  absl::Status Launch(const StepBatch& batch) override {
    const size_t num_images = batch.slices.size();
    if (num_images > static_cast<size_t>(facts_.num_kv_blocks)) return absl::InternalError("too many images in a step");
    for (size_t i = 0; i < num_images; ++i) {
      const SequenceSlice& slice = batch.slices[i];
      if (!slice.sample || slice.image.size() != image_values_) {
        return absl::InternalError("a slice of the step is not one whole image");
      }
      std::copy(slice.image.begin(), slice.image.end(), images_.begin() + static_cast<ptrdiff_t>(i * image_values_));
    }
    const size_t num_classes = static_cast<size_t>(facts_.num_classes);
    RETURN_IF_ERROR(classifier_->Classify(std::span(images_).first(num_images * image_values_),
                                          static_cast<int32_t>(num_images),
                                          std::span(logits_).first(num_images * num_classes), &output_.stats));
    output_.tokens.clear();
    for (size_t i = 0; i < num_images; ++i) {
      output_.tokens.push_back(Read(batch.slices[i], std::span(logits_).subspan(i * num_classes, num_classes)));
    }
    return absl::OkStatus();
  }

  absl::StatusOr<const StepOutput*> Collect() override { return &output_; }

 private:
  static SampledToken Read(const SequenceSlice& slice, std::span<const float> logits) {
    SampledToken read;
    read.sequence_id = slice.sequence_id;
    read.token = static_cast<int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
    read.finite = std::all_of(logits.begin(), logits.end(), [](float logit) { return std::isfinite(logit); });
    read.logits.assign(logits.begin(), logits.end());
    return read;
  }

  const std::unique_ptr<ImageClassifier> classifier_;
  const ModelFacts facts_;
  const size_t image_values_;
  std::vector<float> images_;  // of one step
  std::vector<float> logits_;
  StepOutput output_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Engine>> CreateClassifierEngine(const std::string& folder,
                                                               const ImageClassifierOptions& options) {
  ASSIGN_OR_RETURN(std::unique_ptr<ImageClassifier> classifier, ImageClassifier::Load(folder, options));
  return std::make_unique<ClassifierEngine>(std::move(classifier));
}

}  // namespace switchyard
