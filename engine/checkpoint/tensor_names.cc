#include "engine/checkpoint/tensor_names.h"

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace switchyard {
namespace {

constexpr ExpertNames kLayouts[] = {
    {"mlp", false, "gate_proj", "up_proj", "down_proj"},
    {"block_sparse_moe", false, "w1", "w3", "w2"},
    {"mlp", true, "gate_up_proj", "", "down_proj"},
    {"block_sparse_moe", true, "gate_up_proj", "", "down_proj"},
    {"mlp", false, "w1", "w3", "w2"},
    {"block_sparse_moe", false, "gate_proj", "up_proj", "down_proj"},
};

std::string LayerPrefix(int layer) { return absl::StrCat("model.layers.", layer, "."); }

// Built in one go: a large model asks for this a hundred thousand times.
std::string ExpertTensor(const ExpertNames& names, int layer, int expert, const char* matrix) {
  if (names.fused) return absl::StrCat("model.layers.", layer, ".", names.block, ".experts.", matrix);
  return absl::StrCat("model.layers.", layer, ".", names.block, ".experts.", expert, ".", matrix, ".weight");
}

// The layout of the first MoE layer; where none fits, the family's usual one, so that messages name what is expected.
const ExpertNames* FindLayout(const ModelConfig& config, const std::function<bool(const std::string&)>& exists) {
  int layer = 0;
  while (layer < config.num_layers() && !config.layers[static_cast<size_t>(layer)].is_moe) ++layer;
  for (const ExpertNames& names : kLayouts) {
    if (exists(ExpertTensor(names, layer, 0, names.gate)) || exists(ExpertTensor(names, layer, 0, names.down))) {
      return &names;
    }
  }
  return &kLayouts[config.model_type == "mixtral" ? 1 : 0];
}

bool IsExpertMatrix(WeightName name) { return name >= WeightName::kExpertGate; }

std::vector<int64_t> PlainShape(const WeightSpec& spec) {
  return spec.is_vector ? std::vector<int64_t>{spec.cols} : std::vector<int64_t>{spec.rows, spec.cols};
}

const char* MatrixOf(const ExpertNames& names, WeightName name) {
  if (name == WeightName::kExpertGate) return names.gate;
  return name == WeightName::kExpertUp ? names.up : names.down;
}

// After the layer's prefix; the blocks of experts are not here.
const char* SuffixOf(WeightName name) {
  switch (name) {
    case WeightName::kInputNorm:
      return "input_layernorm.weight";
    case WeightName::kPostAttentionNorm:
      return "post_attention_layernorm.weight";
    case WeightName::kQ:
      return "self_attn.q_proj.weight";
    case WeightName::kK:
      return "self_attn.k_proj.weight";
    case WeightName::kV:
      return "self_attn.v_proj.weight";
    case WeightName::kO:
      return "self_attn.o_proj.weight";
    case WeightName::kQBias:
      return "self_attn.q_proj.bias";
    case WeightName::kKBias:
      return "self_attn.k_proj.bias";
    case WeightName::kVBias:
      return "self_attn.v_proj.bias";
    case WeightName::kOBias:
      return "self_attn.o_proj.bias";
    case WeightName::kQNorm:
      return "self_attn.q_norm.weight";
    case WeightName::kKNorm:
      return "self_attn.k_norm.weight";
    case WeightName::kMlpGate:
      return "mlp.gate_proj.weight";
    case WeightName::kMlpUp:
      return "mlp.up_proj.weight";
    case WeightName::kMlpDown:
      return "mlp.down_proj.weight";
    case WeightName::kSharedExpertGate:
      return "mlp.shared_expert_gate.weight";
    default:
      return "";
  }
}

const char* SharedMatrixOf(WeightName name) {
  switch (name) {
    case WeightName::kSharedGate:
      return "gate_proj.weight";
    case WeightName::kSharedUp:
      return "up_proj.weight";
    case WeightName::kSharedDown:
      return "down_proj.weight";
    default:
      return nullptr;
  }
}

}  // namespace

TensorNames::TensorNames(const ModelConfig& config, const std::function<bool(const std::string&)>& exists)
    : config_(config), experts_(FindLayout(config, exists)) {}

StoredPlace TensorNames::PlaceOf(const WeightSpec& spec) const {
  if (experts_->fused && IsExpertMatrix(spec.name)) return FusedPlaceOf(spec);
  return {NameOf(spec), PlainShape(spec)};
}

// Expert e of [E, 2I, H] begins at row e * 2I, its up rows I later; of [E, H, I] at row e * H.
StoredPlace TensorNames::FusedPlaceOf(const WeightSpec& spec) const {
  const int64_t num_experts = config_.layers[static_cast<size_t>(spec.layer)].moe.router.num_experts;
  const bool is_down = spec.name == WeightName::kExpertDown;
  const int64_t rows_per_expert = is_down ? spec.rows : 2 * spec.rows;
  StoredPlace place;
  place.tensor = ExpertTensor(*experts_, spec.layer, spec.expert, is_down ? experts_->down : experts_->gate);
  place.shape = {num_experts, rows_per_expert, spec.cols};
  place.first_row = spec.expert * rows_per_expert + (spec.name == WeightName::kExpertUp ? spec.rows : 0);
  place.is_first_of_tensor = place.first_row == 0;
  return place;
}

std::string TensorNames::NameOf(const WeightSpec& spec) const {
  if (spec.name == WeightName::kEmbedding) return "model.embed_tokens.weight";
  if (spec.name == WeightName::kFinalNorm) return "model.norm.weight";
  if (spec.name == WeightName::kLmHead) return "lm_head.weight";
  if (spec.name == WeightName::kRouter) return absl::StrCat(LayerPrefix(spec.layer), experts_->block, ".gate.weight");
  if (IsExpertMatrix(spec.name))
    return ExpertTensor(*experts_, spec.layer, spec.expert, MatrixOf(*experts_, spec.name));
  if (const char* matrix = SharedMatrixOf(spec.name); matrix != nullptr) {
    const char* const block = config_.model_type == "deepseek" ? "mlp.shared_experts." : "mlp.shared_expert.";
    return absl::StrCat(LayerPrefix(spec.layer), block, matrix);
  }
  return absl::StrCat(LayerPrefix(spec.layer), SuffixOf(spec.name));
}

bool TensorNames::IsIgnored(const std::string& tensor) const {
  if (config_.tie_word_embeddings && tensor == "lm_head.weight") return true;
  return absl::EndsWith(tensor, ".rotary_emb.inv_freq");
}

}  // namespace switchyard
