#include "tests/simulation/simulation.h"

#include <algorithm>
#include <cstdio>
#include <memory>
#include <utility>
#include <vector>

#include "server/scheduler/request_queue.h"
#include "server/scheduler/scheduler.h"
#include "tests/simulation/fake_kv_engine.h"
#include "tests/simulation/toy_model.h"

namespace switchyard::simulation {
namespace {

class Simulation {
 public:
  Simulation(const Scenario& scenario, const RunOptions& options)
      : scenario_(scenario),
        options_(options),
        queue_(scenario.queue_max_requests, scenario.queue_max_tokens),
        scheduler_(scenario.options),
        engine_(scenario.options.num_kv_blocks, scenario.options.block_size, scenario.nonfinite_one_in),
        checker_(scenario, scheduler_) {
    for (const Client& client : scenario.clients) {
      if (client.cancel_time != TimePoint::max()) cancels_.emplace_back(client.cancel_time, client.id);
    }
    std::ranges::sort(cancels_);
  }

  // The serving loop's turns (server/scheduler/serving_loop.cc), with time in our hands.
  std::optional<Violation> Run() {
    while (!checker_.violation()) {
      LetTheWorldAct();
      TakeArrivals();
      const StepBatch* batch = Plan();
      CancelPreempted();
      const SchedulerCounts counts = scheduler_.counts(now_);
      queue_.SetWaiting(counts.waiting, counts.waiting_tokens);
      if (checker_.violation()) break;
      if (batch != nullptr || steps_in_flight_ > 0) {
        Advance(batch);
      } else if (!SleepUntilSomethingHappens()) {
        break;
      }
    }
    if (!checker_.violation()) checker_.AtEnd(now_);
    return checker_.violation();
  }

  void AddTo(Coverage& coverage) const {
    coverage.requests += static_cast<int64_t>(next_arrival_);
    coverage.refused += num_refused_;
    coverage.steps += checker_.num_steps();
    coverage.slices += num_slices_;
    coverage.ahead_steps += checker_.num_ahead_steps();
    coverage.wasted_slices += checker_.num_wasted_slices();
    coverage.Add(scheduler_.counts(now_));
  }

 private:
  class Sink : public TokenSink {
   public:
    Sink(Simulation* simulation, const Client& client) : simulation_(simulation), client_(client) {}

    SinkVerdict OnToken(const SampledToken& token, bool) override {
      ++num_tokens_;
      const SinkVerdict verdict = num_tokens_ == client_.verdict_at_token ? client_.verdict : SinkVerdict::kContinue;
      simulation_->checker_.OnToken(client_.id, token.token, verdict);
      if (num_tokens_ == client_.cancel_at_token) simulation_->queue_.Cancel(client_.id);
      return verdict;
    }
    void OnFinished(const FinishedEvent& event) override {
      simulation_->checker_.OnFinished(client_.id, event, simulation_->now_);
    }

   private:
    Simulation* const simulation_;
    const Client& client_;
    int num_tokens_ = 0;
  };

  // Some clients come at the worst moment: after the loop has looked, before it has said what it took.
  bool ComesLate(const Client& client) const { return Hash(scenario_.seed, client.id) % 8 == 0; }

  void LetClientsArrive(bool late) {
    const auto& clients = scenario_.clients;
    for (; next_arrival_ < clients.size() && clients[next_arrival_].arrival <= now_; ++next_arrival_) {
      if (!late && ComesLate(clients[next_arrival_])) return;
      Arrive(clients[next_arrival_]);
    }
  }

  void LetTheWorldAct() {
    LetClientsArrive(/*late=*/false);
    for (; next_cancel_ < cancels_.size() && cancels_[next_cancel_].first <= now_; ++next_cancel_) {
      queue_.Cancel(cancels_[next_cancel_].second);
    }
    if (now_ >= scenario_.drain_time && !closed_) Close();
  }

  void Arrive(const Client& client) {
    const auto num_prompt_tokens = static_cast<int64_t>(client.prompt.size());
    const bool fits = CheckFits(scenario_.options, num_prompt_tokens, client.max_tokens).ok();
    const bool comes = options_.kept.empty() || options_.kept.contains(client.id);
    if (!fits || !comes) return;
    auto request = std::make_unique<Request>();
    request->id = client.id;
    request->prompt_tokens = client.prompt;
    request->sampling = client.sampling;
    request->eos_token_ids = client.eos_token_ids;
    request->max_tokens = client.max_tokens;
    request->priority = client.priority;
    request->allow_prefix_reuse = client.allow_prefix_reuse;
    request->arrival = client.arrival;
    request->deadline = client.deadline;
    request->sink = std::make_shared<Sink>(this, client);
    const bool taken = queue_.Push(std::move(request)).ok();
    num_refused_ += !taken;
    arrived_ = arrived_ || taken;
    checker_.OnPush(client.id, taken, closed_);
  }

  void Close() {
    closed_ = true;
    queue_.Close();
  }

  void TakeArrivals() {
    arrived_ = false;
    RequestQueue::Batch batch = queue_.TakeAll();
    LetClientsArrive(/*late=*/true);
    for (std::unique_ptr<Request>& request : batch.requests) {
      checker_.OnAdd(request->id);
      scheduler_.Add(std::move(request), now_);
    }
    for (const uint64_t id : batch.cancelled) Cancel(id);
  }

  void Cancel(uint64_t id) {
    scheduler_.Cancel(id, now_);
    checker_.OnCancelled(id);
  }

  void FailAll() {
    checker_.BeforeFailAll();
    scheduler_.FailAll(TerminalStatus::kUnavailable, now_);
    checker_.AfterFailAll();
  }

