#include "engine/config/generation_config.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "engine/base/json.h"
#include "engine/base/model_folder.h"
#include "engine/base/status_macros.h"
#include "engine/config/config_reader.h"
#include "engine/sampling_params.h"

namespace switchyard {
namespace {

constexpr char kFile[] = "generation_config.json";
constexpr JsonLimits kLimits = {.max_bytes = size_t{1} << 20, .max_depth = 32, .max_values = 100'000};
constexpr size_t kMaxEosTokens = 64;

std::optional<float> OptionalReal(const ConfigReader& config, const std::string& key, double min, double max) {
  if (!config.HasValue(key)) return std::nullopt;
  return static_cast<float>(config.Real(key, 0.0, min, max));
}

}  // namespace

absl::StatusOr<GenerationConfig> ParseGenerationConfig(const std::string& text) {
  ASSIGN_OR_RETURN(const nlohmann::json document, ParseJson(text, kLimits, kFile));
  if (!document.is_object()) return absl::InvalidArgumentError("generation_config.json: is not a JSON object");
  ConfigProblems problems(kFile);
  const ConfigReader config(document, "", &problems);

  GenerationConfig generation;
  generation.eos_token_ids = config.Ints("eos_token_id", 0, INT32_MAX, kMaxEosTokens);
  if (config.HasValue("do_sample")) generation.do_sample = config.Bool("do_sample", false);
  generation.temperature = OptionalReal(config, "temperature", 0.0, 100.0);
  generation.top_p = OptionalReal(config, "top_p", 0.0, 1.0);
  generation.repetition_penalty =
      OptionalReal(config, "repetition_penalty", kMinRepetitionPenalty, kMaxRepetitionPenalty);
  // Some files write "off" as -1.
  if (config.HasValue("top_k")) generation.top_k = std::max(0, config.Int("top_k", 0, -1, INT32_MAX));
  RETURN_IF_ERROR(problems.ToStatus());
  return generation;
}

absl::StatusOr<GenerationConfig> ReadGenerationConfig(const std::string& model_dir) {
  ASSIGN_OR_RETURN(const ModelFolder folder, ModelFolder::Open(model_dir));
  const absl::StatusOr<std::string> text = folder.ReadSmallFile(kFile, kLimits.max_bytes);
  if (absl::IsNotFound(text.status())) return GenerationConfig{};
  RETURN_IF_ERROR(text.status());
  return ParseGenerationConfig(*text);
}

}  // namespace switchyard
