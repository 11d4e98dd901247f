#include "engine/vision/image_classifier.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/base/status_macros.h"
#include "engine/checkpoint/named_tensors.h"
#include "engine/config/weight_dtype.h"
#include "engine/moe/moe_layer.h"
#include "engine/vision/pixels.h"
#include "engine/vision/vision_weights.h"

namespace switchyard {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int32_t kMaxBatch = 1024;

double SecondsSince(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

// What CutPatches fills for a batch.
int64_t NumPatchValues(const VisionConfig& config, int32_t max_batch) {
  return int64_t{max_batch} * config.tokens_per_image() * config.patch_pixels();
}

// Everything large against what is free, before any of it is taken.
absl::Status CheckMemory(const VisionConfig& config, int64_t weight_bytes, int32_t max_batch, const Backend& backend) {
  const int64_t activations = backend.ActivationBytes(VisionTransformer::ActivationBytes(config, max_batch)) +
                              4 * NumPatchValues(config, max_batch);
  const int64_t available = backend.AvailableBytes();
  if (weight_bytes + activations <= available) return absl::OkStatus();
  return absl::ResourceExhaustedError(
      absl::StrCat("the model needs ", (weight_bytes + activations) >> 20, " MiB (weights ", weight_bytes >> 20,
                   ", activations of max_batch ", max_batch, " images ", activations >> 20, "), but only ",
                   available >> 20, " are available; lower max_batch, or serve a smaller model or dtype"));
}

ImageClassifierInfo Describe(const VisionConfig& config) {
  ImageClassifierInfo info;
  const VisionParameterCounts counts = CountParameters(config);
  info.num_parameters = counts.total;
  info.num_active_parameters = counts.active;
  info.image_size = config.image_size;
  info.num_channels = VisionConfig::kNumChannels;
  info.num_classes = config.num_classes;
  info.tokens_per_image = config.tokens_per_image();
  info.num_layers = config.num_hidden_layers;
  info.moe_layers = config.moe_layers;
  info.num_experts = config.router.num_experts;
  info.top_k = config.router.top_k;
  info.expert_capacity = config.router.capacity;
  return info;
}

}  // namespace

absl::StatusOr<std::unique_ptr<ImageClassifier>> ImageClassifier::Load(const std::string& folder,
                                                                       const ImageClassifierOptions& options) {
  const Clock::time_point start = Clock::now();
  if (options.max_batch < 1 || options.max_batch > kMaxBatch) {
    return absl::InvalidArgumentError(
        absl::StrCat("max_batch is ", options.max_batch, ", expected 1 to ", kMaxBatch));
  }
  std::unique_ptr<ImageClassifier> classifier(new ImageClassifier);
  ASSIGN_OR_RETURN(classifier->config_, ReadVisionConfig(folder));
  const VisionConfig& config = classifier->config_;
  ASSIGN_OR_RETURN(const DType dtype, ChooseDType(options.dtype, config.dtype));
  const std::vector<TensorSpec> specs = VisionTensors(config);
  std::unique_ptr<NamedTensors> weights;
  if (options.dummy_weights) {
    weights = MakeDummyTensors(specs, options.seed);
  } else {
    ASSIGN_OR_RETURN(weights, OpenNamedTensors(specs, folder));
  }
  ASSIGN_OR_RETURN(CreatedBackend created, CreateBackend(options.backend));
  classifier->backend_ = std::move(created.backend);
  Backend* const backend = classifier->backend_.get();
  RETURN_IF_ERROR(VisionTransformer::CheckServed(config, *backend));
  RETURN_IF_ERROR(CheckMemory(config, weights->num_parameters() * DTypeBytes(dtype), options.max_batch, *backend));
  ASSIGN_OR_RETURN(classifier->model_, VisionTransformer::Load(config, *weights, dtype, options.max_batch, backend));
  classifier->patches_.resize(static_cast<size_t>(NumPatchValues(config, options.max_batch)));
  ImageClassifierInfo& info = classifier->info_;
  info = Describe(config);
  info.backend = backend->description();
  info.expert_gemms = ExpertGemmNames(*backend);
  info.backend_reason = std::move(created.reason);
  info.dtype = dtype;
  info.weight_bytes = classifier->model_->weight_bytes();
  info.num_nonfinite_weights = classifier->model_->num_nonfinite_weights();
  info.max_batch = options.max_batch;
  info.load_seconds = SecondsSince(start);
  return classifier;
}

absl::Status ImageClassifier::CheckCall(std::span<const float> images, int32_t n, std::span<float> logits) const {
  if (n < 1 || n > info_.max_batch) {
    return absl::InvalidArgumentError(absl::StrCat("the call has ", n, " images, expected 1 to ", info_.max_batch));
  }
  const size_t num_values = static_cast<size_t>(n) * static_cast<size_t>(config_.image_values());
  const size_t num_logits = static_cast<size_t>(n) * static_cast<size_t>(info_.num_classes);
  if (images.size() == num_values && logits.size() == num_logits) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("the call has ", images.size(), " values and room for ",
                                                 logits.size(), " logits, expected ", num_values, " and ", num_logits,
                                                 " for ", n, " images"));
}

absl::Status ImageClassifier::Classify(std::span<const float> images, int32_t n, std::span<float> logits,
                                       StepStats* stats) {
  RETURN_IF_ERROR(CheckCall(images, n, logits));
  const Clock::time_point start = Clock::now();
  const int32_t num_tokens = n * info_.tokens_per_image;
  const auto patches = std::span(patches_).first(static_cast<size_t>(num_tokens) * config_.patch_pixels());
  CutPatches(config_, images, patches);
  const Matrix result = model_->Forward(patches);
  RETURN_IF_ERROR(backend_->Wait());
  const std::span<const float> view = backend_->HostView(result);
  if (view.empty()) return backend_->Wait();
  std::copy(view.begin(), view.end(), logits.begin());
  if (stats == nullptr) return absl::OkStatus();
  stats->num_tokens = num_tokens;
  stats->moe_layers.resize(moe_layers().size());
  for (size_t i = 0; i < moe_layers().size(); ++i) moe_layers()[i]->FillStats(&stats->moe_layers[i]);
  FillExpertGemmLayers(*backend_, stats);
  stats->seconds = static_cast<float>(SecondsSince(start));
  return absl::OkStatus();
}

}  // namespace switchyard
