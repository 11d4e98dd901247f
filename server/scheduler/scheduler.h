// Decides what runs in each step. Pure policy: no thread, no lock, no clock, no engine; a test can drive every turn.
//
//   Add(request) --> waiting --admit--> running --finish--> the sink's OnFinished
//                       ^                  |
//                       '---- preempt -----'     (KV dropped, tokens kept, recomputed later through prefill chunks)
//
//   loop:  batch = Plan(now);  output = engine(batch);  Apply(output, now)
//
// Where the engine takes a second step before it has answered the first, the loop plans that one ahead:
//
//   Plan 1 | PlanAhead 2 | Apply 1 | PlanAhead 3 | Apply 2 | ...        the device always has its next step
//
//   step 1   A:[t41]  B:[t7]        samples A's t42 and B's t8, known at Apply 1
//   step 2   A:[~0]   B:[~1]        the token that step 1 samples for its slice 0, and 1
//
// Only smooth sailing is planned ahead, see PlanAhead. What ends at Apply 1 with a slice in step 2 is told so at once;
// its blocks, and all that step 2 views, stay until Apply 2, which drops the token.
//
// A step under max_num_batched_tokens = 8, max_prefill_tokens_while_decoding = 4:
//
//   running A (decode), B (decode), C (prompt, 9 left), waiting D     ->   A:1  B:1  C:4   next: A:1 B:1 C:4, C:1 + D:3
//
// Rules, in this order:
//   1. What is past its deadline ends; it never gets another step.
//   2. Every running decode gets its one token, best rank first. A decode that needs a block from an empty pool takes
//      it from the sequence of the worst rank, which is preempted (possibly the decode itself).
//   3. Prompts get chunks, best rank first: running ones and, as long as blocks and slots last, waiting ones. The head
//      of the waiting order is never overtaken by a smaller one behind it. Nobody is admitted in a step that preempts.
//   4. A sequence is admitted with the blocks of all its tokens and leaves headroom: half of what the running ones are
//      expected to grow by, going by the share of max_tokens that recent ones used, and at least one block for each.
//      Blocks for new tokens are taken when needed.
//      The tokens of an encoder run at once: a sequence that has some waits for a step with room for all of them.
//   5. After `max_preemptions` a sequence is protected: it ranks first and is never preempted again. Protected ones are
//      admitted only while the blocks that they could need to their ends fit the pool together; until then others pass.
//
// Rank: protected first; then, under the priority policy, arrival + priority * priority_step; then order of arrival.
//
// Invariants (checked after every step by tests/simulation): only running sequences hold blocks, and ended ones whose
// slice is in flight; a block is written only while one sequence holds it, and is offered for reuse only after the step
// that filled it was applied; every request gets exactly one terminal event; a request preempted, planned ahead or with
// a reused prefix gives the tokens that it gives alone.
//
// Threads: one at a time, the serving loop's.
#ifndef SWITCHYARD_SERVER_SCHEDULER_SCHEDULER_H_
#define SWITCHYARD_SERVER_SCHEDULER_SCHEDULER_H_

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <set>
#include <span>
#include <unordered_map>
#include <utility>
#include <vector>

#include "engine/step.h"
#include "server/scheduler/kv_block_pool.h"
#include "server/scheduler/request.h"
#include "server/scheduler/scheduler_options.h"
#include "server/scheduler/sequence.h"

namespace switchyard {

// Gauges and running totals, by value.
struct SchedulerCounts {
  // Now.
  int32_t waiting = 0;  // admitted by the queue but not running, preempted ones included
  int32_t running = 0;
  int64_t waiting_tokens = 0;           // tokens that the waiting ones have to run before their next output
  double oldest_waiting_seconds = 0.0;  // since its arrival
  int32_t kv_blocks_total = 0;
  int32_t kv_blocks_used = 0;    // held by running sequences, and by steps in flight
  int32_t kv_blocks_cached = 0;  // held by none, but with a prefix that can be reused
  // Since the start.
  int64_t admitted_total = 0;  // = sum of finished_total + waiting + running
  std::array<int64_t, kNumFinishReasons> finished_total{};
  std::array<int64_t, kNumPhases> cancelled_total{};  // finished as kCancelled, by the phase it happened in
  std::array<int64_t, kNumPhases> deadline_total{};   // finished as kDeadline, by the phase it happened in
  int64_t preemptions_total = 0;
  int64_t prompt_tokens_total = 0;        // of sequences that started to run, reused ones included
  int64_t prefix_query_tokens_total = 0;  // prompt tokens looked up at first admission
  int64_t prefix_hit_tokens_total = 0;    // of these, found
  int64_t recomputed_tokens_total = 0;    // run again because of a preemption
  int64_t generation_tokens_total = 0;    // delivered to sinks

  bool operator==(const SchedulerCounts&) const = default;
};

class Scheduler {
 public:
  // Told of each end just before the sink is; `request` is still whole. May be empty.
  using FinishedCallback = std::function<void(const Request& request, const FinishedEvent& event)>;

  // REQUIRES: ValidateSchedulerOptions(options) is OK.
  explicit Scheduler(const SchedulerOptions& options, FinishedCallback on_finished = {});
  Scheduler(const Scheduler&) = delete;
  Scheduler& operator=(const Scheduler&) = delete;

  // REQUIRES: a new id, CheckFits. A request that does not fit all the same ends at once as kUnavailable.
  void Add(std::unique_ptr<Request> request, TimePoint now);

  // Ends the request as cancelled: at once, or in Apply when a step in flight reads its tokens. Unknown ids: no-op.
  void Cancel(uint64_t request_id, TimePoint now);

