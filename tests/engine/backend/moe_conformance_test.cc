// Router, grouping, experts and combine equal the reference, keep their invariants, and treat each token alone.
#include "tests/engine/backend/conformance.h"

#include <algorithm>
#include <limits>
#include <set>

namespace switchyard {
namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

struct Layer {
  RouterConfig router;
  ExpertForm form;
  int64_t hidden = 0;
  int64_t width = 0;
};

Layer MakeLayer(int32_t num_experts, int32_t top_k, int64_t hidden, int64_t width) {
  Layer layer;
  layer.router.num_experts = num_experts;
  layer.router.top_k = top_k;
  layer.router.normalize = true;
  layer.hidden = hidden;
  layer.width = width;
  return layer;
}

class MoeTest : public ConformanceTest {
 protected:
  struct Routed {
    Routing routing;
    ExpertBatches batches;
  };

  static Routed AllocateRouted(Backend& backend, int32_t max_tokens, const RouterConfig& config) {
    auto routing = backend.AllocateRouting(max_tokens, config);
    auto batches = backend.AllocateExpertBatches(max_tokens, config);
    EXPECT_TRUE(routing.ok() && batches.ok());
    return {*routing, *batches};
  }

  // With the identity as router weight the logits are the input itself, plus `bias` if there is one.
  Routed RouteLogits(Backend& backend, const Values& logits, RouterConfig config, const Values& choice_bias = {},
                     const Values& bias = {}) {
    const int32_t n = config.num_experts;
    const int32_t num_tokens = static_cast<int32_t>(logits.size()) / n;
    Values identity(n * n);
    for (int32_t i = 0; i < n; ++i) identity[i * n + i] = 1.0;
    const MemoryReader bias_reader(1, n, bias);
    router_ = Load(backend, MemoryReader(n, n, identity), dtype(), WeightUse::kRouter,
                   bias.empty() ? nullptr : &bias_reader);
    if (config.has_choice_bias) {
      choice_bias_ = Load(backend, MemoryReader(1, n, choice_bias), dtype(), WeightUse::kVector);
      config.choice_bias = choice_bias_.get();
    }
    Routed routed = AllocateRouted(backend, num_tokens, config);
    EXPECT_TRUE(backend.PrepareScratch(num_tokens).ok());
    backend.Route(Upload(backend, num_tokens, n, logits), *router_, config, &routed.routing);
    backend.GroupByExpert(routed.routing, &routed.batches);
    EXPECT_TRUE(backend.Wait().ok());
    return routed;
  }

