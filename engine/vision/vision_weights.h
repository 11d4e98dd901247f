// Which tensors a V-MoE checkpoint in our layout holds. README.md lists them for people.
#ifndef SWITCHYARD_ENGINE_VISION_VISION_WEIGHTS_H_
#define SWITCHYARD_ENGINE_VISION_VISION_WEIGHTS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "engine/checkpoint/named_tensors.h"
#include "engine/vision/vision_config.h"

namespace switchyard {

// All of them, with shapes; dummy values keep the scale of activations.
std::vector<TensorSpec> VisionTensors(const VisionConfig& config);

// Elements of these tensors.
struct VisionParameterCounts {
  int64_t total = 0;
  int64_t active = 0;      // what one token meets: all but the experts that it does not choose
  int64_t in_experts = 0;  // all experts of all layers
};

VisionParameterCounts CountParameters(const VisionConfig& config);

// "layers.3." and "layers.3.moe.experts.7.".
std::string VisionLayerPrefix(int layer);
std::string VisionExpertPrefix(int layer, int expert);

}  // namespace switchyard

#endif  // SWITCHYARD_ENGINE_VISION_VISION_WEIGHTS_H_
