// Any bytes as config.json and generation_config.json: refused with a status, or a config whose values hold together.
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string>

#include "engine/base/status_macros.h"
#include "engine/config/generation_config.h"
#include "engine/config/model_config.h"
#include "engine/vision/vision_config.h"

namespace switchyard {
namespace {

void CheckLayer(const LayerConfig& layer) {
  const AttentionShape& shape = layer.attention.shape;
  CHECK(shape.num_heads > 0 && shape.num_kv_heads > 0 && shape.num_heads % shape.num_kv_heads == 0);
  CHECK(shape.head_dim > 0 && shape.head_dim <= 1024);
  CHECK(shape.rope_inv_freq.size() * 2 <= static_cast<size_t>(shape.head_dim));
  CHECK(shape.latent_dim >= 0 && shape.latent_dim < shape.head_dim);
  CHECK(shape.latent_dim == 0 || (layer.attention.mla.kv_lora_rank == shape.latent_dim && shape.num_kv_heads == 1));
  for (const float frequency : shape.rope_inv_freq) CHECK(std::isfinite(frequency) && frequency >= 0.0f);
  CHECK(std::isfinite(shape.scale) && std::isfinite(shape.rope_attention_factor) && std::isfinite(shape.clip_qkv));
  CHECK(shape.sliding_window >= 0 && shape.chunk_size >= 0);
  CHECK(std::isfinite(shape.temperature_scale) && shape.temperature_floor > 0.0f);
  const RouterConfig& router = layer.moe.router;
  CHECK(layer.is_moe ? router.top_k >= 1 && router.top_k <= router.num_experts && layer.moe.intermediate_size > 0
                     : layer.dense_intermediate_size > 0);
  if (!layer.is_moe) return;
  CHECK(router.num_groups >= 1 && router.topk_group >= 1 && router.topk_group <= router.num_groups);
  CHECK(router.num_experts % router.num_groups == 0);
  CHECK(router.num_experts / router.num_groups * router.topk_group >= router.top_k);
  CHECK(std::isfinite(router.scale) && router.normalize_power > 0.0f && std::isfinite(router.mixer_threshold));
  const RouterConfig& heads = layer.attention.experts;
  CHECK(heads.num_experts == 0 || shape.num_heads == shape.num_kv_heads * heads.top_k);
}

void CheckVision(const VisionConfig& config) {
  CHECK(config.image_size % config.patch_size == 0 && config.tokens_per_image() >= 2);
  CHECK(config.head_dim() >= 2 && config.head_dim() <= 1024 && config.head_dim() % 2 == 0);
  CHECK(config.num_classes > 0 && config.intermediate_size > 0 && config.layer_norm_eps > 0.0f);
  const RouterConfig& router = config.router;
  CHECK(router.top_k >= 1 && router.top_k <= router.num_experts);
  CHECK(router.capacity >= 0 && router.capacity % 4 == 0 && router.capacity < config.tokens_per_image() + 4);
  CHECK(!config.moe_layers.empty());
  int32_t previous = -1;
  for (const int32_t layer : config.moe_layers) {
    CHECK(layer > previous && layer < config.num_hidden_layers);
    previous = layer;
  }
}

}  // namespace
}  // namespace switchyard

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t size) {
  const std::string text(reinterpret_cast<const char*>(bytes), size);
  const auto config = switchyard::ParseModelConfig(text);
  if (config.ok()) {
    CHECK(config->vocab_size > 0 && config->hidden_size > 0 && config->num_layers() > 0);
    CHECK(config->rms_norm_eps > 0.0f);
    for (const int32_t id : config->eos_token_ids) CHECK(id >= 0 && id < config->vocab_size);
    for (const switchyard::LayerConfig& layer : config->layers) switchyard::CheckLayer(layer);
  } else {
    CHECK(absl::IsInvalidArgument(config.status()) || absl::IsUnimplemented(config.status()));
  }
  const auto vision = switchyard::ParseVisionConfig(text);
  if (vision.ok()) {
    switchyard::CheckVision(*vision);
  } else {
    CHECK(absl::IsInvalidArgument(vision.status()) || absl::IsUnimplemented(vision.status()));
  }
  const auto generation = switchyard::ParseGenerationConfig(text);
  CHECK(generation.ok() || absl::IsInvalidArgument(generation.status()));
  return 0;
}