  // The next step, or null when nothing can run. The batch and its views stay valid until its Apply, or FailAll.
  // REQUIRES: no step in flight.
  const StepBatch* Plan(TimePoint now);

  // The step after the one in flight, before that is applied, by the same rules; what ends with the token in flight
  // or is cancelled has no part in it. Null, and nothing changed, when it has to wait for the result: a deadline has
  // passed, a slice of the step in flight NeedsHostSampler, somebody would be preempted, or nothing can run.
  // REQUIRES: one step in flight.
  const StepBatch* PlanAhead(TimePoint now);

  // The oldest step in flight. REQUIRES: there is one.
  const StepBatch& oldest_step() const { return steps_[oldest_].batch; }

  // Takes the result of the oldest step in flight: hands tokens to the sinks, ends what is done, frees its blocks.
  // REQUIRES: a step in flight, and `output` has one token per slice with `sample`.
  void Apply(const StepOutput& output, TimePoint now);

  // Ends everything as kError with `status`; steps in flight are forgotten. REQUIRES: the engine runs none.
  void FailAll(TerminalStatus status, TimePoint now);

  bool idle() const { return sequences_.empty(); }
  // When Plan has to be called again even if nothing arrives; TimePoint::max() if never.
  TimePoint next_deadline() const { return deadlines_.empty() ? TimePoint::max() : deadlines_.begin()->first; }
  SchedulerCounts counts(TimePoint now) const;

  // For tests of the invariants.
  const std::vector<Sequence*>& running() const { return running_; }
  const KvBlockPool& pool() const { return pool_; }

 private:
  struct BetterRank {
    bool operator()(const Sequence* a, const Sequence* b) const { return a->rank < b->rank; }
  };

  struct Step {
    StepBatch batch;
    std::vector<Sequence*> sequences;         // whose slice batch.slices[i] is
    std::vector<int32_t> unknown_tokens;      // ~i, for the slices to view
    int32_t num_sampled = 0;                  // slices with `sample`
    bool samples_on_host = false;             // one of these NeedsHostSampler
    std::vector<std::unique_ptr<Sequence>> ended;  // while it was in flight, with a slice in it
  };

  // Plan.
  Step& NextStep() { return steps_[(oldest_ + steps_in_flight_) % steps_.size()]; }
  const StepBatch* PlanStep(TimePoint now);
  static bool GoesOn(const Sequence& sequence);
  bool NeedsBlock(const Sequence& sequence) const;
  bool HasBlocksForNextTokens() const;
  void EndPastDeadline(TimePoint now);
  bool PlanDecodes(TimePoint now);  // true: somebody was preempted
  bool TakeBlockForNextToken(Sequence* sequence);
  void Preempt(Sequence* victim);
  void PlanPrefills(bool admit, TimePoint now);
  Sequence* FirstEligibleWaiting() const;
  bool Admit(Sequence* sequence, int32_t budget);
  bool TakeBlocksForAllTokens(Sequence* sequence, int32_t budget);
  void FindPrefix(const Sequence& sequence);
  int32_t AdmissionHeadroom(const Sequence& sequence) const;
  void LearnOutputLength(const Sequence& sequence);
  void CountFirstAdmission(Sequence* sequence);
  void Schedule(Sequence* sequence, int32_t num_tokens, TimePoint now);
  std::span<const int32_t> TokensToRun(const Sequence& sequence, int32_t num_tokens, Step& step);

  // Apply.
  void ApplySlice(Sequence* sequence, int32_t num_tokens, const SampledToken* token, TimePoint now);
  void Advance(Sequence* sequence, int32_t num_tokens);
  bool ReusesPrefixes(const Sequence& sequence) const;
  void PublishFullBlocks(Sequence* sequence);
  void Deliver(Sequence* sequence, const SampledToken& token, TimePoint now);

  // Ends: the only ways out of running and waiting.
  void Finish(Sequence* sequence, FinishReason reason, TerminalStatus status, TimePoint now);
  std::unique_ptr<Sequence> Remove(Sequence* sequence);
  void ReleaseBlocks(Sequence* sequence);
  void ReleaseEnded(Step* step);
  void EnterWaiting(Sequence* sequence);
  void LeaveWaiting(Sequence* sequence);
  void LeaveRunning(Sequence* sequence);

  int32_t NumBlocks(int64_t num_tokens) const;
  int32_t WorstCaseBlocks(const Sequence& sequence) const;

  const SchedulerOptions options_;
  const FinishedCallback on_finished_;
  KvBlockPool pool_;
  std::unordered_map<uint64_t, std::unique_ptr<Sequence>> sequences_;  // by request id
  std::vector<Sequence*> running_;                                     // best rank first
  std::set<Sequence*, BetterRank> waiting_;
  std::set<std::pair<TimePoint, uint64_t>> deadlines_;  // (deadline, request id)
  uint64_t next_arrival_number_ = 0;
  int32_t protected_blocks_ = 0;  // sum of WorstCaseBlocks over running protected sequences

  // How much of max_tokens sequences use until they end by themselves: the quotient, over recent ones. The first guess
  // is a quarter.
  double recent_output_tokens_ = 0.25;
  double recent_max_tokens_ = 1.0;

  std::array<Step, 2> steps_;  // in turn
  size_t oldest_ = 0;          // of those in flight; without one, the next to be planned
  size_t steps_in_flight_ = 0;
  std::vector<Sequence*> prefills_;  // scratch of Plan: running ones with more than a token to run, best rank first
  std::vector<int32_t> prefix_;      // scratch of FindPrefix: blocks that can be reused
  SchedulerCounts counts_;           // totals and waiting_tokens; the other gauges are filled in by counts()
};

}  // namespace switchyard

#endif  // SWITCHYARD_SERVER_SCHEDULER_SCHEDULER_H_
