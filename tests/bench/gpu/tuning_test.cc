// How the table of providers comes about, and that the backend reads what the program writes. On the emulated device.
#include "tests/bench/gpu/tuning.h"

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "engine/backend/cuda/cuda_backend.h"
#include "engine/backend/cuda/expert_gemm_table.h"
#include "tests/bench/gpu/device.h"
#include "tests/engine/backend/memory_reader.h"
#include "tests/support/temp_folder.h"

namespace switchyard::bench {
namespace {

// native | another that is batch_invariant | a library that cannot be recorded | one for at most 256 tokens
constexpr cuda::ExpertGemmKind kKinds[] = {{"native", true, true, cuda::kAnyTokens},
                                           {"other", true, true, cuda::kAnyTokens},
                                           {"grouped", false, false, cuda::kAnyTokens},
                                           {"padded", false, true, 256}};

std::vector<std::pair<int64_t, std::string>> BucketsOf(const TunedShape& shape) {
  std::vector<std::pair<int64_t, std::string>> buckets;
  for (const TunedBucket& bucket : shape.fastest) buckets.emplace_back(bucket.max_tokens, bucket.provider);
  return buckets;
}

using Buckets = std::vector<std::pair<int64_t, std::string>>;

TEST(ChooseProvidersTest, FastestPutsNeighboursTogetherAndWeighsBothRoutings) {
  const std::vector<TuningCase> cases = {
      {1, Skew::kUniform, 1, {{"native", 10}, {"other", 12}}}, {1, Skew::kZipf, 1, {{"native", 10}, {"other", 12}}},
      {2, Skew::kUniform, 1, {{"native", 10}, {"other", 9}}},  {2, Skew::kZipf, 1, {{"native", 10}, {"other", 12}}},
      {4, Skew::kUniform, 1, {{"native", 10}, {"other", 5}}},  {4, Skew::kZipf, 1, {{"native", 10}, {"other", 12}}},
  };
  EXPECT_EQ(BucketsOf(ChooseProviders(cases, kKinds)), (Buckets{{2, "native"}, {4, "other"}}));
}

TEST(ChooseProvidersTest, OnlyWhatCanBeRecordedServesStepsThatAreRecorded) {
  std::vector<TuningCase> cases;
  for (const int64_t tokens : {128, 256, 512}) {
    cases.push_back({tokens, Skew::kUniform, 1, {{"native", 10}, {"grouped", 1}}});
    if (tokens <= 256) cases.back().us["padded"] = tokens == 128 ? 20 : 5;
  }
  EXPECT_EQ(BucketsOf(ChooseProviders(cases, kKinds)), (Buckets{{128, "native"}, {256, "padded"}, {512, "grouped"}}));
  // A number of tokens that stands for smaller steps, too.
  EXPECT_EQ(BucketsOf(ChooseProviders(std::span(cases).last(1), kKinds)), (Buckets{{512, "native"}}));
}

TEST(ChooseProvidersTest, AlwaysIsInvariantAndTheBestOverAllSizes) {
  // Geometric means: native 20, other 17.8, although its sum is larger; grouped would win everywhere.
  const std::vector<TuningCase> cases = {{1, Skew::kUniform, 1, {{"native", 4}, {"other", 2}, {"grouped", 1}}},
                                         {512, Skew::kUniform, 1, {{"native", 100}, {"other", 158}, {"grouped", 1}}}};
  EXPECT_EQ(ChooseProviders(cases, kKinds).always, "other");
  std::vector<TuningCase> without = cases;
  without[1].us.erase("other");  // it does not take this size
  EXPECT_EQ(ChooseProviders(without, kKinds).always, "native");
}

// Layers that the backend's provider computes for `tokens` tokens through experts of the tiny model's shape.
uint64_t LayersBy(const std::string& provider, const std::string& table, int32_t tokens) {
  BackendOptions options;
  options.expert_gemm = "fastest";
  options.expert_gemm_table = table;
  options.num_threads = 2;
  auto created = cuda::CreateCudaBackend(options);
  EXPECT_TRUE(created.ok()) << created.status();
  Backend& backend = **created;
  const Model model = TinyModel();
  RouterConfig config;
  config.num_experts = model.num_experts;
  config.top_k = model.top_k;
  const int64_t hidden = model.hidden_size, intermediate = model.moe_intermediate_size;
  const MemoryReader up = RandomTensor(intermediate, hidden, 1, DType::kBF16);
  const MemoryReader down = RandomTensor(hidden, intermediate, 2, DType::kBF16);
  const MemoryReader router = RandomTensor(model.num_experts, hidden, 3, DType::kBF16);
  const TensorReader* const router_parts[] = {&router};
  const std::vector<ExpertReaders> readers(static_cast<size_t>(model.num_experts), ExpertReaders{&up, &up, &down});
  const auto experts = *backend.LoadExperts(readers, DType::kBF16);
  const auto router_weight = *backend.LoadWeight(router_parts, {}, DType::kBF16, WeightUse::kRouter);
  Routing routing = *backend.AllocateRouting(tokens, config);
  ExpertBatches batches = *backend.AllocateExpertBatches(tokens, config);
  const Matrix x = *backend.AllocateMatrix(tokens, hidden);
  const Matrix rows = *backend.AllocateMatrix(int64_t{tokens} * model.top_k, hidden);
  EXPECT_TRUE(backend.PrepareScratch(tokens).ok());
  backend.Route(x, *router_weight, config, &routing);
  backend.GroupByExpert(routing, &batches);
  backend.ExpertMlp(x, *experts, batches, rows);
  EXPECT_TRUE(backend.Wait().ok());
  for (const ExpertGemmCount& gemm : backend.expert_gemms()) {
    if (gemm.provider == provider) return gemm.layers;
  }
  ADD_FAILURE() << provider << " is not there";
  return 0;
}

TEST(TuneExpertGemmsTest, TheBackendChoosesByWhatWasWritten) {
  testing::TempFolder folder;
  ASSERT_EQ(OpenDevice(), "");
  Bench bench;
  bench.options.tiny = true;
  bench.options.tune = folder.PathOf("table.json");
  TuneExpertGemms(&bench, "a command with \"quotes\"");
  EXPECT_EQ(bench.num_wrong, 0);
  const auto table = cuda::ReadExpertGemmTable(bench.options.tune);
  ASSERT_TRUE(table.ok()) << table.status();
  ASSERT_EQ(table->size(), 1u);
  const cuda::ExpertGemmEntry& entry = table->front();
  EXPECT_EQ(entry.device, TheDevice().name);
  EXPECT_EQ(entry.fastest.back().max_tokens, 16);
  EXPECT_EQ(LayersBy(entry.fastest.back().provider->name, bench.options.tune, 16), 1u);

  const std::string text = testing::ReadFile(bench.options.tune);
  EXPECT_NE(text.find(R"("tokens": 4, "routing": "zipf", "rows_per_expert": )"), std::string::npos) << text;
  for (const cuda::ExpertGemmKind& kind : cuda::kExpertGemmKinds) {
    EXPECT_NE(text.find(std::string("\"") + kind.name + "\": "), std::string::npos) << kind.name << " was not measured";
  }

  // Whoever was the fastest: the shape in the file is the one by which the backend looks it up.
  const size_t begin = text.find("\"fastest\": ["), end = text.find(']', begin);
  std::string edited = text;
  edited.replace(begin, end - begin + 1, R"("fastest": [{"max_tokens": 16, "provider": "cublas_padded"}])");
  folder.Write("edited.json", edited);
  EXPECT_EQ(LayersBy("cublas_padded", folder.PathOf("edited.json"), 5), 1u);
}

}  // namespace
}  // namespace switchyard::bench
