#include <cmath>
#include <limits>

#include "tests/bench/gpu/tuning.h"

namespace switchyard::bench {
namespace {

constexpr double kNever = std::numeric_limits<double>::infinity();

// Mean over the routings of one number of tokens; infinite where one of them lacks the provider.
using Means = std::map<std::string, double>;

std::map<int64_t, Means> MeansByTokens(std::span<const TuningCase> cases, std::span<const cuda::ExpertGemmKind> kinds) {
  std::map<int64_t, int> routings;
  for (const TuningCase& c : cases) ++routings[c.tokens];
  std::map<int64_t, Means> means;
  for (const TuningCase& c : cases) {
    for (const cuda::ExpertGemmKind& kind : kinds) {
      const auto found = c.us.find(kind.name);
      means[c.tokens][kind.name] += found == c.us.end() ? kNever : found->second / routings[c.tokens];
    }
  }
  return means;
}

}  // namespace

TunedShape ChooseProviders(std::span<const TuningCase> cases, std::span<const cuda::ExpertGemmKind> kinds) {
  TunedShape shape;
  int64_t first = 1;
  std::map<std::string, double> log_sums;
  for (const auto& [tokens, means] : MeansByTokens(cases, kinds)) {
    const cuda::ExpertGemmKind* best = nullptr;
    for (const cuda::ExpertGemmKind& kind : kinds) {
      log_sums[kind.name] += std::log(means.at(kind.name));
      if (!cuda::ServesTokens(kind, first, tokens)) continue;
      if (best == nullptr || means.at(kind.name) < means.at(best->name)) best = &kind;
    }
    if (!shape.fastest.empty() && shape.fastest.back().provider == best->name) {
      shape.fastest.back().max_tokens = tokens;
    } else {
      shape.fastest.push_back({tokens, best->name});
    }
    first = tokens + 1;
  }
  double least = kNever;
  for (const cuda::ExpertGemmKind& kind : kinds) {
    const bool allowed = kind.batch_invariant && cuda::ServesTokens(kind, 1, cuda::kAnyTokens);
    if (!allowed || log_sums[kind.name] >= least) continue;
    least = log_sums[kind.name];
    shape.always = kind.name;
  }
  return shape;
}

}  // namespace switchyard::bench
