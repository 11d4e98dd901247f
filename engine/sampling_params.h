// How one sequence chooses its next token. Plain data; checked by the server before it gets here.
#ifndef SWITCHYARD_ENGINE_SAMPLING_PARAMS_H_
#define SWITCHYARD_ENGINE_SAMPLING_PARAMS_H_

#include <cstdint>
#include <utility>
#include <vector>

namespace switchyard {

inline constexpr int kMaxLogprobs = 20;
// Of requests and of generation_config.json: wider than anyone uses, narrow enough to keep logits far from infinity.
inline constexpr double kMinRepetitionPenalty = 0.01;
inline constexpr double kMaxRepetitionPenalty = 10.0;

struct SamplingParams {
  float temperature = 1.0f;         // 0 = greedy (the arg max); otherwise logits / temperature
  int top_k = 0;                    // keep the k most likely tokens; 0 = all
  float top_p = 1.0f;               // keep the smallest set whose probabilities reach p, (0, 1]
  float min_p = 0.0f;               // drop tokens below min_p * the largest probability, [0, 1]
  float repetition_penalty = 1.0f;  // > 1 discourages tokens of prompt and output (CTRL's rule: divide or multiply)
  float presence_penalty = 0.0f;    // subtracted once from each token of the output, [-2, 2]
  float frequency_penalty = 0.0f;   // subtracted per occurrence in the output, [-2, 2]
  uint64_t seed = 0;                // with the position, the only source of randomness
  int min_tokens = 0;               // until so many tokens are out, `stop_token_ids` cannot be chosen
  int num_logprobs = -1;            // -1: none; 0: of the chosen token; n: of the n most likely too, <= kMaxLogprobs
  std::vector<int32_t> stop_token_ids;                   // EOS set (unless ignored) and the request's own stop ids
  std::vector<std::pair<int32_t, float>> logit_bias;     // token id -> added to its logit
};

// Whether choosing the token takes more than the logits of its row and a temperature, top-k, top-p or min-p, so that
// no device does it by itself.
inline bool NeedsHostSampler(const SamplingParams& params) {
  return params.repetition_penalty != 1.0f || params.presence_penalty != 0.0f || params.frequency_penalty != 0.0f ||
         params.min_tokens > 0 || params.num_logprobs >= 0 || !params.logit_bias.empty();
}

}  // namespace switchyard

#endif  // SWITCHYARD_ENGINE_SAMPLING_PARAMS_H_
