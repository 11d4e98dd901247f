#include "server/scheduler/serving_loop.h"

#include <algorithm>
#include <utility>

namespace switchyard {
namespace {

// How long an idle loop sleeps at most: its sign of life for the watchdog, at no cost worth naming.
constexpr std::chrono::seconds kHeartbeat{1};

// After the drain's deadline, for what still runs.
constexpr std::chrono::seconds kLastStep{1};

// No drain yet; as a deadline: never.
constexpr int64_t kNotDraining = INT64_MAX;

TimePoint Now() { return std::chrono::steady_clock::now(); }

int64_t ToNanos(TimePoint time) { return std::chrono::nanoseconds(time.time_since_epoch()).count(); }

TimePoint FromNanos(int64_t nanos) { return TimePoint(std::chrono::nanoseconds(nanos)); }

StepReport Describe(const StepBatch& batch) {
  StepReport report;
  report.num_sequences = static_cast<int32_t>(batch.slices.size());
  for (const SequenceSlice& slice : batch.slices) {
    const bool has_output = !slice.output_tokens.empty() || slice.tokens.front() < 0;  // or samples it right now
    const bool is_decode = slice.tokens.size() == 1 && slice.sample && has_output;
    (is_decode ? report.num_decode_tokens : report.num_prefill_tokens) += static_cast<int32_t>(slice.tokens.size());
  }
  return report;
}

}  // namespace

ServingLoop::ServingLoop(Engine* engine, RequestQueue* queue, const SchedulerOptions& options, LoopObserver* observer)
    : engine_(engine),
      queue_(queue),
      observer_(observer),
      scheduler_(options, [observer](const Request& request,
                                     const FinishedEvent& event) { observer->OnFinished(request, event); }),
      last_progress_nanos_(ToNanos(Now())) {}

ServingLoop::~ServingLoop() {
  queue_->Close();
  stop_.store(true, std::memory_order_release);
  queue_->Wake();
  if (thread_.joinable()) thread_.join();
}

void ServingLoop::Start() {
  thread_ = std::thread([this] {
    Run();
    ended_.set_value();
  });
}

bool ServingLoop::Drain(TimePoint deadline) {
  // Closed before the loop is told to end, so that its last look at the queue misses nothing.
  queue_->Close();
  drain_deadline_nanos_.store(std::min(ToNanos(deadline), kNotDraining - 1), std::memory_order_release);
  queue_->Wake();
  const TimePoint hung = deadline < TimePoint::max() - kLastStep ? deadline + kLastStep : deadline;
  if (ended_.get_future().wait_until(hung) == std::future_status::timeout) return false;
  thread_.join();
  return true;
}

bool ServingLoop::Alive(std::chrono::duration<double> stall_timeout) const {
  const TimePoint progress = FromNanos(last_progress_nanos_.load(std::memory_order_relaxed));
  return healthy() && Now() - progress <= stall_timeout;
}

void ServingLoop::Run() {
  while (Turn()) {
  }
}

bool ServingLoop::Turn() {
  const bool stop = stop_.load(std::memory_order_acquire);
  const int64_t drain_deadline = drain_deadline_nanos_.load(std::memory_order_acquire);
  const TimePoint now = Now();
  last_progress_nanos_.store(ToNanos(now), std::memory_order_relaxed);
  TakeArrivals(now);
  const bool give_up = stop || ToNanos(now) >= drain_deadline;

  const StepBatch* batch = Plan(give_up, now);
  const SchedulerCounts counts = scheduler_.counts(now);
  queue_->SetWaiting(counts.waiting, counts.waiting_tokens);
  if (batch != nullptr || steps_in_flight_ > 0) {
    // What ended outside of a step is counted and sent before the next one runs.
    if (counts.finished_total != reported_.finished_total) Report({}, now);
    Advance(batch);
    return true;
  }
  if (counts != reported_) Report({}, now);
  if (scheduler_.idle() && (give_up || drain_deadline != kNotDraining)) return false;
  queue_->WaitUntil(std::min({scheduler_.next_deadline(), FromNanos(drain_deadline), now + kHeartbeat}));
  return true;
}

void ServingLoop::TakeArrivals(TimePoint now) {
  RequestQueue::Batch arrivals = queue_->TakeAll();
  for (std::unique_ptr<Request>& request : arrivals.requests) scheduler_.Add(std::move(request), now);
  for (const uint64_t id : arrivals.cancelled) scheduler_.Cancel(id, now);
}

// Null: nothing can run before the step in flight was collected, or at all.
const StepBatch* ServingLoop::Plan(bool give_up, TimePoint now) {
  if (steps_in_flight_ > 0) return give_up ? nullptr : scheduler_.PlanAhead(now);
  if (give_up || !healthy()) scheduler_.FailAll(TerminalStatus::kUnavailable, now);
  return scheduler_.Plan(now);
}

// The device gets its next step before the result of the oldest is waited for.
void ServingLoop::Advance(const StepBatch* planned) {
  if (planned != nullptr) {
    const absl::Status launched = engine_->Launch(*planned);
    if (!launched.ok()) return FailEngine(launched);
    ++steps_in_flight_;
  }
  if (planned == nullptr || steps_in_flight_ == engine_->facts().max_steps_in_flight) CollectStep();
}

void ServingLoop::CollectStep() {
  StepReport report = Describe(scheduler_.oldest_step());
  const absl::StatusOr<const StepOutput*> output = engine_->Collect();
  --steps_in_flight_;
  if (!output.ok()) return FailEngine(output.status());
  const TimePoint now = Now();
  last_progress_nanos_.store(ToNanos(now), std::memory_order_relaxed);
  scheduler_.Apply(**output, now);
  report.stats = &(*output)->stats;
  Report(report, now);
}

void ServingLoop::FailEngine(const absl::Status& failure) {
  engine_failure_ = failure;
  healthy_.store(false, std::memory_order_release);
  observer_->OnEngineFailed();
  queue_->Close();
  // Until it is collected, a step that still runs reads the sequences.
  for (; steps_in_flight_ > 0; --steps_in_flight_) (void)engine_->Collect();
  scheduler_.FailAll(TerminalStatus::kUnavailable, Now());
}

void ServingLoop::Report(StepReport report, TimePoint now) {
  report.counts = scheduler_.counts(now);
  reported_ = report.counts;
  observer_->OnStep(report);
}

}  // namespace switchyard
