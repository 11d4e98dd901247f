// What the conformance tests do not see of the CUDA backend: recorded steps, races, failures. On the emulated device.
#include "engine/backend/cuda/cuda_backend.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "emulation.h"
#include "tests/engine/backend/cuda/tiny_model.h"
#include "tests/engine/backend/memory_reader.h"

namespace switchyard {
namespace {

using ::testing::HasSubstr;
using testing::Converse;
using testing::kVocab;
using testing::MakeCudaBackend;
using testing::TinyModel;

struct StepParam {
  DType dtype;
  std::string expert_gemm;
};

class StepTest : public ::testing::TestWithParam<StepParam> {
 protected:
  static std::unique_ptr<Backend> MakeBackend() { return MakeCudaBackend(GetParam().expert_gemm); }
  static DType dtype() { return GetParam().dtype; }
  void TearDown() override {
    cuda_emulation::SetThreadOrder(cuda_emulation::ThreadOrder::kForward);
    cuda_emulation::SetBlockOrder(cuda_emulation::BlockOrder::kForward);
  }
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

TEST_P(StepTest, OrderOfThreadsAndBlocksDoesNotMatter) {
  auto backend = MakeBackend(), reverse_backend = MakeBackend();
  TinyModel model(backend.get(), dtype()), reversed(reverse_backend.get(), dtype());
  const std::vector<float> forward = Converse(&model, 4, 6);
  cuda_emulation::SetThreadOrder(cuda_emulation::ThreadOrder::kReverse);
  cuda_emulation::SetBlockOrder(cuda_emulation::BlockOrder::kReverse);
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

// In one launch and in two, with one step over a part of the width and with two.
TEST(CudaBackendTest, OrderAndOtherTokensDoNotMatterToARouter) {
  using cuda_emulation::BlockOrder;
  using cuda_emulation::ThreadOrder;
  constexpr int32_t kExperts = 70, kTopK = 2, kFew = 5;
  RouterConfig config;
  config.num_experts = kExperts;
  config.top_k = kTopK;
  for (const int32_t width : {50, 2600}) {
    std::vector<float> weights_of_few;
    for (const int32_t num_tokens : {kFew, 60, 150}) {
      SCOPED_TRACE(std::to_string(num_tokens) + " tokens of " + std::to_string(width));
      std::vector<float> sums;
      std::vector<double> squares;
      for (const auto& [threads, blocks] : {std::pair{ThreadOrder::kForward, BlockOrder::kForward},
                                            {ThreadOrder::kReverse, BlockOrder::kReverse},
                                            {ThreadOrder::kForward, BlockOrder::kShuffled}}) {
        auto backend = MakeCudaBackend();
        const MemoryReader router_reader = RandomTensor(kExperts, width, 1, DType::kF32);
        const MemoryReader in_reader = RandomTensor(num_tokens, width, 2, DType::kF32);
        const TensorReader* const parts[] = {&router_reader};
        const TensorReader* const tokens[] = {&in_reader};
        const TensorReader* const biases[] = {nullptr};
        const auto router = *backend->LoadWeight(parts, biases, DType::kF32, WeightUse::kRouter);
        const auto table = *backend->LoadWeight(tokens, biases, DType::kF32, WeightUse::kEmbedding);
        const Matrix in = *backend->AllocateMatrix(num_tokens, width);
        Routing routing = *backend->AllocateRouting(num_tokens, config);
        ASSERT_TRUE(backend->PrepareScratch(num_tokens).ok());
        std::vector<int32_t> ids(static_cast<size_t>(num_tokens));
        std::iota(ids.begin(), ids.end(), 0);
        cuda_emulation::SetThreadOrder(threads);
        cuda_emulation::SetBlockOrder(blocks);
        backend->Embed(ids, *table, in);
        backend->Route(in, *router, config, &routing);
        const absl::Status status = backend->Wait();
        cuda_emulation::SetThreadOrder(ThreadOrder::kForward);
        cuda_emulation::SetBlockOrder(BlockOrder::kForward);
        ASSERT_TRUE(status.ok()) << status;
        sums.insert(sums.end(), routing.probability_sums, routing.probability_sums + kExperts);
        squares.push_back(*routing.squared_logsumexp_sum);
        const std::vector<float> weights(routing.expert_weights, routing.expert_weights + kFew * kTopK);
        if (weights_of_few.empty()) weights_of_few = weights;
        EXPECT_EQ(weights, weights_of_few);
      }
      EXPECT_GT(squares[0], 0.0);
      for (size_t run = 1; run < squares.size(); ++run) {
        EXPECT_EQ(squares[run], squares[0]);
        for (size_t e = 0; e < kExperts; ++e) EXPECT_EQ(sums[run * kExperts + e], sums[e]) << "expert " << e;
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Types, StepTest,
                         ::testing::Values(StepParam{DType::kF32, "native"}, StepParam{DType::kBF16, "native"},
                                           StepParam{DType::kBF16, "wgmma"}),
                         [](const auto& info) { return info.param.expert_gemm + "_" + DTypeName(info.param.dtype); });

TEST(CudaBackendTest, AFailureOfTheDeviceIsRememberedWithItsWords) {
  auto backend = MakeCudaBackend();
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
  auto backend = MakeCudaBackend();
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
  EXPECT_THAT(std::string(status.message()), HasSubstr("auto, fastest, native"));
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
  EXPECT_THAT(std::string(MakeCudaBackend("wgmma")->description()), HasSubstr("wgmma experts"));
}

TEST(CudaBackendTest, RefusesByNameWhatItDoesNotCompute) {
  auto backend = MakeCudaBackend();
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
