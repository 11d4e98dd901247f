// A model of one layer on the CUDA backend of the emulated device, small enough to run step after step.
#ifndef SWITCHYARD_TESTS_ENGINE_BACKEND_CUDA_TINY_MODEL_H_
#define SWITCHYARD_TESTS_ENGINE_BACKEND_CUDA_TINY_MODEL_H_

#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <numeric>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "engine/backend/cuda/cuda_backend.h"
#include "engine/sampling/sampler.h"
#include "tests/engine/backend/memory_reader.h"

namespace switchyard::testing {

inline constexpr int32_t kHidden = 32, kHeads = 4, kHeadDim = 8, kVocab = 40;
inline constexpr int32_t kBlocks = 64, kBlockSize = 16, kMaxTokens = 40;

inline std::unique_ptr<Backend> MakeCudaBackend(const std::string& expert_gemm = "native",
                                               const std::string& expert_gemm_table = "") {
  BackendOptions options;
  options.expert_gemm = expert_gemm;
  options.expert_gemm_table = expert_gemm_table;
  options.num_threads = 2;
  auto backend = cuda::CreateCudaBackend(options);
  EXPECT_TRUE(backend.ok()) << backend.status();
  return *std::move(backend);
}

// One layer of attention and experts with random weights, between an embedding and a head.
class TinyModel {
 public:
  TinyModel(Backend* backend, DType dtype, int32_t max_tokens = kMaxTokens) : backend_(backend), dtype_(dtype) {
    shape_.num_heads = shape_.num_kv_heads = kHeads;
    shape_.head_dim = kHeadDim;
    shape_.scale = 0.35f;
    shape_.rope_inv_freq = {1.0f, 0.1f, 0.01f, 0.001f};
    router_config_.num_experts = 6;
    router_config_.top_k = 2;
    cache_ = *backend->AllocateKvCache({1, kBlocks, kBlockSize, kHeads, kHeadDim, dtype});
    embedding_ = Load(kVocab, kHidden, WeightUse::kEmbedding);
    norm_ = Load(1, kHidden, WeightUse::kVector);
    qkv_weight_ = Load(static_cast<int32_t>(shape_.qkv_size()), kHidden, WeightUse::kLinear);
    router_ = Load(6, kHidden, WeightUse::kRouter);
    head_ = Load(kVocab, kHidden, WeightUse::kLinear);
    std::vector<ExpertReaders> readers;
    for (int e = 0; e < 6; ++e) {
      const auto reader = [&](int64_t rows, int64_t cols) {
        tensors_.push_back(std::make_unique<MemoryReader>(RandomTensor(rows, cols, ++seed_, dtype)));
        return tensors_.back().get();
      };
      readers.push_back({reader(24, kHidden), reader(24, kHidden), reader(kHidden, 24)});
    }
    experts_ = *backend->LoadExperts(readers, dtype);
    routing_ = *backend->AllocateRouting(max_tokens, router_config_);
    batches_ = *backend->AllocateExpertBatches(max_tokens, router_config_);
    for (auto [matrix, cols] : {std::pair{&x_, int64_t{kHidden}}, {&h_, kHidden}, {&qkv_, shape_.qkv_size()},
                                {&attended_, kHidden}, {&last_, kHidden}, {&logits_, kVocab}}) {
      *matrix = *backend->AllocateMatrix(max_tokens, cols);
    }
    rows_ = *backend->AllocateMatrix(2 * max_tokens, kHidden);
    tokens_ = *backend->AllocateSampledTokens(max_tokens);
    EXPECT_TRUE(backend->PrepareScratch(max_tokens).ok());
  }

  // Logits of every token. Draws the token that follows each, with parameters that change from step to step, and
  // expects those that Sampler draws; in some steps the device is to draw none.
  std::vector<float> Step(const std::vector<int32_t>& ids, const std::vector<AttentionSlice>& slices) {
    const int64_t n = static_cast<int64_t>(ids.size());
    std::vector<int32_t> all(ids.size());
    std::iota(all.begin(), all.end(), 0);
    const Matrix logits = logits_.Front(n, kVocab);
    const std::vector<RowSampling> sampling = ++num_steps_ % 5 == 0 ? std::vector<RowSampling>() : DrawSampling(n);
    if (!backend_->BeginStep({ids, slices, all, sampling}, *cache_)) {
      Run(ids, slices, all, sampling);
      backend_->EndStep();
    }
    status_ = backend_->Wait();
    if (!status_.ok()) return {};
    EXPECT_EQ(routing_.num_tokens, n);
    EXPECT_EQ(batches_.expert_offsets[6], 2 * n);
    const std::span<const float> view = backend_->HostView(logits);
    ExpectTokensOfSampler(view, sampling);
    return {view.begin(), view.end()};
  }

  const absl::Status& status() const { return status_; }
  float layer_seconds() const { return seconds_; }

 private:
  std::unique_ptr<Weight> Load(int32_t rows, int32_t cols, WeightUse use) {
    const MemoryReader tensor = RandomTensor(rows, cols, ++seed_, dtype_);
    const TensorReader* const parts[] = {&tensor};
    return *backend_->LoadWeight(parts, {}, dtype_, use);
  }

