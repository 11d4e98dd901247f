// Drives a Scheduler step by step with scripted tokens, as an engine and the serving loop would.
#ifndef SWITCHYARD_TESTS_SERVER_SCHEDULER_SCHEDULER_DRIVER_H_
#define SWITCHYARD_TESTS_SERVER_SCHEDULER_SCHEDULER_DRIVER_H_

#include <gtest/gtest.h>

#include <deque>
#include <map>
#include <memory>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "server/scheduler/scheduler.h"
#include "tests/server/scheduler/recording_sink.h"

namespace switchyard {

inline constexpr int32_t kStopId = 900, kEosId = 901;

inline SchedulerOptions SmallOptions() {
  SchedulerOptions options;
  options.max_num_seqs = 4;
  options.max_num_batched_tokens = 16;
  options.max_model_len = 64;
  options.block_size = 4;
  options.num_kv_blocks = 64;
  options.enable_prefix_caching = false;
  return options;
}

inline std::vector<int32_t> Prompt(int32_t num_tokens, int32_t first = 1) {
  std::vector<int32_t> prompt(num_tokens);
  std::iota(prompt.begin(), prompt.end(), first);
  return prompt;
}

// Each sequence gets 100, 101, 102, ... unless `next_token` says otherwise.
class Driver {
 public:
  explicit Driver(const SchedulerOptions& options)
      : scheduler(options, [this](const Request& request, const FinishedEvent&) { finished.push_back(request.id); }) {}

  RecordingSink* Add(uint64_t id, std::vector<int32_t> prompt, int32_t max_tokens, int32_t priority = 0,
                     TimePoint deadline = TimePoint::max(), const SamplingParams& sampling = {}) {
    auto sink = std::make_shared<RecordingSink>();
    sinks[id] = sink;
    auto request = MakeRequest(id, std::move(prompt), max_tokens, sink);
    request->priority = priority;
    request->arrival = now;
    request->deadline = deadline;
    request->sampling = sampling;
    request->sampling.stop_token_ids = {kStopId, kEosId};
    request->eos_token_ids = {kEosId};
    scheduler.Add(std::move(request), now);
    return sink.get();
  }

  // "1:4 2:1s 3:~0s" = four tokens of sequence 1, one of sequence 2 and sample, and for sequence 3 the token that the
  // step in flight samples for its slice 0; "" = nothing to run.
  std::string Plan() { return Launch(scheduler.Plan(now)); }
  std::string PlanAhead() { return Launch(scheduler.PlanAhead(now)); }
  std::string Step() {
    const std::string text = Plan();
    if (!text.empty()) Apply();
    return text;
  }
  // Of the oldest step in flight.
  void Apply() {
    now += std::chrono::seconds(1);
    const StepOutput output = std::move(outputs.front());
    outputs.pop_front();
    scheduler.Apply(output, now);
  }
  void RunToEnd() {
    for (int i = 0; i < 10'000 && !Step().empty(); ++i) {
    }
    EXPECT_TRUE(scheduler.idle());
  }
  SchedulerCounts counts() const { return scheduler.counts(now); }

  TimePoint now{std::chrono::seconds(1000)};
  std::map<uint64_t, std::shared_ptr<RecordingSink>> sinks;
  std::map<uint64_t, int32_t> next_token;
  uint64_t nonfinite = 0;
  std::deque<StepOutput> outputs;  // of the steps in flight
  std::vector<uint64_t> finished;
  Scheduler scheduler;

 private:
  std::string Launch(const StepBatch* batch) {
    std::string text;
    if (batch == nullptr) return text;
    StepOutput output;
    for (const SequenceSlice& slice : batch->slices) {
      const bool unknown = slice.tokens.front() < 0;
      text += (text.empty() ? "" : " ") + std::to_string(slice.sequence_id) + ":";
      text += unknown ? "~" + std::to_string(~slice.tokens.front()) : std::to_string(slice.tokens.size());
      if (!slice.sample) continue;
      text += "s";
      SampledToken token;
      token.sequence_id = slice.sequence_id;
      const auto scripted = next_token.find(slice.sequence_id);
      const bool has_script = scripted != next_token.end();
      const int32_t num_output = static_cast<int32_t>(slice.output_tokens.size()) + unknown;
      token.token = has_script ? scripted->second : 100 + num_output;
      token.finite = slice.sequence_id != nonfinite;
      output.tokens.push_back(token);
    }
    outputs.push_back(std::move(output));
    return text;
  }
};

}  // namespace switchyard

#endif  // SWITCHYARD_TESTS_SERVER_SCHEDULER_SCHEDULER_DRIVER_H_
