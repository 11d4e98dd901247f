#include "engine/engine.h"

#include <ctime>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "engine/base/model_folder.h"
#include "engine/checkpoint/safetensors.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/temp_folder.h"

namespace switchyard {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::string Fixture(const std::string& name) {
  return std::string(SWITCHYARD_SOURCE_DIR) + "/tests/golden/fixtures/" + name;
}

EngineOptions Options(const std::string& fixture) {
  EngineOptions options;
  options.model_dir = Fixture(fixture);
  options.num_threads = 2;
  options.max_num_seqs = 4;
  options.max_num_batched_tokens = 32;
  options.block_size = 16;
  options.kv_cache_bytes = 1 << 20;
  return options;
}

// One sequence with its own blocks, run by hand.
struct Runner {
  Engine* engine;
  std::vector<int32_t> tokens;
  size_t prompt_size;
  SamplingParams params;
  std::vector<int32_t> blocks = {0, 1, 2, 3, 4, 5, 6, 7};
  size_t computed = 0;

  SequenceSlice NextSlice(size_t count) {
    SequenceSlice slice;
    slice.sequence_id = 1;
    slice.tokens = std::span(tokens).subspan(computed, count);
    slice.first_position = static_cast<int32_t>(computed);
    slice.block_table = blocks;
    slice.sample = computed + count == tokens.size();
    slice.sampling = &params;
    slice.prompt_tokens = std::span(tokens).first(prompt_size);
    slice.output_tokens = std::span(tokens).subspan(prompt_size);
    slice.explain_routing = true;
    return slice;
  }