  const StepBatch* Plan() {
    const bool give_up = failed_ || now_ >= scenario_.drain_deadline;
    if (give_up && steps_in_flight_ > 0) return nullptr;
    if (give_up) FailAll();
    checker_.BeforePlan(now_);
    const StepBatch* batch = steps_in_flight_ > 0 ? scheduler_.PlanAhead(now_) : scheduler_.Plan(now_);
    checker_.AfterPlan(batch, now_);
    return batch;
  }

  // A step is in flight, but preempted ones have no part in it.
  void CancelPreempted() {
    for (const Client& client : scenario_.clients) {
      const ClientState& state = checker_.state(client.id);
      const bool preempted = state.live() && !state.running && state.num_preemptions > 0;
      if (preempted && state.num_preemptions == client.cancel_at_preemption) Cancel(client.id);
    }
  }

  void Advance(const StepBatch* planned) {
    if (planned != nullptr) Launch(*planned);
    if (checker_.violation() || steps_in_flight_ == 0) return;
    if (planned == nullptr || steps_in_flight_ == scenario_.steps_in_flight) Collect();
  }

  void Launch(const StepBatch& batch) {
    ++num_steps_;
    num_slices_ += static_cast<int64_t>(batch.slices.size());
    if (options_.trace) Trace(batch);
    for (const SequenceSlice& slice : batch.slices) {
      const Client& client = scenario_.clients[slice.sequence_id - 1];
      if (checker_.state(client.id).num_slices == client.cancel_in_flight_of_slice) Cancel(client.id);
    }
    if (checker_.violation()) return;
    if (scenario_.fails_at_launch && num_steps_ == scenario_.fail_step) return FailEngine();
    engine_.Launch(batch);
    ++steps_in_flight_;
  }

  void Collect() {
    checker_.BeforeCollect(scheduler_.oldest_step());
    if (checker_.violation()) return;
    const StepOutput& output = engine_.Collect();
    --steps_in_flight_;
    now_ += StepTime();
    if (++num_collected_ == scenario_.fail_step) return FailEngine();
    scheduler_.Apply(output, now_);
    checker_.AfterStep(now_);
  }

  void FailEngine() {
    failed_ = true;
    Close();
    for (; steps_in_flight_ > 0; --steps_in_flight_) engine_.Collect();
    FailAll();
    checker_.AfterStep(now_);
  }

  std::chrono::microseconds StepTime() const {
    const auto range = static_cast<uint64_t>((scenario_.max_step_time - scenario_.min_step_time).count());
    const uint64_t random = Hash(scenario_.seed, static_cast<uint64_t>(num_collected_ + 1));
    return scenario_.min_step_time + std::chrono::microseconds(random % (range + 1) + 1);
  }

  // False: nothing will ever happen again.
  bool SleepUntilSomethingHappens() {
    if (arrived_) return true;
    TimePoint next = scheduler_.next_deadline();
    if (next_arrival_ < scenario_.clients.size()) next = std::min(next, scenario_.clients[next_arrival_].arrival);
    if (next == TimePoint::max()) return false;
    now_ = std::max(now_ + std::chrono::microseconds(1), next);
    return true;
  }

  void Trace(const StepBatch& batch) const {
    const auto since_start = std::chrono::duration_cast<std::chrono::microseconds>(now_ - kStart);
    const SchedulerCounts counts = scheduler_.counts(now_);
    std::printf("step %lld at %lld us, waiting %d, blocks used %d cached %d of %d:", static_cast<long long>(num_steps_),
                static_cast<long long>(since_start.count()), counts.waiting, counts.kv_blocks_used,
                counts.kv_blocks_cached, counts.kv_blocks_total);
    for (const SequenceSlice& slice : batch.slices) {
      std::printf("  %llu@%d+%zu%s", static_cast<unsigned long long>(slice.sequence_id), slice.first_position,
                  slice.tokens.size(), slice.sample ? "s" : "");
    }
    std::printf("\n");
  }

  const Scenario& scenario_;
  const RunOptions& options_;
  RequestQueue queue_;
  Scheduler scheduler_;
  FakeKvEngine engine_;
  Checker checker_;
  std::vector<std::pair<TimePoint, uint64_t>> cancels_;  // by time
  TimePoint now_ = kStart;
  size_t next_arrival_ = 0;
  size_t next_cancel_ = 0;
  int num_steps_ = 0;  // launched
  int num_collected_ = 0;
  int steps_in_flight_ = 0;
  int64_t num_slices_ = 0;
  int64_t num_refused_ = 0;
  bool arrived_ = false;  // the queue holds requests
  bool closed_ = false;
  bool failed_ = false;
};

template <typename Array>
void AddArray(Array& sum, const Array& values) {
  for (size_t i = 0; i < sum.size(); ++i) sum[i] += values[i];
}

}  // namespace

void Coverage::Add(const SchedulerCounts& run) {
  counts.admitted_total += run.admitted_total;
  AddArray(counts.finished_total, run.finished_total);
  AddArray(counts.cancelled_total, run.cancelled_total);
  AddArray(counts.deadline_total, run.deadline_total);
  counts.preemptions_total += run.preemptions_total;
  counts.prompt_tokens_total += run.prompt_tokens_total;
  counts.prefix_query_tokens_total += run.prefix_query_tokens_total;
  counts.prefix_hit_tokens_total += run.prefix_hit_tokens_total;
  counts.recomputed_tokens_total += run.recomputed_tokens_total;
  counts.generation_tokens_total += run.generation_tokens_total;
}

std::optional<Violation> Simulate(const Scenario& scenario, const RunOptions& options, Coverage& coverage) {
  Simulation simulation(scenario, options);
  std::optional<Violation> violation = simulation.Run();
  simulation.AddTo(coverage);
  return violation;
}

}  // namespace switchyard::simulation
