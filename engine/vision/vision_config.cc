#include "engine/vision/vision_config.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "engine/base/json.h"
#include "engine/base/model_folder.h"
#include "engine/base/status_macros.h"
#include "engine/config/config_reader.h"
#include "engine/config/model_families.h"
#include "engine/config/weight_dtype.h"

namespace switchyard {
namespace {

// Far above every published model. With them no product of sizes overflows what holds it.
constexpr JsonLimits kLimits = {.max_bytes = size_t{1} << 20, .max_depth = 32, .max_values = 100'000};
constexpr int32_t kMaxImageSize = 4096;
constexpr int32_t kMaxTokensPerImage = 16'385;
constexpr int32_t kMaxLayers = 1000;
constexpr int32_t kMaxClasses = 1 << 24;
constexpr int32_t kMaxHeadDim = 1024;  // what the backends take
constexpr int32_t kMaxExperts = 1 << 14;
constexpr int64_t kMaxExpertsOfAllLayers = 1 << 14;
constexpr double kMaxCapacityFactor = 1e6;
constexpr int32_t kCapacityMultiple = 4;

int32_t RequiredSize(const ConfigReader& config, const std::string& key) {
  return config.RequiredInt(key, 1, kMaxWidth);
}

void CheckMultiple(const ConfigReader& config, const std::string& key, int32_t value, const std::string& of_key,
                   int32_t of) {
  if (value == 0 || of == 0 || value % of == 0) return;
  config.problems().AddInvalid(
      absl::StrCat(config.Describe(key), "; it must be a multiple of ", of_key, ", which is ", of));
}

void ReadImage(const ConfigReader& config, VisionConfig* model) {
  model->image_size = config.RequiredInt("image_size", 1, kMaxImageSize);
  model->patch_size = config.RequiredInt("patch_size", 1, kMaxImageSize);
  const int32_t num_channels = config.Int("num_channels", VisionConfig::kNumChannels, 1, INT32_MAX);
  if (num_channels != 0 && num_channels != VisionConfig::kNumChannels) {
    config.problems().AddUnimplemented(config.Describe("num_channels") + "; images of 3 channels are served");
  }
  CheckMultiple(config, "image_size", model->image_size, "patch_size", model->patch_size);
  if (model->image_size == 0 || model->patch_size == 0 || model->image_size % model->patch_size != 0) return;
  if (model->tokens_per_image() > kMaxTokensPerImage) {
    config.problems().AddInvalid(absl::StrCat("image_size and patch_size make ", model->num_patches(),
                                              " patches; at most ", kMaxTokensPerImage - 1, " are possible"));
  }
}

void ReadTransformer(const ConfigReader& config, VisionConfig* model) {
  model->hidden_size = RequiredSize(config, "hidden_size");
  model->num_hidden_layers = config.RequiredInt("num_hidden_layers", 1, kMaxLayers);
  model->num_attention_heads = config.RequiredInt("num_attention_heads", 1, kMaxHeads);
  model->intermediate_size = RequiredSize(config, "intermediate_size");
  model->representation_size = config.Int("representation_size", 0, 1, kMaxWidth);
  model->num_classes = config.RequiredInt("num_classes", 1, kMaxClasses);
  model->layer_norm_eps = static_cast<float>(config.Real("layer_norm_eps", 1e-6, 1e-30, 1.0));
  CheckMultiple(config, "hidden_size", model->hidden_size, "num_attention_heads", model->num_attention_heads);
  if (model->hidden_size == 0 || model->num_attention_heads == 0) return;
  if (model->head_dim() % 2 == 0 && model->head_dim() <= kMaxHeadDim) return;
  config.problems().AddInvalid(absl::StrCat("hidden_size / num_attention_heads is ", model->head_dim(),
                                            "; it must be even and at most ", kMaxHeadDim));
}

// How many choices of one image's tokens an expert runs: ceil(tokens * top_k * factor / num_experts), rounded up to a
// multiple of 4, in the order of vmoe/moe.py: compute_capacity, so that a quotient near a whole number is rounded as
// there.
int32_t ImageCapacity(double factor, const VisionConfig& model) {
  const double choices = static_cast<double>(model.tokens_per_image()) * model.router.top_k;
  const double exact = std::ceil(choices * factor / model.router.num_experts);
  // No expert gets more than one choice of a token.
  const int32_t capacity = static_cast<int32_t>(std::min<double>(exact, model.tokens_per_image()));
  return (capacity + kCapacityMultiple - 1) / kCapacityMultiple * kCapacityMultiple;
}

void ReadMoe(const ConfigReader& config, VisionConfig* model) {
  model->router.num_experts = config.RequiredInt("num_experts", 1, kMaxExperts);
  model->router.top_k = config.RequiredInt("num_experts_per_tok", 1, kMaxExperts);
  if (model->router.num_experts > 0 && model->router.top_k > model->router.num_experts) {
    config.problems().AddInvalid(absl::StrCat(config.Describe("num_experts_per_tok"), ", but num_experts is ",
                                              model->router.num_experts));
  }
  if (config.Bool("batch_prioritized_routing", false)) model->router.capacity_order = CapacityOrder::kBestGateFirst;
  const double factor = config.Real("capacity_factor", 0.0, 1e-6, kMaxCapacityFactor);
  if (factor == 0.0 || model->patch_size == 0 || model->router.num_experts == 0) return;
  model->router.capacity = ImageCapacity(factor, *model);
}

void ReadMoeLayers(const ConfigReader& config, VisionConfig* model) {
  const int32_t last = std::max(1, model->num_hidden_layers) - 1;
  model->moe_layers = config.Ints("moe_layers", 0, last, kLimits.max_values);
  if (model->moe_layers.empty()) {
    config.problems().AddInvalid("moe_layers lists no layer; it must list those that have experts, from 0 on");
  }
  for (size_t i = 1; i < model->moe_layers.size(); ++i) {
    if (model->moe_layers[i] > model->moe_layers[i - 1]) continue;
    config.problems().AddInvalid(absl::StrCat("moe_layers has ", model->moe_layers[i], " after ",
                                              model->moe_layers[i - 1], "; it must ascend"));
    return;
  }
  if (static_cast<int64_t>(model->moe_layers.size()) * model->router.num_experts <= kMaxExpertsOfAllLayers) return;
  config.problems().AddInvalid(
      absl::StrCat("all layers together have more than ", kMaxExpertsOfAllLayers, " experts"));
}

}  // namespace

AttentionShape AttentionOf(const VisionConfig& config) {
  AttentionShape shape;
  shape.num_heads = shape.num_kv_heads = config.num_attention_heads;
  shape.head_dim = config.head_dim();
  shape.scale = static_cast<float>(1.0 / std::sqrt(config.head_dim()));
  return shape;
}

MoeConfig MoeOf(const VisionConfig& config) {
  MoeConfig moe;
  moe.router = config.router;
  moe.experts = {.activation = Activation::kGeluTanh, .biases = true};
  moe.intermediate_size = config.intermediate_size;
  return moe;
}

LayerBlocks BlocksOf(const VisionConfig& config, const AttentionShape& attention) {
  LayerBlocks blocks;
  blocks.attention = &attention;
  blocks.router = &config.router;
  blocks.experts = MoeOf(config).experts;
  blocks.layer_norm = true;
  blocks.bidirectional = true;
  return blocks;
}

absl::StatusOr<VisionConfig> ParseVisionConfig(const std::string& config_json) {
  ASSIGN_OR_RETURN(const nlohmann::json document, ParseJson(config_json, kLimits, "config.json"));
  if (!document.is_object()) return absl::InvalidArgumentError("config.json: is not a JSON object");
  ConfigProblems problems("config.json");
  const ConfigReader config(document, "", &problems);
  const std::string model_type = config.Text("model_type", "");
  if (model_type.empty()) {
    problems.AddInvalid(config.Describe("model_type") + "; it must be \"vmoe\"");
  } else if (model_type != "vmoe") {
    problems.AddUnimplemented(config.Describe("model_type") + "; of image classifiers, \"vmoe\" is served");
  }
  RETURN_IF_ERROR(problems.ToStatus());

  VisionConfig model;
  ReadImage(config, &model);
  ReadTransformer(config, &model);
  ReadMoe(config, &model);
  ReadMoeLayers(config, &model);
  model.dtype = ReadWeightDType(config);
  RETURN_IF_ERROR(problems.ToStatus());
  return model;
}

namespace {

absl::StatusOr<std::string> ReadConfigText(const std::string& model_dir) {
  ASSIGN_OR_RETURN(const ModelFolder folder, ModelFolder::Open(model_dir));
  return folder.ReadSmallFile("config.json", kLimits.max_bytes);
}

}  // namespace

absl::StatusOr<VisionConfig> ReadVisionConfig(const std::string& model_dir) {
  ASSIGN_OR_RETURN(const std::string text, ReadConfigText(model_dir));
  return ParseVisionConfig(text);
}

bool HoldsImageClassifier(const std::string& model_dir) {
  const absl::StatusOr<std::string> text = ReadConfigText(model_dir);
  if (!text.ok()) return false;
  const absl::StatusOr<nlohmann::json> document = ParseJson(*text, kLimits, "config.json");
  return document.ok() && document->is_object() && document->contains("model_type") &&
         (*document)["model_type"] == "vmoe";
}

}  // namespace switchyard
