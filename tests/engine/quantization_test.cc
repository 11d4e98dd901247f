// EngineOptions::quantization: what runs, what it takes, and what is refused.
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "engine/engine.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/temp_folder.h"

namespace switchyard {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

EngineOptions Options(const std::string& fixture, const std::string& dtype, const std::string& quantization) {
  EngineOptions options;
  options.model_dir = std::string(SWITCHYARD_SOURCE_DIR) + "/tests/golden/fixtures/" + fixture;
  options.device = "cpu";
  options.dtype = dtype;
  options.quantization = quantization;
  options.num_threads = 1;
  options.max_num_seqs = 4;
  options.max_num_batched_tokens = 32;
  options.kv_cache_bytes = 1 << 20;
  return options;
}

ModelFacts Facts(const std::string& fixture, const std::string& dtype, const std::string& quantization) {
  auto engine = CreateEngine(Options(fixture, dtype, quantization));
  EXPECT_TRUE(engine.ok()) << engine.status();
  return engine.ok() ? (*engine)->facts() : ModelFacts();
}

TEST(QuantizationTest, ExpertsStayQuantizedInBfloat16UnlessAskedOtherwise) {
  for (const auto& [fixture, format] : {std::pair{"gpt_oss_mxfp4", "mxfp4"}, {"deepseek_v3_fp8", "fp8"}}) {
    const ModelFacts kept = Facts(fixture, "bfloat16", "auto"), asked = Facts(fixture, "bfloat16", "keep");
    const ModelFacts dequantized = Facts(fixture, "bfloat16", "dequantize");
    EXPECT_EQ(kept.expert_dtype, format);
    EXPECT_EQ(kept.dtype, DType::kBF16);
    EXPECT_EQ(asked.expert_dtype, format);
    EXPECT_EQ(dequantized.expert_dtype, "bfloat16");
    EXPECT_LT(kept.weight_bytes, dequantized.weight_bytes);
    EXPECT_EQ(asked.weight_bytes, kept.weight_bytes);
    EXPECT_EQ(Facts(fixture, "float32", "auto").expert_dtype, "float32");
  }
}

TEST(QuantizationTest, KeepIsRefusedWhereExpertsWouldBeDequantized) {
  const absl::Status status = CreateEngine(Options("gpt_oss_mxfp4", "float32", "keep")).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()),
              AllOf(HasSubstr("quantization is keep, but 3 of 3 MoE layers would have their experts as float32 on cpu"),
                    HasSubstr("use auto")));
}

TEST(QuantizationTest, NothingChangesForOtherCheckpoints) {
  for (const char* quantization : {"auto", "keep", "dequantize"}) {
    EXPECT_EQ(Facts("mixtral", "bfloat16", quantization).expert_dtype, "bfloat16");
  }
}

TEST(QuantizationTest, AnotherWordIsRefused) {
  const absl::Status status = CreateEngine(Options("mixtral", "auto", "q4")).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("quantization is 'q4'; use auto, keep or dequantize"));
}

// Scales per block of other widths than 128 columns: dequantized, or refused.
TEST(QuantizationTest, OtherBlocksAreDequantized) {
  testing::TempFolder folder;
  std::ifstream file(Options("deepseek_v3_fp8", "", "").model_dir + "/config.json");
  std::string config{std::istreambuf_iterator<char>(file), {}};
  const size_t at = config.find("128,\n   128");
  ASSERT_NE(at, std::string::npos);
  config.replace(at, 11, "128,\n   64");
  folder.Write("config.json", config);
  EngineOptions options = Options("", "bfloat16", "auto");
  options.model_dir = folder.path();
  options.load_format = LoadFormat::kDummy;
  const auto engine = CreateEngine(options);
  ASSERT_TRUE(engine.ok()) << engine.status();
  EXPECT_EQ((*engine)->facts().expert_dtype, "bfloat16");
  options.quantization = "keep";
  EXPECT_EQ(CreateEngine(options).status().code(), absl::StatusCode::kFailedPrecondition);
}

// Memory is checked before anything is loaded, by what the choice takes: no dequantized copy is counted, or made.
TEST(QuantizationTest, TheMemoryThatIsCheckedIsWhatIsTaken) {
  const std::string shape = R"({"model_type": "gpt_oss", "vocab_size": 128, "hidden_size": 1024, "num_hidden_layers": 1,
      "num_attention_heads": 4, "num_key_value_heads": 4, "head_dim": 64, "intermediate_size": 1024,
      "num_local_experts": 16, "num_experts_per_tok": 4, "max_position_embeddings": 64, "torch_dtype": "bfloat16",
      "sliding_window": 16, "layer_types": ["full_attention"], "attention_bias": true, "hidden_act": "silu",
      "tie_word_embeddings": false, "quantization_config": {"quant_method": "mxfp4"}})";
  testing::TempFolder folder;
  folder.Write("config.json", shape);
  EngineOptions options = Options("", "auto", "auto");
  options.model_dir = folder.path();
  options.load_format = LoadFormat::kDummy;
  const auto kept = CreateEngine(options);
  ASSERT_TRUE(kept.ok()) << kept.status();
  options.quantization = "dequantize";
  const auto dequantized = CreateEngine(options);
  ASSERT_TRUE(dequantized.ok()) << dequantized.status();
  const int64_t elements = int64_t{16} * 3 * 1024 * 1024;
  EXPECT_EQ((*dequantized)->facts().weight_bytes - (*kept)->facts().weight_bytes, elements * 2 - elements * 17 / 32);
}

}  // namespace
}  // namespace switchyard