  const StepOutput& Step(size_t count) {
    StepBatch batch;
    batch.slices.push_back(NextSlice(count));
    EXPECT_TRUE(engine->Launch(batch).ok());
    auto output = engine->Collect();
    EXPECT_TRUE(output.ok()) << output.status();
    computed += count;
    return **output;
  }
};

TEST(EngineTest, FactsDescribeTheModel) {
  auto engine = CreateEngine(Options("qwen2_moe"));
  ASSERT_TRUE(engine.ok()) << engine.status();
  const ModelFacts& facts = (*engine)->facts();
  EXPECT_EQ(facts.architecture, "qwen2_moe");
  EXPECT_EQ(facts.vocab_size, 97);
  EXPECT_EQ(facts.num_layers, 3);
  EXPECT_THAT(facts.moe_layers, ElementsAre(0, 2));
  EXPECT_EQ(facts.num_experts, 8);
  EXPECT_EQ(facts.top_k, 3);
  EXPECT_EQ(facts.max_model_len, 64);
  EXPECT_EQ(facts.dtype, DType::kF32);
  EXPECT_LT(facts.num_active_parameters, facts.num_parameters);
  // 5 of 8 experts idle in each of 2 layers, each 3 * 32 * 24 parameters.
  EXPECT_EQ(facts.num_parameters - facts.num_active_parameters, 2 * 5 * 3 * 32 * 24);
  EXPECT_EQ(facts.kv_bytes_per_token, 2 * 3 * 2 * 32 * 4);  // heads of 8 take the room of 32
  EXPECT_EQ(facts.num_nonfinite_weights, 0);
  ASSERT_EQ(facts.expert_gemms.size(), 1u);
  EXPECT_THAT(facts.backend, HasSubstr("cpu (" + facts.expert_gemms[0] + ", "));  // the CPU's own kernels
}

TEST(EngineTest, StepReportsTokensPerExpertAndRouting) {
  auto engine = CreateEngine(Options("mixtral"));
  ASSERT_TRUE(engine.ok()) << engine.status();
  Runner runner{engine->get(), std::vector<int32_t>(20), 20, {}};
  std::iota(runner.tokens.begin(), runner.tokens.end(), 5);
  runner.params.temperature = 0.0f;
  runner.params.num_logprobs = 2;
  const StepOutput& output = runner.Step(20);
  ASSERT_EQ(output.tokens.size(), 1u);
  EXPECT_TRUE(output.tokens[0].finite);
  EXPECT_EQ(output.tokens[0].top_logprobs.size(), 2u);
  EXPECT_EQ(output.tokens[0].top_logprobs[0].token, output.tokens[0].token);
  ASSERT_EQ(output.stats.moe_layers.size(), 3u);
  EXPECT_THAT(output.stats.expert_gemm_layers, ElementsAre(3u));
  for (const MoeLayerStats& layer : output.stats.moe_layers) {
    EXPECT_EQ(std::accumulate(layer.tokens_per_expert.begin(), layer.tokens_per_expert.end(), 0), 20 * 2);
    const double probability = std::accumulate(layer.probability_sums.begin(), layer.probability_sums.end(), 0.0);
    EXPECT_NEAR(probability, 20.0, 1e-3);
    EXPECT_GT(layer.squared_logsumexp_sum, 0.0);
    EXPECT_GT(layer.seconds, 0.0f);
    for (size_t e = 0; e < layer.tokens_per_expert.size(); ++e) {
      EXPECT_EQ(layer.seconds_per_expert[e] > 0.0f, layer.tokens_per_expert[e] > 0) << "expert " << e;
    }
  }
  const RoutingTrace& routing = output.tokens[0].routing;
  ASSERT_EQ(routing.expert_ids.size(), 3u * 2);
  ASSERT_EQ(routing.margins.size(), 3u);
  for (int l = 0; l < 3; ++l) {
    EXPECT_NE(routing.expert_ids[2 * l], routing.expert_ids[2 * l + 1]);
    EXPECT_NEAR(routing.expert_weights[2 * l] + routing.expert_weights[2 * l + 1], 1.0, 1e-6);
    EXPECT_GE(routing.margins[l], 0.0f);
  }
}

TEST(EngineTest, NothingIsSampledForAChunkInTheMiddle) {
  auto engine = CreateEngine(Options("olmoe"));
  ASSERT_TRUE(engine.ok()) << engine.status();
  Runner runner{engine->get(), std::vector<int32_t>(20, 3), 20, {}};
  EXPECT_TRUE(runner.Step(7).tokens.empty());
  EXPECT_TRUE(runner.Step(12).tokens.empty());
  EXPECT_EQ(runner.Step(1).tokens.size(), 1u);
}

TEST(EngineTest, MalformedSlicesAreRefusedAndTheEngineGoesOn) {
  auto engine = CreateEngine(Options("mixtral"));
  ASSERT_TRUE(engine.ok()) << engine.status();
  Runner runner{engine->get(), std::vector<int32_t>(8, 3), 8, {}};
  const auto refused = [&](auto change) {
    StepBatch batch;
    batch.slices.push_back(runner.NextSlice(8));
    change(batch);
    return (*engine)->Launch(batch).code() == absl::StatusCode::kInternal;
  };
  EXPECT_TRUE(refused([](StepBatch& b) { b.slices.clear(); }));
  EXPECT_TRUE(refused([](StepBatch& b) { b.slices[0].tokens = {}; }));
  EXPECT_TRUE(refused([](StepBatch& b) { b.slices[0].sampling = nullptr; }));
  EXPECT_TRUE(refused([](StepBatch& b) { b.slices[0].block_table = {}; }));
  EXPECT_TRUE(refused([](StepBatch& b) { b.slices[0].first_position = 60; }));
  EXPECT_TRUE(refused([](StepBatch& b) { b.slices.resize(5, b.slices[0]); }));
  const std::vector<int32_t> many(20, 3);
  EXPECT_TRUE(refused([&](StepBatch& b) {
    b.slices[0].tokens = many;
    b.slices.resize(2, b.slices[0]);  // 40 tokens; a step takes 32
  }));
  for (const int32_t block : {-1, (*engine)->facts().num_kv_blocks}) {
    const std::vector<int32_t> table = {block, 1};
    EXPECT_TRUE(refused([&](StepBatch& b) { b.slices[0].block_table = table; }));
    const std::vector<int32_t> unused = {0, block};  // position 16 is not reached: nobody reads that entry
    StepBatch batch;
    batch.slices.push_back(runner.NextSlice(8));
    batch.slices[0].block_table = unused;
    EXPECT_TRUE((*engine)->Launch(batch).ok());
    EXPECT_TRUE((*engine)->Collect().ok());
  }
  const std::vector<int32_t> outside = {96, 97};
  EXPECT_TRUE(refused([&](StepBatch& b) { b.slices[0].tokens = outside; }));
  EXPECT_EQ(runner.Step(8).tokens.size(), 1u);
}

TEST(EngineTest, DummyWeightsNeedOnlyTheConfigAndDependOnTheSeed) {
  testing::TempFolder folder;
  std::filesystem::copy_file(Fixture("qwen3_moe") + "/config.json", folder.PathOf("config.json"));
  const auto greedy = [&](uint64_t seed) {
    EngineOptions options = Options("qwen3_moe");
    options.model_dir = folder.path();
    options.load_format = LoadFormat::kDummy;
    options.dtype = "bfloat16";
    options.seed = seed;
    auto engine = CreateEngine(options);
    EXPECT_TRUE(engine.ok()) << engine.status();
    Runner runner{engine->get(), {5, 6, 7, 8}, 4, {}};
    runner.params.num_logprobs = 0;
    runner.params.temperature = 0.0f;
    const SampledToken token = runner.Step(4).tokens[0];
    EXPECT_TRUE(token.finite);
    return token.logprob;
  };
  EXPECT_EQ(greedy(1), greedy(1));
  EXPECT_NE(greedy(1), greedy(2));
}

// The fixture with all NaN in the embedding of one token.
void WriteModelWithBadToken(const testing::TempFolder& folder, const std::string& fixture, int32_t token) {
  for (const std::string name : {"config.json", "model.safetensors"}) {
    folder.Write(name, testing::ReadFile(Fixture(fixture) + "/" + name));
  }
  auto opened = ModelFolder::Open(folder.path());
  ASSERT_TRUE(opened.ok());
  auto file = SafetensorsFile::Open(*opened, "model.safetensors");
  ASSERT_TRUE(file.ok()) << file.status();
  for (const StoredTensor& tensor : (*file)->tensors()) {
    if (tensor.name != "model.embed_tokens.weight") continue;
    ASSERT_EQ(tensor.type->dtype, DType::kF32);
    const std::vector<float> row(static_cast<size_t>(tensor.shape()[1]), std::nanf(""));
    std::fstream stream(folder.PathOf("model.safetensors"), std::ios::in | std::ios::out | std::ios::binary);
    stream.seekp(tensor.begin + token * tensor.shape()[1] * 4);
    stream.write(reinterpret_cast<const char*>(row.data()), static_cast<std::streamsize>(row.size() * 4));
    ASSERT_TRUE(stream.good());
    return;
  }
  FAIL() << "no embedding";
}

// A damaged weight is counted at the start, and ends the sequences that meet it and no other.
TEST(EngineTest, ATokenWithBadWeightsSpoilsOnlyItsOwnSequence) {
  constexpr int32_t kBadToken = 90;
  for (const std::string dtype : {"float32", "bfloat16"}) {
    testing::TempFolder folder;
    ASSERT_NO_FATAL_FAILURE(WriteModelWithBadToken(folder, "qwen3_moe", kBadToken));
    EngineOptions options = Options("qwen3_moe");
    options.model_dir = folder.path();
    options.dtype = dtype;
    auto engine = CreateEngine(options);
    ASSERT_TRUE(engine.ok()) << engine.status();
    EXPECT_EQ((*engine)->facts().num_nonfinite_weights, 32);  // one row of hidden_size
    Runner good{engine->get(), {5, 6, 7, 8}, 4, {}};
    good.params.temperature = 0.0f;
    good.params.num_logprobs = 3;
    const SampledToken alone = good.Step(4).tokens[0];
    EXPECT_TRUE(alone.finite);

    good.computed = 0;
    Runner bad{engine->get(), {5, kBadToken, 7}, 3, good.params, {8, 9}};
    StepBatch batch;
    batch.slices.push_back(bad.NextSlice(3));
    batch.slices.push_back(good.NextSlice(4));
    ASSERT_TRUE((*engine)->Launch(batch).ok());
    const auto output = (*engine)->Collect();
    ASSERT_TRUE(output.ok()) << output.status();
    EXPECT_FALSE((*output)->tokens[0].finite);
    const SampledToken& beside = (*output)->tokens[1];
    EXPECT_TRUE(beside.finite);
    EXPECT_EQ(beside.token, alone.token);
    EXPECT_EQ(beside.logprob, alone.logprob);
    for (size_t i = 0; i < 3; ++i) EXPECT_EQ(beside.top_logprobs[i].logprob, alone.top_logprobs[i].logprob);
    EXPECT_EQ(beside.routing.expert_weights, alone.routing.expert_weights);
  }
}

TEST(EngineTest, EveryWrongOptionIsNamed) {
  const std::vector<std::pair<void (*)(EngineOptions*), const char*>> cases = {
      {[](EngineOptions* o) { o->dtype = "int4"; }, "dtype is 'int4'"},
      {[](EngineOptions* o) { o->num_tokenizer_ids = -1; }, "num_tokenizer_ids is -1"},
      {[](EngineOptions* o) { o->num_threads = 1025; }, "num_threads is 1025, expected 0 to 1024"},
      {[](EngineOptions* o) { o->max_model_len = -1; }, "max_model_len is -1"},
      {[](EngineOptions* o) { o->max_num_seqs = 0; }, "max_num_seqs is 0, expected 1 to"},
      {[](EngineOptions* o) { o->max_num_seqs = -5; }, "max_num_seqs is -5"},
      {[](EngineOptions* o) { o->max_num_batched_tokens = 0; }, "max_num_batched_tokens is 0"},
      {[](EngineOptions* o) { o->block_size = 0; }, "block_size is 0, expected a multiple of 16"},
      {[](EngineOptions* o) { o->block_size = 24; }, "block_size is 24"},
      {[](EngineOptions* o) { o->block_size = 1 << 20; }, "block_size is 1048576"},
      {[](EngineOptions* o) { o->kv_cache_bytes = -1; }, "kv_cache_bytes is -1"}};
  EngineOptions all = Options("mixtral");
  for (const auto& [change, message] : cases) {
    EngineOptions options = Options("mixtral");
    change(&options);
    change(&all);
    const absl::Status status = CreateEngine(options).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << message;
    EXPECT_THAT(std::string(status.message()), HasSubstr(message));
  }
  const std::string everything(CreateEngine(all).status().message());
  for (const char* name : {"dtype", "num_threads", "max_num_seqs", "block_size", "kv_cache_bytes"}) {
    EXPECT_THAT(everything, HasSubstr(name));
  }
}

// Terabytes of weights: refused at once, not after the first gigabytes.
TEST(EngineTest, AModelLargerThanMemoryIsRefusedBeforeItIsRead) {
  testing::TempFolder folder;
  folder.Write("config.json", R"({"model_type": "mixtral", "num_hidden_layers": 900, "hidden_size": 8192,
      "intermediate_size": 32768, "max_position_embeddings": 64, "vocab_size": 100})");
  EngineOptions options = Options("mixtral");
  options.model_dir = folder.path();
  options.load_format = LoadFormat::kDummy;
  options.kv_cache_bytes = int64_t{8} << 30;
  const std::clock_t start = std::clock();
  const absl::Status status = CreateEngine(options).status();
  EXPECT_LT(static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC, 5.0);
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << status;
  for (const char* part : {"the model needs", "weights", "KV cache", "activations", "kv_cache_memory",
                           "max_num_batched_tokens", "smaller model"}) {
    EXPECT_THAT(std::string(status.message()), HasSubstr(part));
  }
}

