// Switch Transformers: T5's encoder and decoder with top-1 MoE in some layers.
#include <algorithm>
#include <cmath>
#include <string>

#include "absl/strings/str_cat.h"
#include "engine/config/family_fills.h"

namespace switchyard {
namespace {

constexpr int32_t kMaxBuckets = 4096;
constexpr int32_t kMaxDistance = 8192;  // bounds what a table of every distance takes
constexpr int32_t kMaxCapacity = 1 << 30;

// One of the two stacks; keys begin with "encoder" or "decoder".
struct Stack {
  std::string name;
  int32_t num_layers = 0;
  int32_t sparse_step = 0;  // layer l is sparse where l % step is 1, or step is 1; 0: none is
};

// As the Hugging Face class: how many layers are sparse makes the step, unless that is given itself. With no sparse
// layers at all its step is the number of layers, which makes layer 1 sparse; with the default of 3 and fewer layers it
// is 0, which makes none.
Stack ReadStack(const ConfigReader& config, const std::string& name, int32_t num_layers) {
  constexpr int32_t kDefaultSparseLayers = 3;
  const int32_t num_sparse = config.Int(absl::StrCat("num_sparse_", name, "_layers"),
                                        kDefaultSparseLayers, 0, num_layers);
  const int32_t step = num_sparse > 0 ? num_layers / num_sparse : num_layers;
  return {name, num_layers, config.Int(name + "_sparse_step", step, 0, kMaxLayers)};
}

void AppendStack(const Stack& stack, const LayerConfig& sparse, ModelConfig* model) {
  const bool is_decoder = stack.name == "decoder";
  for (int32_t l = 0; l < stack.num_layers; ++l) {
    model->layers.push_back(sparse);
    LayerConfig& layer = model->layers.back();
    layer.attention.bidirectional = !is_decoder;
    layer.attention.cross_attention = is_decoder;
    layer.attention.owns_relative_bias = l == 0;
    layer.is_moe = stack.sparse_step == 1 || (stack.sparse_step > 1 && l % stack.sparse_step == 1);
    if (!layer.is_moe) SetDense(model->num_layers() - 1, sparse.moe.intermediate_size, model);
  }
}

void ReadRelativeBias(const ConfigReader& config, AttentionConfig* attention) {
  const int32_t buckets = config.Int("relative_attention_num_buckets", 32, 4, kMaxBuckets);
  const int32_t distance = config.Int("relative_attention_max_distance", 128, 1, kMaxDistance);
  if (buckets == 0 || distance == 0) return;  // noted already
  if (buckets % 4 != 0) {
    config.problems().AddInvalid(absl::StrCat("relative_attention_num_buckets is ", buckets,
                                              "; it must be a multiple of 4: half of them for each direction, and half "
                                              "of these exact"));
  }
  if (distance <= buckets / 2) {
    config.problems().AddInvalid(absl::StrCat("relative_attention_max_distance is ", distance,
                                              "; it must be above half of relative_attention_num_buckets, ",
                                              buckets / 2));
  }
  attention->relative_num_buckets = buckets;
  attention->shape.relative_max_distance = distance;
}

int32_t ReadStartToken(const ConfigReader& config, int32_t vocab_size) {
  if (vocab_size == 0) return -1;  // noted already
  const int32_t pad = config.Int("pad_token_id", 0, 0, vocab_size - 1);
  return config.Int("decoder_start_token_id", pad, 0, vocab_size - 1);
}

}  // namespace

void FillSwitch(const ConfigReader& config, const FamilyDefaults&, ModelConfig* model) {
  const int32_t num_encoder_layers = model->num_layers();
  if (num_encoder_layers == 0) return;  // noted already
  LayerConfig layer = model->layers[0];
  layer.attention.shape.scale = 1.0f;  // the weights were trained without 1 / sqrt(d)
  ReadRelativeBias(config, &layer.attention);
  layer.moe.experts.activation = layer.dense_activation = Activation::kRelu;
  layer.moe.router.capacity = config.Int("expert_capacity", 64, 1, kMaxCapacity);
  layer.moe.router_bias = config.Bool("router_bias", false);
  if (layer.moe.router.top_k > 1) {
    config.problems().AddUnimplemented("a token goes to more than one expert; this family routes to one");
  }
  RequireText(config, "feed_forward_proj", "relu");
  RequireText(config, "router_dtype", "float32");
  if (!config.Bool("is_encoder_decoder", true)) {
    config.problems().AddUnimplemented(config.Describe("is_encoder_decoder") + "; only true is served");
  }
  const Stack encoder = ReadStack(config, "encoder", num_encoder_layers);
  const Stack decoder =
      ReadStack(config, "decoder", config.Int("num_decoder_layers", num_encoder_layers, 1, kMaxLayers));
  model->layers.clear();
  model->num_encoder_layers = num_encoder_layers;
  AppendStack(encoder, layer, model);
  AppendStack(decoder, layer, model);
  model->decoder_start_token_id = ReadStartToken(config, model->vocab_size);
  // n_positions is what either stack was trained with; relative positions themselves have no end.
  model->max_position_embeddings = std::min(model->max_position_embeddings, INT32_MAX / 2) * 2;
  if (model->tie_word_embeddings && model->hidden_size > 0) {
    model->logits_multiplier = static_cast<float>(1.0 / std::sqrt(model->hidden_size));
  }
}

}  // namespace switchyard
