// generation_config.json: how the makers of a model want it sampled, where a request does not say.
#ifndef SWITCHYARD_ENGINE_CONFIG_GENERATION_CONFIG_H_
#define SWITCHYARD_ENGINE_CONFIG_GENERATION_CONFIG_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace switchyard {

struct GenerationConfig {
  std::vector<int32_t> eos_token_ids;  // empty: the file says nothing, config.json's count
  std::optional<bool> do_sample;  // false: greedy, whatever the temperature says
  std::optional<float> temperature;
  std::optional<float> top_p;
  std::optional<int32_t> top_k;  // 0: off
  std::optional<float> repetition_penalty;
};

// A folder without the file has an empty config.
// INVALID_ARGUMENT: not JSON, or values of the wrong type or out of range; all are listed.
absl::StatusOr<GenerationConfig> ReadGenerationConfig(const std::string& model_dir);
absl::StatusOr<GenerationConfig> ParseGenerationConfig(const std::string& text);

}  // namespace switchyard

#endif  // SWITCHYARD_ENGINE_CONFIG_GENERATION_CONFIG_H_
