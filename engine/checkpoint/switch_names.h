// What Switch Transformers calls its weights: T5's names, one stack per side.
#ifndef SWITCHYARD_ENGINE_CHECKPOINT_SWITCH_NAMES_H_
#define SWITCHYARD_ENGINE_CHECKPOINT_SWITCH_NAMES_H_

#include <string>

#include "engine/checkpoint/weight_table.h"
#include "engine/config/model_config.h"

namespace switchyard {

// REQUIRES: an encoder-decoder, whose config calls for the weight.
std::string SwitchTensorName(const ModelConfig& config, const WeightSpec& spec);

// Copies of the embedding that old exports keep for each stack.
bool IsSwitchCopy(const std::string& tensor);

}  // namespace switchyard

#endif  // SWITCHYARD_ENGINE_CHECKPOINT_SWITCH_NAMES_H_
