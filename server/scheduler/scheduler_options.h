// What the scheduler may use, and whether a request can ever run with that.
#ifndef SWITCHYARD_SERVER_SCHEDULER_SCHEDULER_OPTIONS_H_
#define SWITCHYARD_SERVER_SCHEDULER_SCHEDULER_OPTIONS_H_

#include <chrono>
#include <cstdint>

#include "absl/status/status.h"

namespace switchyard {

enum class SchedulingPolicy : uint8_t { kFcfs, kPriority };

struct SchedulerOptions {
  int32_t max_num_seqs = 64;             // running at once; raising it costs step time and KV blocks
  int32_t max_num_batched_tokens = 512;  // per step, >= max_num_seqs; raising it lengthens the longest step
  int32_t max_model_len = 4096;          // prompt + output tokens of one sequence
  int32_t block_size = 16;               // tokens per KV block, as the engine's
  int32_t num_kv_blocks = 256;           // the engine's pool
  SchedulingPolicy policy = SchedulingPolicy::kFcfs;
  // Under kPriority: one priority level is worth so much waiting. Finite, so nobody starves behind urgent newcomers.
  std::chrono::nanoseconds priority_step = std::chrono::seconds(10);
  bool enable_prefix_caching = true;
  // False: a prompt runs in one step, which needs max_num_batched_tokens >= max_model_len + max_num_seqs.
  bool enable_chunked_prefill = true;
  // Prompt tokens that may join a step that also decodes: what an arriving prompt may add to everybody's inter-token
  // latency. Lower: smoother streams, later first tokens. 0: a quarter of max_num_batched_tokens. Without chunked
  // prefill it has no effect.
  int32_t max_prefill_tokens_while_decoding = 0;
  int32_t max_preemptions = 3;  // of one sequence; 0: never preempt, admit only what fits to its end
};

// INVALID_ARGUMENT: names the option that is out of range, its value and the limit.
absl::Status ValidateSchedulerOptions(const SchedulerOptions& options);

// Whether a request can ever run with these options. Thread-safe; the frontend asks before it admits.
// INVALID_ARGUMENT: longer than max_model_len, or needs more KV blocks than the pool has; says how many.
absl::Status CheckFits(const SchedulerOptions& options, int64_t num_prompt_tokens, int64_t max_tokens);

// Whether an encoder's tokens can ever run in one step, beside one token for each of the other sequences. Thread-safe.
// INVALID_ARGUMENT: they cannot; says how many can and which option to raise.
absl::Status CheckEncoderFits(const SchedulerOptions& options, int64_t num_encoder_tokens);

// KV blocks that so many tokens take.
int64_t NumKvBlocks(const SchedulerOptions& options, int64_t num_tokens);

// KV blocks of a sequence that uses up its max_tokens.
int64_t WorstCaseKvBlocks(const SchedulerOptions& options, int64_t num_prompt_tokens, int64_t max_tokens);

}  // namespace switchyard

#endif  // SWITCHYARD_SERVER_SCHEDULER_SCHEDULER_OPTIONS_H_
