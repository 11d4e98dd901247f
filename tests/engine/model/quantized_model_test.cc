// A model whose experts stay quantized gives the logits of the same model dequantized, bit for bit, on each instruction
// set of this machine: at once, in chunks, token by token, and in a batch.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <numeric>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "engine/backend/cpu/isa.h"
#include "engine/checkpoint/weights.h"
#include "engine/config/model_config.h"
#include "engine/model/expert_plan.h"
#include "engine/model/transformer.h"

namespace switchyard {
namespace {

const std::string kFixtures = SWITCHYARD_SOURCE_DIR "/tests/golden/fixtures/";
constexpr int32_t kMaxTokens = 64;
constexpr int32_t kLength = 20;
// Blocks in no order, three of 16 positions for each of two sequences.
constexpr int32_t kBlocks[2][3] = {{5, 2, 7}, {1, 6, 3}};

struct Model {
  std::unique_ptr<Backend> backend;
  ExpertPlan plan;
  std::unique_ptr<KvCache> cache;
  std::unique_ptr<Transformer> transformer;

  std::vector<float> Run(const std::vector<int32_t>& ids, const std::vector<AttentionSlice>& slices) {
    std::vector<int32_t> rows(ids.size());
    std::iota(rows.begin(), rows.end(), 0);
    const Matrix logits = transformer->Forward({ids, slices, rows}, cache.get());
    EXPECT_TRUE(backend->Wait().ok());
    const std::span<const float> view = backend->HostView(logits);
    return {view.begin(), view.end()};
  }
};

Model Load(const ModelConfig& config, const Weights& weights, cpu::Isa isa, bool keep) {
  Model model;
  BackendOptions options;
  options.device = "cpu";
  options.cpu_isa = cpu::IsaName(isa);
  options.num_threads = 2;
  options.keep_quantized = keep;
  model.backend = std::move(CreateBackend(options)->backend);
  model.plan = PlanExperts(config, weights, DType::kBF16, *model.backend);
  const AttentionShape& attention = config.layers[0].attention.shape;
  model.cache = *model.backend->AllocateKvCache({.num_layers = config.num_layers(),
                                                 .num_blocks = 8,
                                                 .block_size = 16,
                                                 .num_kv_heads = attention.num_kv_heads,
                                                 .head_dim = attention.head_dim,
                                                 .dtype = DType::kBF16,
                                                 .latent_dim = attention.latent_dim});
  auto transformer = Transformer::Load(config, weights, DType::kBF16,
                                       {.max_tokens = kMaxTokens, .max_logit_rows = kMaxTokens}, model.backend.get());
  EXPECT_TRUE(transformer.ok()) << transformer.status();
  model.transformer = *std::move(transformer);
  return model;
}

std::vector<int32_t> Tokens(const ModelConfig& config, int32_t sequence, int32_t first, int32_t count) {
  std::vector<int32_t> ids;
  for (int32_t i = first; i < first + count; ++i) ids.push_back((i * 37 + sequence * 11 + 5) % config.vocab_size);
  return ids;
}

void ExpectSameBits(const std::vector<float>& actual, const std::vector<float>& expected, const std::string& what) {
  ASSERT_EQ(actual.size(), expected.size()) << what;
  for (size_t i = 0; i < expected.size(); ++i) {
    ASSERT_EQ(std::memcmp(&actual[i], &expected[i], 4), 0)
        << what << ": logit " << i << " is " << actual[i] << ", expected " << expected[i];
  }
}

// What stands in the folder, or random codes for its config.
struct Source {
  std::string name;
  bool dummy = false;
};

class QuantizedModelTest : public ::testing::TestWithParam<std::tuple<Source, cpu::Isa>> {};

TEST_P(QuantizedModelTest, LogitsAreThoseOfTheDequantizedModelBitForBit) {
  const auto& [source, isa] = GetParam();
  auto config = ReadModelConfig(kFixtures + source.name);
  ASSERT_TRUE(config.ok()) << config.status();
  std::unique_ptr<Weights> weights;
  if (source.dummy) {
    weights = MakeDummyWeights(*config, 3);
  } else {
    auto opened = OpenWeights(*config, kFixtures + source.name);
    ASSERT_TRUE(opened.ok()) << opened.status();
    weights = *std::move(opened);
  }
  Model kept = Load(*config, *weights, isa, true), dequantized = Load(*config, *weights, isa, false);
  EXPECT_EQ(kept.plan.kept, config->quantization.mxfp4 ? QuantizedFormat::kMxfp4 : QuantizedFormat::kFp8);
  EXPECT_EQ(kept.plan.other_layers, 0);
  EXPECT_EQ(dequantized.plan.kept_layers, 0);
  EXPECT_LT(kept.transformer->weight_bytes(), dequantized.transformer->weight_bytes());

  const std::vector<int32_t> prompt = Tokens(*config, 0, 0, kLength);
  const std::vector<float> at_once = dequantized.Run(prompt, {{0, kLength, 0, kBlocks[0]}});
  for (const float logit : at_once) ASSERT_TRUE(std::isfinite(logit));
  ExpectSameBits(kept.Run(prompt, {{0, kLength, 0, kBlocks[0]}}), at_once, "at once");
  for (const int32_t size : {1, 3, 17}) {
    std::vector<float> chunked;
    for (int32_t first = 0; first < kLength; first += size) {
      const int32_t count = std::min(size, kLength - first);
      const std::vector<float> logits = kept.Run(Tokens(*config, 0, first, count), {{0, count, first, kBlocks[0]}});
      chunked.insert(chunked.end(), logits.begin(), logits.end());
    }
    ExpectSameBits(chunked, at_once, "in chunks of " + std::to_string(size));
  }
  std::vector<int32_t> batch = Tokens(*config, 1, 0, kMaxTokens - kLength);
  const int32_t before = static_cast<int32_t>(batch.size());
  batch.insert(batch.end(), prompt.begin(), prompt.end());
  const std::vector<float> logits = kept.Run(batch, {{0, before, 0, kBlocks[1]}, {before, kLength, 0, kBlocks[0]}});
  ExpectSameBits({logits.end() - static_cast<ptrdiff_t>(at_once.size()), logits.end()}, at_once, "in a batch");
}

INSTANTIATE_TEST_SUITE_P(Models, QuantizedModelTest,
                         ::testing::Combine(::testing::Values(Source{"gpt_oss_mxfp4"}, Source{"deepseek_v3_fp8"},
                                                              Source{"gpt_oss_mxfp4", true},
                                                              Source{"deepseek_v3_fp8", true}),
                                            ::testing::ValuesIn(cpu::AvailableIsas())),
                         [](const auto& info) {
                           const Source& source = std::get<0>(info.param);
                           return source.name + (source.dummy ? "_dummy_" : "_") +
                                  cpu::IsaName(std::get<1>(info.param));
                         });

}  // namespace
}  // namespace switchyard
