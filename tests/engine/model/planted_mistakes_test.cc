// Does the golden test see mistakes? Those that an implementation could well make are planted, one at a time, and each
// has to move the logits far beyond the tolerance. Prints how far.

#include <cstdio>
#include <fstream>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "engine/base/status_macros.h"
#include "gtest/gtest.h"
#include "tests/engine/model/planted/broken_backends.h"
#include "tests/engine/model/planted/mistake.h"
#include "tests/support/encoder_decoder_run.h"
#include "tests/support/forwarding_backend.h"
#include "tests/support/golden_checkpoints.h"
#include "tests/support/golden_run.h"
#include "tests/support/temp_folder.h"
#include "tests/support/values_reader.h"

namespace switchyard::testing {

void PrintTo(const Mistake& mistake, std::ostream* out) { *out << mistake.name << " in " << mistake.fixture; }

namespace {

// A mistake has to be this many times as large as what the golden test allows.
constexpr double kClearly = 100.0;

std::vector<Mistake> AllMistakes() {
  std::vector<Mistake> all;
  for (auto* family : {MistakesOfCoreFamilies, MistakesOfLatentFamilies, MistakesOfOtherFamilies,
                       MistakesOfGenericFamily, MistakesOfEncoderDecoders}) {
    for (Mistake& mistake : family()) all.push_back(std::move(mistake));
  }
  return all;
}

class PlantedWeights final : public Weights {
 public:
  PlantedWeights(const Weights& exact, const Mistake& mistake) : exact_(exact), mistake_(mistake) {}

  const TensorReader* Find(WeightName name, int layer, int expert) const override {
    if (mistake_.layer_of && layer >= 0) layer = mistake_.layer_of(name, layer);
    const TensorReader* found = exact_.Find(mistake_.rename ? mistake_.rename(name) : name, layer, expert);
    if (found == nullptr) found = exact_.Find(name, layer, expert);  // this layer has no such weight
    if (found == nullptr || !mistake_.edit_weight) return found;
    std::vector<float> values = ValuesReader::ReadAll(*found);
    mistake_.edit_weight({name, layer, expert, found->rows(), found->cols(), &values, exact_});
    readers_.push_back(std::make_unique<ValuesReader>(found->rows(), found->cols(), std::move(values)));
    return readers_.back().get();
  }
  int64_t num_parameters() const override { return exact_.num_parameters(); }

