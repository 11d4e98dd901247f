// `switchyard inspect` against what the files themselves say.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "client/commands/command_line.h"
#include "tests/support/temp_folder.h"

namespace switchyard {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::TempFolder;

const std::string kFixtures = SWITCHYARD_SOURCE_DIR "/tests/golden/fixtures/";
const std::string kBundled = SWITCHYARD_SOURCE_DIR "/deploy/models/switchyard-demo";

struct Printed {
  int exit_code = 0;
  std::string out, err;
};

Printed Inspect(const std::string& folder, const std::vector<std::string>& options = {}) {
  std::vector<std::string> arguments = {"inspect", folder};
  arguments.insert(arguments.end(), options.begin(), options.end());
  std::istringstream in;
  std::ostringstream out, err;
  Console console{.in = in, .out = out, .err = err, .terminal = {}};
  const int exit_code = RunCommandLine(arguments, console);
  return {exit_code, out.str(), err.str()};
}

nlohmann::json InspectJson(const std::string& folder) {
  const Printed printed = Inspect(folder, {"--json"});
  EXPECT_EQ(printed.exit_code, kExitOk) << printed.err << printed.out;
  return nlohmann::json::parse(printed.out);
}

// Elements of all tensors whose name contains `part`, from the header of the file.
int64_t StoredElements(const std::string& folder, const std::string& part) {
  std::ifstream file(folder + "/model.safetensors", std::ios::binary);
  uint64_t size = 0;
  file.read(reinterpret_cast<char*>(&size), sizeof(size));
  std::string header(size, '\0');
  file.read(header.data(), static_cast<std::streamsize>(size));
  const nlohmann::json tensors = nlohmann::json::parse(header);
  int64_t total = 0;
  for (const auto& [name, tensor] : tensors.items()) {
    if (name == "__metadata__" || name.find(part) == std::string::npos) continue;
    int64_t elements = 1;
    for (const int64_t dim : tensor["shape"]) elements *= dim;
    total += elements;
  }
  return total;
}

TEST(InspectTest, CountsTheParametersThatAreStored) {
  for (const char* name : {"mixtral", "olmoe", "qwen2_moe", "deepseek_v2", "dbrx", "llama4_scout_like", "jetmoe"}) {
    const nlohmann::json model = InspectJson(kFixtures + name);
    EXPECT_EQ(model["num_parameters"], StoredElements(kFixtures + name, "")) << name;
    EXPECT_EQ(model["weights"], "ok") << name;
  }
}

TEST(InspectTest, ActiveIsAllButTheExpertsNotChosen) {
  for (const char* name : {"mixtral", "olmoe", "qwen2_moe", "arctic"}) {
    const nlohmann::json model = InspectJson(kFixtures + name);
    const int64_t experts = StoredElements(kFixtures + name, ".experts.");
    const int64_t num_experts = model["num_experts"], top_k = model["top_k"];
    EXPECT_EQ(model["num_expert_parameters"], experts) << name;
    EXPECT_EQ(model["num_active_parameters"],
              model["num_parameters"].get<int64_t>() - experts / num_experts * (num_experts - top_k))
        << name;
  }
}

TEST(InspectTest, SaysWhatACacheEntryTakes) {
  // 61 layers of 512 + 64 numbers in two bytes: the published figure of DeepSeek-V3.
  TempFolder folder;
  folder.Write("config.json", R"({"model_type": "deepseek_v3"})");
  const nlohmann::json model = InspectJson(folder.path());
  EXPECT_EQ(model["memory"]["bfloat16"]["kv_bytes_per_token"], 70272);
  EXPECT_EQ(model["memory"]["float32"]["kv_bytes_per_token"], 2 * 70272);
  EXPECT_EQ(model["weights"], "absent");
  EXPECT_EQ(model["tokenizer"], "absent");
  EXPECT_EQ(model["stored_bytes"], 0);
  // The published size: 671 billion parameters, 37 of them active.
  EXPECT_NEAR(model["num_parameters"].get<double>(), 671e9, 1e9);
  EXPECT_NEAR(model["num_active_parameters"].get<double>(), 37e9, 1e9);
}

TEST(InspectTest, SaysWhatQuantizedExpertsTake) {
  const nlohmann::json memory = InspectJson(kFixtures + "gpt_oss_mxfp4")["memory"];
  const int64_t elements = int64_t{3} * 6 * 3 * 32 * 32;  // layers, experts, matrices
  EXPECT_EQ(memory["bfloat16"]["weight_bytes"].get<int64_t>() -
                memory["bfloat16"]["weight_bytes_quantized"].get<int64_t>(),
            elements * 2 - elements * 17 / 32);
  EXPECT_FALSE(memory["float32"].contains("weight_bytes_quantized"));
  EXPECT_THAT(Inspect(kFixtures + "gpt_oss_mxfp4").out, HasSubstr("--quantization keep, on a CPU"));
  EXPECT_TRUE(InspectJson(kFixtures + "deepseek_v3_fp8")["memory"]["bfloat16"].contains("weight_bytes_quantized"));
  EXPECT_FALSE(InspectJson(kFixtures + "gpt_oss_bf16")["memory"]["bfloat16"].contains("weight_bytes_quantized"));
}

TEST(InspectTest, NamesWhatABackendDoesNotServe) {
  EXPECT_EQ(InspectJson(kFixtures + "mixtral")["cuda"], "ok");
  EXPECT_THAT(InspectJson(kFixtures + "deepseek_v3")["cuda"].get<std::string>(), HasSubstr("latent attention (MLA)"));
  EXPECT_THAT(Inspect(kFixtures + "jetmoe").out, HasSubstr("mixture of attention heads"));
}

TEST(InspectTest, PrintsTheBundledModel) {
  const Printed printed = Inspect(kBundled);
  EXPECT_EQ(printed.exit_code, kExitOk);
  EXPECT_THAT(printed.out, HasSubstr("parameters               15,219,968\n"));
  EXPECT_THAT(printed.out, HasSubstr("MoE layers               0-5\n"));
  EXPECT_THAT(printed.out, HasSubstr("weights                  complete\n"));
  EXPECT_THAT(printed.out, HasSubstr("tokenizer                served\n"));
  EXPECT_THAT(printed.err, IsEmpty());
}

TEST(InspectTest, ListsEveryProblemOfTheWeights) {
  TempFolder folder;
  for (const char* name : {"config.json", "model.safetensors"}) {
    std::filesystem::copy(kFixtures + "mixtral/" + name, folder.PathOf(name));
  }
  nlohmann::json config = nlohmann::json::parse(std::ifstream(folder.PathOf("config.json")));
  config["num_local_experts"] = config["num_local_experts"].get<int>() + 1;
  folder.Write("config.json", config.dump());
  const Printed printed = Inspect(folder.path());
  EXPECT_EQ(printed.exit_code, kExitError);
  EXPECT_THAT(printed.out, HasSubstr("is missing\n"));
  EXPECT_THAT(printed.out, HasSubstr("but config.json calls for"));
  EXPECT_EQ(printed.out.find("complete"), std::string::npos);
}

TEST(InspectTest, ALinkToNothingIsNoMissingFile) {
  TempFolder folder;
  std::filesystem::copy(kFixtures + "mixtral/config.json", folder.PathOf("config.json"));
  EXPECT_EQ(Inspect(folder.path()).exit_code, kExitOk);
  std::filesystem::create_symlink("gone", folder.PathOf("model.safetensors"));
  const Printed printed = Inspect(folder.path());
  EXPECT_EQ(printed.exit_code, kExitError);
  EXPECT_THAT(printed.out, HasSubstr("model.safetensors: is a link to nothing"));
}

TEST(InspectTest, RefusesWhatItCannotServe) {
  TempFolder folder;
  EXPECT_THAT(Inspect(folder.path()).err, HasSubstr("NOT_FOUND"));
  folder.Write("config.json", R"({"model_type": "mixtral", "num_hidden_layers": 0, "hidden_size": -1})");
  const Printed printed = Inspect(folder.path());
  EXPECT_EQ(printed.exit_code, kExitError);
  EXPECT_THAT(printed.err, HasSubstr("num_hidden_layers is 0"));
  EXPECT_THAT(printed.err, HasSubstr("hidden_size is -1"));
  folder.Write("config.json", R"({"model_type": "llama"})");
  EXPECT_THAT(Inspect(folder.path()).err, HasSubstr("UNIMPLEMENTED"));
}

}  // namespace
}  // namespace switchyard