TEST(EngineTest, WrongOptionsSayWhatToChange) {
  EngineOptions options = Options("mixtral");
  options.max_model_len = 65;
  EXPECT_THAT(std::string(CreateEngine(options).status().message()), HasSubstr("max_model_len is 65"));
  options = Options("mixtral");
  options.kv_cache_bytes = 1000;
  const absl::Status small = CreateEngine(options).status();
  EXPECT_EQ(small.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(small.message()), HasSubstr("raise kv_cache_memory"));
  options = Options("mixtral");
  options.dtype = "int4";
  EXPECT_THAT(std::string(CreateEngine(options).status().message()), HasSubstr("dtype is 'int4'"));
  options = Options("mixtral");
  options.device = "cuda";
  EXPECT_EQ(CreateEngine(options).status().code(), absl::StatusCode::kFailedPrecondition);
  options = Options("mixtral");
  options.model_dir = "/nonexistent";
  EXPECT_FALSE(CreateEngine(options).ok());
}

// ------------------------------------------------------------------------------------------------- every family

class FamilyEngineTest : public ::testing::TestWithParam<const char*> {
 protected:
  // Six greedy tokens and their logprobs after a prompt of 18 in steps of `chunk`.
  static std::vector<float> Generate(const EngineOptions& options, size_t chunk) {
    auto engine = CreateEngine(options);
    EXPECT_TRUE(engine.ok()) << engine.status();
    if (!engine.ok()) return {};
    Runner runner{engine->get(), std::vector<int32_t>(18), 18, {}};
    std::iota(runner.tokens.begin(), runner.tokens.end(), 5);
    runner.params.temperature = 0.0f;
    runner.params.num_logprobs = 0;
    std::vector<float> answer;
    while (answer.size() < 12) {
      const StepOutput& output = runner.Step(std::min(chunk, runner.tokens.size() - runner.computed));
      for (const SampledToken& token : output.tokens) {
        EXPECT_TRUE(token.finite);
        answer.push_back(static_cast<float>(token.token));
        answer.push_back(token.logprob);
        runner.tokens.push_back(token.token);
      }
    }
    return answer;
  }
};

