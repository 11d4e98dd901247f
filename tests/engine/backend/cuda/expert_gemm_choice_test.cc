// Who multiplies the experts, by option, table and size of the step. On the emulated device.
#include "engine/backend/cuda/expert_gemm_choice.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <numeric>
#include <string>
#include <vector>

#include "emulation.h"
#include "tests/engine/backend/cuda/tiny_model.h"
#include "tests/support/temp_folder.h"

namespace switchyard {
namespace {

using ::testing::HasSubstr;
using testing::Converse;
using testing::kVocab;
using testing::MakeCudaBackend;
using testing::TinyModel;

using Counts = std::map<std::string, uint64_t>;

Counts CountsOf(const Backend& backend) {
  Counts counts;
  for (const ExpertGemmCount& gemm : backend.expert_gemms()) counts[gemm.provider] = gemm.layers;
  return counts;
}

class ExpertGemmChoiceTest : public ::testing::Test {
 protected:
  // Of the tiny model.
  std::string WriteTable(const std::string& fastest, const std::string& device = "emulated device", int hidden = 32,
                         const std::string& dtype = "float32", const std::string& always = "native") {
    folder_.Write("table.json", R"({"format": "switchyard expert gemm table 1", "entries": [{"device": ")" + device +
                                    R"(", "hidden": )" + std::to_string(hidden) +
                                    R"(, "intermediate": 24, "experts": 6, "top_k": 2, "dtype": ")" +
                                    dtype + R"(", "always": ")" + always + R"(", "fastest": [)" + fastest + "]}]}");
    return folder_.PathOf("table.json");
  }
  std::string WriteMixedTable() {
    return WriteTable(R"({"max_tokens": 2, "provider": "native"}, {"max_tokens": 32, "provider": "cublas_padded"},
                         {"max_tokens": 256, "provider": "native"},
                         {"max_tokens": 280, "provider": "cublas_grouped"})");
  }

  // One prompt of so many tokens, which no step records; its logits.
  static std::vector<float> Prefill(TinyModel* model, int32_t num_tokens) {
    std::vector<int32_t> ids(num_tokens), table(64);
    for (int32_t i = 0; i < num_tokens; ++i) ids[i] = (3 * i + 1) % kVocab;
    std::iota(table.begin(), table.end(), 0);
    const std::vector<float> logits = model->Step(ids, {{0, num_tokens, 0, table.data()}});
    EXPECT_TRUE(model->status().ok()) << model->status();
    return logits;
  }

  testing::TempFolder folder_;
};

TEST_F(ExpertGemmChoiceTest, WithoutATableAutoIsNative) {
  auto backend = MakeCudaBackend("auto");
  EXPECT_THAT(backend->description(), HasSubstr("native experts"));
  TinyModel model(backend.get(), DType::kF32);
  Prefill(&model, 5);
  EXPECT_EQ(CountsOf(*backend), (Counts{{"native", 1}}));
}

TEST_F(ExpertGemmChoiceTest, FastestPicksByTokensOfTheStep) {
  auto backend = MakeCudaBackend("fastest", WriteMixedTable());
  EXPECT_THAT(backend->description(), HasSubstr("experts: fastest by table"));
  TinyModel model(backend.get(), DType::kF32, 300);
  Counts expected = {{"native", 0}, {"cublas_padded", 0}, {"cublas_grouped", 0}};
  EXPECT_EQ(CountsOf(*backend), expected) << "all that may run are told before they do";
  for (const auto& [tokens, provider] :
       std::vector<std::pair<int, std::string>>{{2, "native"}, {3, "cublas_padded"}, {31, "cublas_padded"},
                                                {33, "native"}, {256, "native"}, {260, "cublas_grouped"},
                                                {281, "native"}}) {
    Prefill(&model, tokens);
    ++expected[provider];
    EXPECT_EQ(CountsOf(*backend), expected) << tokens << " tokens";
  }
}

// The promise of the README: who shares the batch changes nothing.
TEST_F(ExpertGemmChoiceTest, AutoKeepsOneProviderSoThatABatchGivesTheBitsOfARequestAlone) {
  auto backend = MakeCudaBackend("auto", WriteMixedTable());
  TinyModel model(backend.get(), DType::kF32);
  const std::vector<int32_t> first = {1, 4, 7}, table = {0, 1}, other_table = {2, 3};
  const std::vector<float> alone = model.Step(first, {{0, 3, 0, table.data()}});
  std::vector<int32_t> both = first;
  for (int32_t i = 0; i < 20; ++i) both.push_back((5 * i + 2) % kVocab);
  const std::vector<float> batched = model.Step(both, {{0, 3, 0, table.data()}, {3, 20, 0, other_table.data()}});
  ASSERT_EQ(alone.size(), 3u * kVocab);
  ASSERT_EQ(batched.size(), 23u * kVocab);
  for (size_t i = 0; i < alone.size(); ++i) ASSERT_EQ(alone[i], batched[i]) << "element " << i;
  EXPECT_EQ(CountsOf(*backend), (Counts{{"native", 2}})) << "the other providers are not even made";
}

TEST_F(ExpertGemmChoiceTest, AutoTakesTheInvariantProviderThatTheTableNames) {
  auto backend = MakeCudaBackend("auto", WriteTable(R"({"max_tokens": 256, "provider": "native"})", "emulated device",
                                                    32, "bfloat16", "wgmma"));
  TinyModel model(backend.get(), DType::kBF16);
  Prefill(&model, 1);
  Prefill(&model, 33);
  EXPECT_EQ(CountsOf(*backend), (Counts{{"native", 0}, {"wgmma", 2}}));
}

