#include "engine/model/expert_plan.h"

#include <vector>

#include "engine/model/weight_loader.h"

namespace switchyard {

ExpertPlan PlanExperts(const ModelConfig& config, const Weights& weights, DType dtype, const Backend& backend) {
  ExpertPlan plan;
  for (int l = 0; l < config.num_layers(); ++l) {
    const LayerConfig& layer = config.layers[static_cast<size_t>(l)];
    if (!layer.is_moe) continue;
    const std::vector<ExpertReaders> experts = FindExperts(layer.moe, weights, l);
    const ExpertMemory memory = backend.PlanExperts(experts, dtype);
    if (memory.kept == QuantizedFormat::kNone) {
      ++plan.other_layers;  // what a layout adds to them is not counted, here as elsewhere
      continue;
    }
    plan.kept = memory.kept;
    ++plan.kept_layers;
    plan.saved_bytes += ExpertElements(experts) * DTypeBytes(dtype) - memory.bytes;
  }
  return plan;
}

}  // namespace switchyard
