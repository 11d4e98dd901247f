#include "tests/support/golden_checkpoints.h"

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "engine/base/status_macros.h"

namespace switchyard::testing {
namespace {

constexpr char kFolderVariable[] = "SWITCHYARD_GOLDEN_FOLDER";

constexpr const char* kFixtures[] = {
    "arctic",
    "dbrx",
    "deepseek_v1",
    "deepseek_v2",
    "deepseek_v2_lite",
    "deepseek_v3",
    "deepseek_v3_fp8",
    "deepseek_v3_negbias",
    "glm4_moe",
    "gpt_oss_bf16",
    "gpt_oss_mxfp4",
    "granitemoe",
    "granitemoeshared",
    "jetmoe",
    "kimi_k2",
    "llama4_maverick_like",
    "llama4_scout_like",
    "mixtral",
    "olmoe",
    "phimoe_long",
    "phimoe_short",
    "qwen2_moe",
    "qwen3_moe",
    "switch_drop",
    "switch_nodrop",
    "switchyard_moe_dense_mixture",
    "switchyard_moe_noisy_top_k",
    "switchyard_moe_top_k",
};

GoldenCheckpoint Describe(const std::filesystem::path& folder) {
  std::ifstream file(folder / "config.json");
  CHECK(file.good());
  const nlohmann::json config = nlohmann::json::parse(file);
  GoldenCheckpoint checkpoint = {.name = folder.filename(), .folder = folder, .family = config.at("model_type")};
  if (config.contains("quantization_config")) {
    checkpoint.family += " " + config["quantization_config"].at("quant_method").get<std::string>();
  }
  const auto is = [&](const char* part) { return checkpoint.family.find(part) != std::string::npos; };
  if (is("gpt_oss")) checkpoint.logit_slack = 2.0, checkpoint.weight_slack = 4.0;
  if (is("fp8")) checkpoint.logit_slack = 2.0;
  for (const char* amplifying : {"deepseek_v2", "phimoe", "jetmoe", "switch_transformers", "switchyard_moe"}) {
    if (is(amplifying)) checkpoint.weight_slack = 2.0;
  }
  // Its other RoPE factors, for sequences up to the original length.
  if (checkpoint.name == "phimoe_short") checkpoint.max_model_len = 16;
  return checkpoint;
}

std::vector<GoldenCheckpoint> AllCheckpoints() {
  std::vector<GoldenCheckpoint> checkpoints;
  if (!IsGoldenFolderGiven()) {
    for (const char* name : kFixtures) checkpoints.push_back(GoldenFixture(name));
    return checkpoints;
  }
  for (const auto& entry : std::filesystem::directory_iterator(std::getenv(kFolderVariable))) {
    GoldenCheckpoint& checkpoint = checkpoints.emplace_back(Describe(entry.path()));
    checkpoint.weight_slack = std::max(checkpoint.weight_slack, 2.0);
  }
  std::sort(checkpoints.begin(), checkpoints.end(), [](const auto& a, const auto& b) { return a.name < b.name; });
  return checkpoints;
}

std::vector<GoldenCheckpoint> Checkpoints(bool encoder_decoders) {
  std::vector<GoldenCheckpoint> checkpoints = AllCheckpoints();
  std::erase_if(checkpoints, [&](const GoldenCheckpoint& checkpoint) {
    return (checkpoint.family == "switch_transformers") != encoder_decoders;
  });
  return checkpoints;
}

}  // namespace

void PrintTo(const GoldenCheckpoint& checkpoint, std::ostream* out) { *out << checkpoint.name; }

GoldenCheckpoint GoldenFixture(const std::string& name) {
  return Describe(std::filesystem::path(SWITCHYARD_SOURCE_DIR) / "tests/golden/fixtures" / name);
}

bool IsGoldenFolderGiven() { return std::getenv(kFolderVariable) != nullptr; }

std::vector<GoldenCheckpoint> GoldenCheckpoints() { return Checkpoints(/*encoder_decoders=*/false); }
std::vector<GoldenCheckpoint> EncoderDecoderCheckpoints() { return Checkpoints(/*encoder_decoders=*/true); }

}  // namespace switchyard::testing
