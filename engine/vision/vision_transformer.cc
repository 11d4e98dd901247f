#include "engine/vision/vision_transformer.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>

#include "engine/base/bf16.h"
#include "engine/base/status_macros.h"
#include "engine/vision/vision_weights.h"

namespace switchyard {
namespace {

// What every image adds to its rows: positions, the class token on row 0, the patch embedding's bias on the others.
// Then the product of the patches, with zeros for row 0, is all that is left to add.
class PositionReader final : public TensorReader {
 public:
  // All outlive this.
  PositionReader(const TensorReader& positions, const TensorReader& class_token, const TensorReader& patch_bias)
      : positions_(positions), class_token_(class_token), patch_bias_(patch_bias) {}

  int64_t rows() const override { return positions_.rows(); }
  int64_t cols() const override { return positions_.cols(); }

  absl::Status ReadRows(int64_t first, int64_t count, DType as, void* out) const override {
    CHECK(as == DType::kF32);
    std::vector<float> class_token(static_cast<size_t>(cols())), bias(class_token.size());
    RETURN_IF_ERROR(positions_.ReadRows(first, count, DType::kF32, out));
    RETURN_IF_ERROR(class_token_.ReadRows(0, 1, DType::kF32, class_token.data()));
    RETURN_IF_ERROR(patch_bias_.ReadRows(0, 1, DType::kF32, bias.data()));
    float* to = static_cast<float*>(out);
    for (int64_t r = first; r < first + count; ++r) {
      for (const float value : r == 0 ? class_token : bias) *to++ += value;
    }
    return absl::OkStatus();
  }

 private:
  const TensorReader& positions_;
  const TensorReader& class_token_;
  const TensorReader& patch_bias_;
};

}  // namespace

// Pulls the weights of one model through the backend, layer by layer.
class VisionTransformer::Loader {
 public:
  Loader(const NamedTensors& weights, DType dtype, Backend* backend)
      : weights_(weights), dtype_(dtype), backend_(backend) {}

  int64_t bytes() const { return bytes_; }
  int64_t num_nonfinite() const { return num_nonfinite_; }

  // The products of all these, side by side.
  absl::StatusOr<std::unique_ptr<Weight>> LoadDense(const std::vector<std::string>& names) {
    std::vector<const TensorReader*> parts, biases;
    for (const std::string& name : names) {
      parts.push_back(&weights_.Get(name + ".weight"));
      biases.push_back(&weights_.Get(name + ".bias"));
    }
    return Load(parts, biases, dtype_, WeightUse::kLinear);
  }

  absl::StatusOr<std::unique_ptr<Weight>> LoadPlain(const std::string& name, WeightUse use) {
    return Load({&weights_.Get(name)}, {}, dtype_, use);
  }

  absl::StatusOr<std::unique_ptr<Weight>> LoadPositions() {
    const PositionReader reader(weights_.Get("position_embedding"), weights_.Get("class_token"),
                                weights_.Get("patch_embedding.bias"));
    return Load({&reader}, {}, DType::kF32, WeightUse::kEmbedding);
  }

  absl::StatusOr<Norm> LoadNorm(const std::string& name) {
    Norm norm;
    ASSIGN_OR_RETURN(norm.weight, LoadPlain(name + ".weight", WeightUse::kVector));
    ASSIGN_OR_RETURN(norm.bias, LoadPlain(name + ".bias", WeightUse::kVector));
    return norm;
  }

  absl::StatusOr<PlainMlp> LoadMlp(const std::string& prefix, int32_t intermediate_size) {
    PlainMlp mlp;
    mlp.activation = Activation::kGeluTanh;
    mlp.intermediate_size = intermediate_size;
    ASSIGN_OR_RETURN(mlp.up, LoadDense({prefix + "up_proj"}));
    ASSIGN_OR_RETURN(mlp.down, LoadDense({prefix + "down_proj"}));
    return mlp;
  }

  absl::StatusOr<MoeLayerWeights> LoadMoe(const MoeConfig& config, int layer) {
    MoeLayerWeights moe;
    ASSIGN_OR_RETURN(moe.router, LoadPlain(VisionLayerPrefix(layer) + "moe.router.weight", WeightUse::kRouter));
    std::vector<ExpertReaders> readers;
    for (int e = 0; e < config.router.num_experts; ++e) {
      const std::string expert = VisionExpertPrefix(layer, e);
      ExpertReaders& reader = readers.emplace_back();
      reader.form = config.experts;
      reader.up = &weights_.Get(expert + "up_proj.weight");
      reader.up_bias = &weights_.Get(expert + "up_proj.bias");
      reader.down = &weights_.Get(expert + "down_proj.weight");
      reader.down_bias = &weights_.Get(expert + "down_proj.bias");
    }
    ASSIGN_OR_RETURN(moe.experts, backend_->LoadExperts(readers, dtype_));
    bytes_ += moe.experts->bytes();
    num_nonfinite_ += moe.experts->num_nonfinite();
    return moe;
  }

