// What each family makes of its config (see Family::fill), and what they share.
#ifndef SWITCHYARD_ENGINE_CONFIG_FAMILY_FILLS_H_
#define SWITCHYARD_ENGINE_CONFIG_FAMILY_FILLS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "engine/config/config_reader.h"
#include "engine/config/model_families.h"

namespace switchyard {

void FillMixtral(const ConfigReader& config, const FamilyDefaults& defaults, ModelConfig* model);
void FillOlmoe(const ConfigReader& config, const FamilyDefaults& defaults, ModelConfig* model);
void FillQwen2Moe(const ConfigReader& config, const FamilyDefaults& defaults, ModelConfig* model);
void FillQwen3Moe(const ConfigReader& config, const FamilyDefaults& defaults, ModelConfig* model);
void FillDeepseek(const ConfigReader& config, const FamilyDefaults& defaults, ModelConfig* model);
void FillDeepseekV2(const ConfigReader& config, const FamilyDefaults& defaults, ModelConfig* model);
void FillDeepseekV3(const ConfigReader& config, const FamilyDefaults& defaults, ModelConfig* model);
void FillGlm4Moe(const ConfigReader& config, const FamilyDefaults& defaults, ModelConfig* model);
void FillGranite(const ConfigReader& config, const FamilyDefaults& defaults, ModelConfig* model);
void FillGraniteShared(const ConfigReader& config, const FamilyDefaults& defaults, ModelConfig* model);
void FillGeneric(const ConfigReader& config, const FamilyDefaults& defaults, ModelConfig* model);
void FillDbrx(const ConfigReader& config, const FamilyDefaults& defaults, ModelConfig* model);
void FillPhimoe(const ConfigReader& config, const FamilyDefaults& defaults, ModelConfig* model);
void FillArctic(const ConfigReader& config, const FamilyDefaults& defaults, ModelConfig* model);
void FillGptOss(const ConfigReader& config, const FamilyDefaults& defaults, ModelConfig* model);
void FillJetmoe(const ConfigReader& config, const FamilyDefaults& defaults, ModelConfig* model);
void FillSwitch(const ConfigReader& config, const FamilyDefaults& defaults, ModelConfig* model);
void FillLlama4(const ConfigReader& config, const FamilyDefaults& defaults, ModelConfig* model);

// ---- the same in every layer ----

void SetQkNorm(QkNorm norm, ModelConfig* model);
void SetBiases(bool qkv, bool output, ModelConfig* model);
void SetWindow(int32_t window, ModelConfig* model);
void SetNormalize(bool normalize, float eps, ModelConfig* model);
void SetSharedExpert(int32_t width, bool gate, ModelConfig* model);

// ---- one layer, or a pattern ----

void SetDense(int32_t layer, int32_t intermediate_size, ModelConfig* model);
// Layer l is dense where mlp_only_layers lists it, or where l + 1 is no multiple of decoder_sparse_step.
void FillSparseSteps(const ConfigReader& config, const FamilyDefaults& defaults, ModelConfig* model);
// `layer_types`, one per layer, each one of `known`; empty where the config has none. Problems are noted.
std::vector<std::string> ReadLayerTypes(const ConfigReader& config, const std::vector<std::string>& known,
                                        int32_t num_layers);

// Notes that the block is not served unless the key is missing or has this value.
void RequireText(const ConfigReader& config, const std::string& key, const std::string& served);

}  // namespace switchyard

#endif  // SWITCHYARD_ENGINE_CONFIG_FAMILY_FILLS_H_