  std::unique_ptr<Weight> router_, choice_bias_;
};

TEST_P(MoeTest, RouteEqualsReference) {
  for (const auto& [num_experts, top_k] : {std::pair{8, 2}, {60, 4}, {3, 3}, {1, 1}, {64, 8}, {130, 1}}) {
    for (const bool normalize : {false, true}) {
      constexpr int32_t kTokens = 40;
      auto backend = MakeBackend();
      RouterConfig config;
      config.num_experts = num_experts;
      config.top_k = top_k;
      config.normalize = normalize;
      config.normalize_eps = normalize ? 1e-20f : 0.0f;
      config.scale = 2.5f;
      const Values logits = RandomValues(kTokens * num_experts, 2.0, 7);
      const Routing routing = RouteLogits(*backend, logits, config).routing;
      ASSERT_EQ(routing.num_tokens, kTokens);
      Values sums(num_experts);
      for (int32_t t = 0; t < kTokens; ++t) {
        const auto first = logits.begin() + t * num_experts;
        const auto expected = reference::Route(Values(first, first + num_experts), config, {});
        for (int32_t j = 0; j < top_k; ++j) {
          EXPECT_EQ(routing.expert_ids[t * top_k + j], expected.expert_ids[j]) << "token " << t;
          EXPECT_NEAR(routing.expert_weights[t * top_k + j], expected.expert_weights[j], 1e-5) << "token " << t;
        }
        EXPECT_NEAR(routing.margins[t], expected.margin, 1e-6);
        EXPECT_NEAR(routing.logsumexps[t], expected.logsumexp, 1e-5);
        for (int32_t e = 0; e < num_experts; ++e) sums[e] += expected.probabilities[e];
      }
      for (int32_t e = 0; e < num_experts; ++e) EXPECT_NEAR(routing.probability_sums[e], sums[e], 1e-5 * kTokens);
    }
  }
}

// Of few tokens and of many, in any order: what a call counts in its scratch is gone when the next one begins.
TEST_P(MoeTest, EveryCallOfRouteBeginsAfresh) {
  constexpr int32_t kMaxTokens = 300, kExperts = 40, kTopK = 3;
  auto backend = MakeBackend();
  const RouterConfig config = MakeLayer(kExperts, kTopK, 0, 0).router;
  Values identity(kExperts * kExperts);
  for (int32_t e = 0; e < kExperts; ++e) identity[e * kExperts + e] = 1.0;
  const auto router = Load(*backend, MemoryReader(kExperts, kExperts, identity), dtype(), WeightUse::kRouter);
  Routed first = AllocateRouted(*backend, kMaxTokens, config), second = AllocateRouted(*backend, kMaxTokens, config);
  ASSERT_TRUE(backend->PrepareScratch(kMaxTokens).ok());
  int seed = 20;
  for (const int32_t num_tokens : {9, kMaxTokens, 1, 64, kMaxTokens, 8, 60}) {
    // Two layers of one step; the first has tokens of its own.
    const Values others = RandomValues(num_tokens * kExperts, 2.0, ++seed);
    const Values logits = RandomValues(num_tokens * kExperts, 2.0, ++seed);
    backend->Route(Upload(*backend, num_tokens, kExperts, others), *router, config, &first.routing);
    backend->Route(Upload(*backend, num_tokens, kExperts, logits), *router, config, &second.routing);
    ASSERT_TRUE(backend->Wait().ok());
    Values sums(kExperts);
    double squares = 0.0;
    for (int32_t t = 0; t < num_tokens; ++t) {
      const auto row = logits.begin() + t * kExperts;
      const auto expected = reference::Route(Values(row, row + kExperts), config, {});
      for (int32_t j = 0; j < kTopK; ++j) {
        ASSERT_EQ(second.routing.expert_ids[t * kTopK + j], expected.expert_ids[j]) << t << " of " << num_tokens;
      }
      for (int32_t e = 0; e < kExperts; ++e) sums[e] += expected.probabilities[e];
      squares += expected.logsumexp * expected.logsumexp;
    }
    for (int32_t e = 0; e < kExperts; ++e) {
      EXPECT_NEAR(second.routing.probability_sums[e], sums[e], 1e-6 * num_tokens) << num_tokens << " tokens";
    }
    EXPECT_NEAR(*second.routing.squared_logsumexp_sum, squares, 1e-5 * squares) << num_tokens << " tokens";
  }
}

RouterConfig MakeRouter(RouterScore score, RouterWeights weights, int32_t num_experts, int32_t top_k) {
  RouterConfig config;
  config.num_experts = num_experts;
  config.top_k = top_k;
  config.score = score;
  config.weights = weights;
  return config;
}

// The rules of the families, and some that no family has.
std::vector<RouterConfig> RouterRules() {
  std::vector<RouterConfig> rules = {
      MakeRouter(RouterScore::kLogit, RouterWeights::kSoftmaxOfChosen, 40, 8),
      MakeRouter(RouterScore::kLogit, RouterWeights::kSigmoid, 16, 1),
      MakeRouter(RouterScore::kLogit, RouterWeights::kSigmoid, 16, 3),
      MakeRouter(RouterScore::kSigmoid, RouterWeights::kScore, 33, 4),
      MakeRouter(RouterScore::kSoftmax, RouterWeights::kSoftmaxOfChosen, 33, 4)};
  RouterConfig mixer = MakeRouter(RouterScore::kLogit, RouterWeights::kSparseMixer, 16, 2);
  for (const float threshold : {0.02f, 0.6f, 3.0f}) {
    mixer.mixer_threshold = threshold;
    rules.push_back(mixer);
  }
  RouterConfig v2 = MakeRouter(RouterScore::kSoftmax, RouterWeights::kScore, 24, 6);
  v2.num_groups = 8;
  v2.topk_group = 3;
  v2.scale = 16.0f;
  rules.push_back(v2);
  RouterConfig v3 = MakeRouter(RouterScore::kSigmoid, RouterWeights::kScore, 64, 8);
  v3.num_groups = 8;
  v3.topk_group = 4;
  v3.group_score = GroupScore::kTopTwoSum;
  v3.has_choice_bias = true;
  v3.normalize = true;
  v3.normalize_eps = 1e-20f;
  v3.scale = 2.5f;
  rules.push_back(v3);
  v3.num_groups = 32;  // all that is left is chosen
  rules.push_back(v3);
  RouterConfig dbrx = MakeRouter(RouterScore::kSoftmax, RouterWeights::kScore, 16, 4);
  dbrx.normalize = true;
  dbrx.normalize_power = 2.0f;
  rules.push_back(dbrx);
  return rules;
}

TEST_P(MoeTest, EveryRuleEqualsReference) {
  for (const RouterConfig& config : RouterRules()) {
    for (const int32_t num_tokens : {1, 40}) {
      const int32_t n = config.num_experts;
      auto backend = MakeBackend();
      const Values raw = RandomValues(num_tokens * n, 2.0, 7), bias = RandomValues(n, 1.0, 8);
      const Values choice_bias = config.has_choice_bias ? RandomValues(n, 1.0, 9) : Values();  // some scores negative
      const Routing routing = RouteLogits(*backend, raw, config, choice_bias, bias).routing;
      EXPECT_EQ(routing.weigh_input, config.weigh_input);
      for (int32_t t = 0; t < num_tokens; ++t) {
        Values logits(raw.begin() + t * n, raw.begin() + (t + 1) * n);
        for (int32_t e = 0; e < n; ++e) logits[e] = static_cast<float>(logits[e] + bias[e]);
        const auto expected = reference::Route(logits, config, choice_bias);
        for (int32_t j = 0; j < config.top_k; ++j) {
          EXPECT_EQ(routing.expert_ids[t * config.top_k + j], expected.expert_ids[j]) << "token " << t;
          EXPECT_NEAR(routing.expert_weights[t * config.top_k + j], expected.expert_weights[j], 1e-6 * config.scale)
              << "token " << t;
        }
        EXPECT_NEAR(routing.margins[t], expected.margin, 1e-5);
        EXPECT_NEAR(routing.logsumexps[t], expected.logsumexp, 1e-5);
      }
    }
  }
}

TEST_P(MoeTest, EveryRuleTreatsATokenAlike) {
  constexpr int32_t kTokens = 30;
  for (const RouterConfig& config : RouterRules()) {
    const int32_t n = config.num_experts, k = config.top_k;
    auto backend = MakeBackend();
    const Values logits = RandomValues(kTokens * n, 2.0, 7);
    const Values choice_bias = config.has_choice_bias ? RandomValues(n, 1.0, 9) : Values();
    const Routing batch = RouteLogits(*backend, logits, config, choice_bias).routing;
    for (const int32_t t : {0, 13, kTokens - 1}) {
      const Values token(logits.begin() + t * n, logits.begin() + (t + 1) * n);
      const Routing alone = RouteLogits(*backend, token, config, choice_bias).routing;
      ExpectSameBits({alone.expert_weights, static_cast<size_t>(k)},
                     {batch.expert_weights + t * k, static_cast<size_t>(k)}, "weights of token " + std::to_string(t));
      for (int32_t j = 0; j < k; ++j) EXPECT_EQ(alone.expert_ids[j], batch.expert_ids[t * k + j]);
    }
  }
}

// A group that is left out stays out, also where all that is left has a negative score.
TEST_P(MoeTest, NegativeScoresDoNotBringBackAGroupThatIsOut) {
  auto backend = MakeBackend();
  RouterConfig config = MakeRouter(RouterScore::kSigmoid, RouterWeights::kScore, 8, 3);
  config.num_groups = 4;
  config.topk_group = 2;
  config.group_score = GroupScore::kTopTwoSum;
  config.has_choice_bias = true;
  const Routing routing =
      RouteLogits(*backend, {0, 0, 0, 0, 0, 0, 0, 0}, config, {-4, -4, -2, -9, -3, -3, -5, -5}).routing;
  EXPECT_EQ(std::vector<int32_t>(routing.expert_ids, routing.expert_ids + 3), (std::vector<int32_t>{4, 5, 0}));
  EXPECT_NEAR(routing.expert_weights[0], 0.5, 1e-6);
}

TEST_P(MoeTest, TiesGoToTheLowestExpertId) {
  auto backend = MakeBackend();
  const RouterConfig config = MakeLayer(6, 3, 0, 0).router;
  const Routing routing = RouteLogits(*backend, {1, 2, 2, 0, 2, 2, 5, 5, 5, 5, 5, 5, 0, 0, 0, 0, 0, 7}, config).routing;
  EXPECT_EQ(std::vector<int32_t>(routing.expert_ids, routing.expert_ids + 9),
            (std::vector<int32_t>{1, 2, 4, 0, 1, 2, 5, 0, 1}));
  EXPECT_EQ(routing.margins[0], 0.0f);
}

TEST_P(MoeTest, NotFiniteLogitsChooseValidExpertsAndSpoilNoOtherToken) {
  constexpr int32_t kExperts = 10;
  auto backend = MakeBackend();
  const RouterConfig config = MakeLayer(kExperts, 4, 0, 0).router;
  const Values good = RandomValues(5 * kExperts, 1.0, 3);
  const Routing expected = RouteLogits(*backend, good, config).routing;
  Values bad = good;
  std::fill_n(bad.begin() + 1 * kExperts, kExperts, kNaN);
  bad[3 * kExperts + 9] = kNaN;
  bad[4 * kExperts] = std::numeric_limits<double>::infinity();
  const Routed routed = RouteLogits(*backend, bad, config);
  const Routing& routing = routed.routing;
  for (int32_t t = 0; t < 5; ++t) {
    const int32_t* ids = routing.expert_ids + t * 4;
    EXPECT_EQ(std::set<int32_t>(ids, ids + 4).size(), 4u);
    for (int32_t j = 0; j < 4; ++j) {
      EXPECT_TRUE(ids[j] >= 0 && ids[j] < kExperts);
      const bool spoilt = t == 1 || t == 3 || t == 4;
      EXPECT_EQ(std::isnan(routing.expert_weights[t * 4 + j]), spoilt);
      if (!spoilt) {
        EXPECT_EQ(ids[j], expected.expert_ids[t * 4 + j]);
      }
    }
  }
  for (int32_t e = 0; e < kExperts; ++e) EXPECT_TRUE(std::isfinite(routing.probability_sums[e]));
  EXPECT_EQ(routed.batches.expert_offsets[kExperts], 5 * 4);
}

TEST_P(MoeTest, GroupingIsAPermutationThatKeepsTokenOrder) {
  for (const int32_t num_tokens : {1, 2, 17, 200}) {
    constexpr int32_t kExperts = 13, kTopK = 3;
    auto backend = MakeBackend();
    const RouterConfig config = MakeLayer(kExperts, kTopK, 0, 0).router;
    const auto [routing, batches] = RouteLogits(*backend, RandomValues(num_tokens * kExperts, 1.0, num_tokens), config);
    ASSERT_EQ(batches.num_rows, num_tokens * kTopK);
    EXPECT_EQ(batches.expert_offsets[0], 0);
    EXPECT_EQ(batches.expert_offsets[kExperts], batches.num_rows);
    std::vector<int32_t> rows(batches.choice_to_row, batches.choice_to_row + batches.num_rows);
    for (int32_t choice = 0; choice < batches.num_rows; ++choice) {
      const int32_t expert = routing.expert_ids[choice];
      EXPECT_GE(rows[choice], batches.expert_offsets[expert]);
      EXPECT_LT(rows[choice], batches.expert_offsets[expert + 1]);
      EXPECT_EQ(batches.row_to_token[rows[choice]], choice / kTopK);
    }
    std::sort(rows.begin(), rows.end());
    for (int32_t r = 0; r < batches.num_rows; ++r) EXPECT_EQ(rows[r], r);
    for (int32_t e = 0; e < kExperts; ++e) {
      EXPECT_TRUE(std::is_sorted(batches.row_to_token + batches.expert_offsets[e],
                                 batches.row_to_token + batches.expert_offsets[e + 1]));
    }
  }
}

class ExpertTest : public MoeTest {
 protected:
  bool IsCublas() const { return GetParam().variant.starts_with("cublas"); }

