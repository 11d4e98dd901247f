// What a golden.safetensors has about the prompts of one checkpoint, and how far a model's answers are from it.
#ifndef SWITCHYARD_TESTS_SUPPORT_GOLDEN_ANSWERS_H_
#define SWITCHYARD_TESTS_SUPPORT_GOLDEN_ANSWERS_H_

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "engine/backend/backend.h"
#include "tests/support/golden_file.h"

namespace switchyard::testing {

// The largest over everything compared; infinite where a number is none.
struct GoldenErrors {
  double logits = 0.0;          // of the largest |logit|
  std::string worst_logit;      // "position 3, token 17"
  double router_weights = 0.0;  // as a share of the factor that scales them; of choices up to the first wrong one
  std::string wrong_expert;     // the first choice that is not the golden one; empty: none
};

class GoldenAnswers {
 public:
  explicit GoldenAnswers(const std::string& path) : file_(path) {}

  std::vector<int32_t> Ids(const std::string& name) const { return file_.GetIds(name); }

  // actual: [any rows, vocabulary], the first row at `position` of the tensor `name`.
  void CompareLogits(const std::string& name, std::span<const float> actual, int32_t position,
                     GoldenErrors* errors) const;
  // routing: of the tokens from `position` on; `router` is a prefix as "layers.3.router", `scale` multiplies weights.
  void CompareRouting(const std::string& router, const Routing& routing, double scale, int32_t position,
                      GoldenErrors* errors) const;

 private:
  const GoldenFile file_;
};

}  // namespace switchyard::testing

#endif  // SWITCHYARD_TESTS_SUPPORT_GOLDEN_ANSWERS_H_
