// One simulated day in the life of the scheduler: settings, clients and faults, all drawn from one seed.
#ifndef SWITCHYARD_TESTS_SIMULATION_SCENARIO_H_
#define SWITCHYARD_TESTS_SIMULATION_SCENARIO_H_

#include <chrono>
#include <cstdint>
#include <vector>

#include "server/scheduler/request.h"
#include "server/scheduler/scheduler.h"

namespace switchyard::simulation {

inline constexpr TimePoint kStart{std::chrono::hours(1)};
inline constexpr int kNever = 0;

// A client, what it asks for and how it behaves. Counters start at 1; kNever: it does not happen.
struct Client {
  uint64_t id = 0;  // index + 1
  std::vector<int32_t> prompt;
  SamplingParams sampling;
  std::vector<int32_t> eos_token_ids;
  int32_t max_tokens = 1;
  int32_t priority = 0;
  bool allow_prefix_reuse = true;
  TimePoint arrival;
  TimePoint deadline = TimePoint::max();

  TimePoint cancel_time = TimePoint::max();  // through the queue, in whatever phase it is
  int cancel_at_token = kNever;              // through the queue, from inside the sink
  int cancel_in_flight_of_slice = kNever;    // between Plan and Apply of its nth slice
  int cancel_at_preemption = kNever;         // as soon as it was preempted so often
  int verdict_at_token = kNever;
  SinkVerdict verdict = SinkVerdict::kContinue;

  // What it gets when it runs alone to its end.
  std::vector<int32_t> alone_tokens;
  FinishReason alone_reason = FinishReason::kLength;
  TerminalStatus alone_status = TerminalStatus::kOk;
};

struct Scenario {
  uint64_t seed = 0;
  SchedulerOptions options;
  int64_t queue_max_requests = 0;
  int64_t queue_max_tokens = 0;
  uint64_t nonfinite_one_in = 0;
  std::chrono::microseconds min_step_time{0};
  std::chrono::microseconds max_step_time{0};
  int steps_in_flight = 1;      // that the engine takes
  int fail_step = kNever;       // the engine fails in this step
  bool fails_at_launch = false;  // otherwise when the step is collected
  TimePoint drain_time = TimePoint::max();
  TimePoint drain_deadline = TimePoint::max();
  std::vector<Client> clients;  // by arrival
};

Scenario MakeScenario(uint64_t seed);

}  // namespace switchyard::simulation

#endif  // SWITCHYARD_TESTS_SIMULATION_SCENARIO_H_