  static bool Serves(const Backend& backend, const ExpertForm& form) {
    AttentionShape attention;
    attention.num_heads = attention.num_kv_heads = 1;
    attention.head_dim = 64;
    const RouterConfig router = MakeLayer(5, 2, 0, 0).router;
    LayerBlocks blocks;
    blocks.attention = &attention;
    blocks.router = &router;
    blocks.experts = form;
    return backend.CheckServed(blocks).ok();
  }

  void LoadLayer(Backend& backend, const Layer& layer) {
    const int32_t n = layer.router.num_experts;
    std::vector<ExpertReaders> readers;
    for (int32_t e = 0; e < n; ++e) {
      tensors_.push_back(std::make_unique<MemoryReader>(RandomTensor(layer.width, layer.hidden, 3 * e, dtype())));
      tensors_.push_back(std::make_unique<MemoryReader>(RandomTensor(layer.width, layer.hidden, 3 * e + 1, dtype())));
      tensors_.push_back(std::make_unique<MemoryReader>(RandomTensor(layer.hidden, layer.width, 3 * e + 2, dtype())));
      const auto* last = &tensors_.back();
      ExpertReaders reader;
      if (IsGated(layer.form.activation)) reader.gate = last[-2].get();
      reader.up = last[-1].get();
      reader.down = last[0].get();
      reader.form = layer.form;
      experts_.push_back({last[-2]->values(), last[-1]->values(), last[0]->values(), {}, {}, {}});
      if (layer.form.biases) AddBiases(layer, e, &reader);
      readers.push_back(reader);
    }
    auto weights = backend.LoadExperts(readers, dtype());
    ASSERT_TRUE(weights.ok()) << weights.status();
    weights_ = *std::move(weights);
    router_ = Load(backend, RandomTensor(n, layer.hidden, 99, DType::kF32), dtype(), WeightUse::kRouter);
  }