  std::vector<RowSampling> DrawSampling(int64_t rows) const {
    std::vector<RowSampling> sampling;
    for (int64_t r = 0; r < rows; ++r) {
      const int64_t n = num_steps_ * 7 + r;
      sampling.push_back({.seed = static_cast<uint64_t>(n * n),
                          .position = n,
                          .temperature = 0.4f * static_cast<float>(n % 4),
                          .top_p = n % 3 == 0 ? 1.0f : 0.9f,
                          .min_p = n % 6 == 0 ? 0.01f : 0.0f,
                          .top_k = n % 5 == 0 ? 7 : 0});
    }
    return sampling;
  }

  void ExpectTokensOfSampler(std::span<const float> logits, const std::vector<RowSampling>& sampling) {
    Sampler sampler(kVocab);
    for (size_t r = 0; r < sampling.size(); ++r) {
      SamplingParams params;
      params.temperature = sampling[r].temperature;
      params.top_k = sampling[r].top_k;
      params.top_p = sampling[r].top_p;
      params.min_p = sampling[r].min_p;
      params.seed = sampling[r].seed;
      SampledToken expected;
      sampler.Sample(logits.subspan(r * kVocab, kVocab), params, {}, {}, sampling[r].position, &expected);
      EXPECT_EQ(tokens_[r], expected.token) << "row " << r << " of step " << num_steps_;
    }
  }

  void Run(std::span<const int32_t> ids, std::span<const AttentionSlice> slices, std::span<const int32_t> all,
           std::span<const RowSampling> sampling) {
    const int64_t n = static_cast<int64_t>(ids.size());
    const Matrix x = x_.Front(n, kHidden), h = h_.Front(n, kHidden), qkv = qkv_.Front(n, shape_.qkv_size());
    const Matrix attended = attended_.Front(n, kHidden), last = last_.Front(n, kHidden);
    backend_->Embed(ids, *embedding_, x);
    backend_->RmsNorm(x, *norm_, 1e-6f, h);
    backend_->Linear(h, *qkv_weight_, OutputMode::kAssign, qkv);
    backend_->PrepareQkv(shape_, slices, nullptr, nullptr, 0, *cache_, qkv);
    backend_->Attention(shape_, slices, 0, *cache_, qkv, attended);
    backend_->StartTimer();
    backend_->Route(attended, *router_, router_config_, &routing_);
    backend_->GroupByExpert(routing_, &batches_);
    backend_->ExpertMlp(attended, *experts_, batches_, rows_.Front(2 * n, kHidden));
    backend_->Combine(rows_.Front(2 * n, kHidden), routing_, batches_, x);
    backend_->StopTimer(&seconds_);
    backend_->SelectRows(x, all, last);
    backend_->Linear(last, *head_, OutputMode::kAssign, logits_.Front(n, kVocab));
    backend_->SampleTokens(logits_.Front(n, kVocab), kVocab, sampling);
  }

  Backend* const backend_;
  const DType dtype_;
  uint64_t seed_ = 0;
  AttentionShape shape_;
  RouterConfig router_config_;
  std::unique_ptr<KvCache> cache_;
  std::unique_ptr<Weight> embedding_, norm_, qkv_weight_, router_, head_;
  std::vector<std::unique_ptr<MemoryReader>> tensors_;
  std::unique_ptr<ExpertWeights> experts_;
  Routing routing_;
  ExpertBatches batches_;
  Matrix x_, h_, qkv_, attended_, rows_, last_, logits_;
  const int32_t* tokens_ = nullptr;
  int64_t num_steps_ = 0;
  float seconds_ = 0.0f;
  absl::Status status_;
};

// `num_sequences` prompts of different lengths, then decodes of all of them, of which the last leave one by one.
// Returns the logits of all steps, one after the other.
inline std::vector<float> Converse(TinyModel* model, int32_t num_sequences, int32_t num_steps, int32_t shortest = 3) {
  std::vector<std::vector<int32_t>> tables;
  std::vector<int32_t> lengths;
  std::vector<float> all;
  for (int32_t s = 0; s < num_sequences; ++s) {
    tables.push_back({2 * s + 1, 2 * s, 40 + s});
    std::vector<int32_t> prompt(std::min(shortest + s, 9));
    std::iota(prompt.begin(), prompt.end(), s);
    const std::vector<float> logits =
        model->Step(prompt, {{0, static_cast<int32_t>(prompt.size()), 0, tables.back().data()}});
    all.insert(all.end(), logits.begin(), logits.end());
    lengths.push_back(static_cast<int32_t>(prompt.size()));
  }
  for (int32_t step = 0; step < num_steps; ++step) {
    const int32_t active = std::max(1, num_sequences - step / 4);
    std::vector<int32_t> ids;
    std::vector<AttentionSlice> slices;
    for (int32_t s = 0; s < active; ++s) {
      ids.push_back((7 * step + s) % kVocab);
      slices.push_back({s, 1, lengths[s]++, tables[s].data()});
    }
    const std::vector<float> logits = model->Step(ids, slices);
    all.insert(all.end(), logits.begin(), logits.end());
  }
  return all;
}

}  // namespace switchyard::testing

#endif  // SWITCHYARD_TESTS_ENGINE_BACKEND_CUDA_TINY_MODEL_H_
