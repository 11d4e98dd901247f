// Plain data over the boundary between scheduler and engine: what one step runs, and what came out of it.
//
// A *step* is one engine call; a *batch* is what runs in it: one slice of tokens for each sequence that takes part.
// A slice is a chunk of a prompt (prefill) or the one newest token (decode); the engine does not tell them apart.
//
//   sequence A, decode, position 41          slice {tokens [t41], first_position 41, sample}
//   sequence B, prompt of 700, second chunk  slice {tokens [t512..t699], first_position 512, sample}
//   sequence C, prompt of 9000, first chunk  slice {tokens [t0..t310], first_position 0, no sample}
//   sequence D, text of 20 for an encoder    slice {tokens [t0..t19, start], first_position 0, num_encoder_tokens 20,
//                                                   sample}
#ifndef SWITCHYARD_ENGINE_STEP_H_
#define SWITCHYARD_ENGINE_STEP_H_

#include <cstdint>
#include <span>
#include <vector>

#include "engine/sampling_params.h"

namespace switchyard {

// The tokens of one sequence in one step. All views, and the StepBatch with its slices itself, must stay valid and in
// place from Launch until the Collect of this step returns.
struct SequenceSlice {
  uint64_t sequence_id = 0;
  // To run now; their keys and values are appended to the KV cache. One token alone may be unknown yet: ~i is what the
  // step launched just before this one, and not collected yet, samples for the i-th of its slices with `sample`.
  // REQUIRES for ~i: facts().max_steps_in_flight > 1, and no slice of that step with `sample` NeedsHostSampler.
  std::span<const int32_t> tokens;
  int32_t first_position = 0;            // position of tokens[0]; the KV of all earlier positions is in the cache
  std::span<const int32_t> block_table;  // KV block of positions [i*block_size, (i+1)*block_size); covers all tokens
  bool sample = false;                   // draw the token that follows tokens.back()
  const SamplingParams* sampling = nullptr;  // REQUIRES: not null when `sample`
  // Encoder-decoders: positions below it are the encoder's tokens, and a slice has all of them or none; from there on
  // stand the decoder's, beginning with its start token.
  int32_t num_encoder_tokens = 0;
  std::span<const int32_t> prompt_tokens;    // of the decoder: for the repetition penalty
  std::span<const int32_t> output_tokens;    // generated so far: penalties, min_tokens
  bool explain_routing = false;              // report which experts the sampled row went to, per MoE layer
  std::span<const float> image = {};         // of an image classifier: its patches are the tokens, without ids
};

struct StepBatch {
  std::vector<SequenceSlice> slices;  // at most max_num_seqs, together at most max_num_batched_tokens tokens
};

struct TokenLogprob {
  int32_t token = 0;
  float logprob = 0.0f;  // natural log, after penalties and bias, before temperature and truncation
};

// Which experts one row went to: [num_moe_layers][top_k] row-major, most wanted expert first. Of an encoder-decoder the
// MoE layers of the decoder only, which are those that the row passed through.
struct RoutingTrace {
  std::vector<int32_t> expert_ids;
  std::vector<float> expert_weights;  // gate weights as applied to the expert outputs
  std::vector<float> margins;         // [num_moe_layers]: score of the last chosen expert minus the runner-up's
};

struct SampledToken {
  uint64_t sequence_id = 0;
  int32_t token = 0;
  bool finite = true;  // false: a logit was NaN or infinite, `token` means nothing and the sequence must end
  float logprob = 0.0f;                    // of `token`; set when num_logprobs >= 0
  std::vector<TokenLogprob> top_logprobs;  // most likely first, ties to the lower id; `num_logprobs` entries
  RoutingTrace routing;                    // set when `explain_routing`
  std::vector<float> logits = {};          // of an image classifier: [num_classes]; `token` is the likeliest class
};

// Load and latency of one MoE layer in one step. Real rows only: padding and warm-up never count.
struct MoeLayerStats {
  int32_t num_tokens = 0;                    // that the layer saw: all of the step, or those of its stack
  std::vector<int32_t> tokens_per_expert;    // [num_experts]; with num_dropped it sums to num_tokens * top_k
  int32_t num_dropped = 0;                   // choices whose expert had no room
  std::vector<float> seconds_per_expert;     // [num_experts] wall time of the expert's batch; 0 without rows
  std::vector<float> probability_sums;       // [num_experts] sum over tokens of the router's probability
  double squared_logsumexp_sum = 0.0;        // sum over tokens of logsumexp(router logits)^2, for the router z-loss
  float seconds = 0.0f;                      // the whole MoE layer: routing, experts, combine, shared experts
};

struct StepStats {
  int32_t num_tokens = 0;
  float seconds = 0.0f;              // wall time of the step
  std::vector<MoeLayerStats> moe_layers;  // [num_moe_layers], in layer order
  std::vector<uint64_t> expert_gemm_layers;  // [facts.expert_gemms] MoE layers that each has computed since the start
};

// Valid until the next Collect: the engine reuses it, so that steady decoding allocates nothing.
struct StepOutput {
  std::vector<SampledToken> tokens;  // one per slice with `sample`, in the order of the slices
  StepStats stats;
};

}  // namespace switchyard

#endif  // SWITCHYARD_ENGINE_STEP_H_