  void AddBiases(const Layer& layer, int32_t expert, ExpertReaders* reader) {
    reference::Expert& values = experts_.back();
    values.gate_bias = RandomValues(layer.width, 1.0, 1000 + 3 * expert);
    values.up_bias = RandomValues(layer.width, 1.0, 1001 + 3 * expert);
    values.down_bias = RandomValues(layer.hidden, 1.0, 1002 + 3 * expert);
    const auto add = [&](const Values& bias) {
      tensors_.push_back(std::make_unique<MemoryReader>(1, static_cast<int64_t>(bias.size()), bias));
      return tensors_.back().get();
    };
    if (IsGated(layer.form.activation)) reader->gate_bias = add(values.gate_bias);
    reader->up_bias = add(values.up_bias);
    reader->down_bias = add(values.down_bias);
  }

  // Route, group, experts, combine on rows [first, first + count) of `in`; `out` starts at zero.
  std::vector<float> RunLayer(Backend& backend, const Layer& layer, Matrix in, int64_t first, int64_t count,
                              Routed* routed, Matrix rows, Matrix out) {
    const Matrix part = Rows(in, first, count);
    const Matrix part_out = Rows(out, 0, count);
    Fill(backend, part_out, Values(count * layer.hidden));
    backend.Route(part, *router_, layer.router, &routed->routing);
    backend.GroupByExpert(routed->routing, &routed->batches);
    backend.ExpertMlp(part, *weights_, routed->batches, Rows(rows, 0, count * layer.router.top_k));
    backend.Combine(Rows(rows, 0, count * layer.router.top_k), routed->routing, routed->batches, part_out);
    return Download(backend, part_out);
  }

