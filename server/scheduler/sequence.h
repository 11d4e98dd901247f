// One request as the scheduler sees it: its tokens, its KV blocks, and how far it got. Plain data, owned by Scheduler.
//
//   tokens:       p0 p1 p2 p3 p4 o0 o1      (num_prompt_tokens = 5, two output tokens)
//   num_computed: 6                         KV of p0..o0 is in the cache, o1 is the token to run next
//   block_table:  [7, 3]                    block_size 4: positions 0..3 in block 7, 4..7 in block 3
//
// Steps in flight run ahead of what is known; here two of them:
//
//   num_planned:  8                         o1 in the first step, and what that samples, o2, in the second
//   num_sampling: 2                         o2 and o3 will come
//
//   waiting --admit--> running --> finished          running --preempt--> waiting
//
// Invariants: a waiting sequence holds no blocks and has num_computed = 0; its tokens are never lost. Without a step in
// flight num_planned = num_computed and num_sampling = 0.
#ifndef SWITCHYARD_SERVER_SCHEDULER_SEQUENCE_H_
#define SWITCHYARD_SERVER_SCHEDULER_SEQUENCE_H_

#include <compare>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "server/scheduler/kv_block_pool.h"
#include "server/scheduler/request.h"

namespace switchyard {

// Where a sequence is when its client goes away or its deadline passes.
enum class Phase : uint8_t { kQueued, kPrefill, kDecode, kPreempted };
inline constexpr int kNumPhases = 4;

// Who goes first: the smaller one. Unique, by `arrival_number`.
struct Rank {
  bool preemptible = true;    // false after too many preemptions: first, to the end
  int64_t urgency_nanos = 0;  // priority policy: arrival + priority * priority_step; fcfs: 0
  uint64_t arrival_number = 0;

  auto operator<=>(const Rank&) const = default;
};

struct Sequence {
  std::unique_ptr<Request> request;
  Rank rank;
  bool running = false;    // otherwise waiting
  bool cancelled = false;  // while in flight; ends when the step is over
  bool ended = false;      // its client knows; a step that was launched ahead still has a slice of it
  int32_t slices_in_flight = 0;

  std::vector<int32_t> tokens;  // prompt, then output
  std::vector<int32_t> block_table;
  int32_t num_computed = 0;   // tokens whose KV is in the cache, going by the steps that were applied
  int32_t num_planned = 0;    // with those of the steps in flight
  int32_t num_sampling = 0;   // tokens that the steps in flight sample
  int32_t sample_index = 0;   // of the newest of these: which slice with `sample` of its step
  int32_t max_computed = 0;   // the most it ever was: below it, tokens are recomputed
  int32_t num_published = 0;  // leading full blocks offered for prefix reuse
  KvBlockPool::ContentId published_content = KvBlockPool::kNoContent;  // of the last of these

  int32_t num_cached_prompt_tokens = 0;
  int32_t num_preemptions = 0;
  TimePoint first_step_time{};   // meaningful when `started`
  TimePoint first_token_time{};  // meaningful when there is output
  bool started = false;

  int32_t num_tokens() const { return static_cast<int32_t>(tokens.size()); }
  int32_t num_prompt_tokens() const { return static_cast<int32_t>(request->prompt_tokens.size()); }
  int32_t num_output_tokens() const { return num_tokens() - num_prompt_tokens(); }
  bool in_flight() const { return slices_in_flight > 0; }
  // With what the steps in flight sample.
  int32_t num_expected() const { return num_tokens() + num_sampling; }
  // To run before the next token can be sampled; 1: a decode, or the end of a prefill.
  int32_t num_pending() const { return num_expected() - num_planned; }
  std::span<const int32_t> prompt() const { return std::span(tokens).first(request->prompt_tokens.size()); }
  std::span<const int32_t> output() const { return std::span(tokens).subspan(request->prompt_tokens.size()); }

  Phase phase() const {
    if (!running) return num_preemptions > 0 ? Phase::kPreempted : Phase::kQueued;
    return num_output_tokens() > 0 && num_tokens() - num_computed == 1 ? Phase::kDecode : Phase::kPrefill;
  }
};

}  // namespace switchyard

#endif  // SWITCHYARD_SERVER_SCHEDULER_SEQUENCE_H_
