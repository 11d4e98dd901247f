// Watches one simulated run from outside and knows the truth about every client. Each check has a short name, which a
// failing run prints.
//
// Each step:
//   budget, max_num_seqs, prefill_bound   the step's limits
//   slice, sample, table                  a slice shows the sequence's true tokens and samples only after the last
//   shared_write                          no slot is written that somebody else holds or may reuse
//   decode_stalled, prefill_stalled       every running decode and the best running prompt take part
//   overtaken, protected_claims           admission keeps the order of rank; protected ones fit together
//   deadline, idle, liveness              nobody outlives a deadline, nothing waits for nothing, everybody progresses
//   refcount, conservation, running       holders = references, free + used = all, the running list is sane
//   in_flight                             a step's blocks and sequences stay until it is over
//   published                             no block is offered for reuse before the step that filled it was applied
//   ahead_refused, ahead_null             a step is planned ahead where it can be; otherwise nothing changes
//   past_end, wasted                      nobody who certainly ends before has a slice in it; others waste one at most
//   counts                                the scheduler's numbers = the numbers seen from outside
// Each push: queue_bound, queue_closed, queue_refusal, queue_twice.   Each end: once, output, reason, event.
// Each cancel: cancel_at_once.   Each failure: fail_all.   At the end: all_ended, all_free.
#ifndef SWITCHYARD_TESTS_SIMULATION_CHECKER_H_
#define SWITCHYARD_TESTS_SIMULATION_CHECKER_H_

#include <cstdint>
#include <deque>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "server/scheduler/scheduler.h"
#include "tests/simulation/scenario.h"

namespace switchyard::simulation {

struct Violation {
  std::string check;
  std::string where;
};

// What a client has seen and where it stands, from outside.
struct ClientState {
  bool pushed = false;          // the queue took it
  bool added = false;           // the scheduler has it
  uint64_t arrival_number = 0;  // order of adding
  bool running = false;
  bool was_running = false;  // before the last Plan
  bool was_decode = false;
  bool cancel_reached = false;  // the scheduler was told
  bool was_going_on = false;  // and gets a token whatever the steps in flight sample
  int32_t num_slices = 0;
  int32_t num_wasted = 0;
  int32_t num_preemptions = 0;
  int32_t num_computed = 0;  // by all steps that were planned
  int32_t max_computed = 0;
  int32_t num_applied = 0;   // by those that were applied
  int32_t num_sampling = 0;  // tokens that steps in flight sample
  int32_t sample_index = 0;  // where the newest of these stands in the output of its step
  int32_t num_reused = 0;    // first_position of its first slice
  int64_t last_progress_step = 0;
  std::vector<int32_t> tokens;  // delivered
  int num_finished = 0;
  FinishedEvent event;

  bool live() const { return added && num_finished == 0; }
};

class Checker {
 public:
  // Both outlive the checker.
  Checker(const Scenario& scenario, const Scheduler& scheduler);

  const std::optional<Violation>& violation() const { return violation_; }
  const ClientState& state(uint64_t id) const { return states_[id - 1]; }
  int64_t num_steps() const { return step_; }
  int64_t num_ahead_steps() const { return num_ahead_steps_; }
  int64_t num_wasted_slices() const { return num_wasted_; }

  // Told by the simulation.
  void OnPush(uint64_t id, bool taken, bool closed);
  void OnAdd(uint64_t id);
  void OnCancelled(uint64_t id);  // Scheduler::Cancel returned
  void BeforeFailAll();
  void AfterFailAll();
  void BeforePlan(TimePoint now);
  void AfterPlan(const StepBatch* batch, TimePoint now);
  void BeforeCollect(const StepBatch& batch);
  void AfterStep(TimePoint now);
  void AtEnd(TimePoint now);

  // Told by the clients' sinks.
  void OnToken(uint64_t id, int32_t token, SinkVerdict verdict);
  void OnFinished(uint64_t id, const FinishedEvent& event, TimePoint now);

 private:
  struct PlannedSlice {
    uint64_t id = 0;
    int32_t end = 0;          // position
    int32_t recomputing = 0;  // tokens that were computed before a preemption
    bool sample = false;
    bool wasted = false;      // the sequence ended with the step before
    std::vector<int32_t> block_table;
  };
  struct PlannedStep {
    std::vector<PlannedSlice> slices;
    int32_t num_sampled = 0;
    bool samples_on_host = false;

    bool Has(uint64_t id) const;
  };

  // Fixes the first violation: later ones are its consequences.
  void Expect(bool condition, const char* check, uint64_t id = 0);

  bool IsProtected(const ClientState& state) const;
  std::pair<int64_t, uint64_t> RankOf(uint64_t id) const;
  int32_t NumTokens(uint64_t id) const;  // prompt and delivered
  int32_t NumBlocks(int32_t num_tokens) const;
  int32_t WorstCaseBlocks(uint64_t id) const;
  bool GoesOn(uint64_t id) const;
  void CheckRefusal(TimePoint now);
  void CheckSlices(const StepBatch& batch);
  void CheckSlice(const SequenceSlice& slice, PlannedStep& step);
  void FollowApplied(const PlannedStep& step);
  void FollowEnded();
  void CheckWrites(const SequenceSlice& slice);
  void FollowRunning();
  void CheckProgress(const StepBatch* batch);
  void CheckAdmission();
  void CheckPool();
  void CheckCounts(TimePoint now);
  bool IsJustified(const Client& client, const FinishedEvent& event, TimePoint now) const;

  const Scenario& scenario_;
  const Scheduler& scheduler_;
  std::vector<ClientState> states_;
  std::vector<int32_t> holders_;  // scratch, per block
  std::deque<PlannedStep> in_flight_;
  SchedulerCounts before_;  // the last Plan
  std::optional<Violation> violation_;
  int64_t step_ = 0;
  int64_t liveness_bound_ = 0;  // steps
  uint64_t num_added_ = 0;
  bool may_fail_ = false;
  int64_t num_delivered_ = 0;
  int64_t num_recomputed_ = 0;
  int64_t num_preempted_ = 0;
  int64_t num_ahead_steps_ = 0;
  int64_t num_wasted_ = 0;
};

}  // namespace switchyard::simulation

#endif  // SWITCHYARD_TESTS_SIMULATION_CHECKER_H_
