// Chooses the next token of a row from its logits.
//
// Order, as in Hugging Face and vLLM: logit bias, repetition / presence / frequency penalties, min_tokens mask ->
// logprobs are read here -> temperature -> top-k -> top-p -> min-p -> one draw by inverse transform. The draw uses
// one uniform number keyed by (seed, position), so it does not depend on batch mates or on what ran before.
// Ties always go to the lower token id.
#ifndef SWITCHYARD_ENGINE_SAMPLING_SAMPLER_H_
#define SWITCHYARD_ENGINE_SAMPLING_SAMPLER_H_

#include <cstdint>
#include <span>
#include <vector>

#include "engine/sampling/token_weight.h"
#include "engine/sampling_params.h"
#include "engine/step.h"

namespace switchyard {

// Scratch for one row at a time, 24 bytes per id of the vocabulary: keep one per thread that samples.
class Sampler {
 public:
  // Ids from num_valid_ids on are padding of the vocabulary and never chosen.
  explicit Sampler(int32_t num_valid_ids);

  // Fills token, finite, logprob and top_logprobs of `out`. `logits` has at least num_valid_ids entries.
  // `position` is that of the token to be drawn. A NaN or infinite logit gives finite = false; otherwise every logprob
  // is finite, as extreme penalties and biases saturate at the largest float.
  void Sample(std::span<const float> logits, const SamplingParams& params, std::span<const int32_t> prompt_tokens,
              std::span<const int32_t> output_tokens, int64_t position, SampledToken* out);

 private:
  struct Candidate {
    float logit;
    int32_t token;
  };

  bool IsValid(int32_t token) const { return token >= 0 && token < num_valid_ids_; }
  std::span<const float> Adjust(std::span<const float> logits, const SamplingParams& params,
                                std::span<const int32_t> prompt_tokens, std::span<const int32_t> output_tokens);
  void Penalize(const SamplingParams& params, std::span<const int32_t> prompt_tokens,
                std::span<const int32_t> output_tokens);
  void FillLogprobs(std::span<const float> logits, int num_logprobs, SampledToken* out);
  int32_t DrawFromAll(std::span<const float> logits, const SamplingParams& params, const TokenWeights& weights,
                      int64_t position);
  int32_t DrawTruncated(std::span<const float> logits, const SamplingParams& params, const TokenWeights& weights,
                        int64_t position);
  // Shortens candidates_, which are in falling order, to the fewest whose weights reach `target` > 0. False if all
  // together do not.
  bool KeepNucleus(uint64_t target, const TokenWeights& weights);
  // The `count` largest logits, largest first, ties to the lower id, in candidates_.
  void SelectLargest(std::span<const float> logits, size_t count);

  const int32_t num_valid_ids_;
  std::vector<float> adjusted_;
  std::vector<Candidate> candidates_;
  std::vector<uint64_t> units_;  // weights of candidates, or of parts of the vocabulary
  std::vector<int32_t> counts_;  // [num_valid_ids] of each token in the history; all zero between calls
};

}  // namespace switchyard

#endif  // SWITCHYARD_ENGINE_SAMPLING_SAMPLER_H_
