// What the conformance tests do not see of the CUDA backend: recorded steps, races, failures. On the emulated device.
#include "engine/backend/cuda/cuda_backend.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <numeric>
#include <span>
#include <string>
#include <vector>

#include "emulation.h"
#include "engine/sampling/sampler.h"
#include "tests/engine/backend/memory_reader.h"

namespace switchyard {
namespace {

using ::testing::HasSubstr;

constexpr int32_t kHidden = 32, kHeads = 4, kHeadDim = 8, kVocab = 40, kBlocks = 64, kBlockSize = 16, kMaxTokens = 40;

std::unique_ptr<Backend> MakeBackend(const std::string& expert_gemm = "native") {
  BackendOptions options;
  options.expert_gemm = expert_gemm;
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
std::vector<float> Converse(TinyModel* model, int32_t num_sequences, int32_t num_steps, int32_t shortest = 3) {
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

struct StepParam {
  DType dtype;
  std::string expert_gemm;
};

class StepTest : public ::testing::TestWithParam<StepParam> {
 protected:
  static std::unique_ptr<Backend> MakeBackend() { return switchyard::MakeBackend(GetParam().expert_gemm); }
  static DType dtype() { return GetParam().dtype; }
  void TearDown() override { cuda_emulation::SetThreadOrder(cuda_emulation::ThreadOrder::kForward); }
};

TEST_P(StepTest, RecordedStepsGiveTheBitsOfStepsRunOneByOne) {
  auto backend = MakeBackend();
  TinyModel model(backend.get(), dtype());
  const int64_t before = cuda_emulation::NumGraphLaunches();
  const std::vector<float> recorded = Converse(&model, 5, 20);
  EXPECT_GT(cuda_emulation::NumGraphLaunches() - before, 8);
  EXPECT_GT(model.layer_seconds(), 0.0f);

  // Every step in a process of its own form: nothing is recorded the first time.
  auto direct_backend = MakeBackend();
  TinyModel direct(direct_backend.get(), dtype());
  cuda_emulation::SetRefuseCapture(true);
  const std::vector<float> plain = Converse(&direct, 5, 20);
  cuda_emulation::SetRefuseCapture(false);
  ASSERT_EQ(recorded.size(), plain.size());
  for (size_t i = 0; i < plain.size(); ++i) ASSERT_EQ(recorded[i], plain[i]) << "element " << i;
}

TEST_P(StepTest, OrderOfThreadsDoesNotMatter) {
  auto backend = MakeBackend(), reverse_backend = MakeBackend();
  TinyModel model(backend.get(), dtype()), reversed(reverse_backend.get(), dtype());
  const std::vector<float> forward = Converse(&model, 4, 6);
  cuda_emulation::SetThreadOrder(cuda_emulation::ThreadOrder::kReverse);
  const std::vector<float> reverse = Converse(&reversed, 4, 6);
  ASSERT_EQ(forward.size(), reverse.size());
  for (size_t i = 0; i < forward.size(); ++i) ASSERT_EQ(forward[i], reverse[i]) << "element " << i;
}

// Steps of up to fewer tokens than a bucket has rows: the plan and the products must agree on the tiles.
TEST_P(StepTest, RecordedStepsOfATightLimitGiveTheSameBits) {
  for (const int32_t max_tokens : {9, 17, 33, 39}) {
    auto backend = MakeBackend(), direct_backend = MakeBackend();
    TinyModel model(backend.get(), dtype(), max_tokens), direct(direct_backend.get(), dtype(), max_tokens);
    const std::vector<float> recorded = Converse(&model, 9, 6, 1);
    cuda_emulation::SetRefuseCapture(true);
    const std::vector<float> plain = Converse(&direct, 9, 6, 1);
    cuda_emulation::SetRefuseCapture(false);
    ASSERT_EQ(recorded.size(), plain.size());
    for (size_t i = 0; i < plain.size(); ++i) ASSERT_EQ(recorded[i], plain[i]) << "element " << i;
  }
}

INSTANTIATE_TEST_SUITE_P(Types, StepTest,
                         ::testing::Values(StepParam{DType::kF32, "native"}, StepParam{DType::kBF16, "native"},
                                           StepParam{DType::kBF16, "wgmma"}),
                         [](const auto& info) { return info.param.expert_gemm + "_" + DTypeName(info.param.dtype); });

TEST(CudaBackendTest, AFailureOfTheDeviceIsRememberedWithItsWords) {
  auto backend = MakeBackend();
  TinyModel model(backend.get(), DType::kF32);
  const std::vector<int32_t> table = {0};
  EXPECT_EQ(model.Step({1, 2}, {{0, 2, 0, table.data()}}).size(), 2u * kVocab);
  cuda_emulation::FailNextSynchronize(cudaErrorIllegalAddress);
  model.Step({3}, {{0, 1, 2, table.data()}});
  for (int again = 0; again < 2; ++again) {
    EXPECT_EQ(model.status().code(), absl::StatusCode::kInternal);
    EXPECT_THAT(std::string(model.status().message()), HasSubstr("an illegal memory access"));
    model.Step({3}, {{0, 1, 2, table.data()}});
  }
  cudaGetLastError();  // the next test has another device
}

TEST(CudaBackendTest, TooLittleMemorySaysHowMuch) {
  auto backend = MakeBackend();
  const absl::Status status = backend->AllocateMatrix(int64_t{1} << 32, 1024).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(status.message()), HasSubstr("MiB for activations on the GPU: "));
}

TEST(CudaBackendTest, ReportsTheMemoryThatTheOptionAllows) {
  BackendOptions options;
  options.memory_utilization = 0.5;
  auto half = cuda::CreateCudaBackend(options);
  ASSERT_TRUE(half.ok()) << half.status();
  EXPECT_LT((*half)->AvailableBytes(), int64_t{33} << 30);
  EXPECT_GT((*half)->AvailableBytes(), int64_t{31} << 30);
  options.memory_utilization = 1.5;
  EXPECT_EQ(cuda::CreateCudaBackend(options).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(CudaBackendTest, UnknownExpertGemmIsRefused) {
  BackendOptions options;
  options.expert_gemm = "abacus";
  const absl::Status status = cuda::CreateCudaBackend(options).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("cublas_padded"));
}

TEST(CudaBackendTest, WgmmaIsRefusedOnOtherDevicesThanHopper) {
  BackendOptions options;
  options.expert_gemm = "wgmma";
  for (const auto& [major, minor] : {std::pair{8, 0}, {8, 9}, {10, 0}, {12, 0}}) {
    cuda_emulation::SetComputeCapability(major, minor);
    const absl::Status status = cuda::CreateCudaBackend(options).status();
    cuda_emulation::SetComputeCapability(9, 0);
    EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_THAT(std::string(status.message()), HasSubstr("emulated device has compute capability " +
                                                         std::to_string(major) + "." + std::to_string(minor)));
  }
  EXPECT_THAT(std::string(MakeBackend("wgmma")->description()), HasSubstr("wgmma experts"));
}

TEST(CudaBackendTest, RefusesByNameWhatItDoesNotCompute) {
  auto backend = MakeBackend();
  AttentionShape shape;
  shape.num_heads = 128;
  shape.num_kv_heads = 1;
  shape.head_dim = 576;
  shape.latent_dim = 512;
  LayerBlocks blocks;
  blocks.attention = &shape;
  EXPECT_TRUE(backend->CheckServed(blocks).ok());
  shape.head_dim = 704;
  shape.latent_dim = 640;
  const absl::Status status = backend->CheckServed(blocks);
  EXPECT_EQ(status.code(), absl::StatusCode::kUnimplemented);
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("128 heads on a latent of 640 + 64 (at most 128 on 512 in 576)"));
  shape.num_heads = shape.num_kv_heads = 2;
  shape.head_dim = 16;
  shape.latent_dim = 0;
  RouterConfig router;
  router.num_experts = 300;
  router.top_k = 2;
  blocks.router = &router;
  blocks.attention_experts = true;
  EXPECT_THAT(std::string(backend->CheckServed(blocks).message()),
              HasSubstr("a mixture of attention heads of 300 experts (at most 256)"));
  blocks.attention_experts = false;
  blocks.cross_attention = true;
  EXPECT_THAT(std::string(backend->CheckServed(blocks).message()), HasSubstr("cross attention"));
}

}  // namespace
}  // namespace switchyard
