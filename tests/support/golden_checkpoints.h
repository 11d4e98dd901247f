// The tiny random checkpoints of tests/golden, and how near fp32 has to come to their golden answers.
#ifndef SWITCHYARD_TESTS_SUPPORT_GOLDEN_CHECKPOINTS_H_
#define SWITCHYARD_TESTS_SUPPORT_GOLDEN_CHECKPOINTS_H_

#include <cstdint>
#include <ostream>
#include <string>
#include <vector>

namespace switchyard::testing {

inline constexpr double kLogitTolerance = 1e-5;   // of the largest |logit|
inline constexpr double kWeightTolerance = 1e-6;  // of router weights, as a share of the factor that scales them

struct GoldenCheckpoint {
  std::string name;
  std::string folder;
  // As its config.json has them; for quantised ones with the method: "gpt_oss mxfp4".
  std::string family;
  // Multiply the tolerances in families that amplify rounding, for instance by attention without 1 / sqrt(d): there the
  // specification itself, evaluated in fp32, is off by up to 5e-6 of the largest logit and 2.8e-6 in router weights,
  // elsewhere by 9e-7 and 7e-7. Among the further checkpoints are wider ones, with weights that are off by up to 9e-7:
  // twice the tolerance of weights for all of them (tests/golden/float32_errors.py).
  double logit_slack = 1.0;
  double weight_slack = 1.0;
  int32_t max_model_len = 0;  // 0: the model's

  std::string golden_file() const { return folder + "/golden.safetensors"; }
};

void PrintTo(const GoldenCheckpoint& checkpoint, std::ostream* out);

// One of tests/golden/fixtures.
GoldenCheckpoint GoldenFixture(const std::string& name);
// The fixtures of decoders; or, where SWITCHYARD_GOLDEN_FOLDER is in the environment, those that are in that folder.
std::vector<GoldenCheckpoint> GoldenCheckpoints();
// Likewise, of encoder-decoders.
std::vector<GoldenCheckpoint> EncoderDecoderCheckpoints();
// Whether that variable is there: then these are the further checkpoints that tests/golden/generate.py has made.
bool IsGoldenFolderGiven();

}  // namespace switchyard::testing

#endif  // SWITCHYARD_TESTS_SUPPORT_GOLDEN_CHECKPOINTS_H_
