#include "server/scheduler/scheduler.h"

#include <algorithm>

#include "engine/base/status_macros.h"

namespace switchyard {
namespace {

double SecondsBetween(TimePoint from, TimePoint to) {
  return std::max(0.0, std::chrono::duration<double>(to - from).count());
}

// REQUIRES: valid options. Replaces "choose for me" by numbers.
SchedulerOptions Resolve(SchedulerOptions options) {
  if (options.max_prefill_tokens_while_decoding == 0) {
    options.max_prefill_tokens_while_decoding = std::max(1, options.max_num_batched_tokens / 4);
  }
  if (!options.enable_chunked_prefill) options.max_prefill_tokens_while_decoding = options.max_num_batched_tokens;
  return options;
}

int64_t UrgencyNanos(const SchedulerOptions& options, const Request& request) {
  if (options.policy == SchedulingPolicy::kFcfs) return 0;
  constexpr int64_t kLimit = 1'000'000;  // levels; keeps the product far from overflow
  const int64_t priority = std::clamp<int64_t>(request.priority, -kLimit, kLimit);
  return std::chrono::nanoseconds(request.arrival.time_since_epoch()).count() +
         priority * options.priority_step.count();
}

bool Contains(const std::vector<int32_t>& tokens, int32_t token) {
  return std::ranges::find(tokens, token) != tokens.end();
}

}  // namespace

Scheduler::Scheduler(const SchedulerOptions& options, FinishedCallback on_finished)
    : options_(Resolve(options)),
      on_finished_(std::move(on_finished)),
      pool_(options.num_kv_blocks, options.block_size) {
  CHECK(ValidateSchedulerOptions(options).ok());
  running_.reserve(options.max_num_seqs);
  prefills_.reserve(options.max_num_seqs);
  for (Step& step : steps_) {
    step.batch.slices.reserve(options.max_num_seqs);
    step.sequences.reserve(options.max_num_seqs);
    step.unknown_tokens.reserve(options.max_num_seqs);  // slices view them
    step.ended.reserve(options.max_num_seqs);
  }
}

void Scheduler::Add(std::unique_ptr<Request> request, TimePoint now) {
  const int64_t num_prompt_tokens = static_cast<int64_t>(request->prompt_tokens.size());
  const bool fits = CheckFits(options_, num_prompt_tokens, request->max_tokens).ok() &&
                    CheckEncoderFits(options_, request->num_encoder_tokens).ok();
  auto owned = std::make_unique<Sequence>();
  Sequence* sequence = owned.get();
  sequence->tokens = request->prompt_tokens;
  sequence->rank.preemptible = options_.max_preemptions > 0;
  sequence->rank.urgency_nanos = UrgencyNanos(options_, *request);
  sequence->rank.arrival_number = next_arrival_number_++;
  const uint64_t id = request->id;
  if (request->deadline != TimePoint::max()) deadlines_.emplace(request->deadline, id);
  sequence->request = std::move(request);
  CHECK(sequences_.emplace(id, std::move(owned)).second);
  ++counts_.admitted_total;
  EnterWaiting(sequence);
  // A bug of ours, but it must cost this request only, not the server.
  if (!fits) Finish(sequence, FinishReason::kError, TerminalStatus::kUnavailable, now);
}

void Scheduler::Cancel(uint64_t request_id, TimePoint now) {
  const auto found = sequences_.find(request_id);
  if (found == sequences_.end()) return;
  Sequence* sequence = found->second.get();
  if (sequence->in_flight()) {
    sequence->cancelled = true;  // the engine reads its tokens and writes its blocks until the step is over
  } else {
    Finish(sequence, FinishReason::kCancelled, TerminalStatus::kCancelled, now);
  }
}

// --- Plan ------------------------------------------------------------------------------------------------------

const StepBatch* Scheduler::Plan(TimePoint now) {
  CHECK(steps_in_flight_ == 0);
  EndPastDeadline(now);
  return PlanStep(now);
}

const StepBatch* Scheduler::PlanAhead(TimePoint now) {
  CHECK(steps_in_flight_ == 1);
  if (next_deadline() <= now || steps_[oldest_].samples_on_host || !HasBlocksForNextTokens()) return nullptr;
  return PlanStep(now);
}

const StepBatch* Scheduler::PlanStep(TimePoint now) {
  Step& step = NextStep();
  step.batch.slices.clear();
  step.sequences.clear();
  step.unknown_tokens.clear();
  step.num_sampled = 0;
  step.samples_on_host = false;
  const bool preempted = PlanDecodes(now);
  PlanPrefills(/*admit=*/!preempted, now);
  if (step.sequences.empty()) return nullptr;
  ++steps_in_flight_;
  return &step.batch;
}

// Whether it does not end for certain with the steps in flight. Without one that is so of every running sequence.
bool Scheduler::GoesOn(const Sequence& sequence) {
  return !sequence.cancelled && sequence.num_output_tokens() + sequence.num_sampling < sequence.request->max_tokens;
}

bool Scheduler::NeedsBlock(const Sequence& sequence) const {
  return NumBlocks(sequence.num_expected()) > static_cast<int32_t>(sequence.block_table.size());
}

// So that PlanDecodes preempts nobody. Prefills have their blocks since they were admitted.
bool Scheduler::HasBlocksForNextTokens() const {
  const auto num_needed = std::ranges::count_if(running_, [this](const Sequence* sequence) {
    return GoesOn(*sequence) && NeedsBlock(*sequence);
  });
  return num_needed <= pool_.num_available();
}

void Scheduler::EndPastDeadline(TimePoint now) {
  while (!deadlines_.empty() && deadlines_.begin()->first <= now) {
    Sequence* sequence = sequences_.at(deadlines_.begin()->second).get();
    Finish(sequence, FinishReason::kDeadline, TerminalStatus::kDeadlineExceeded, now);
  }
}

bool Scheduler::PlanDecodes(TimePoint now) {
  const int64_t preemptions_before = counts_.preemptions_total;
  prefills_.clear();
  // running_ shrinks from its end only, where the preempted ones are: nobody met here is preempted later.
  for (size_t i = 0; i < running_.size(); ++i) {
    Sequence* sequence = running_[i];
    if (!GoesOn(*sequence)) continue;
    if (sequence->num_pending() > 1) {
      prefills_.push_back(sequence);
    } else if (TakeBlockForNextToken(sequence)) {
      Schedule(sequence, 1, now);
    }
  }
  return counts_.preemptions_total > preemptions_before;
}

// False: the sequence itself was of the worst rank and was preempted.
bool Scheduler::TakeBlockForNextToken(Sequence* sequence) {
  if (!NeedsBlock(*sequence)) return true;
  while (pool_.num_available() == 0) {
    Sequence* victim = running_.back();
    Preempt(victim);
    if (victim == sequence) return false;
  }
  sequence->block_table.push_back(pool_.Allocate());
  return true;
}

void Scheduler::Preempt(Sequence* victim) {
  CHECK(victim->rank.preemptible);  // protected sequences fit the pool together, see FirstEligibleWaiting
  CHECK(!victim->in_flight());
  ReleaseBlocks(victim);
  LeaveRunning(victim);
  ++counts_.preemptions_total;
  ++victim->num_preemptions;
  victim->rank.preemptible = victim->num_preemptions < options_.max_preemptions;
  EnterWaiting(victim);
}

void Scheduler::PlanPrefills(bool admit, TimePoint now) {
  const auto num_decodes = static_cast<int32_t>(NextStep().sequences.size());
  int32_t budget = options_.max_num_batched_tokens - num_decodes;
  if (num_decodes > 0) budget = std::min(budget, options_.max_prefill_tokens_while_decoding);
  // Merges two orders of rank: prefills that run, and sequences that wait.
  size_t next = 0;
  while (budget > 0) {
    Sequence* chosen = next < prefills_.size() ? prefills_[next] : nullptr;
    Sequence* waiting = admit ? FirstEligibleWaiting() : nullptr;
    if (waiting != nullptr && (chosen == nullptr || waiting->rank < chosen->rank)) {
      admit = Admit(waiting, budget);
      if (!admit) continue;
      chosen = waiting;
    } else if (chosen == nullptr) {
      break;
    } else {
      ++next;
    }
    const int32_t num_tokens = std::min(budget, chosen->num_pending());
    Schedule(chosen, num_tokens, now);
    budget -= num_tokens;
  }
}

// The head of the waiting order. A protected sequence is passed over while it could run out of blocks: if the worst
// cases of all protected ones fit the pool together, none of them ever has to be preempted.
Sequence* Scheduler::FirstEligibleWaiting() const {
  for (Sequence* sequence : waiting_) {
    if (sequence->rank.preemptible) return sequence;
    if (protected_blocks_ + WorstCaseBlocks(*sequence) <= pool_.num_blocks()) return sequence;
  }
  return nullptr;
}

bool Scheduler::Admit(Sequence* sequence, int32_t budget) {
  if (static_cast<int32_t>(running_.size()) >= options_.max_num_seqs) return false;
  if (!TakeBlocksForAllTokens(sequence, budget)) return false;
  LeaveWaiting(sequence);
  sequence->running = true;
  running_.insert(std::ranges::upper_bound(running_, sequence, BetterRank()), sequence);
  if (!sequence->rank.preemptible) protected_blocks_ += WorstCaseBlocks(*sequence);
  if (!sequence->started) CountFirstAdmission(sequence);
  // To the end, so that decoding allocates nothing.
  sequence->tokens.reserve(sequence->request->prompt_tokens.size() + sequence->request->max_tokens);
  sequence->block_table.reserve(WorstCaseBlocks(*sequence));
  return true;
}

bool Scheduler::TakeBlocksForAllTokens(Sequence* sequence, int32_t budget) {
  FindPrefix(*sequence);
  const int32_t num_reused = static_cast<int32_t>(prefix_.size());
  const int32_t num_pending = sequence->num_tokens() - num_reused * options_.block_size;
  const int32_t num_at_once = options_.enable_chunked_prefill ? sequence->request->num_encoder_tokens : num_pending;
  if (num_at_once > budget) return false;
  const int32_t num_new = NumBlocks(sequence->num_tokens()) - num_reused;
  const auto num_revived = std::ranges::count_if(prefix_, [&](int32_t block) { return pool_.ref_count(block) == 0; });
  if (pool_.num_available() - num_revived < num_new + AdmissionHeadroom(*sequence)) return false;

  // Reused blocks are held before new ones are taken: taking one may evict.
  sequence->block_table = prefix_;
  for (const int32_t block : prefix_) pool_.Ref(block);
  for (int32_t i = 0; i < num_new; ++i) sequence->block_table.push_back(pool_.Allocate());
  sequence->num_computed = num_reused * options_.block_size;
  sequence->num_planned = sequence->num_computed;
  sequence->num_published = num_reused;
  sequence->published_content = num_reused == 0 ? KvBlockPool::kNoContent : pool_.content(prefix_.back());
  return true;
}

// Fills prefix_. Leaves at least the last token to run: its logits are what the next one is sampled from.
void Scheduler::FindPrefix(const Sequence& sequence) {
  prefix_.clear();
  if (!ReusesPrefixes(sequence)) return;
  const int32_t num_full_blocks = (sequence.num_tokens() - 1) / options_.block_size;
  KvBlockPool::ContentId parent = KvBlockPool::kNoContent;
  for (int32_t i = 0; i < num_full_blocks; ++i) {
    const auto tokens = std::span(sequence.tokens).subspan(i * options_.block_size, options_.block_size);
    const int32_t block = pool_.Find(parent, tokens);
    if (block == KvBlockPool::kNoBlock) return;
    prefix_.push_back(block);
    parent = pool_.content(block);
  }
}

// Blocks that must stay free, so that the newcomer is not preempted as soon as the others grow: one for each, or half
// of what all are expected to grow by. Half, because while some grow others end and give back: with max_tokens always
// used up and 64 running where 8 fit to their ends, recomputed rows were 28 % without, 17 % with half (70 % of the pool
// in use) and 4 % with all of it (52 % in use). None when it runs alone (then it fits) or cannot be preempted.
int32_t Scheduler::AdmissionHeadroom(const Sequence& sequence) const {
  if (running_.empty() || !sequence.rank.preemptible) return 0;
  int64_t max_growth = WorstCaseBlocks(sequence) - NumBlocks(sequence.num_tokens());
  for (const Sequence* other : running_) {
    max_growth += WorstCaseBlocks(*other) - static_cast<int64_t>(other->block_table.size());
  }
  const double expected_growth = static_cast<double>(max_growth) * recent_output_tokens_ / recent_max_tokens_;
  return std::max(static_cast<int32_t>(running_.size()) + 1, static_cast<int32_t>(expected_growth / 2));
}

// Old ones count less and less: the last sixteen or so make up two thirds.
void Scheduler::LearnOutputLength(const Sequence& sequence) {
  recent_output_tokens_ += sequence.num_output_tokens() - recent_output_tokens_ / 16;
  recent_max_tokens_ += sequence.request->max_tokens - recent_max_tokens_ / 16;
}

void Scheduler::CountFirstAdmission(Sequence* sequence) {
  sequence->num_cached_prompt_tokens = sequence->num_computed;
  counts_.prompt_tokens_total += sequence->num_prompt_tokens();
  if (!ReusesPrefixes(*sequence)) return;
  counts_.prefix_query_tokens_total += sequence->num_prompt_tokens();
  counts_.prefix_hit_tokens_total += sequence->num_computed;
}

void Scheduler::Schedule(Sequence* sequence, int32_t num_tokens, TimePoint now) {
  if (!sequence->started) sequence->first_step_time = now;
  sequence->started = true;
  Step& step = NextStep();
  step.sequences.push_back(sequence);
  step.batch.slices.push_back({.sequence_id = sequence->request->id,
                               .tokens = TokensToRun(*sequence, num_tokens, step),
                               .first_position = sequence->num_planned,
                               .block_table = sequence->block_table,
                               .sample = num_tokens == sequence->num_pending(),
                               .sampling = &sequence->request->sampling,
                               .num_encoder_tokens = sequence->request->num_encoder_tokens,
                               .prompt_tokens = sequence->prompt().subspan(sequence->request->num_encoder_tokens),
                               .output_tokens = sequence->output(),
                               .explain_routing = sequence->request->explain_routing,
                               .image = sequence->request->image});
  ++sequence->slices_in_flight;
  sequence->num_planned += num_tokens;
  if (!step.batch.slices.back().sample) return;
  sequence->sample_index = step.num_sampled++;
  ++sequence->num_sampling;
  if (NeedsHostSampler(sequence->request->sampling)) step.samples_on_host = true;
}

// Of the token that the step in flight samples only the place is known, see SequenceSlice::tokens.
std::span<const int32_t> Scheduler::TokensToRun(const Sequence& sequence, int32_t num_tokens, Step& step) {
  if (sequence.num_planned < sequence.num_tokens()) {
    return std::span(sequence.tokens).subspan(sequence.num_planned, num_tokens);
  }
  step.unknown_tokens.push_back(~sequence.sample_index);
  return std::span(step.unknown_tokens).last(1);
}

// --- Apply -----------------------------------------------------------------------------------------------------

void Scheduler::Apply(const StepOutput& output, TimePoint now) {
  CHECK(steps_in_flight_ > 0);
  Step& step = steps_[oldest_];
  oldest_ = (oldest_ + 1) % steps_.size();
  --steps_in_flight_;
  size_t next_token = 0;
  for (size_t i = 0; i < step.sequences.size(); ++i) {
    const SequenceSlice& slice = step.batch.slices[i];
    const SampledToken* token = nullptr;
    if (slice.sample) {
      CHECK(next_token < output.tokens.size());
      token = &output.tokens[next_token++];
      CHECK(token->sequence_id == slice.sequence_id);
    }
    ApplySlice(step.sequences[i], static_cast<int32_t>(slice.tokens.size()), token, now);
  }
  CHECK(next_token == output.tokens.size());
  ReleaseEnded(&step);
}

// `token`: null without `sample`.
void Scheduler::ApplySlice(Sequence* sequence, int32_t num_tokens, const SampledToken* token, TimePoint now) {
  --sequence->slices_in_flight;
  if (token != nullptr) --sequence->num_sampling;
  if (sequence->ended) return;  // with the step before: nobody waits for what this one made of it
  if (sequence->cancelled) return Finish(sequence, FinishReason::kCancelled, TerminalStatus::kCancelled, now);
  Advance(sequence, num_tokens);
  if (token != nullptr) Deliver(sequence, *token, now);
}

void Scheduler::Advance(Sequence* sequence, int32_t num_tokens) {
  const int32_t begin = sequence->num_computed;
  sequence->num_computed += num_tokens;
  counts_.recomputed_tokens_total += std::max(0, std::min(sequence->max_computed, sequence->num_computed) - begin);
  sequence->max_computed = std::max(sequence->max_computed, sequence->num_computed);
  PublishFullBlocks(sequence);
}

// What an encoder makes of a token depends on all that follow it.
bool Scheduler::ReusesPrefixes(const Sequence& sequence) const {
  return options_.enable_prefix_caching && sequence.request->allow_prefix_reuse &&
         sequence.request->num_encoder_tokens == 0;
}

void Scheduler::PublishFullBlocks(Sequence* sequence) {
  if (!ReusesPrefixes(*sequence)) return;
  for (; sequence->num_published < sequence->num_computed / options_.block_size; ++sequence->num_published) {
    const int32_t begin = sequence->num_published * options_.block_size;
    sequence->published_content =
        pool_.Publish(sequence->block_table[sequence->num_published], sequence->published_content,
                      std::span(sequence->tokens).subspan(begin, options_.block_size));
  }
}

void Scheduler::Deliver(Sequence* sequence, const SampledToken& token, TimePoint now) {
  if (!token.finite) return Finish(sequence, FinishReason::kError, TerminalStatus::kDataLoss, now);
  const Request& request = *sequence->request;
  if (sequence->num_output_tokens() == 0) sequence->first_token_time = now;
  const bool is_stop_token = Contains(request.sampling.stop_token_ids, token.token);
  const SinkVerdict verdict = request.sink->OnToken(token, is_stop_token);
  // A token that found no room in the sink was not delivered.
  if (verdict == SinkVerdict::kSlowReader) {
    return Finish(sequence, FinishReason::kError, TerminalStatus::kSlowReader, now);
  }
  sequence->tokens.push_back(token.token);
  ++counts_.generation_tokens_total;
  if (is_stop_token) {
    const bool is_eos = Contains(request.eos_token_ids, token.token);
    return Finish(sequence, is_eos ? FinishReason::kEos : FinishReason::kStop, TerminalStatus::kOk, now);
  }
  if (verdict == SinkVerdict::kStop) return Finish(sequence, FinishReason::kStop, TerminalStatus::kOk, now);
  if (sequence->num_output_tokens() >= request.max_tokens || sequence->num_tokens() >= options_.max_model_len) {
    Finish(sequence, FinishReason::kLength, TerminalStatus::kOk, now);
  }
}

// --- Ends ------------------------------------------------------------------------------------------------------

void Scheduler::FailAll(TerminalStatus status, TimePoint now) {
  steps_in_flight_ = 0;
  for (Step& step : steps_) ReleaseEnded(&step);
  for (Sequence* sequence : running_) sequence->slices_in_flight = 0;
  while (!running_.empty()) Finish(running_.back(), FinishReason::kError, status, now);
  while (!waiting_.empty()) Finish(*waiting_.begin(), FinishReason::kError, status, now);
}

void Scheduler::Finish(Sequence* sequence, FinishReason reason, TerminalStatus status, TimePoint now) {
  const auto phase = static_cast<size_t>(sequence->phase());
  ++counts_.finished_total[static_cast<size_t>(reason)];
  if (reason == FinishReason::kCancelled) ++counts_.cancelled_total[phase];
  if (reason == FinishReason::kDeadline) ++counts_.deadline_total[phase];
  if (status == TerminalStatus::kOk) LearnOutputLength(*sequence);

  std::unique_ptr<Sequence> owned = Remove(sequence);
  FinishedEvent event{.reason = reason,
                      .status = status,
                      .num_output_tokens = sequence->num_output_tokens(),
                      .num_cached_prompt_tokens = sequence->num_cached_prompt_tokens,
                      .num_preemptions = sequence->num_preemptions};
  const Request& request = *sequence->request;
  const bool has_output = sequence->num_output_tokens() > 0;
  event.queue_seconds = SecondsBetween(request.arrival, sequence->started ? sequence->first_step_time : now);
  if (sequence->started) {
    event.prefill_seconds = SecondsBetween(sequence->first_step_time, has_output ? sequence->first_token_time : now);
  }
  if (has_output) event.decode_seconds = SecondsBetween(sequence->first_token_time, now);
  if (on_finished_) on_finished_(request, event);
  request.sink->OnFinished(event);
  if (!sequence->in_flight()) return;
  sequence->ended = true;
  steps_[oldest_].ended.push_back(std::move(owned));
}

// Takes the sequence out of every list and frees its blocks, which a step in flight keeps.
std::unique_ptr<Sequence> Scheduler::Remove(Sequence* sequence) {
  if (!sequence->in_flight()) ReleaseBlocks(sequence);
  if (sequence->running) {
    LeaveRunning(sequence);
  } else {
    LeaveWaiting(sequence);
  }
  const uint64_t id = sequence->request->id;
  deadlines_.erase({sequence->request->deadline, id});
  auto node = sequences_.extract(id);
  return std::move(node.mapped());
}

// Idempotent. The end of the sequence is freed first, so that it is evicted first: a prefix is worth more than what
// follows it.
void Scheduler::ReleaseBlocks(Sequence* sequence) {
  while (!sequence->block_table.empty()) {
    pool_.Unref(sequence->block_table.back());
    sequence->block_table.pop_back();
  }
  sequence->num_computed = 0;
  sequence->num_planned = 0;
  sequence->num_published = 0;
  sequence->published_content = KvBlockPool::kNoContent;
}

void Scheduler::ReleaseEnded(Step* step) {
  for (const std::unique_ptr<Sequence>& sequence : step->ended) ReleaseBlocks(sequence.get());
  step->ended.clear();
}

void Scheduler::EnterWaiting(Sequence* sequence) {
  waiting_.insert(sequence);
  counts_.waiting_tokens += sequence->num_tokens();
}

void Scheduler::LeaveWaiting(Sequence* sequence) {
  waiting_.erase(sequence);
  counts_.waiting_tokens -= sequence->num_tokens();
}

void Scheduler::LeaveRunning(Sequence* sequence) {
  running_.erase(std::ranges::lower_bound(running_, sequence, BetterRank()));
  sequence->running = false;
  if (!sequence->rank.preemptible) protected_blocks_ -= WorstCaseBlocks(*sequence);
}

SchedulerCounts Scheduler::counts(TimePoint now) const {
  SchedulerCounts counts = counts_;
  counts.waiting = static_cast<int32_t>(waiting_.size());
  counts.running = static_cast<int32_t>(running_.size());
  for (const Sequence* sequence : waiting_) {
    counts.oldest_waiting_seconds =
        std::max(counts.oldest_waiting_seconds, SecondsBetween(sequence->request->arrival, now));
  }
  counts.kv_blocks_total = pool_.num_blocks();
  counts.kv_blocks_used = pool_.num_blocks() - pool_.num_available();
  counts.kv_blocks_cached = pool_.num_cached();
  return counts;
}

int32_t Scheduler::NumBlocks(int64_t num_tokens) const {
  return static_cast<int32_t>(NumKvBlocks(options_, num_tokens));
}

int32_t Scheduler::WorstCaseBlocks(const Sequence& sequence) const {
  return static_cast<int32_t>(
      WorstCaseKvBlocks(options_, sequence.num_prompt_tokens(), sequence.request->max_tokens));
}

}  // namespace switchyard