  // Every `stride`th of 600 tokens gives the same bits alone and in batches of `counts` tokens at either end.
  void ExpectBatchInvariance(const Layer& layer, int64_t stride, const std::vector<int64_t>& counts) {
    if (IsCublas()) GTEST_SKIP() << "cuBLAS does not promise one order of additions";
    constexpr int64_t kTokens = 600;
    auto backend = MakeBackend();
    tensors_.clear();
    experts_.clear();
    LoadLayer(*backend, layer);
    Routed routed = AllocateRouted(*backend, kTokens, layer.router);
    ASSERT_TRUE(backend->PrepareScratch(kTokens).ok());
    const Matrix in = Upload(*backend, kTokens, layer.hidden, RandomValues(kTokens * layer.hidden, 1.0, 5));
    const Matrix rows = Allocate(*backend, kTokens * layer.router.top_k, layer.hidden);
    const Matrix out = Allocate(*backend, kTokens, layer.hidden);
    const size_t size = static_cast<size_t>(layer.hidden);
    std::vector<std::vector<float>> alone;
    for (int64_t t = 0; t < kTokens; t += stride) {
      alone.push_back(RunLayer(*backend, layer, in, t, 1, &routed, rows, out));
    }
    for (const int64_t count : counts) {
      for (const int64_t first : {int64_t{0}, kTokens - count}) {
        const std::vector<float> batch = RunLayer(*backend, layer, in, first, count, &routed, rows, out);
        for (int64_t t = (first + stride - 1) / stride * stride; t < first + count; t += stride) {
          ExpectSameBits({batch.data() + (t - first) * layer.hidden, size}, alone[static_cast<size_t>(t / stride)],
                         "token " + std::to_string(t) + " of " + std::to_string(count));
        }
      }
    }
  }

