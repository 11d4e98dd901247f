// Runs one scenario on the real Scheduler, KvBlockPool and RequestQueue with a fake clock, a fake engine that models
// the KV cache, and fake clients. Same scenario, same run, to the last step.
#ifndef SWITCHYARD_TESTS_SIMULATION_SIMULATION_H_
#define SWITCHYARD_TESTS_SIMULATION_SIMULATION_H_

#include <cstdint>
#include <optional>
#include <set>

#include "tests/simulation/checker.h"
#include "tests/simulation/scenario.h"

namespace switchyard::simulation {

// What a run covered, so that a green result can be believed.
struct Coverage {
  int64_t requests = 0;
  int64_t refused = 0;
  int64_t steps = 0;
  int64_t slices = 0;
  int64_t ahead_steps = 0;    // planned while one was in flight
  int64_t wasted_slices = 0;  // in one of these, of a sequence that then ended
  SchedulerCounts counts;  // only the totals are summed

  void Add(const SchedulerCounts& counts);
};

struct RunOptions {
  std::set<uint64_t> kept;  // ids of the clients that come; empty: all
  bool trace = false;       // prints every step to stdout
};

// The first violation, if any. Adds to `coverage`.
std::optional<Violation> Simulate(const Scenario& scenario, const RunOptions& options, Coverage& coverage);

}  // namespace switchyard::simulation

#endif  // SWITCHYARD_TESTS_SIMULATION_SIMULATION_H_
