#include "engine/inspect.h"

#include <algorithm>
#include <memory>

#include "absl/strings/str_cat.h"
#include "engine/backend/cuda/served_blocks.h"
#include "engine/base/dtype.h"
#include "engine/base/model_folder.h"
#include "engine/base/status_macros.h"
#include "engine/chat/chat_template.h"
#include "engine/checkpoint/named_tensors.h"
#include "engine/checkpoint/shard_set.h"
#include "engine/checkpoint/weight_table.h"
#include "engine/checkpoint/weights.h"
#include "engine/config/model_config.h"
#include "engine/tokenizer/tokenizer.h"
#include "engine/vision/vision_config.h"
#include "engine/vision/vision_weights.h"

namespace switchyard {
namespace {

std::string DescribeAttention(const AttentionConfig& attention) {
  const AttentionShape& shape = attention.shape;
  if (shape.latent_dim > 0) {
    return absl::StrCat("latent (MLA): ", shape.num_heads, " query heads on one latent of ", shape.latent_dim, " + ",
                        shape.head_dim - shape.latent_dim);
  }
  std::string text = absl::StrCat(shape.num_heads, " query heads on ", shape.num_kv_heads, " KV heads of ",
                                  shape.head_dim);
  if (attention.experts.num_experts > 0) {
    absl::StrAppend(&text, "; queries by ", attention.experts.top_k, " of ", attention.experts.num_experts, " experts");
  }
  return text;
}

int64_t KvElementsPerToken(const ModelConfig& config) {
  int64_t elements = 0;
  for (const LayerConfig& layer : config.layers) {
    if (layer.attention.bidirectional) continue;  // an encoder caches nothing
    const AttentionShape& shape = layer.attention.shape;
    elements += shape.latent_dim > 0 ? shape.head_dim : 2 * shape.kv_size();
  }
  return elements;
}

void DescribeLayers(const ModelConfig& config, ModelInspection* result) {
  result->num_layers = config.num_layers();
  for (int32_t l = 0; l < config.num_layers(); ++l) {
    const LayerConfig& layer = config.layers[static_cast<size_t>(l)];
    if (!layer.is_moe) continue;
    result->moe_layers.push_back(l);
    result->num_experts = layer.moe.router.num_experts;
    result->top_k = layer.moe.router.top_k;
    result->expert_width = layer.moe.intermediate_size;
    result->shared_expert_width = layer.moe.shared_intermediate_size;
  }
  result->attention = DescribeAttention(config.layers.front().attention);
}

// Whether all expert matrices of a layer are stored quantized.
bool ExpertsAreQuantized(const Weights& weights, int32_t layer, int32_t num_experts) {
  for (const WeightName name : {WeightName::kExpertGate, WeightName::kExpertUp, WeightName::kExpertDown}) {
    for (int32_t e = 0; e < num_experts; ++e) {
      const TensorReader* const matrix = weights.Find(name, layer, e);
      if (matrix != nullptr && matrix->quantized().format == QuantizedFormat::kNone) return false;
    }
  }
  return true;
}

// What keeping the experts as they are stored saves of bfloat16; 0 where a CPU would not. `weights` may be null: then
// they are taken for what the config says.
int64_t BytesSavedByQuantization(const ModelConfig& config, const Weights* weights) {
  const Quantization& quantization = config.quantization;
  const bool fp8 = quantization.fp8_blocks && quantization.block_cols % 128 == 0;
  if (!fp8 && !quantization.mxfp4) return 0;
  int64_t saved = 0;
  for (int32_t l = 0; l < config.num_layers(); ++l) {
    const MoeConfig& moe = config.layers[static_cast<size_t>(l)].moe;
    if (!config.layers[static_cast<size_t>(l)].is_moe) continue;
    if (weights != nullptr && !ExpertsAreQuantized(*weights, l, moe.router.num_experts)) continue;
    const int64_t matrices = moe.router.num_experts * (IsGated(moe.experts.activation) ? 3 : 2);
    const int64_t elements = matrices * config.hidden_size * moe.intermediate_size;
    // Scales: a byte per 32 numbers; four bytes per 128.
    saved += elements * 2 - (fp8 ? elements * 33 : elements * 17) / 32;
  }
  return saved;
}

void DescribeSizes(const ModelConfig& config, const Weights* weights, ModelInspection* result) {
  const ParameterCounts counts = CountParameters(config);
  result->num_parameters = counts.total;
  result->num_active_parameters = counts.active;
  result->num_expert_parameters = counts.in_experts;
  const int64_t kv_elements = KvElementsPerToken(config);
  for (const DType dtype : {DType::kBF16, DType::kF32}) {
    const int64_t bytes = DTypeBytes(dtype);
    result->memory.push_back({DTypeName(dtype), counts.in_memory * bytes, kv_elements * bytes});
  }
  const int64_t saved = BytesSavedByQuantization(config, weights);
  if (saved > 0) result->memory[0].weight_bytes_quantized = result->memory[0].weight_bytes - saved;
}

absl::StatusOr<int64_t> StoredBytes(const std::string& model_dir) {
  ASSIGN_OR_RETURN(const ModelFolder folder, ModelFolder::Open(model_dir));
  ASSIGN_OR_RETURN(const std::unique_ptr<ShardSet> shards, ShardSet::Open(folder));
  int64_t bytes = 0;
  for (const ShardTensor& found : shards->tensors()) bytes += found.tensor->end - found.tensor->begin;
  return bytes;
}

absl::Status CheckServedByCuda(const ModelConfig& config) {
  for (const LayerConfig& layer : config.layers) {
    RETURN_IF_ERROR(cuda::CheckServedByCuda(BlocksOf(config, layer)));
  }
  return absl::OkStatus();
}

absl::StatusOr<ModelInspection> InspectImageClassifier(const std::string& model_dir) {
  ASSIGN_OR_RETURN(const VisionConfig config, ReadVisionConfig(model_dir));
  ModelInspection result;
  result.architecture = "vmoe";
  result.stored_dtype = DTypeName(config.dtype);
  result.stored_bytes = StoredBytes(model_dir).value_or(0);
  result.num_layers = config.num_hidden_layers;
  result.moe_layers = config.moe_layers;
  result.num_experts = config.router.num_experts;
  result.top_k = config.router.top_k;
  result.expert_width = config.intermediate_size;
  result.attention = absl::StrCat(config.num_attention_heads, " heads of ", config.head_dim(), " over the whole image");
  result.hidden_size = config.hidden_size;
  result.image = {.image_size = config.image_size,
                  .patch_size = config.patch_size,
                  .tokens_per_image = config.tokens_per_image(),
                  .num_classes = config.num_classes,
                  .expert_capacity = config.router.capacity};
  const VisionParameterCounts counts = CountParameters(config);
  result.num_parameters = counts.total;
  result.num_active_parameters = counts.active;
  result.num_expert_parameters = counts.in_experts;
  for (const DType dtype : {DType::kBF16, DType::kF32}) {
    result.memory.push_back({DTypeName(dtype), counts.total * DTypeBytes(dtype), 0});
  }
  result.weights = OpenNamedTensors(VisionTensors(config), model_dir).status();
  const AttentionShape attention = AttentionOf(config);
  result.cuda = cuda::CheckServedByCuda(BlocksOf(config, attention));
  return result;
}

}  // namespace

absl::StatusOr<ModelInspection> InspectModel(const std::string& model_dir) {
  if (HoldsImageClassifier(model_dir)) return InspectImageClassifier(model_dir);
  ASSIGN_OR_RETURN(const ModelConfig config, ReadModelConfig(model_dir));
  ModelInspection result;
  result.architecture = config.model_type;
  result.stored_dtype = DTypeName(config.dtype);
  result.hidden_size = config.hidden_size;
  result.vocab_size = config.vocab_size;
  result.max_position_embeddings = config.max_position_embeddings;
  DescribeLayers(config, &result);
  const absl::StatusOr<std::unique_ptr<Weights>> weights = OpenWeights(config, model_dir);
  result.weights = weights.status();
  DescribeSizes(config, weights.ok() ? weights->get() : nullptr, &result);
  result.stored_bytes = StoredBytes(model_dir).value_or(0);
  result.tokenizer = Tokenizer::Load(absl::StrCat(model_dir, "/tokenizer.json")).status();
  result.chat_template = ChatTemplate::Load(model_dir).status();
  result.cuda = CheckServedByCuda(config);
  return result;
}

}  // namespace switchyard