 private:
  absl::StatusOr<std::unique_ptr<Weight>> Load(const std::vector<const TensorReader*>& parts,
                                               const std::vector<const TensorReader*>& biases, DType dtype,
                                               WeightUse use) {
    ASSIGN_OR_RETURN(std::unique_ptr<Weight> weight, backend_->LoadWeight(parts, biases, dtype, use));
    bytes_ += weight->bytes();
    num_nonfinite_ += weight->num_nonfinite();
    return weight;
  }

  const NamedTensors& weights_;
  const DType dtype_;
  Backend* const backend_;
  int64_t bytes_ = 0;
  int64_t num_nonfinite_ = 0;
};

VisionTransformer::VisionTransformer(const VisionConfig& config, Backend* backend)
    : config_(config), shape_(AttentionOf(config)), backend_(backend) {}

absl::Status VisionTransformer::CheckServed(const VisionConfig& config, const Backend& backend) {
  const AttentionShape shape = AttentionOf(config);
  return backend.CheckServed(BlocksOf(config, shape));
}

absl::StatusOr<std::unique_ptr<VisionTransformer>> VisionTransformer::Load(const VisionConfig& config,
                                                                           const NamedTensors& weights, DType dtype,
                                                                           int32_t max_images, Backend* backend) {
  std::unique_ptr<VisionTransformer> model(new VisionTransformer(config, backend));
  Loader loader(weights, dtype, backend);
  const MoeConfig moe = MoeOf(config);
  // Without its bias, which the positions have.
  ASSIGN_OR_RETURN(model->patch_embedding_, loader.LoadPlain("patch_embedding.weight", WeightUse::kLinear));
  ASSIGN_OR_RETURN(model->positions_, loader.LoadPositions());
  model->layers_.resize(static_cast<size_t>(config.num_hidden_layers));
  for (int l = 0; l < config.num_hidden_layers; ++l) {
    Layer& layer = model->layers_[static_cast<size_t>(l)];
    const std::string prefix = VisionLayerPrefix(l), attention = prefix + "attention.";
    ASSIGN_OR_RETURN(layer.attention_norm, loader.LoadNorm(prefix + "attention_norm"));
    ASSIGN_OR_RETURN(layer.qkv, loader.LoadDense({attention + "q_proj", attention + "k_proj", attention + "v_proj"}));
    ASSIGN_OR_RETURN(layer.output, loader.LoadDense({attention + "o_proj"}));
    ASSIGN_OR_RETURN(layer.mlp_norm, loader.LoadNorm(prefix + "mlp_norm"));
    if (!std::binary_search(config.moe_layers.begin(), config.moe_layers.end(), l)) {
      ASSIGN_OR_RETURN(layer.dense, loader.LoadMlp(prefix + "mlp.", config.intermediate_size));
      continue;
    }
    ASSIGN_OR_RETURN(MoeLayerWeights experts, loader.LoadMoe(moe, l));
    ASSIGN_OR_RETURN(auto moe_layer, MoeLayer::Create(moe, std::move(experts),
                                                      max_images * config.tokens_per_image(), backend));
    layer.moe = moe_layer.get();
    model->moe_layers_.push_back(std::move(moe_layer));
  }
  ASSIGN_OR_RETURN(model->final_norm_, loader.LoadNorm("final_norm"));
  if (config.representation_size > 0) {
    ASSIGN_OR_RETURN(model->pre_logits_, loader.LoadDense({"pre_logits"}));
  }
  ASSIGN_OR_RETURN(model->head_, loader.LoadDense({"head"}));
  model->weight_bytes_ = loader.bytes();
  model->num_nonfinite_weights_ = loader.num_nonfinite();
  model->ListImages(max_images);
  RETURN_IF_ERROR(model->AllocateBuffers(dtype, max_images));
  return model;
}

int64_t VisionTransformer::ActivationBytes(const VisionConfig& config, int32_t max_images) {
  const int64_t hidden = config.hidden_size;
  // Backends keep heads padded, and for each MoE layer what the router decided.
  constexpr int64_t kHeadPad = 32, kRoutingPerChoice = 4;
  const int64_t padded_head = (config.head_dim() + kHeadPad - 1) / kHeadPad * kHeadPad;
  const int64_t keys_and_values = 2 * config.num_attention_heads * padded_head;
  const int64_t routing = config.router.num_experts + static_cast<int64_t>(config.moe_layers.size()) *
                                                          kRoutingPerChoice * config.router.top_k;
  const int64_t per_token = config.patch_pixels() + (6 + config.router.top_k) * hidden + config.intermediate_size +
                            keys_and_values + routing;
  const int64_t per_image = hidden + config.representation_size + config.num_classes;
  return 4 * max_images * (config.tokens_per_image() * per_token + per_image);
}

void VisionTransformer::ListImages(int32_t max_images) {
  const int32_t tokens = config_.tokens_per_image();
  for (int32_t image = 0; image < max_images; ++image) {
    const int32_t first = image * tokens;
    for (int32_t t = 0; t < tokens; ++t) position_ids_.push_back(t);
    slices_.push_back({.first_row = first, .num_tokens = tokens});
    groups_.push_back({.first_row = first, .num_rows = tokens});
    class_rows_.push_back(first);
  }
}

absl::Status VisionTransformer::AllocateBuffers(DType dtype, int32_t max_images) {
  const int64_t hidden = config_.hidden_size;
  const int64_t tokens = int64_t{max_images} * config_.tokens_per_image();
  for (const auto& [matrix, rows, cols] : {std::tuple{&patches_, tokens, int64_t{config_.patch_pixels()}},
                                           {&x_, tokens, hidden},
                                           {&h_, tokens, hidden},
                                           {&qkv_, tokens, shape_.qkv_size()},
                                           {&attended_, tokens, hidden},
                                           {&class_tokens_, int64_t{max_images}, hidden},
                                           {&logits_, int64_t{max_images}, int64_t{config_.num_classes}},
                                           {&scratch_.expert_rows, tokens * config_.router.top_k, hidden},
                                           {&scratch_.intermediate, tokens, int64_t{config_.intermediate_size}}}) {
    ASSIGN_OR_RETURN(*matrix, backend_->AllocateMatrix(rows, cols));
  }
  if (config_.representation_size > 0) {
    ASSIGN_OR_RETURN(representation_, backend_->AllocateMatrix(max_images, config_.representation_size));
  }
  RETURN_IF_ERROR(backend_->PrepareBidirectional(shape_, static_cast<int32_t>(tokens), max_images, dtype));
  return backend_->PrepareScratch(static_cast<int32_t>(tokens));
}

void VisionTransformer::Normalize(Matrix in, const Norm& norm, Matrix out) {
  backend_->LayerNorm(in, *norm.weight, norm.bias.get(), config_.layer_norm_eps, out);
}

Matrix VisionTransformer::Forward(std::span<const float> patches) {
  const int64_t num_tokens = static_cast<int64_t>(patches.size()) / config_.patch_pixels();
  const size_t num_images = static_cast<size_t>(num_tokens / config_.tokens_per_image());
  CHECK(num_images >= 1 && num_images <= slices_.size());
  const Matrix pixels = patches_.Front(num_tokens, config_.patch_pixels());
  const Matrix x = x_.Front(num_tokens, config_.hidden_size), h = h_.Front(num_tokens, config_.hidden_size);
  const Matrix qkv = qkv_.Front(num_tokens, shape_.qkv_size());
  const Matrix attended = attended_.Front(num_tokens, config_.hidden_size);
  backend_->Upload(patches, pixels);
  backend_->Embed(std::span(position_ids_).first(static_cast<size_t>(num_tokens)), *positions_, x);
  backend_->Linear(pixels, *patch_embedding_, OutputMode::kAdd, x);
  for (Layer& layer : layers_) {
    Normalize(x, layer.attention_norm, h);
    backend_->Linear(h, *layer.qkv, OutputMode::kAssign, qkv);
    backend_->BidirectionalAttention(shape_, std::span(slices_).first(num_images), qkv, attended);
    backend_->Linear(attended, *layer.output, OutputMode::kAdd, x);
    Normalize(x, layer.mlp_norm, h);
    if (layer.moe != nullptr) {
      layer.moe->Forward(h, scratch_, x, std::span(groups_).first(num_images));
    } else {
      layer.dense.Forward(backend_, h, scratch_, OutputMode::kAdd, x);
    }
  }
  return Classify(x, static_cast<int64_t>(num_images));
}

// Of the last norm only the class tokens' rows are wanted.
Matrix VisionTransformer::Classify(Matrix x, int64_t num_images) {
  const Matrix class_tokens = class_tokens_.Front(num_images, config_.hidden_size);
  const Matrix logits = logits_.Front(num_images, config_.num_classes);
  backend_->SelectRows(x, std::span(class_rows_).first(static_cast<size_t>(num_images)), class_tokens);
  Normalize(class_tokens, final_norm_, class_tokens);
  if (pre_logits_ == nullptr) {
    backend_->Linear(class_tokens, *head_, OutputMode::kAssign, logits);
    return logits;
  }
  const Matrix representation = representation_.Front(num_images, config_.representation_size);
  backend_->Linear(class_tokens, *pre_logits_, OutputMode::kAssign, representation);
  backend_->Activate(Activation::kTanh, representation);
  backend_->Linear(representation, *head_, OutputMode::kAssign, logits);
  return logits;
}

}  // namespace switchyard