  std::vector<std::unique_ptr<MemoryReader>> tensors_;
  std::vector<reference::Expert> experts_;
  std::unique_ptr<ExpertWeights> weights_;
};

// Low limits, so that both clamps are met.
Layer ClampedLayer(int32_t num_experts, int32_t top_k, int64_t hidden, int64_t width) {
  Layer layer = MakeLayer(num_experts, top_k, hidden, width);
  layer.form = {Activation::kClampedSwiglu, 0.75f, /*biases=*/true};
  return layer;
}

Layer WeighedInputLayer(int32_t num_experts, int32_t top_k, int64_t hidden, int64_t width) {
  Layer layer = MakeLayer(num_experts, top_k, hidden, width);
  layer.router.score = RouterScore::kLogit;
  layer.router.weights = RouterWeights::kSigmoid;
  layer.router.normalize = false;
  layer.router.weigh_input = true;
  return layer;
}

Layer UngatedLayer(Activation activation, bool biases, int64_t hidden, int64_t width) {
  Layer layer = MakeLayer(5, 2, hidden, width);
  layer.form = {activation, 0.0f, biases};
  return layer;
}

TEST_P(ExpertTest, LayerEqualsReference) {
  for (const Layer& layer : {MakeLayer(4, 2, 32, 24), MakeLayer(7, 3, 33, 17), MakeLayer(3, 1, 64, 130),
                             MakeLayer(60, 4, 48, 40), MakeLayer(2, 2, 96, 512), ClampedLayer(4, 2, 32, 24),
                             ClampedLayer(7, 3, 33, 17), ClampedLayer(2, 2, 96, 512), WeighedInputLayer(5, 1, 48, 40),
                             WeighedInputLayer(5, 3, 33, 17), UngatedLayer(Activation::kRelu, false, 32, 24),
                             UngatedLayer(Activation::kRelu, true, 33, 17),
                             UngatedLayer(Activation::kGeluTanh, true, 48, 40),
                             UngatedLayer(Activation::kGeluTanh, false, 64, 512)}) {
    constexpr int32_t kTokens = 37;
    tensors_.clear();
    experts_.clear();
    auto backend = MakeBackend();
    if (!Serves(*backend, layer.form)) continue;
    LoadLayer(*backend, layer);
    Routed routed = AllocateRouted(*backend, kTokens, layer.router);
    ASSERT_TRUE(backend->PrepareScratch(kTokens).ok());
    const Values x = RandomValues(kTokens * layer.hidden, 1.0, 5, bf16());
    const Matrix in = Upload(*backend, kTokens, layer.hidden, x);
    const Matrix rows = Allocate(*backend, kTokens * layer.router.top_k, layer.hidden);
    const Matrix out = Allocate(*backend, kTokens, layer.hidden);
    const std::vector<float> actual = RunLayer(*backend, layer, in, 0, kTokens, &routed, rows, out);

    Values expected(kTokens * layer.hidden), magnitudes(expected.size());
    for (int32_t choice = 0; choice < kTokens * layer.router.top_k; ++choice) {
      const int32_t t = choice / layer.router.top_k;
      Values token(x.begin() + t * layer.hidden, x.begin() + (t + 1) * layer.hidden);
      double weight = routed.routing.expert_weights[choice];
      if (layer.router.weigh_input) {
        for (double& value : token) value = static_cast<float>(value * weight);
        if (bf16()) token = reference::RoundToBf16(token);
        weight = 1.0;
      }
      const auto y = reference::ExpertMlp(token, experts_[routed.routing.expert_ids[choice]], layer.form,
                                          layer.hidden, layer.width, bf16());
      for (int64_t i = 0; i < layer.hidden; ++i) {
        expected[t * layer.hidden + i] += weight * y.values[i];
        magnitudes[t * layer.hidden + i] += weight * y.magnitudes[i];
      }
    }
    // In bfloat16 an intermediate value next to a rounding boundary may fall on the other side; cuBLAS hands over gate
    // and up rounded, too.
    const double unit =
        bf16() ? (IsCublas() ? 6 : 2) * kEpsilonBf16 : kEpsilonF32 * (2.0 * layer.hidden + layer.width + 40);
    ExpectWithin(actual, expected, [&](size_t i) { return unit * magnitudes[i]; },
                 std::to_string(layer.router.num_experts) + " experts, hidden " + std::to_string(layer.hidden));
    for (int32_t e = 0; e < layer.router.num_experts; ++e) {
      const bool used = routed.batches.expert_offsets[e + 1] > routed.batches.expert_offsets[e];
      EXPECT_EQ(routed.batches.expert_seconds[e] > 0.0f, used) << "expert " << e;
    }
  }
}

// More rows per expert than one pass takes, for narrow experts that each thread takes as a whole ...
TEST_P(ExpertTest, TokenAloneEqualsTokenInAnyBatch) {
  ExpectBatchInvariance(MakeLayer(5, 2, 70, 50), /*stride=*/1, {2, 7, 40, 333, 600});
}

TEST_P(ExpertTest, TokenAloneEqualsTokenInAnyBatchWithBiasesOrWeighedInputs) {
  ExpectBatchInvariance(ClampedLayer(5, 2, 70, 50), /*stride=*/7, {2, 40, 600});
  ExpectBatchInvariance(WeighedInputLayer(5, 2, 70, 50), /*stride=*/7, {2, 40, 600});
}

TEST_P(ExpertTest, TokenAloneEqualsTokenInAnyBatchOfExpertsWithoutAGate) {
  const Layer layer = UngatedLayer(Activation::kGeluTanh, true, 70, 50);
  if (!Serves(*MakeBackend(), layer.form)) GTEST_SKIP() << "experts without a gate are not served";
  ExpectBatchInvariance(layer, /*stride=*/7, {2, 40, 600});
}

TEST_P(ExpertTest, ActivationsWithoutAGateEqualReferenceOverTheWholeRange) {
  auto backend = MakeBackend();
  for (const Activation activation : {Activation::kRelu, Activation::kGeluTanh, Activation::kTanh}) {
    if (!Serves(*backend, {activation})) continue;
    Values x;
    for (double value = -40.0; value <= 40.0; value += 0.0625) x.push_back(value);
    x.insert(x.end(), {-1e30, 1e30, 1e-30, -1e-30, 0.0});
    const Matrix matrix = Upload(*backend, 1, static_cast<int64_t>(x.size()), x);
    backend->Activate(activation, matrix);
    Values expected;
    for (const double value : x) expected.push_back(reference::Activate({activation}, 0.0, static_cast<float>(value)));
    // tanh itself leaves 1 + tanh with an absolute error, which is why the far negative side has a floor.
    const double floor = activation == Activation::kTanh ? 2 * kEpsilonF32 : 1e-15;
    ExpectWithin(Download(*backend, matrix), expected,
                 [&](size_t i) { return 40 * kEpsilonF32 * std::abs(expected[i]) + floor; }, "activation");
  }
}

TEST_P(ExpertTest, BiasesThatDoNotFitAreRefused) {
  auto backend = MakeBackend();
  const MemoryReader gate = RandomTensor(8, 32, 1, dtype()), down = RandomTensor(32, 8, 2, dtype());
  const MemoryReader bias(1, 8, Values(8)), wrong(1, 7, Values(7));
  ExpertReaders readers{&gate, &gate, &down};
  readers.form.biases = true;
  readers.gate_bias = readers.up_bias = readers.down_bias = &bias;  // down has 32 outputs
  EXPECT_EQ(backend->LoadExperts({&readers, 1}, dtype()).status().code(), absl::StatusCode::kInvalidArgument);
  readers.gate_bias = nullptr;
  EXPECT_EQ(backend->LoadExperts({&readers, 1}, dtype()).status().code(), absl::StatusCode::kInvalidArgument);
  readers.gate_bias = &wrong;
  EXPECT_EQ(backend->LoadExperts({&readers, 1}, dtype()).status().code(), absl::StatusCode::kInvalidArgument);
}

// ... and for wide ones, which a team of threads shares, and whose outputs of 600 tokens go past the caches.
TEST_P(ExpertTest, TokenAloneEqualsTokenInAnyBatchOfWideExperts) {
  ExpectBatchInvariance(MakeLayer(2, 2, 1024, 512), /*stride=*/61, {17, 600});
}

TEST_P(ExpertTest, RowsThatAnInt32CannotCountAreRefused) {
  auto backend = MakeBackend();
  const RouterConfig config = MakeLayer(8, 2, 0, 0).router;
  EXPECT_EQ(backend->AllocateExpertBatches((1 << 30) + 1, config).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST_P(ExpertTest, BadTokenLeavesOtherTokensAlone) {
  const Layer layer = MakeLayer(4, 2, 64, 40);
  constexpr int64_t kTokens = 20;
  auto backend = MakeBackend();
  LoadLayer(*backend, layer);
  Routed routed = AllocateRouted(*backend, kTokens, layer.router);
  ASSERT_TRUE(backend->PrepareScratch(kTokens).ok());
  Values x = RandomValues(kTokens * layer.hidden, 1.0, 5);
  const Matrix in = Upload(*backend, kTokens, layer.hidden, x);
  const Matrix rows = Allocate(*backend, kTokens * layer.router.top_k, layer.hidden);
  const Matrix out = Allocate(*backend, kTokens, layer.hidden);
  const std::vector<float> good = RunLayer(*backend, layer, in, 0, kTokens, &routed, rows, out);
  x[3 * layer.hidden + 1] = kNaN;
  Fill(*backend, in, x);
  const std::vector<float> mixed = RunLayer(*backend, layer, in, 0, kTokens, &routed, rows, out);
  for (int64_t t = 0; t < kTokens; ++t) {
    const size_t row = static_cast<size_t>(t * layer.hidden);
    if (t == 3) {
      EXPECT_TRUE(std::isnan(mixed[row]));
    } else {
      ExpectSameBits({&mixed[row], static_cast<size_t>(layer.hidden)},
                     {&good[row], static_cast<size_t>(layer.hidden)}, "token " + std::to_string(t));
    }
  }
}

class LinearPerExpertTest : public MoeTest {
 protected:
  void SetUp() override {
    MoeTest::SetUp();
    if (IsSkipped()) return;
    const absl::Status served = ServesAttentionExperts();
    if (!served.ok()) GTEST_SKIP() << served.message();
  }
};

TEST_P(LinearPerExpertTest, EqualsReferenceFromTokensAndFromRowsAndInAnyBatch) {
  constexpr int32_t kTokens = 300, kExperts = 5, kTopK = 2, kIn = 70, kOut = 45;
  auto backend = MakeBackend();
  std::vector<std::unique_ptr<Weight>> experts;
  std::vector<Values> values;
  for (int32_t e = 0; e < kExperts; ++e) {
    const MemoryReader tensor = RandomTensor(kOut, kIn, 10 + e, dtype());
    values.push_back(tensor.values());
    experts.push_back(Load(*backend, tensor, dtype(), WeightUse::kLinear));
  }
  const RouterConfig config = MakeLayer(kExperts, kTopK, 0, 0).router;
  const Values logits = RandomValues(kTokens * kExperts, 1.0, 4);
  const auto [routing, batches] = RouteLogits(*backend, logits, config);
  const Values x = RandomValues(kTokens * kIn, 1.0, 5, bf16());
  Values grouped;
  for (int32_t r = 0; r < batches.num_rows; ++r) {
    const auto from = x.begin() + batches.row_to_token[r] * kIn;
    grouped.insert(grouped.end(), from, from + kIn);
  }
  const Matrix out = Allocate(*backend, batches.num_rows, kOut);
  backend->LinearPerExpert(Upload(*backend, kTokens, kIn, x), false, experts, batches, out);
  const std::vector<float> from_tokens = Download(*backend, out);
  backend->LinearPerExpert(Upload(*backend, batches.num_rows, kIn, grouped), true, experts, batches, out);
  ExpectSameBits(Download(*backend, out), from_tokens, "from rows");
  for (int32_t e = 0; e < kExperts; ++e) {
    const int64_t first = batches.expert_offsets[e], count = batches.expert_offsets[e + 1] - first;
    const Values rows(grouped.begin() + first * kIn, grouped.begin() + (first + count) * kIn);
    const auto expected = reference::Linear(rows, values[e], {}, count, kOut, kIn);
    ExpectWithin({from_tokens.data() + first * kOut, static_cast<size_t>(count * kOut)}, expected.values,
                 [&](size_t i) { return kEpsilonF32 * (2.0 + kIn) * expected.magnitudes[i]; },
                 "expert " + std::to_string(e));
  }
  for (const int32_t t : {0, 17, kTokens - 1}) {
    const Values token_logits(logits.begin() + t * kExperts, logits.begin() + (t + 1) * kExperts);
    const ExpertBatches alone = RouteLogits(*backend, token_logits, config).batches;
    const Matrix row = Upload(*backend, 1, kIn, Values(x.begin() + t * kIn, x.begin() + (t + 1) * kIn));
    const Matrix rows = Allocate(*backend, kTopK, kOut);
    backend->LinearPerExpert(row, false, experts, alone, rows);
    const std::vector<float> single = Download(*backend, rows);
    for (int32_t j = 0; j < kTopK; ++j) {
      ExpectSameBits({single.data() + alone.choice_to_row[j] * kOut, kOut},
                     {from_tokens.data() + batches.choice_to_row[t * kTopK + j] * kOut, kOut},
                     "token " + std::to_string(t));
    }
  }
}

TEST_P(LinearPerExpertTest, HeadsSpreadOverRanksAndComeBack) {
  constexpr int32_t kTokens = 9, kExperts = 4, kTopK = 3, kKvHeads = 2, kDim = 5;
  auto backend = MakeBackend();
  AttentionShape shape;
  shape.num_heads = kKvHeads * kTopK;
  shape.num_kv_heads = kKvHeads;
  shape.head_dim = kDim;
  const ExpertBatches batches =
      RouteLogits(*backend, RandomValues(kTokens * kExperts, 1.0, 4), MakeLayer(kExperts, kTopK, 0, 0).router).batches;
  const Values rows = RandomValues(kTokens * kTopK * kKvHeads * kDim, 1.0, 5);
  const Values kv = RandomValues(kTokens * 2 * kKvHeads * kDim, 1.0, 6);
  const Matrix qkv = Allocate(*backend, kTokens, shape.qkv_size());
  backend->SpreadHeads(shape, Upload(*backend, kTokens * kTopK, kKvHeads * kDim, rows), batches,
                       Upload(*backend, kTokens, 2 * kKvHeads * kDim, kv), qkv);
  const std::vector<float> spread = Download(*backend, qkv);
  Values attended;
  for (int32_t t = 0; t < kTokens; ++t) {
    const float* const row = spread.data() + t * shape.qkv_size();
    for (int32_t h = 0; h < shape.num_heads; ++h) {
      const int32_t from = batches.choice_to_row[t * kTopK + h % kTopK];
      for (int32_t d = 0; d < kDim; ++d) {
        EXPECT_EQ(row[h * kDim + d], static_cast<float>(rows[(from * kKvHeads + h / kTopK) * kDim + d]));
      }
    }
    for (int32_t i = 0; i < 2 * kKvHeads * kDim; ++i) {
      EXPECT_EQ(row[shape.q_size() + i], static_cast<float>(kv[t * 2 * kKvHeads * kDim + i]));
    }
    attended.insert(attended.end(), row, row + shape.q_size());
  }
  const Matrix back = Allocate(*backend, kTokens * kTopK, kKvHeads * kDim);
  backend->CollectHeads(shape, Upload(*backend, kTokens, shape.q_size(), attended), batches, back);
  const std::vector<float> collected = Download(*backend, back);
  for (size_t i = 0; i < rows.size(); ++i) EXPECT_EQ(collected[i], static_cast<float>(rows[i]));
}

INSTANTIATE_TEST_SUITE_P(Backends, LinearPerExpertTest, ::testing::ValuesIn(AllParams()), ParamName);
INSTANTIATE_TEST_SUITE_P(Backends, MoeTest, ::testing::ValuesIn(AllParams()), ParamName);
INSTANTIATE_TEST_SUITE_P(Backends, ExpertTest, ::testing::ValuesIn(AllParams(/*expert_gemms=*/true)), ParamName);

}  // namespace
}  // namespace switchyard