 private:
  const Weights& exact_;
  const Mistake& mistake_;
  mutable std::vector<std::unique_ptr<TensorReader>> readers_;
};

// What the golden test would measure of the whole prompt.
absl::StatusOr<GoldenErrors> Measure(const Mistake& mistake) {
  GoldenCheckpoint checkpoint = GoldenFixture(mistake.fixture);
  if (mistake.max_model_len > 0) checkpoint.max_model_len = mistake.max_model_len;
  nlohmann::json json = nlohmann::json::parse(ReadFile(checkpoint.folder + "/config.json"));
  const std::string golden_file = checkpoint.golden_file();
  TempFolder folder;
  if (mistake.edit_file) {
    std::string model = ReadFile(checkpoint.folder + "/model.safetensors");
    mistake.edit_file(&model);
    folder.Write("model.safetensors", model);
    checkpoint.folder = folder.path();
  }
  if (mistake.edit_json) mistake.edit_json(json);
  ASSIGN_OR_RETURN(ModelConfig config, ParseModelConfig(json.dump(), checkpoint.max_model_len));
  ASSIGN_OR_RETURN(const std::unique_ptr<Weights> exact, OpenWeights(config, checkpoint.folder));
  if (mistake.edit_config) mistake.edit_config(config);

  ASSIGN_OR_RETURN(const CreatedBackend created,
                   CreateBackend({.device = "cpu", .cpu_isa = "scalar", .num_threads = 1, .expert_gemm_table = {}}));
  const std::unique_ptr<Backend> backend = mistake.break_backend
                                               ? mistake.break_backend(created.backend.get())
                                               : std::make_unique<ForwardingBackend>(created.backend.get());
  const PlantedWeights weights(*exact, mistake);
  if (config.num_encoder_layers > 0) {
    ASSIGN_OR_RETURN(const std::unique_ptr<EncoderDecoderRun> run,
                     EncoderDecoderRun::Create(config, weights, golden_file, DType::kF32, backend.get()));
    return run->RunAtOnce();
  }
  ASSIGN_OR_RETURN(const std::unique_ptr<GoldenRun> run,
                   GoldenRun::Create(config, weights, golden_file, DType::kF32, backend.get()));
  return run->RunChunks({run->length()});
}

class PlantedMistakesTest : public ::testing::TestWithParam<Mistake> {
 protected:
  static void SetUpTestSuite() {
    std::printf("%-22s %-34s %s\n", "fixture", "mistake", "error of logits / the largest (other implementation)");
  }
};

TEST_P(PlantedMistakesTest, MovesTheLogitsFarBeyondTheTolerance) {
  const Mistake& mistake = GetParam();
  const auto errors = Measure(mistake);
  ASSERT_TRUE(errors.ok()) << errors.status();
  const std::string expected = mistake.expected > 0.0 ? std::to_string(mistake.expected).substr(0, 5) : "-";
  std::printf("%-22s %-34s %7.3f (%s)%s\n", mistake.fixture.c_str(), mistake.name.c_str(), errors->logits,
              expected.c_str(), errors->wrong_expert.empty() ? "" : "  other experts");
  EXPECT_GT(errors->logits, kClearly * GoldenFixture(mistake.fixture).logit_slack * kLogitTolerance);
}

INSTANTIATE_TEST_SUITE_P(All, PlantedMistakesTest, ::testing::ValuesIn(AllMistakes()),
                         [](const auto& info) { return info.param.fixture + "_" + info.param.name; });

void ExpectGolden(const Mistake& none) {
  const GoldenCheckpoint checkpoint = GoldenFixture(none.fixture);
  const auto errors = Measure(none);
  ASSERT_TRUE(errors.ok()) << none.fixture << ": " << errors.status();
  EXPECT_LE(errors->logits, checkpoint.logit_slack * kLogitTolerance) << none.fixture;
  EXPECT_EQ(errors->wrong_expert, "") << none.fixture;
  EXPECT_LE(errors->router_weights, checkpoint.weight_slack * kWeightTolerance) << none.fixture;
}

// Without a mistake the same machinery gives the golden answers.
TEST(PlantedMistakesMachineryTest, WithoutOneEveryFixturePasses) {
  std::set<std::string> fixtures;
  for (const Mistake& mistake : AllMistakes()) fixtures.insert(mistake.fixture);
  for (const std::string& fixture : fixtures) {
    ExpectGolden({.fixture = fixture,
                  .edit_json = [](nlohmann::json&) {},
                  .edit_config = [](ModelConfig&) {},
                  .rename = [](WeightName name) { return name; },
                  .layer_of = [](WeightName, int layer) { return layer; },
                  .edit_weight = [](const WeightValues&) {},
                  .edit_file = [](std::string*) {}});
  }
  ExpectGolden({.fixture = "deepseek_v3_negbias",
                .break_backend = [](Backend* backend) { return MakeBrokenRouter(backend, RouterFault::kNone); }});
}

TEST(PlantedMistakesMachineryTest, EveryFixtureHasOne) {
  std::set<std::string> planted;
  for (const Mistake& mistake : AllMistakes()) planted.insert(mistake.fixture);
  for (auto* checkpoints : {GoldenCheckpoints, EncoderDecoderCheckpoints}) {
    for (const GoldenCheckpoint& checkpoint : checkpoints()) {
      EXPECT_TRUE(planted.contains(checkpoint.name)) << checkpoint.name;
    }
  }
}

}  // namespace
}  // namespace switchyard::testing