TEST_P(FamilyEngineTest, AnswersAlikeInAnyChunkingAndType) {
  for (const char* dtype : {"float32", "bfloat16"}) {
    EngineOptions options = Options(GetParam());
    options.dtype = dtype;
    const std::vector<float> at_once = Generate(options, 18);
    for (const size_t chunk : {1, 5, 16})
      EXPECT_EQ(Generate(options, chunk), at_once) << dtype << ", chunks of " << chunk;
  }
}

TEST_P(FamilyEngineTest, DummyWeightsAnswer) {
  EngineOptions options = Options(GetParam());
  options.load_format = LoadFormat::kDummy;
  EXPECT_EQ(Generate(options, 18), Generate(options, 1));
}

INSTANTIATE_TEST_SUITE_P(All, FamilyEngineTest,
                         ::testing::Values("arctic", "dbrx", "deepseek_v1", "deepseek_v2", "deepseek_v2_lite",
                                           "deepseek_v3", "deepseek_v3_fp8", "glm4_moe", "gpt_oss_bf16",
                                           "gpt_oss_mxfp4", "granitemoe", "granitemoeshared", "jetmoe",
                                           "llama4_maverick_like", "llama4_scout_like", "mixtral", "olmoe",
                                           "phimoe_long", "qwen2_moe", "qwen3_moe"),
                         [](const auto& info) { return std::string(info.param); });

