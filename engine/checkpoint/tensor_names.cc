#include "engine/checkpoint/tensor_names.h"

#include <span>
#include <tuple>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "engine/checkpoint/stored_elements.h"
#include "engine/checkpoint/switch_names.h"

namespace switchyard {

// What a weight is called; per layer, after the layer's prefix.
struct Spelling {
  WeightName name;
  const char* text;
  bool stacked = false;  // one tensor holds several weights, one after the other
};

struct Dialect {
  const char* model_type;
  const char* layers;  // before the layer's number
  std::span<const Spelling> own;  // where it differs from the usual
  int usual_layout;    // of the experts, in kLayouts: what messages name where no layout fits
};

namespace {

constexpr ExpertNames kLayouts[] = {
    {"mlp.experts", ExpertStorage::kSplit, "gate_proj", "up_proj", "down_proj", "mlp.gate"},
    {"block_sparse_moe.experts", ExpertStorage::kSplit, "w1", "w3", "w2", "block_sparse_moe.gate"},
    {"mlp.experts", ExpertStorage::kMxfp4, "gate_up_proj", "", "down_proj", "mlp.router"},
    {"mlp.experts", ExpertStorage::kInterleaved, "gate_up_proj", "", "down_proj", "mlp.router"},
    {"feed_forward.experts", ExpertStorage::kFusedColumns, "gate_up_proj", "", "down_proj", "feed_forward.router"},
    {"block_sparse_moe", ExpertStorage::kFusedRows, "input_linear.weight", "", "output_linear.weight",
     "block_sparse_moe.router.layer"},
    {"mlp", ExpertStorage::kFusedRows, "input_linear.weight", "", "output_linear.weight", "mlp.router.layer"},
    {"ffn.experts.mlp", ExpertStorage::kStacked, "w1", "v1", "w2", "ffn.router.layer"},
    {"mlp.experts", ExpertStorage::kFusedRows, "gate_up_proj", "", "down_proj", "mlp.gate"},
    {"block_sparse_moe.experts", ExpertStorage::kFusedRows, "gate_up_proj", "", "down_proj", "block_sparse_moe.gate"},
    {"mlp.experts", ExpertStorage::kSplit, "w1", "w3", "w2", "mlp.gate"},
    {"block_sparse_moe.experts", ExpertStorage::kSplit, "gate_proj", "up_proj", "down_proj", "block_sparse_moe.gate"},
    {"feed_forward.experts", ExpertStorage::kSplit, "gate_proj", "up_proj", "down_proj", "feed_forward.router"},
};

constexpr Spelling kUsual[] = {
    {WeightName::kEmbedding, "model.embed_tokens.weight"},
    {WeightName::kFinalNorm, "model.norm.weight"},
    {WeightName::kFinalNormBias, "model.norm.bias"},
    {WeightName::kLmHead, "lm_head.weight"},
    {WeightName::kLmHeadBias, "lm_head.bias"},
    {WeightName::kInputNorm, "input_layernorm.weight"},
    {WeightName::kInputNormBias, "input_layernorm.bias"},
    {WeightName::kPostAttentionNorm, "post_attention_layernorm.weight"},
    {WeightName::kPostAttentionNormBias, "post_attention_layernorm.bias"},
    {WeightName::kQ, "self_attn.q_proj.weight"},
    {WeightName::kK, "self_attn.k_proj.weight"},
    {WeightName::kV, "self_attn.v_proj.weight"},
    {WeightName::kO, "self_attn.o_proj.weight"},
    {WeightName::kQBias, "self_attn.q_proj.bias"},
    {WeightName::kKBias, "self_attn.k_proj.bias"},
    {WeightName::kVBias, "self_attn.v_proj.bias"},
    {WeightName::kOBias, "self_attn.o_proj.bias"},
    {WeightName::kQNorm, "self_attn.q_norm.weight"},
    {WeightName::kKNorm, "self_attn.k_norm.weight"},
    {WeightName::kSinks, "self_attn.sinks"},
    {WeightName::kQA, "self_attn.q_a_proj.weight"},
    {WeightName::kQABias, "self_attn.q_a_proj.bias"},
    {WeightName::kQANorm, "self_attn.q_a_layernorm.weight"},
    {WeightName::kQB, "self_attn.q_b_proj.weight"},
    {WeightName::kKvA, "self_attn.kv_a_proj_with_mqa.weight"},
    {WeightName::kKvABias, "self_attn.kv_a_proj_with_mqa.bias"},
    {WeightName::kKvANorm, "self_attn.kv_a_layernorm.weight"},
    {WeightName::kKvB, "self_attn.kv_b_proj.weight"},
    {WeightName::kParallelNorm, "residual_layernorm.weight"},
    {WeightName::kParallelGate, "residual_mlp.w1.weight"},
    {WeightName::kParallelUp, "residual_mlp.w3.weight"},
    {WeightName::kParallelDown, "residual_mlp.w2.weight"},
    {WeightName::kMlpGate, "mlp.gate_proj.weight"},
    {WeightName::kMlpUp, "mlp.up_proj.weight"},
    {WeightName::kMlpDown, "mlp.down_proj.weight"},
    {WeightName::kSharedGate, "mlp.shared_experts.gate_proj.weight"},
    {WeightName::kSharedUp, "mlp.shared_experts.up_proj.weight"},
    {WeightName::kSharedDown, "mlp.shared_experts.down_proj.weight"},
    {WeightName::kSharedExpertGate, "mlp.shared_expert_gate.weight"},
};

constexpr Spelling kArctic[] = {
    {WeightName::kMlpGate, "block_sparse_moe.mlp.w1.weight"},
    {WeightName::kMlpUp, "block_sparse_moe.mlp.w3.weight"},
    {WeightName::kMlpDown, "block_sparse_moe.mlp.w2.weight"},
};

constexpr Spelling kDbrx[] = {
    {WeightName::kEmbedding, "transformer.wte.weight"},
    {WeightName::kFinalNorm, "transformer.norm_f.weight"},
    {WeightName::kInputNorm, "norm_attn_norm.norm_1.weight"},
    {WeightName::kPostAttentionNorm, "norm_attn_norm.norm_2.weight"},
    {WeightName::kQ, "norm_attn_norm.attn.Wqkv.weight", true},
    {WeightName::kK, "norm_attn_norm.attn.Wqkv.weight", true},
    {WeightName::kV, "norm_attn_norm.attn.Wqkv.weight", true},
    {WeightName::kO, "norm_attn_norm.attn.out_proj.weight"},
};

constexpr Spelling kGranite[] = {
    {WeightName::kSharedGate, "shared_mlp.input_linear.weight", true},
    {WeightName::kSharedUp, "shared_mlp.input_linear.weight", true},
    {WeightName::kSharedDown, "shared_mlp.output_linear.weight"},
};

constexpr Spelling kJetmoe[] = {
    {WeightName::kK, "self_attention.kv_proj.weight", true},
    {WeightName::kV, "self_attention.kv_proj.weight", true},
    {WeightName::kAttentionRouter, "self_attention.experts.router.layer.weight"},
    {WeightName::kAttentionBias, "self_attention.experts.bias"},
    {WeightName::kAttentionIn, "self_attention.experts.input_linear.weight"},
    {WeightName::kAttentionOut, "self_attention.experts.output_linear.weight"},
    {WeightName::kMoeBias, "mlp.bias"},
};

constexpr Spelling kLlama4[] = {
    {WeightName::kMlpGate, "feed_forward.gate_proj.weight"},
    {WeightName::kMlpUp, "feed_forward.up_proj.weight"},
    {WeightName::kMlpDown, "feed_forward.down_proj.weight"},
    {WeightName::kSharedGate, "feed_forward.shared_expert.gate_proj.weight"},
    {WeightName::kSharedUp, "feed_forward.shared_expert.up_proj.weight"},
    {WeightName::kSharedDown, "feed_forward.shared_expert.down_proj.weight"},
};

constexpr Spelling kQwen2[] = {
    {WeightName::kSharedGate, "mlp.shared_expert.gate_proj.weight"},
    {WeightName::kSharedUp, "mlp.shared_expert.up_proj.weight"},
    {WeightName::kSharedDown, "mlp.shared_expert.down_proj.weight"},
};

constexpr const char* kModelLayers = "model.layers.";
constexpr Dialect kUsualDialect = {"", kModelLayers, {}, 0};
constexpr Dialect kDialects[] = {
    {"arctic", kModelLayers, kArctic, 1},
    {"dbrx", "transformer.blocks.", kDbrx, 7},
    {"gpt_oss", kModelLayers, {}, 3},
    {"granitemoe", kModelLayers, {}, 5},
    {"granitemoeshared", kModelLayers, kGranite, 5},
    {"jetmoe", kModelLayers, kJetmoe, 6},
    {"llama4", kModelLayers, kLlama4, 4},
    {"llama4_text", kModelLayers, kLlama4, 4},
    {"mixtral", kModelLayers, {}, 1},
    {"phimoe", kModelLayers, {}, 1},
    {"qwen2_moe", kModelLayers, kQwen2, 0},
};

const Dialect* FindDialect(const std::string& model_type) {
  for (const Dialect& dialect : kDialects) {
    if (model_type == dialect.model_type) return &dialect;
  }
  return &kUsualDialect;
}

const Spelling* FindSpelling(std::span<const Spelling> spellings, WeightName name) {
  for (const Spelling& spelling : spellings) {
    if (spelling.name == name) return &spelling;
  }
  return nullptr;
}

bool IsExpertBias(WeightName name) {
  return name >= WeightName::kExpertGateBias && name <= WeightName::kExpertDownBias;
}
bool IsUp(WeightName name) { return name == WeightName::kExpertUp || name == WeightName::kExpertUpBias; }
bool IsDown(WeightName name) { return name == WeightName::kExpertDown || name == WeightName::kExpertDownBias; }

// The whole tensor.
StoredPlace PlainPlace(const WeightSpec& spec, std::string tensor) {
  StoredPlace place;
  place.tensor = std::move(tensor);
  place.shape = spec.is_vector ? std::vector<int64_t>{spec.cols} : std::vector<int64_t>{spec.rows, spec.cols};
  place.row_pitch = spec.cols;
  return place;
}

}  // namespace

TensorNames::TensorNames(const ModelConfig& config, const std::function<bool(const std::string&)>& exists)
    : config_(config), dialect_(FindDialect(config.model_type)) {
  if (exists("language_model.model.embed_tokens.weight")) prefix_ = "language_model.";
  experts_ = FindLayout(exists);
  router_ = FindRouter(exists);
}

// Built in one go: a large model asks for this a hundred thousand times.
std::string TensorNames::ExpertTensor(int layer, int expert, const char* matrix) const {
  if (experts_->storage != ExpertStorage::kSplit) {
    return absl::StrCat(prefix_, dialect_->layers, layer, ".", experts_->block, ".", matrix);
  }
  return absl::StrCat(prefix_, dialect_->layers, layer, ".", experts_->block, ".", expert, ".", matrix, ".weight");
}

std::string TensorNames::LayerPrefix(int layer) const {
  return absl::StrCat(prefix_, dialect_->layers, layer, ".");
}

// The layout of the first MoE layer; where none fits, the family's usual one, so that messages name what is expected.
const ExpertNames* TensorNames::FindLayout(const std::function<bool(const std::string&)>& exists) {
  int layer = 0;
  while (layer < config_.num_layers() && !config_.layers[static_cast<size_t>(layer)].is_moe) ++layer;
  const bool are_gated =
      layer >= config_.num_layers() || IsGated(config_.layers[static_cast<size_t>(layer)].moe.experts.activation);
  for (const ExpertNames& names : kLayouts) {
    if (names.storage == ExpertStorage::kMxfp4 && !config_.quantization.mxfp4) continue;
    // The others hold a gate beside what is called up.
    if (names.storage != ExpertStorage::kSplit && !are_gated) continue;
    experts_ = &names;
    const std::string gate = ExpertTensor(layer, 0, names.gate), down = ExpertTensor(layer, 0, names.down);
    // gpt-oss and re-saved checkpoints of others give the same names to tensors of different layouts.
    if (names.storage == ExpertStorage::kMxfp4 ? exists(gate + "_blocks") || exists(down + "_blocks")
        : names.storage == ExpertStorage::kInterleaved ? exists(gate + "_bias") || exists(down + "_bias")
                                                       : exists(gate) || exists(down)) {
      return &names;
    }
  }
  return &kLayouts[dialect_->usual_layout];
}

// Re-saved checkpoints of some families call it router instead of gate.
std::string TensorNames::FindRouter(const std::function<bool(const std::string&)>& exists) const {
  int layer = 0;
  while (layer < config_.num_layers() && !config_.layers[static_cast<size_t>(layer)].is_moe) ++layer;
  const std::string usual = experts_->router;
  const std::string other = absl::StrReplaceAll(usual, {{".gate", ".router"}});
  const std::string prefix = LayerPrefix(layer);
  return !exists(prefix + usual + ".weight") && exists(prefix + other + ".weight") ? other : usual;
}

StoredPlace TensorNames::PlaceOf(const WeightSpec& spec) const {
  if (config_.num_encoder_layers > 0) return PlainPlace(spec, SwitchTensorName(config_, spec));
  if (IsExpertMatrix(spec.name)) return ExpertPlaceOf(spec);
  if (IsExpertBias(spec.name)) return ExpertBiasPlaceOf(spec);
  if (spec.layer >= 0) {
    const std::string layer = LayerPrefix(spec.layer);
    if (spec.name == WeightName::kRouter) return PlainPlace(spec, layer + router_ + ".weight");
    if (spec.name == WeightName::kRouterBias) return PlainPlace(spec, layer + router_ + ".bias");
    if (spec.name == WeightName::kChoiceBias) return PlainPlace(spec, layer + router_ + ".e_score_correction_bias");
  }
  const Spelling* spelling = FindSpelling(dialect_->own, spec.name);
  if (spelling == nullptr) spelling = FindSpelling(kUsual, spec.name);
  std::string tensor = absl::StrCat(spec.layer >= 0 ? LayerPrefix(spec.layer) : prefix_, spelling->text);
  if (spec.expert >= 0) {  // attention experts, in one tensor
    StoredPlace place = PlainPlace(spec, std::move(tensor));
    const AttentionConfig& attention = config_.layers[static_cast<size_t>(spec.layer)].attention;
    place.shape = {attention.experts.num_experts, spec.rows, spec.cols};
    place.offset = spec.expert * spec.rows * spec.cols;
    return place;
  }
  return spelling->stacked ? StackedPlaceOf(spec, std::move(tensor)) : PlainPlace(spec, std::move(tensor));
}

// Gate and up one after the other; or k and v, after q if there is one.
StoredPlace TensorNames::StackedPlaceOf(const WeightSpec& spec, std::string tensor) const {
  const AttentionConfig& attention = config_.layers[static_cast<size_t>(spec.layer)].attention;
  const bool is_mlp = spec.name == WeightName::kSharedGate || spec.name == WeightName::kSharedUp;
  const int64_t q_rows = is_mlp || attention.experts.num_experts > 0 ? 0 : attention.shape.q_size();
  const int64_t all_rows = q_rows + 2 * (is_mlp ? spec.rows : attention.shape.kv_size());
  const bool is_second = spec.name == WeightName::kSharedUp || spec.name == WeightName::kV;
  const int64_t rows_before = spec.name == WeightName::kQ ? 0 : q_rows + (is_second ? spec.rows : 0);
  StoredPlace place = PlainPlace(spec, std::move(tensor));
  place.shape = {all_rows, spec.cols};
  place.offset = rows_before * spec.cols;
  return place;
}

// For example, expert e of [E, 2I, H] begins at row e * 2I, its up rows I later; of [E, H, I] at row e * H.
StoredPlace TensorNames::ExpertPlaceOf(const WeightSpec& spec) const {
  const ExpertStorage storage = experts_->storage;
  const bool is_down = IsDown(spec.name), is_up = IsUp(spec.name);
  const bool fused = storage != ExpertStorage::kSplit && storage != ExpertStorage::kStacked;
  const char* const matrix = is_down ? experts_->down : is_up && !fused ? experts_->up : experts_->gate;
  StoredPlace place = PlainPlace(spec, ExpertTensor(spec.layer, spec.expert, matrix));
  if (storage == ExpertStorage::kSplit) return place;

  const int64_t num_experts = config_.layers[static_cast<size_t>(spec.layer)].moe.router.num_experts;
  const int64_t sides = fused && !is_down ? 2 : 1;  // of this tensor: gate and up
  const int64_t elements = sides * spec.rows * spec.cols;
  place.offset = spec.expert * elements;
  switch (storage) {
    case ExpertStorage::kSplit:
      break;
    case ExpertStorage::kFusedRows:
      place.shape = {num_experts, sides * spec.rows, spec.cols};
      if (is_up) place.offset += spec.rows * spec.cols;
      break;
    case ExpertStorage::kFusedColumns:
    case ExpertStorage::kInterleaved:
      place.shape = {num_experts, spec.cols, sides * spec.rows};
      place.col_pitch = sides * spec.rows;
      place.row_pitch = storage == ExpertStorage::kInterleaved ? sides : 1;
      if (is_up) place.offset += storage == ExpertStorage::kInterleaved ? 1 : spec.rows;
      break;
    case ExpertStorage::kMxfp4:
      place.tensor += "_blocks";
      place.scales = ExpertTensor(spec.layer, spec.expert, matrix) + "_scales";
      place.scales_shape = {num_experts, sides * spec.rows, spec.cols / kMxfp4Block};
      place.shape = place.scales_shape;
      place.shape.push_back(kMxfp4Block / 2);
      place.row_pitch = sides * spec.cols;
      if (is_up) place.offset += spec.cols;
      break;
    case ExpertStorage::kStacked:
      place.shape = is_down ? std::vector<int64_t>{num_experts * spec.cols, spec.rows}
                            : std::vector<int64_t>{num_experts * spec.rows, spec.cols};
      if (is_down) std::tie(place.row_pitch, place.col_pitch) = std::pair<int64_t, int64_t>{1, spec.rows};
      break;
  }
  return place;
}

// Of gpt-oss only, whose two layouts store biases alike: [E, 2I], even gate and odd up, and [E, H].
StoredPlace TensorNames::ExpertBiasPlaceOf(const WeightSpec& spec) const {
  const int64_t num_experts = config_.layers[static_cast<size_t>(spec.layer)].moe.router.num_experts;
  const bool is_down = IsDown(spec.name), is_up = IsUp(spec.name);
  const int64_t sides = is_down ? 1 : 2;
  const char* const matrix = is_down ? experts_->down : experts_->gate;
  StoredPlace place = PlainPlace(spec, ExpertTensor(spec.layer, spec.expert, matrix) + "_bias");
  place.shape = {num_experts, sides * spec.cols};
  place.offset = spec.expert * sides * spec.cols + (is_up ? 1 : 0);
  place.col_pitch = sides;
  return place;
}

bool TensorNames::IsIgnored(const std::string& tensor) const {
  if (config_.num_encoder_layers > 0 && IsSwitchCopy(tensor)) return true;
  if (config_.tie_word_embeddings && tensor == prefix_ + "lm_head.weight") return true;
  for (int32_t i = 0; i < config_.num_nextn_predict_layers; ++i) {
    if (absl::StartsWith(tensor, LayerPrefix(config_.num_layers() + i))) return true;
  }
  if (absl::StartsWith(tensor, "vision_model.") || absl::StartsWith(tensor, "multi_modal_projector.")) {
    return !prefix_.empty();
  }
  return absl::EndsWith(tensor, ".rotary_emb.inv_freq");
}

}  // namespace switchyard