// The plan is made before the experts are known: its tiles must suit whoever gets it.
TEST_F(ExpertGemmChoiceTest, TilesOfThePlanSuitTheProvidersOfAllLayers) {
  BackendOptions options;
  options.expert_gemm = "fastest";
  options.expert_gemm_table = WriteTable(
      R"({"max_tokens": 256, "provider": "native"}, {"max_tokens": 8192, "provider": "wgmma"})", "emulated device", 32,
      "bfloat16");
  cudaDeviceProp device;
  ASSERT_EQ(cudaGetDeviceProperties(&device, 0), cudaSuccess);
  auto choice = cuda::ExpertGemmChoice::Create(options, device, nullptr);
  ASSERT_TRUE(choice.ok()) << choice.status();
  cuda::ExpertSizes known, unknown, others;
  known.dtype = unknown.dtype = others.dtype = DType::kBF16;
  known.num_experts = unknown.num_experts = 6;
  known.hidden = 32;
  known.intermediate = 24;
  unknown.hidden = 64;
  others.num_experts = 7;
  cuda::ExpertBatch batch;
  batch.tokens = 4096;
  batch.max_rows = 8192;
  EXPECT_EQ((*choice)->TileTokens(std::vector{known, others}, 6, batch), 256);
  EXPECT_EQ((*choice)->TileTokens(std::vector{known, unknown}, 6, batch), 128) << "native has none of 256";
  batch.tokens = 8;
  batch.max_rows = 16;
  EXPECT_EQ((*choice)->TileTokens(std::vector{known}, 6, batch), 8);
}

TEST_F(ExpertGemmChoiceTest, ANamedProviderOverridesTheTable) {
  auto backend = MakeCudaBackend("cublas_padded", folder_.PathOf("no such file"));
  TinyModel model(backend.get(), DType::kF32);
  Prefill(&model, 2);
  EXPECT_EQ(CountsOf(*backend), (Counts{{"native", 0}, {"cublas_padded", 1}}));
}

// A recording keeps the provider of its form, and its repeats count.
TEST_F(ExpertGemmChoiceTest, RecordedStepsUseTheProviderOfTheirForm) {
  const std::string table =
      WriteTable(R"({"max_tokens": 2, "provider": "native"}, {"max_tokens": 32, "provider": "cublas_padded"})");
  auto backend = MakeCudaBackend("fastest", table);
  TinyModel model(backend.get(), DType::kF32);
  const int64_t launches = cuda_emulation::NumGraphLaunches();
  // Prompts of 3, 4 and 5 tokens, then decodes: 4 steps each of 3, 2 and 1 rows.
  const std::vector<float> recorded = Converse(&model, 3, 12);
  EXPECT_GE(cuda_emulation::NumGraphLaunches() - launches, 8);
  EXPECT_EQ(CountsOf(*backend), (Counts{{"native", 8}, {"cublas_padded", 7}}));

  auto direct_backend = MakeCudaBackend("fastest", table);
  TinyModel direct(direct_backend.get(), DType::kF32);
  cuda_emulation::SetRefuseCapture(true);
  const std::vector<float> plain = Converse(&direct, 3, 12);
  cuda_emulation::SetRefuseCapture(false);
  EXPECT_EQ(CountsOf(*direct_backend), CountsOf(*backend));
  ASSERT_EQ(recorded.size(), plain.size());
  for (size_t i = 0; i < plain.size(); ++i) ASSERT_EQ(recorded[i], plain[i]) << "element " << i;
}

TEST_F(ExpertGemmChoiceTest, NativeTakesWhatTheTableDoesNotKnow) {
  constexpr char kPadded[] = R"({"max_tokens": 256, "provider": "cublas_padded"})";
  auto other_device = MakeCudaBackend("fastest", WriteTable(kPadded, "NVIDIA H200"));
  EXPECT_THAT(other_device->description(), HasSubstr("native experts: the table is of other devices"));
  auto other_shape = MakeCudaBackend("fastest", WriteTable(kPadded, "emulated device", 64));
  auto other_dtype = MakeCudaBackend("fastest", WriteTable(kPadded));
  for (Backend* backend : {other_device.get(), other_shape.get(), other_dtype.get()}) {
    TinyModel model(backend, backend == other_dtype.get() ? DType::kBF16 : DType::kF32);
    Prefill(&model, 5);
    EXPECT_EQ(CountsOf(*backend)["native"], 1u) << backend->description();
    EXPECT_EQ(CountsOf(*backend)["cublas_padded"], 0u) << backend->description();
  }
}

TEST_F(ExpertGemmChoiceTest, OptionsThatCannotBeServedAreRefused) {
  const auto status_of = [](const std::string& expert_gemm, const std::string& table) {
    BackendOptions options;
    options.expert_gemm = expert_gemm;
    options.expert_gemm_table = table;
    return cuda::CreateCudaBackend(options).status();
  };
  const absl::Status without_table = status_of("fastest", "");
  EXPECT_EQ(without_table.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(without_table.message()), HasSubstr("needs an expert_gemm_table"));
  const absl::Status no_file = status_of("auto", folder_.PathOf("none.json"));
  EXPECT_EQ(no_file.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(no_file.message()), HasSubstr("expert_gemm_table: none.json"));
  const absl::Status bad = status_of("auto", WriteTable(R"({"max_tokens": 1, "provider": "abacus"})"));
  EXPECT_EQ(bad.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(bad.message()), HasSubstr("entries[0].fastest[0].provider is \"abacus\""));
}

}  // namespace
}  // namespace switchyard
