// Whole models on the emulated device: steps that are repeated from a recording give the bits of steps that run one
// operation after the other.
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "emulation.h"
#include "engine/backend/cuda/cuda_backend.h"
#include "engine/checkpoint/weights.h"
#include "engine/config/model_config.h"
#include "tests/support/golden_checkpoints.h"
#include "tests/support/golden_run.h"

namespace switchyard {
namespace {

struct Param {
  std::string fixture;
  DType dtype;
};

class RecordedModelTest : public ::testing::TestWithParam<Param> {
 protected:
  void TearDown() override { cuda_emulation::SetRefuseCapture(false); }

  // Three prompts, then decodes of all of them, of which the last leave one by one; the logits of all steps.
  static std::vector<float> Converse() {
    auto backend = cuda::CreateCudaBackend({});
    EXPECT_TRUE(backend.ok()) << backend.status();
    const testing::GoldenCheckpoint fixture = testing::GoldenFixture(GetParam().fixture);
    const auto config = ReadModelConfig(fixture.folder, fixture.max_model_len);
    EXPECT_TRUE(config.ok()) << config.status();
    const auto weights = OpenWeights(*config, fixture.folder);
    EXPECT_TRUE(weights.ok()) << weights.status();
    auto run = testing::GoldenRun::Create(*config, **weights, fixture.golden_file(), GetParam().dtype, backend->get());
    EXPECT_TRUE(run.ok()) << run.status();
    if (!run.ok()) return {};
    const std::vector<int32_t> tables[] = {{11, 3}, {7, 0}, {5, 9}};
    const std::vector<int32_t>& ids = (*run)->ids();
    std::vector<float> all;
    const auto step = [&](const std::vector<int32_t>& tokens, const std::vector<AttentionSlice>& slices) {
      const auto logits = (*run)->RunStep(tokens, slices);
      EXPECT_TRUE(logits.ok()) << logits.status();
      if (logits.ok()) all.insert(all.end(), logits->begin(), logits->end());
    };
    const int32_t lengths[] = {4, 9, 6};
    for (int s = 0; s < 3; ++s) step({ids.begin(), ids.begin() + lengths[s]}, {{0, lengths[s], 0, tables[s].data()}});
    for (int32_t n = 0; n < 9; ++n) {
      const int32_t active = 3 - n / 3;
      std::vector<int32_t> tokens;
      std::vector<AttentionSlice> slices;
      for (int32_t s = 0; s < active; ++s) {
        tokens.push_back(ids[static_cast<size_t>(n + s)]);
        slices.push_back({s, 1, lengths[s] + n, tables[s].data()});
      }
      step(tokens, slices);
    }
    return all;
  }

  static void ExpectSame(const std::vector<float>& actual, const std::vector<float>& expected) {
    ASSERT_EQ(actual.size(), expected.size());
    ASSERT_FALSE(expected.empty());
    for (size_t i = 0; i < expected.size(); ++i) ASSERT_EQ(actual[i], expected[i]) << "element " << i;
  }
};

TEST_P(RecordedModelTest, RecordedStepsGiveTheBitsOfStepsRunOneByOne) {
  const int64_t before = cuda_emulation::NumGraphLaunches();
  const std::vector<float> recorded = Converse();
  EXPECT_GE(cuda_emulation::NumGraphLaunches() - before, 4);
  cuda_emulation::SetRefuseCapture(true);
  ExpectSame(recorded, Converse());
}

INSTANTIATE_TEST_SUITE_P(Models, RecordedModelTest,
                         ::testing::Values(Param{"deepseek_v2", DType::kF32}, Param{"deepseek_v3", DType::kBF16},
                                           Param{"kimi_k2", DType::kBF16}, Param{"jetmoe", DType::kF32},
                                           Param{"jetmoe", DType::kBF16}),
                         [](const auto& info) { return info.param.fixture + "_" + DTypeName(info.param.dtype); });

}  // namespace
}  // namespace switchyard
