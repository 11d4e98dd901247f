// What the serving loop counts and a scrape shows: plain numbers, copied as a whole for a scrape.
//
// Not thread-safe: its owner locks.
#ifndef SWITCHYARD_SERVER_METRICS_SERVING_COUNTERS_H_
#define SWITCHYARD_SERVER_METRICS_SERVING_COUNTERS_H_

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "engine/step.h"
#include "server/metrics/expert_load.h"
#include "server/metrics/families.h"
#include "server/metrics/histogram.h"
#include "server/scheduler/serving_loop.h"

namespace switchyard {

enum class ExpertDetail : uint8_t {
  kOff,    // no series per layer or expert
  kLayer,  // the balance of each layer
  kTopk,   // and its four busiest experts
  kFull,   // and each expert of each layer
};

// off | layer | topk | full, or auto: full up to 4,096 pairs of layer and expert, else topk.
ExpertDetail ParseExpertDetail(const std::string& name, int64_t num_layers_times_experts);

inline Histogram EmptyHistogram(Family family) { return Histogram(InfoOf(family).edges); }

// What the serving loop writes and a scrape reads.
struct ServingCounters {
  SchedulerCounts counts;
  uint64_t steps = 0;
  uint64_t prefill_tokens = 0;
  uint64_t decode_tokens = 0;
  double step_seconds_sum = 0.0;
  std::map<std::string, double> start_seconds;

  // One per family of the request and step histograms.
  Histogram time_to_first_token = EmptyHistogram(Family::kTimeToFirstToken);
  Histogram inter_token_latency = EmptyHistogram(Family::kInterTokenLatency);
  Histogram time_per_output_token = EmptyHistogram(Family::kTimePerOutputToken);
  Histogram e2e_latency = EmptyHistogram(Family::kE2eLatency);
  Histogram queue_time = EmptyHistogram(Family::kQueueTime);
  Histogram prefill_time = EmptyHistogram(Family::kPrefillTime);
  Histogram decode_time = EmptyHistogram(Family::kDecodeTime);
  Histogram request_prompt_tokens = EmptyHistogram(Family::kRequestPromptTokens);
  Histogram request_generation_tokens = EmptyHistogram(Family::kRequestGenerationTokens);
  Histogram request_preemptions = EmptyHistogram(Family::kRequestPreemptions);
  Histogram step_seconds = EmptyHistogram(Family::kStepSeconds);
  Histogram step_tokens = EmptyHistogram(Family::kStepTokensHistogram);
  Histogram step_sequences = EmptyHistogram(Family::kStepSequences);
  Histogram expert_rows = EmptyHistogram(Family::kExpertBatchRows);

  // Known once the model is loaded.
  std::optional<ExpertLoad> expert_load;
  ExpertDetail detail = ExpertDetail::kOff;
  std::vector<int32_t> moe_layers;
  std::string backend;
  std::vector<std::string> expert_gemms;
  std::vector<uint64_t> expert_gemm_layers;  // of each of them
  int32_t block_size = 0;
  int32_t num_kv_blocks = 0;
  int64_t num_nonfinite_weights = 0;
  std::vector<Histogram> expert_seconds;  // [num_experts] with kFull, else one for all
  std::vector<Histogram> layer_seconds;   // [num_moe_layers]; empty with kOff

  // REQUIRES: `expert_load` is set, and its layers and experts and the expert_gemms are those of `stats`.
  void AddExpertSteps(const StepStats& stats);
};

}  // namespace switchyard

#endif  // SWITCHYARD_SERVER_METRICS_SERVING_COUNTERS_H_
