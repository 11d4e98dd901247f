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
using ::testing::Not;
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
  EXPECT_EQ(InspectJson(kFixtures + "deepseek_v3")["cuda"], "ok");
  EXPECT_THAT(InspectJson(kFixtures + "switch_nodrop")["cuda"].get<std::string>(), HasSubstr("bidirectional attention"));
  EXPECT_THAT(Inspect(kFixtures + "vmoe_plain").out, HasSubstr("bidirectional attention"));
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

// ------------------------------------------------------------------------------------------------- image classifiers

TEST(InspectTest, CountsTheParametersOfImageClassifiers) {
  for (const char* name : {"vmoe_plain", "vmoe_top1", "vmoe_top3", "vmoe_all_experts", "vmoe_capacity"}) {
    const nlohmann::json model = InspectJson(kFixtures + name);
    const int64_t total = StoredElements(kFixtures + name, ""), experts = StoredElements(kFixtures + name, ".experts.");
    const int64_t num_experts = model["num_experts"], top_k = model["top_k"];
    EXPECT_EQ(model["num_parameters"], total) << name;
    EXPECT_EQ(model["num_expert_parameters"], experts) << name;
    EXPECT_EQ(model["num_active_parameters"], total - experts / num_experts * (num_experts - top_k)) << name;
    EXPECT_EQ(model["memory"]["bfloat16"], nlohmann::json({{"weight_bytes", 2 * total}})) << name;
    EXPECT_EQ(model["memory"]["float32"], nlohmann::json({{"weight_bytes", 4 * total}})) << name;
    EXPECT_EQ(model["weights"], "ok") << name;
  }
}

TEST(InspectTest, SaysWhatAnImageClassifierTakes) {
  const nlohmann::json model = InspectJson(kFixtures + "vmoe_capacity");
  EXPECT_EQ(model["architecture"], "vmoe");
  EXPECT_EQ(model["stored_dtype"], "float32");
  EXPECT_EQ(model["image_size"], 16);
  EXPECT_EQ(model["patch_size"], 4);
  EXPECT_EQ(model["tokens_per_image"], 17);
  EXPECT_EQ(model["num_classes"], 7);
  EXPECT_EQ(model["num_layers"], 4);
  EXPECT_EQ(model["moe_layers"], nlohmann::json({1, 3}));
  EXPECT_EQ(model["num_experts"], 8);
  EXPECT_EQ(model["top_k"], 2);
  EXPECT_EQ(model["expert_width"], 48);
  EXPECT_EQ(model["expert_capacity"], 8);  // ceil(17 * 2 * 1.05 / 8) is 5; the next multiple of 4
  EXPECT_EQ(InspectJson(kFixtures + "vmoe_plain")["expert_capacity"], 0);
  for (const char* of_text : {"vocab_size", "max_position_embeddings", "tokenizer", "chat_template"}) {
    EXPECT_FALSE(model.contains(of_text)) << of_text;
  }
  EXPECT_EQ(model["cpu"], "ok");
  EXPECT_THAT(model["cuda"].get<std::string>(), HasSubstr("bidirectional attention"));
}

TEST(InspectTest, PrintsAnImageClassifier) {
  const Printed printed = Inspect(kFixtures + "vmoe_capacity");
  EXPECT_EQ(printed.exit_code, kExitOk) << printed.err;
  EXPECT_THAT(printed.out, HasSubstr("image size               16 x 16 pixels\n"));
  EXPECT_THAT(printed.out, HasSubstr("patch size               4 x 4 pixels\n"));
  EXPECT_THAT(printed.out, HasSubstr("MoE layers               1, 3\n"));
  EXPECT_THAT(printed.out, HasSubstr("attention                4 heads of 8 over the whole image\n"));
  EXPECT_THAT(printed.out, HasSubstr("expert capacity          8 choices of an image's tokens\n"));
  EXPECT_THAT(printed.out, HasSubstr("weights                  complete\n"));
  for (const char* of_text : {"vocabulary", "KV cache", "tokenizer", "chat template"}) {
    EXPECT_THAT(printed.out, Not(HasSubstr(of_text)));
  }
  EXPECT_THAT(Inspect(kFixtures + "vmoe_plain").out, Not(HasSubstr("expert capacity")));
}

class BrokenClassifierTest : public ::testing::Test {
 protected:
  BrokenClassifierTest() {
    for (const char* name : {"config.json", "model.safetensors"}) {
      std::filesystem::copy(kFixtures + "vmoe_plain/" + name, folder_.PathOf(name));
    }
  }
  // The config with other values for some keys.
  void Change(const nlohmann::json& changes) {
    nlohmann::json config = nlohmann::json::parse(std::ifstream(folder_.PathOf("config.json")));
    config.update(changes);
    folder_.Write("config.json", config.dump());
  }

  TempFolder folder_;
};

TEST_F(BrokenClassifierTest, ListsEveryProblemOfTheWeights) {
  Change({{"num_experts", 9}, {"num_classes", 8}, {"representation_size", nullptr}});
  const Printed printed = Inspect(folder_.path());
  EXPECT_EQ(printed.exit_code, kExitError);
  EXPECT_THAT(printed.out, HasSubstr("tensor \"layers.1.moe.experts.8.up_proj.weight\" is missing\n"));
  EXPECT_THAT(printed.out, HasSubstr("shape is [8, 32], but config.json calls for [9, 32]"));
  EXPECT_THAT(printed.out, HasSubstr("shape is [7], but config.json calls for [8]"));
  EXPECT_THAT(printed.out, HasSubstr("pre_logits.bias"));
  EXPECT_THAT(printed.out, HasSubstr("is no tensor of this model"));
  EXPECT_THAT(printed.out, Not(HasSubstr("complete")));
  EXPECT_EQ(Inspect(folder_.path(), {"--json"}).exit_code, kExitError);
}

TEST_F(BrokenClassifierTest, ListsEveryProblemOfTheConfig) {
  Change({{"image_size", 15}, {"moe_layers", {3, 1}}, {"num_experts_per_tok", 0}});
  const Printed printed = Inspect(folder_.path());
  EXPECT_EQ(printed.exit_code, kExitError);
  EXPECT_THAT(printed.err, HasSubstr("image_size is 15; it must be a multiple of patch_size, which is 4"));
  EXPECT_THAT(printed.err, HasSubstr("moe_layers has 1 after 3; it must ascend"));
  EXPECT_THAT(printed.err, HasSubstr("num_experts_per_tok is 0; it must be an integer from 1"));
  EXPECT_THAT(printed.out, IsEmpty());
}

TEST_F(BrokenClassifierTest, ACutFileIsNoCompleteOne) {
  const std::string file = folder_.PathOf("model.safetensors");
  std::filesystem::resize_file(file, std::filesystem::file_size(file) - 1);
  const Printed printed = Inspect(folder_.path());
  EXPECT_EQ(printed.exit_code, kExitError);
  EXPECT_THAT(printed.out, HasSubstr("model.safetensors"));
  EXPECT_THAT(printed.out, Not(HasSubstr("complete\n")));
  EXPECT_THAT(printed.out, HasSubstr("image size"));
}

TEST_F(BrokenClassifierTest, AConfigAloneIsEnough) {
  std::filesystem::remove(folder_.PathOf("model.safetensors"));
  const nlohmann::json model = InspectJson(folder_.path());
  EXPECT_EQ(model["weights"], "absent");
  EXPECT_EQ(model["stored_bytes"], 0);
  EXPECT_EQ(model["num_parameters"], StoredElements(kFixtures + "vmoe_plain", ""));
}

// ------------------------------------------------------------------------------------------------- refusals

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
