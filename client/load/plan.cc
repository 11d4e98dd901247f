#include "client/load/plan.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>

#include "absl/strings/str_cat.h"

namespace switchyard {
namespace {

// The distributions of <random> differ between standard libraries; these do not.
class Random {
 public:
  // Streams of one seed are independent, so that e.g. another prompt length leaves the send times as they are.
  Random(uint64_t seed, uint32_t stream) {
    std::seed_seq sequence{static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32), stream};
    engine_.seed(sequence);
  }

  uint64_t Bits() { return engine_(); }
  // In [0, 1).
  double Uniform() { return static_cast<double>(engine_() >> 11) * 0x1p-53; }
  // In [low, high].
  int UniformInt(int low, int high) {
    return low + static_cast<int>(Uniform() * (static_cast<double>(high) - low + 1));
  }
  double Exponential(double mean) { return -mean * std::log1p(-Uniform()); }

 private:
  std::mt19937_64 engine_;
};

enum Stream : uint32_t { kArrivals = 1, kLengths, kTokens, kSeeds, kTexts };

absl::Status Validate(const LoadShape& shape, const PromptSource& source) {
  if (shape.num_prompts < 1) return absl::InvalidArgumentError("num_prompts is below 1");
  if (shape.output_len < 1) return absl::InvalidArgumentError("output_len is below 1");
  if (source.texts.empty() && shape.input_len < 1) return absl::InvalidArgumentError("input_len is below 1");
  if (shape.random_prefix_len < 0) return absl::InvalidArgumentError("random_prefix_len is below 0");
  if (!(shape.random_range_ratio >= 0 && shape.random_range_ratio < 1)) {
    return absl::InvalidArgumentError(
        absl::StrCat("random_range_ratio is ", shape.random_range_ratio, "; allowed are 0 to below 1"));
  }
  if (!(shape.request_rate > 0)) {
    return absl::InvalidArgumentError(absl::StrCat("request_rate is ", shape.request_rate, "; it must be above 0"));
  }
  return absl::OkStatus();
}

std::vector<int32_t> UsableIds(const PromptSource& source) {
  std::vector<int32_t> ids(static_cast<size_t>(std::max(source.vocab_size, 0)));
  std::iota(ids.begin(), ids.end(), 0);
  for (const int32_t excluded : source.excluded_ids)
    ids.erase(std::remove(ids.begin(), ids.end(), excluded), ids.end());
  return ids;
}

int DrawLength(int mean, double ratio, Random* random) {
  const int low = std::max(1, static_cast<int>(std::floor(mean * (1 - ratio))));
  return random->UniformInt(low, std::max(low, static_cast<int>(std::ceil(mean * (1 + ratio)))));
}

std::vector<int32_t> DrawTokens(int count, const std::vector<int32_t>& ids, Random* random) {
  std::vector<int32_t> tokens(static_cast<size_t>(count));
  for (int32_t& token : tokens)
    token = ids[static_cast<size_t>(random->UniformInt(0, static_cast<int>(ids.size()) - 1))];
  return tokens;
}

void Shuffle(std::vector<std::string>* texts, Random* random) {
  for (size_t i = texts->size(); i > 1; --i) {
    std::swap((*texts)[i - 1], (*texts)[static_cast<size_t>(random->UniformInt(0, static_cast<int>(i) - 1))]);
  }
}

}  // namespace

absl::StatusOr<std::vector<PlannedRequest>> PlanRequests(const LoadShape& shape, const PromptSource& source) {
  if (absl::Status status = Validate(shape, source); !status.ok()) return status;
  const std::vector<int32_t> ids = UsableIds(source);
  if (source.texts.empty() && ids.size() < 2) {
    return absl::InvalidArgumentError(absl::StrCat("vocab_size is ", source.vocab_size, ": too small to draw prompts"));
  }
  Random arrivals(shape.seed, kArrivals), lengths(shape.seed, kLengths), tokens(shape.seed, kTokens),
      seeds(shape.seed, kSeeds), order(shape.seed, kTexts);
  std::vector<std::string> texts = source.texts;
  Shuffle(&texts, &order);
  const std::vector<int32_t> prefix =
      texts.empty() ? DrawTokens(shape.random_prefix_len, ids, &tokens) : std::vector<int32_t>();

  std::vector<PlannedRequest> plan(static_cast<size_t>(shape.num_prompts));
  double send_seconds = 0;
  for (size_t i = 0; i < plan.size(); ++i) {
    PlannedRequest& request = plan[i];
    request.send_seconds = send_seconds;
    send_seconds += std::isinf(shape.request_rate) ? 0 : arrivals.Exponential(1 / shape.request_rate);
    const int input_len = DrawLength(shape.input_len, shape.random_range_ratio, &lengths);
    request.output_len = DrawLength(shape.output_len, shape.random_range_ratio, &lengths);
    request.seed = seeds.Bits();
    if (!texts.empty()) {
      request.text = texts[i % texts.size()];
      continue;
    }
    request.token_ids = prefix;
    const std::vector<int32_t> rest = DrawTokens(input_len, ids, &tokens);
    request.token_ids.insert(request.token_ids.end(), rest.begin(), rest.end());
  }
  return plan;
}

}  // namespace switchyard
