#include "tests/simulation/checker.h"

#include <algorithm>
#include <numeric>

namespace switchyard::simulation {
namespace {

bool Equal(std::span<const int32_t> a, std::span<const int32_t> b) { return std::ranges::equal(a, b); }

int64_t Sum(const auto& values) { return std::accumulate(values.begin(), values.end(), int64_t{0}); }

// Alone and one token per step, over again after each preemption. Loose, but no livelock hides behind it.
int64_t WorstCaseSteps(const Scenario& scenario) {
  const int64_t rounds = std::min(scenario.options.max_preemptions, 20) + 1;
  int64_t steps = 100;
  for (const Client& client : scenario.clients) {
    steps += rounds * (static_cast<int64_t>(client.prompt.size()) + client.max_tokens) + 1;
  }
  return steps;
}

}  // namespace

Checker::Checker(const Scenario& scenario, const Scheduler& scheduler)
    : scenario_(scenario),
      scheduler_(scheduler),
      states_(scenario.clients.size()),
      holders_(scenario.options.num_kv_blocks),
      liveness_bound_(WorstCaseSteps(scenario)) {}

void Checker::Expect(bool condition, const char* check, uint64_t id) {
  if (condition || violation_) return;
  violation_ = {check, "step " + std::to_string(step_) + (id == 0 ? "" : ", client " + std::to_string(id))};
}

// --- The truth -------------------------------------------------------------------------------------------------

bool Checker::IsProtected(const ClientState& state) const {
  return state.num_preemptions >= scenario_.options.max_preemptions;
}

std::pair<int64_t, uint64_t> Checker::RankOf(uint64_t id) const {
  const Client& client = scenario_.clients[id - 1];
  int64_t urgency = 0;
  if (scenario_.options.policy == SchedulingPolicy::kPriority) {
    const int64_t priority = std::clamp(client.priority, -1'000'000, 1'000'000);
    urgency = std::chrono::nanoseconds(client.arrival.time_since_epoch()).count() +
              priority * scenario_.options.priority_step.count();
  }
  return {urgency, state(id).arrival_number};
}

int32_t Checker::NumTokens(uint64_t id) const {
  return static_cast<int32_t>(scenario_.clients[id - 1].prompt.size() + state(id).tokens.size());
}

int32_t Checker::WorstCaseBlocks(uint64_t id) const {
  const Client& client = scenario_.clients[id - 1];
  return NumBlocks(static_cast<int32_t>(client.prompt.size()) + client.max_tokens - 1);
}

int32_t Checker::NumBlocks(int32_t num_tokens) const {
  return (num_tokens + scenario_.options.block_size - 1) / scenario_.options.block_size;
}

bool Checker::GoesOn(uint64_t id) const {
  const int32_t num_output = static_cast<int32_t>(state(id).tokens.size()) + state(id).num_sampling;
  return !state(id).cancel_reached && num_output < scenario_.clients[id - 1].max_tokens;
}

bool Checker::PlannedStep::Has(uint64_t id) const {
  return std::ranges::find(slices, id, &PlannedSlice::id) != slices.end();
}

// --- Queue -----------------------------------------------------------------------------------------------------

void Checker::OnPush(uint64_t id, bool taken, bool closed) {
  int64_t num_waiting = 0, num_tokens = 0;
  bool any_live = false;
  for (const Client& client : scenario_.clients) {
    const ClientState& state = states_[client.id - 1];
    any_live = any_live || (state.pushed && state.num_finished == 0);
    if (!state.pushed || state.num_finished > 0 || state.num_slices > 0) continue;
    ++num_waiting;
    num_tokens += static_cast<int64_t>(client.prompt.size());
  }
  const int64_t new_tokens = static_cast<int64_t>(scenario_.clients[id - 1].prompt.size());
  if (taken) {
    states_[id - 1].pushed = true;
    Expect(!closed, "queue_closed", id);
    Expect(num_waiting < scenario_.queue_max_requests, "queue_bound", id);
    Expect(num_waiting == 0 || num_tokens + new_tokens <= scenario_.queue_max_tokens, "queue_bound", id);
  } else {
    Expect(closed || any_live, "queue_refusal", id);
  }
}

void Checker::OnAdd(uint64_t id) {
  ClientState& state = states_[id - 1];
  Expect(state.pushed && !state.added, "queue_twice", id);
  state.added = true;
  state.arrival_number = num_added_++;
  state.last_progress_step = step_;
}

void Checker::OnCancelled(uint64_t id) {
  ClientState& state = states_[id - 1];
  if (!state.live()) return;
  state.cancel_reached = true;
  Expect(std::ranges::any_of(in_flight_, [&](const PlannedStep& step) { return step.Has(id); }), "cancel_at_once", id);
}

void Checker::BeforeFailAll() {
  may_fail_ = true;
  in_flight_.clear();
}

void Checker::AfterFailAll() {
  for (const Client& client : scenario_.clients) Expect(!state(client.id).live(), "fail_all", client.id);
}

// --- Steps -----------------------------------------------------------------------------------------------------

void Checker::BeforePlan(TimePoint now) {
  before_ = scheduler_.counts(now);
  FollowRunning();
  for (ClientState& state : states_) state.was_running = state.running;
  for (const Sequence* sequence : scheduler_.running()) {
    const uint64_t id = sequence->request->id;
    ClientState& state = states_[id - 1];
    state.was_going_on = GoesOn(id);
    state.was_decode = state.was_going_on && NumTokens(id) + state.num_sampling - state.num_computed == 1;
  }
}

void Checker::FollowRunning() {
  for (ClientState& state : states_) state.running = false;
  for (const Sequence* sequence : scheduler_.running()) {
    ClientState& state = states_[sequence->request->id - 1];
    Expect(!state.running && state.live(), "running", sequence->request->id);
    state.running = true;
  }
  Expect(static_cast<int32_t>(scheduler_.running().size()) <= scenario_.options.max_num_seqs, "max_num_seqs");
}

void Checker::AfterPlan(const StepBatch* batch, TimePoint now) {
  FollowRunning();
  if (!in_flight_.empty() && batch == nullptr) return CheckRefusal(now);
  ++step_;
  num_ahead_steps_ += !in_flight_.empty();
  for (const Client& client : scenario_.clients) {
    ClientState& state = states_[client.id - 1];
    if (!state.live()) continue;
    Expect(now < client.deadline, "deadline", client.id);
    if (!state.was_running || state.running) continue;
    ++num_preempted_;
    ++state.num_preemptions;
    state.num_computed = 0;
    Expect(in_flight_.empty(), "ahead_refused", client.id);
    Expect(state.num_preemptions <= scenario_.options.max_preemptions, "max_preemptions", client.id);
  }
  if (batch != nullptr) CheckSlices(*batch);
  CheckProgress(batch);
  CheckAdmission();
  CheckPool();
  for (Client const& client : scenario_.clients) {
    const ClientState& state = states_[client.id - 1];
    if (state.live()) Expect(step_ - state.last_progress_step <= liveness_bound_, "liveness", client.id);
  }
}

void Checker::CheckRefusal(TimePoint now) {
  Expect(scheduler_.counts(now) == before_, "ahead_null");
  CheckPool();
  int32_t num_needed = 0;
  bool deadline_passed = false, any_goes_on = false;
  for (const Client& client : scenario_.clients) {
    const ClientState& state = states_[client.id - 1];
    Expect(state.running == state.was_running, "ahead_null", client.id);
    deadline_passed = deadline_passed || (state.live() && client.deadline <= now);
  }
  for (const Sequence* sequence : scheduler_.running()) {
    const uint64_t id = sequence->request->id;
    if (!GoesOn(id)) continue;
    any_goes_on = true;
    const int32_t num_blocks = NumBlocks(NumTokens(id) + state(id).num_sampling);
    num_needed += num_blocks > static_cast<int32_t>(sequence->block_table.size());
  }
  const bool blocks_suffice = num_needed <= scheduler_.pool().num_available();
  Expect(deadline_passed || in_flight_[0].samples_on_host || !blocks_suffice || !any_goes_on, "ahead_refused");
}

void Checker::CheckSlices(const StepBatch& batch) {
  const SchedulerOptions& options = scenario_.options;
  PlannedStep step;
  int32_t num_tokens = 0, num_prefill_tokens = 0;
  bool any_decode = false;
  for (const SequenceSlice& slice : batch.slices) {
    const int32_t num = static_cast<int32_t>(slice.tokens.size());
    const ClientState& state = states_[slice.sequence_id - 1];
    const bool is_decode = state.was_running && state.was_decode;
    any_decode = any_decode || is_decode;
    num_tokens += num;
    if (!is_decode) num_prefill_tokens += num;
    CheckSlice(slice, step);
  }
  in_flight_.push_back(std::move(step));
  Expect(num_tokens <= options.max_num_batched_tokens, "budget");
  Expect(static_cast<int32_t>(batch.slices.size()) <= options.max_num_seqs, "max_num_seqs");
  const int32_t bound = options.max_prefill_tokens_while_decoding > 0 ? options.max_prefill_tokens_while_decoding
                                                                      : std::max(1, options.max_num_batched_tokens / 4);
  Expect(!options.enable_chunked_prefill || !any_decode || num_prefill_tokens <= bound, "prefill_bound");
}

void Checker::CheckSlice(const SequenceSlice& slice, PlannedStep& step) {
  const uint64_t id = slice.sequence_id;
  const Client& client = scenario_.clients[id - 1];
  ClientState& state = states_[id - 1];
  Expect(state.running && !step.Has(id), "slice", id);
  Expect(GoesOn(id), "past_end", id);

  std::vector<int32_t> truth = client.prompt;
  truth.insert(truth.end(), state.tokens.begin(), state.tokens.end());
  if (state.num_sampling > 0) truth.push_back(~state.sample_index);
  const int32_t begin = slice.first_position;
  const int32_t end = begin + static_cast<int32_t>(slice.tokens.size());
  const int32_t all = static_cast<int32_t>(truth.size());
  if (begin < 0 || begin >= end || end > all) return Expect(false, "slice", id);
  const bool first = !state.was_running;
  Expect(first ? begin % scenario_.options.block_size == 0 : begin == state.num_computed, "slice", id);
  Expect(begin == 0 || !first || (scenario_.options.enable_prefix_caching && client.allow_prefix_reuse), "slice", id);
  Expect(scenario_.options.enable_chunked_prefill || end == all, "slice", id);
  Expect(Equal(slice.tokens, std::span(truth).subspan(begin, end - begin)), "slice", id);
  Expect(Equal(slice.prompt_tokens, client.prompt) && Equal(slice.output_tokens, state.tokens), "slice", id);
  Expect(slice.sample == (end == all), "sample", id);
  Expect(slice.sampling != nullptr && slice.sampling->seed == client.sampling.seed, "slice", id);
  CheckWrites(slice);

  step.slices.push_back({.id = id,
                         .end = end,
                         .recomputing = std::max(0, std::min(end, state.max_computed) - begin),
                         .sample = slice.sample,
                         .block_table = {slice.block_table.begin(), slice.block_table.end()}});
  if (slice.sample) {
    ++state.num_sampling;
    state.sample_index = step.num_sampled++;
    step.samples_on_host = step.samples_on_host || NeedsHostSampler(client.sampling);
  }
  if (state.num_slices++ == 0) state.num_reused = begin;
  if (first) state.num_applied = begin;
  state.last_progress_step = step_;
  state.num_computed = end;
  state.max_computed = std::max(state.max_computed, end);
}

void Checker::CheckWrites(const SequenceSlice& slice) {
  const int32_t block_size = scenario_.options.block_size;
  const int32_t last = (slice.first_position + static_cast<int32_t>(slice.tokens.size()) - 1) / block_size;
  if (last >= static_cast<int32_t>(slice.block_table.size())) return Expect(false, "table", slice.sequence_id);
  for (int32_t i = slice.first_position / block_size; i <= last; ++i) {
    const int32_t block = slice.block_table[i];
    const KvBlockPool& pool = scheduler_.pool();
    Expect(pool.ref_count(block) == 1, "shared_write", slice.sequence_id);
    Expect(pool.content(block) == KvBlockPool::kNoContent, "shared_write", slice.sequence_id);
  }
}

void Checker::CheckProgress(const StepBatch* batch) {
  const auto takes_part = [&](uint64_t id) { return batch != nullptr && in_flight_.back().Has(id); };
  const Sequence* best_prefill = nullptr;
  for (const Sequence* sequence : scheduler_.running()) {
    const uint64_t id = sequence->request->id;
    const ClientState& state = states_[id - 1];
    if (state.was_running && !state.was_going_on) {
      Expect(!takes_part(id), "past_end", id);
    } else if (state.was_running && state.was_decode) {
      Expect(takes_part(id), "decode_stalled", id);
    } else if (best_prefill == nullptr) {
      best_prefill = sequence;
      Expect(takes_part(id), "prefill_stalled", id);
    }
  }
  const bool any_live = std::ranges::any_of(states_, [](const ClientState& state) { return state.live(); });
  Expect(!any_live || (batch != nullptr && !batch->slices.empty()), "idle");
}

void Checker::CheckAdmission() {
  std::pair<int64_t, uint64_t> best_waiting{INT64_MAX, UINT64_MAX};
  int64_t protected_blocks = 0;
  for (const Client& client : scenario_.clients) {
    const ClientState& state = states_[client.id - 1];
    if (!state.live()) continue;
    if (IsProtected(state) && state.running) protected_blocks += WorstCaseBlocks(client.id);
    if (!IsProtected(state) && !state.running) best_waiting = std::min(best_waiting, RankOf(client.id));
  }
  Expect(protected_blocks <= scenario_.options.num_kv_blocks, "protected_claims");
  for (const Client& client : scenario_.clients) {
    const ClientState& state = states_[client.id - 1];
    const bool admitted_now = state.live() && state.running && !state.was_running && !IsProtected(state);
    if (admitted_now) Expect(RankOf(client.id) < best_waiting, "overtaken", client.id);
  }
}

void Checker::CheckPool() {
  std::ranges::fill(holders_, 0);
  for (const Sequence* sequence : scheduler_.running()) {
    for (const int32_t block : sequence->block_table) ++holders_[block];
    const uint64_t id = sequence->request->id;
    Expect(sequence->running, "running", id);
    Expect(sequence->num_published * scenario_.options.block_size <= state(id).num_applied, "published", id);
  }
  for (const PlannedStep& step : in_flight_) {
    for (const PlannedSlice& slice : step.slices) {
      if (!slice.wasted) continue;
      for (const int32_t block : slice.block_table) ++holders_[block];
    }
  }
  Expect(std::ranges::is_sorted(scheduler_.running(), {}, &Sequence::rank), "running");
  const KvBlockPool& pool = scheduler_.pool();
  int32_t num_free = 0, num_cached = 0;
  for (int32_t block = 0; block < pool.num_blocks(); ++block) {
    Expect(pool.ref_count(block) == holders_[block], "refcount");
    num_free += pool.ref_count(block) == 0;
    num_cached += pool.ref_count(block) == 0 && pool.content(block) != KvBlockPool::kNoContent;
  }
  Expect(pool.num_available() == num_free && pool.num_cached() == num_cached, "conservation");
}

void Checker::BeforeCollect(const StepBatch& batch) {
  for (const PlannedSlice& slice : in_flight_.front().slices) {
    Expect(slice.wasted || state(slice.id).num_finished == 0, "in_flight", slice.id);
  }
  if (violation_) return;  // the batch's views may be gone
  for (const SequenceSlice& slice : batch.slices) {
    for (const int32_t block : slice.block_table) {
      Expect(scheduler_.pool().ref_count(block) > 0, "in_flight", slice.sequence_id);
    }
  }
}

void Checker::AfterStep(TimePoint now) {
  if (!in_flight_.empty()) {
    FollowApplied(in_flight_.front());
    in_flight_.pop_front();
    FollowEnded();
  }
  FollowRunning();
  CheckPool();
  CheckCounts(now);
}

void Checker::FollowApplied(const PlannedStep& step) {
  for (const PlannedSlice& slice : step.slices) {
    ClientState& state = states_[slice.id - 1];
    state.num_sampling -= slice.sample;
    Expect(!state.cancel_reached || state.num_finished == 1, "cancel_at_once", slice.id);
    if (slice.wasted || state.cancel_reached) continue;
    num_recomputed_ += slice.recomputing;
    state.num_applied = slice.end;
  }
}

// Who ended with the step that was applied may have a slice in the one after it.
void Checker::FollowEnded() {
  for (PlannedStep& step : in_flight_) {
    for (PlannedSlice& slice : step.slices) {
      ClientState& state = states_[slice.id - 1];
      if (state.num_finished == 0) continue;
      slice.wasted = true;
      ++num_wasted_;
      Expect(++state.num_wasted == 1 && state.event.reason != FinishReason::kLength, "wasted", slice.id);
    }
  }
}

void Checker::CheckCounts(TimePoint now) {
  const SchedulerCounts counts = scheduler_.counts(now);
  int64_t live = 0, waiting = 0, waiting_tokens = 0, ended = 0;
  double oldest = 0.0;
  for (const Client& client : scenario_.clients) {
    const ClientState& state = states_[client.id - 1];
    ended += state.num_finished;
    live += state.live();
    if (!state.live() || state.running) continue;
    ++waiting;
    waiting_tokens += NumTokens(client.id);
    oldest = std::max(oldest, std::chrono::duration<double>(now - client.arrival).count());
  }
  Expect(counts.waiting == waiting && counts.running == live - waiting, "counts");
  Expect(counts.waiting_tokens == waiting_tokens && counts.oldest_waiting_seconds == oldest, "counts");
  Expect(counts.kv_blocks_total == scenario_.options.num_kv_blocks, "counts");
  Expect(counts.kv_blocks_used == counts.kv_blocks_total - scheduler_.pool().num_available(), "counts");
  Expect(counts.admitted_total == static_cast<int64_t>(num_added_), "counts");
  Expect(Sum(counts.finished_total) == ended, "counts");
  Expect(Sum(counts.cancelled_total) == counts.finished_total[static_cast<size_t>(FinishReason::kCancelled)], "counts");
  Expect(Sum(counts.deadline_total) == counts.finished_total[static_cast<size_t>(FinishReason::kDeadline)], "counts");
  Expect(counts.preemptions_total == num_preempted_, "counts");
  Expect(counts.generation_tokens_total == num_delivered_, "counts");
  Expect(counts.recomputed_tokens_total == num_recomputed_, "counts");
  Expect(counts.prefix_hit_tokens_total <= counts.prefix_query_tokens_total, "counts");
}

// --- Clients ---------------------------------------------------------------------------------------------------

void Checker::OnToken(uint64_t id, int32_t token, SinkVerdict verdict) {
  ClientState& state = states_[id - 1];
  Expect(state.live(), "once", id);
  if (verdict == SinkVerdict::kSlowReader) return;
  state.tokens.push_back(token);
  ++num_delivered_;
}

void Checker::OnFinished(uint64_t id, const FinishedEvent& event, TimePoint now) {
  const Client& client = scenario_.clients[id - 1];
  ClientState& state = states_[id - 1];
  Expect(++state.num_finished == 1 && state.added, "once", id);
  state.event = event;
  const size_t num_tokens = state.tokens.size();
  const bool is_prefix = num_tokens <= client.alone_tokens.size() &&
                         std::equal(state.tokens.begin(), state.tokens.end(), client.alone_tokens.begin());
  Expect(is_prefix, "output", id);
  Expect(IsJustified(client, event, now), "reason", id);
  Expect(event.num_output_tokens == static_cast<int32_t>(num_tokens), "event", id);
  Expect(event.num_preemptions == state.num_preemptions, "event", id);
  Expect(event.num_cached_prompt_tokens == state.num_reused, "event", id);
  Expect(event.num_cached_prompt_tokens < static_cast<int32_t>(client.prompt.size()), "event", id);
  Expect(event.queue_seconds >= 0 && event.prefill_seconds >= 0 && event.decode_seconds >= 0, "event", id);
}

bool Checker::IsJustified(const Client& client, const FinishedEvent& event, TimePoint now) const {
  const ClientState& state = states_[client.id - 1];
  switch (event.status) {
    case TerminalStatus::kOk:
    case TerminalStatus::kDataLoss:
    case TerminalStatus::kSlowReader:  // its own end: exactly as alone
      return event.reason == client.alone_reason && event.status == client.alone_status &&
             state.tokens == client.alone_tokens;
    case TerminalStatus::kCancelled:
      return event.reason == FinishReason::kCancelled;
    case TerminalStatus::kDeadlineExceeded:
      return event.reason == FinishReason::kDeadline && now >= client.deadline;
    case TerminalStatus::kUnavailable:
      return event.reason == FinishReason::kError && may_fail_;
  }
  return false;
}

void Checker::AtEnd(TimePoint now) {
  FollowRunning();
  for (const Client& client : scenario_.clients) {
    const ClientState& state = states_[client.id - 1];
    Expect(state.num_finished == (state.pushed ? 1 : 0), "all_ended", client.id);
    if (state.event.reason == FinishReason::kCancelled && state.pushed) {
      const bool asked = client.cancel_time <= now || client.cancel_at_token != kNever ||
                         client.cancel_in_flight_of_slice != kNever || client.cancel_at_preemption != kNever;
      Expect(asked, "reason", client.id);
    }
  }
  Expect(in_flight_.empty() && scheduler_.idle() && scheduler_.running().empty(), "all_ended");
  Expect(scheduler_.pool().num_available() == scenario_.options.num_kv_blocks, "all_free");
  Expect(scheduler_.next_deadline() == TimePoint::max(), "all_ended");
  CheckPool();
  CheckCounts(now);
}

}  // namespace switchyard::simulation
