#include "server/scheduler/scheduler_options.h"

#include "absl/strings/str_cat.h"
#include "engine/base/status_macros.h"

namespace switchyard {
namespace {

absl::Status AtLeast(const char* name, int64_t value, int64_t limit, const char* why = "") {
  if (value >= limit) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(name, " is ", value, "; it must be at least ", limit, why));
}

}  // namespace

int64_t NumKvBlocks(const SchedulerOptions& options, int64_t num_tokens) {
  return (num_tokens + options.block_size - 1) / options.block_size;
}

// The last sampled token is never run, so its KV needs no place.
int64_t WorstCaseKvBlocks(const SchedulerOptions& options, int64_t num_prompt_tokens, int64_t max_tokens) {
  return NumKvBlocks(options, num_prompt_tokens + max_tokens - 1);
}

absl::Status ValidateSchedulerOptions(const SchedulerOptions& options) {
  RETURN_IF_ERROR(AtLeast("max_num_seqs", options.max_num_seqs, 1));
  RETURN_IF_ERROR(AtLeast("max_model_len", options.max_model_len, 2));
  RETURN_IF_ERROR(AtLeast("block_size", options.block_size, 1));
  RETURN_IF_ERROR(AtLeast("num_kv_blocks", options.num_kv_blocks, 1));
  RETURN_IF_ERROR(AtLeast("max_prefill_tokens_while_decoding", options.max_prefill_tokens_while_decoding, 0));
  RETURN_IF_ERROR(AtLeast("max_preemptions", options.max_preemptions, 0));
  if (options.priority_step < std::chrono::seconds(0) || options.priority_step > std::chrono::hours(1)) {
    return absl::InvalidArgumentError(
        absl::StrCat("priority_step is ", options.priority_step.count(), " ns; use 0 to 1 hour"));
  }
  RETURN_IF_ERROR(AtLeast("max_num_batched_tokens", options.max_num_batched_tokens, options.max_num_seqs,
                          " (max_num_seqs), so that every running sequence gets its token in every step"));
  if (options.enable_chunked_prefill) return absl::OkStatus();
  return AtLeast("max_num_batched_tokens", options.max_num_batched_tokens,
                 int64_t{options.max_model_len} + options.max_num_seqs,
                 " (max_model_len + max_num_seqs) without chunked prefill, so that any prompt fits one step");
}

absl::Status CheckFits(const SchedulerOptions& options, int64_t num_prompt_tokens, int64_t max_tokens) {
  if (num_prompt_tokens < 1) return absl::InvalidArgumentError("the prompt is empty");
  if (max_tokens < 1) return absl::InvalidArgumentError(absl::StrCat("max_tokens is ", max_tokens, "; use 1 or more"));
  // Not the sum: a hostile max_tokens must not overflow it.
  if (num_prompt_tokens > options.max_model_len || max_tokens > options.max_model_len - num_prompt_tokens) {
    return absl::InvalidArgumentError(absl::StrCat("the prompt (", num_prompt_tokens, " tokens) with max_tokens ",
                                                   max_tokens, " exceeds the model's ", options.max_model_len));
  }
  const int64_t num_blocks = WorstCaseKvBlocks(options, num_prompt_tokens, max_tokens);
  if (num_blocks <= options.num_kv_blocks) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("the prompt (", num_prompt_tokens, " tokens) with max_tokens ",
                                                 max_tokens, " needs ", num_blocks, " KV blocks; the pool has ",
                                                 options.num_kv_blocks));
}

absl::Status CheckEncoderFits(const SchedulerOptions& options, int64_t num_encoder_tokens) {
  const int64_t limit = int64_t{options.max_num_batched_tokens} - options.max_num_seqs + 1;
  if (num_encoder_tokens <= limit) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      "the prompt has ", num_encoder_tokens, " tokens; this model's encoder reads it in one step, which has room for ",
      limit, " beside the other sequences (max_num_batched_tokens ", options.max_num_batched_tokens,
      " - max_num_seqs ", options.max_num_seqs, " + 1)"));
}

}  // namespace switchyard
