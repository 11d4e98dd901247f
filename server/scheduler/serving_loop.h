// The one thread that owns scheduler, engine and all sequences, so that none of them needs a lock.
//
//   turn: take requests and cancels -> scheduler.Plan -> engine.Launch / Collect -> scheduler.Apply -> sinks, observer
//
// An engine that takes two steps at once has its next one before it is asked for the last, as far as the scheduler can
// plan ahead; the device then works on, while the host hands out tokens and plans:
//
//   max_steps_in_flight 1    Launch 1  Collect 1  Launch 2  Collect 2  Launch 3  ...
//   max_steps_in_flight 2    Launch 1  Launch 2  Collect 1  Launch 3  Collect 2  ...
//
// Sleeps when there is nothing to do. An engine failure makes healthy() false and is remembered, the observer is told,
// the queue is closed, and every sequence ends as kUnavailable, in this order: nobody hears of the failure from a call
// before the health check knows of it. Steps that were still in flight are collected first, and forgotten.
#ifndef SWITCHYARD_SERVER_SCHEDULER_SERVING_LOOP_H_
#define SWITCHYARD_SERVER_SCHEDULER_SERVING_LOOP_H_

#include <atomic>
#include <chrono>
#include <cstdint>
#include <future>
#include <memory>
#include <thread>

#include "absl/status/status.h"
#include "engine/engine.h"
#include "server/scheduler/request_queue.h"
#include "server/scheduler/scheduler.h"

namespace switchyard {

// What the loop shows of itself after each step, by value; metrics are built from it. Called on the loop's thread.
struct StepReport {
  const StepStats* stats = nullptr;   // null when only the gauges changed (no step ran)
  SchedulerCounts counts;             // waiting, running, KV blocks, cumulative preemptions, prefix hits, ...
  int32_t num_sequences = 0;          // slices in the step
  int32_t num_prefill_tokens = 0;
  int32_t num_decode_tokens = 0;
};

class LoopObserver {
 public:
  virtual ~LoopObserver() = default;
  virtual void OnStep(const StepReport& report) = 0;
  // A sequence ended; `request` is still whole.
  virtual void OnFinished(const Request& request, const FinishedEvent& event) = 0;
  // The engine failed; the sequences end after this.
  virtual void OnEngineFailed() {}
};

class ServingLoop {
 public:
  // All pointers must outlive the loop.
  ServingLoop(Engine* engine, RequestQueue* queue, const SchedulerOptions& options, LoopObserver* observer);
  ~ServingLoop();  // stops at once if still running: what is left ends as kUnavailable

  // Call once.
  void Start();

  // Drain: closes the queue, finishes what was admitted, gives up at `deadline` (the rest ends as kUnavailable), then
  // stops the thread. Blocks. Call once. False: a second after the deadline the thread still hangs in the engine; what
  // is left was not ended, and nothing that the loop uses may go away.
  bool Drain(TimePoint deadline);

  // False after an engine failure.
  bool healthy() const { return healthy_.load(std::memory_order_acquire); }
  // For the watchdog: false when not healthy, or after `stall_timeout` without a sign of progress (a step ended, or the
  // loop was idle; an idle one gives a sign each second).
  bool Alive(std::chrono::duration<double> stall_timeout) const;
  // What the engine said. REQUIRES: not healthy().
  const absl::Status& engine_failure() const { return engine_failure_; }

 private:
  void Run();
  bool Turn();  // false: the loop is over
  void TakeArrivals(TimePoint now);
  const StepBatch* Plan(bool give_up, TimePoint now);
  void Advance(const StepBatch* planned);
  void CollectStep();
  void FailEngine(const absl::Status& failure);
  void Report(StepReport report, TimePoint now);

  Engine* const engine_;
  RequestQueue* const queue_;
  LoopObserver* const observer_;
  Scheduler scheduler_;
  int32_t steps_in_flight_ = 0;  // launched and not collected
  SchedulerCounts reported_;     // last told to the observer
  absl::Status engine_failure_;  // written before healthy_ becomes false, never after
  std::atomic<bool> healthy_{true};
  std::atomic<bool> stop_{false};
  std::atomic<int64_t> drain_deadline_nanos_{INT64_MAX};
  std::atomic<int64_t> last_progress_nanos_{0};
  std::promise<void> ended_;
  std::thread thread_;
};

}  // namespace switchyard

#endif  // SWITCHYARD_SERVER_SCHEDULER_SERVING_LOOP_H_
