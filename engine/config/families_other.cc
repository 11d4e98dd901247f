// Families with a block of their own: Granite, DBRX, Phi-3.5-MoE, Arctic, gpt-oss, JetMoE, Llama 4.
#include <algorithm>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/config/family_fills.h"

namespace switchyard {
namespace {

void SetRouter(RouterScore score, RouterWeights weights, ModelConfig* model) {
  for (LayerConfig& layer : model->layers) {
    layer.moe.router.score = score;
    layer.moe.router.weights = weights;
  }
}

float ReadMultiplier(const ConfigReader& config, const char* key) {
  const double value = config.Real(key, 1.0, 1e-6, 1e6);
  return value == 0.0 ? 1.0f : static_cast<float>(value);  // 0: noted already
}

}  // namespace

// Every block's output is multiplied by residual_multiplier before it joins the stream. Divided by that number, the
// whole stream follows the plain recurrence: what enters it is the embedding / multiplier, and since RMS norm only
// sees the direction, its eps shrinks by the square. Exact, and costs nothing per layer.
void FillGranite(const ConfigReader& config, const FamilyDefaults&, ModelConfig* model) {
  const bool bias = config.Bool("attention_bias", false);
  SetBiases(bias, bias, model);
  SetRouter(RouterScore::kLogit, RouterWeights::kSoftmaxOfChosen, model);
  const float residual = ReadMultiplier(config, "residual_multiplier");
  const float attention = ReadMultiplier(config, "attention_multiplier");
  model->embedding_multiplier = ReadMultiplier(config, "embedding_multiplier") / residual;
  model->logits_multiplier = 1.0f / ReadMultiplier(config, "logits_scaling");
  model->rms_norm_eps /= residual * residual;
  for (LayerConfig& layer : model->layers) layer.attention.shape.scale = attention;
}

void FillGraniteShared(const ConfigReader& config, const FamilyDefaults& defaults, ModelConfig* model) {
  FillGranite(config, defaults, model);
  SetSharedExpert(config.Int("shared_intermediate_size", 0, 0, kMaxWidth), /*gate=*/false, model);
}

void FillDbrx(const ConfigReader& config, const FamilyDefaults&, ModelConfig* model) {
  config.Object("attn_config");  // notes where they are no objects
  config.Object("ffn_config");
  model->norm = NormKind::kLayer;
  model->rms_norm_eps = 1e-5f;
  const double clip = config.Real("attn_config.clip_qkv", 0.0, 1e-6, 1e6);
  for (LayerConfig& layer : model->layers) layer.attention.shape.clip_qkv = static_cast<float>(clip);
  const std::string power_key = "ffn_config.moe_normalize_expert_weights";
  if (config.IsNull(power_key)) return;
  const double power = config.Real(power_key, 1.0, 0.1, 100.0);
  SetNormalize(true, 0.0f, model);
  for (LayerConfig& layer : model->layers) layer.moe.router.normalize_power = static_cast<float>(power);
}

void FillPhimoe(const ConfigReader& config, const FamilyDefaults&, ModelConfig* model) {
  const bool bias = config.Bool("attention_bias", false);
  SetBiases(bias, bias, model);
  SetWindow(config.Int("sliding_window", 0, 1, INT32_MAX), model);
  model->norm = NormKind::kLayer;
  model->norm_bias = true;
  model->lm_head_bias = config.Bool("lm_head_bias", false);
  SetRouter(RouterScore::kLogit, RouterWeights::kSparseMixer, model);
  const double jitter = config.Real("router_jitter_noise", 0.01, 0.0, 1e6);
  for (LayerConfig& layer : model->layers) {
    layer.moe.router.mixer_threshold = static_cast<float>(2.0 * jitter);
    if (layer.moe.router.top_k == 2 || layer.moe.router.top_k == 0) continue;
    config.problems().AddUnimplemented(config.Describe("num_experts_per_tok") + "; its router is served with 2 only");
    return;
  }
}

void FillArctic(const ConfigReader& config, const FamilyDefaults& defaults, ModelConfig* model) {
  SetWindow(config.Int("sliding_window", 0, 1, INT32_MAX), model);
  const bool parallel = config.Bool(config.NameInUse({"parallel_attn_mlp_res", "use_residual"}), false);
  const int32_t frequency = std::max(1, config.Int("moe_layer_frequency", 2, 1, INT32_MAX));
  const int32_t dense = config.Int("intermediate_size", defaults.intermediate_size, 1, kMaxWidth);
  for (int32_t l = 0; l < model->num_layers(); ++l) {
    LayerConfig& layer = model->layers[static_cast<size_t>(l)];
    if ((l + 1) % frequency != 0) {
      SetDense(l, dense, model);
      continue;
    }
    layer.moe.router.normalize = layer.moe.router.top_k > 1;
    layer.parallel_mlp_size = parallel ? model->hidden_size : 0;
  }
}

void FillGptOss(const ConfigReader& config, const FamilyDefaults&, ModelConfig* model) {
  const bool bias = config.Bool("attention_bias", true);
  SetBiases(bias, bias, model);
  SetRouter(RouterScore::kLogit, RouterWeights::kSoftmaxOfChosen, model);
  const double limit = config.Real("swiglu_limit", 7.0, 1e-6, 1e6);
  const int32_t window = config.IsNull("sliding_window") ? 0 : config.Int("sliding_window", 128, 1, INT32_MAX);
  const std::vector<std::string> types =
      ReadLayerTypes(config, {"sliding_attention", "full_attention"}, model->num_layers());
  for (size_t l = 0; l < model->layers.size(); ++l) {
    LayerConfig& layer = model->layers[l];
    const bool sliding = types.empty() ? l % 2 == 0 : types[l] == "sliding_attention";
    layer.attention.shape.sliding_window = sliding ? window : 0;
    layer.attention.shape.has_sinks = true;
    layer.moe.router_bias = true;
    layer.moe.experts = {Activation::kClampedSwiglu, static_cast<float>(limit), /*biases=*/true};
  }
}

// Read as one query head per KV head; each chosen expert brings that many.
void FillJetmoe(const ConfigReader& config, const FamilyDefaults&, ModelConfig* model) {
  SetRouter(RouterScore::kLogit, RouterWeights::kSoftmaxOfChosen, model);
  for (LayerConfig& layer : model->layers) {
    AttentionShape& shape = layer.attention.shape;
    const int64_t num_heads = int64_t{shape.num_kv_heads} * layer.moe.router.top_k;
    if (num_heads > kMaxHeads) {
      config.problems().AddInvalid(absl::StrCat("num_key_value_heads and num_experts_per_tok make ", num_heads,
                                                " heads; at most ", kMaxHeads, " are possible"));
      return;
    }
    shape.num_heads = static_cast<int32_t>(num_heads);
    layer.attention.experts = layer.moe.router;
    layer.moe.output_bias = true;
  }
}

namespace {

// Whether each layer uses RoPE: no_rope_layers lists 1 for those that do; without it every interval-th does not.
std::vector<bool> ReadRopeLayers(const ConfigReader& config, int32_t num_layers) {
  const std::vector<int32_t> listed = config.Ints("no_rope_layers", 0, 1, static_cast<size_t>(num_layers));
  const int32_t interval = std::max(1, config.Int("no_rope_layer_interval", 4, 1, INT32_MAX));
  if (!listed.empty() && static_cast<int32_t>(listed.size()) != num_layers) {
    config.problems().AddInvalid(
        absl::StrCat("no_rope_layers has ", listed.size(), " elements, but the model has ", num_layers, " layers"));
  }
  std::vector<bool> rope(static_cast<size_t>(num_layers));
  for (size_t l = 0; l < rope.size(); ++l) {
    rope[l] = l < listed.size() ? listed[l] != 0 : (l + 1) % static_cast<size_t>(interval) != 0;
  }
  return rope;
}

void FillLlama4Moe(const ConfigReader& config, ModelConfig* model) {
  const int32_t num_layers = model->num_layers();
  const int32_t dense = config.Int("intermediate_size_mlp", 16384, 1, kMaxWidth);
  const int32_t step = std::max(1, config.Int("interleave_moe_layer_step", 1, 1, INT32_MAX));
  const bool has_list = config.HasValue("moe_layers");
  const std::vector<int32_t> listed = config.Ints("moe_layers", 0, num_layers - 1, static_cast<size_t>(num_layers));
  SetRouter(RouterScore::kLogit, RouterWeights::kSigmoid, model);
  for (int32_t l = 0; l < num_layers; ++l) {
    LayerConfig& layer = model->layers[static_cast<size_t>(l)];
    const bool is_listed = std::find(listed.begin(), listed.end(), l) != listed.end();
    if (has_list ? !is_listed : (l + 1) % step != 0) {
      SetDense(l, dense, model);
      continue;
    }
    layer.moe.router.weigh_input = true;
    layer.moe.shared_intermediate_size = layer.moe.intermediate_size;
  }
}

// true, or an integer that is not 0.
bool ReadSwitch(const ConfigReader& config, const std::string& key) {
  if (config.IsInteger(key)) return config.Int(key, 0, INT32_MIN, INT32_MAX) != 0;
  return config.Bool(key, true);
}

}  // namespace

void FillLlama4(const ConfigReader& config, const FamilyDefaults&, ModelConfig* model) {
  if (model->layers.empty()) return;  // noted already
  const bool bias = config.Bool("attention_bias", false);
  SetBiases(bias, bias, model);
  const bool qk_norm = config.Bool("use_qk_norm", true);
  const int32_t chunk =
      config.IsNull("attention_chunk_size") ? 0 : config.Int("attention_chunk_size", 8192, 1, INT32_MAX);
  const bool temperature = ReadSwitch(config, "attn_temperature_tuning");
  const double floor_scale = config.Real("floor_scale", 8192, 1.0, 1e9);
  const double attn_scale = config.Real("attn_scale", 0.1, 0.0, 1e6);
  const std::vector<bool> rope = ReadRopeLayers(config, model->num_layers());
  const std::vector<std::string> types =
      ReadLayerTypes(config, {"chunked_attention", "full_attention"}, model->num_layers());
  for (size_t l = 0; l < rope.size(); ++l) {
    AttentionShape& shape = model->layers[l].attention.shape;
    const bool chunked = types.empty() ? rope[l] : types[l] == "chunked_attention";
    shape.chunk_size = chunked ? chunk : 0;
    shape.rope_interleaved = rope[l];
    if (rope[l]) {
      shape.qk_norm = qk_norm ? QkNorm::kL2AfterRope : QkNorm::kNone;
      shape.qk_norm_eps = model->rms_norm_eps;
      continue;
    }
    shape.rope_inv_freq.clear();
    if (!temperature) continue;
    shape.temperature_scale = static_cast<float>(attn_scale);
    shape.temperature_floor = static_cast<float>(floor_scale);
  }
  FillLlama4Moe(config, model);
}

}  // namespace switchyard
