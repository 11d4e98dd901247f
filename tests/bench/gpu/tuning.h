// Measures the providers of the experts' products and writes the table by which the backend chooses
// (engine/backend/cuda/expert_gemm_table.h says what is in it).
#ifndef SWITCHYARD_TESTS_BENCH_GPU_TUNING_H_
#define SWITCHYARD_TESTS_BENCH_GPU_TUNING_H_

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "engine/backend/cuda/expert_gemm_kinds.h"
#include "tests/bench/gpu/bench.h"
#include "tests/bench/gpu/routing.h"

namespace switchyard::bench {

// The providers that take so many tokens, on one routing.
struct TuningCase {
  int64_t tokens = 0;
  Skew skew = Skew::kUniform;
  double rows_per_expert = 0.0;
  std::map<std::string, double> us;  // medians by provider
};

struct TunedBucket {
  int64_t max_tokens = 0;
  std::string provider;
};
struct TunedShape {
  std::string always;
  std::vector<TunedBucket> fastest;
};

// A number of tokens stands for all from the number before it on, with the mean of its routings. `fastest` is the
// quickest that may serve those steps, neighbours of one provider put together; `always` the batch_invariant one with
// the smallest geometric mean over all numbers of tokens, so that every doubling weighs the same. Providers that a case
// lacks are out for its number of tokens. REQUIRES: cases by ascending tokens; every case has native.
TunedShape ChooseProviders(std::span<const TuningCase> cases, std::span<const cuda::ExpertGemmKind> kinds);

// Measures the models of the options, and writes options.tune unless a result was wrong. `command` goes into the file.
void TuneExpertGemms(Bench* bench, const std::string& command);

}  // namespace switchyard::bench

#endif  // SWITCHYARD_TESTS_BENCH_GPU_TUNING_H_
