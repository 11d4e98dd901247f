#include "tests/support/golden_answers.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "absl/strings/str_cat.h"
#include "engine/base/status_macros.h"

namespace switchyard::testing {
namespace {

double ErrorOf(double actual, double golden) {
  const double error = std::fabs(actual - golden);
  return std::isnan(error) ? std::numeric_limits<double>::infinity() : error;
}

}  // namespace

void GoldenAnswers::CompareLogits(const std::string& name, std::span<const float> actual, int32_t position,
                                  GoldenErrors* errors) const {
  const GoldenTensor& golden = file_.Get(name);
  const size_t vocab = static_cast<size_t>(golden.shape.at(1)), first = static_cast<size_t>(position) * vocab;
  CHECK(first + actual.size() <= golden.values.size());
  double largest = 0.0;
  for (const double value : golden.values) largest = std::max(largest, std::fabs(value));
  for (size_t i = 0; i < actual.size(); ++i) {
    const double error = ErrorOf(actual[i], golden.values[first + i]) / largest;
    if (error <= errors->logits) continue;
    errors->logits = error;
    errors->worst_logit = absl::StrCat("position ", (first + i) / vocab, ", token ", i % vocab);
  }
}

void GoldenAnswers::CompareRouting(const std::string& router, const Routing& routing, double scale, int32_t position,
                                   GoldenErrors* errors) const {
  const bool has = file_.Has(router + ".ids");
  const std::vector<int32_t> ids = has ? file_.GetIds(router + ".ids") : std::vector<int32_t>();
  for (int32_t i = 0; i < routing.num_tokens * routing.top_k && errors->wrong_expert.empty(); ++i) {
    const size_t g = static_cast<size_t>(position * routing.top_k + i);
    if (g >= ids.size() || routing.expert_ids[i] != ids[g]) {
      errors->wrong_expert = absl::StrCat(router, ", position ", position + i / routing.top_k, ", rank ",
                                          i % routing.top_k, ": expert ", routing.expert_ids[i]);
      return;
    }
    const double error = ErrorOf(routing.expert_weights[i], file_.Get(router + ".weights").values[g]) / scale;
    errors->router_weights = std::max(errors->router_weights, error);
  }
}

}  // namespace switchyard::testing