TEST(EngineTest, ALatentCacheHoldsOneVectorPerToken) {
  auto engine = CreateEngine(Options("deepseek_v3"));
  ASSERT_TRUE(engine.ok()) << engine.status();
  EXPECT_EQ((*engine)->facts().kv_bytes_per_token, 3 * 32 * 4);  // 12 + 8 numbers take the room of 32
}

// The lists of factors are for one length each; a cache cannot change from one to the other.
TEST(EngineTest, LongropeFollowsTheLongestSequenceThatTheEngineServes) {
  EngineOptions options = Options("phimoe_long");
  auto longer = CreateEngine(options);
  options.max_model_len = 16;
  auto shorter = CreateEngine(options);
  ASSERT_TRUE(longer.ok() && shorter.ok()) << longer.status() << shorter.status();
  std::vector<float> logprobs;
  for (Engine* engine : {longer->get(), shorter->get()}) {
    Runner runner{engine, {5, 6, 7, 8, 9, 10, 11, 12}, 8, {}};
    runner.params.temperature = 0.0f;
    runner.params.num_logprobs = 0;
    logprobs.push_back(runner.Step(8).tokens[0].logprob);
  }
  EXPECT_NE(logprobs[0], logprobs[1]);
}

}  // namespace
}  // namespace switchyard
