#include "engine/sampling/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "engine/sampling/philox.h"

namespace switchyard {
namespace {

// Below this a temperature cannot be told from greedy, and its inverse stays finite.
double InverseTemperature(const SamplingParams& params) {
  return 1.0 / std::max(1e-6, static_cast<double>(params.temperature));
}

// Index of the largest value, the lowest one among equals; -1 if any value is NaN or infinite.
int32_t ArgMaxIfFinite(std::span<const float> logits) {
  // v - v is 0 for finite values and NaN otherwise: one pass without branches, which the compiler vectorises.
  float poison = 0.0f, largest = -std::numeric_limits<float>::infinity();
  for (const float v : logits) {
    poison += v - v;
    largest = v > largest ? v : largest;
  }
  if (poison != 0.0f || std::isnan(poison)) return -1;
  return static_cast<int32_t>(std::find(logits.begin(), logits.end(), largest) - logits.begin());
}

double LogSumExp(std::span<const float> logits, float largest) {
  double sum = 0.0;
  for (const float v : logits) sum += std::exp(double{v} - largest);
  return largest + std::log(sum);
}

}  // namespace

void Sampler::Sample(std::span<const float> logits, const SamplingParams& params,
                     std::span<const int32_t> prompt_tokens, std::span<const int32_t> output_tokens,
                     int64_t position, SampledToken* out) {
  logits = logits.first(static_cast<size_t>(num_valid_ids_));
  out->top_logprobs.clear();
  out->token = ArgMaxIfFinite(logits);
  out->finite = out->token >= 0;
  if (!out->finite) {
    out->token = 0;
    return;
  }
  const std::span<const float> adjusted = Adjust(logits, params, prompt_tokens, output_tokens);
  if (adjusted.data() != logits.data()) {
    out->token = static_cast<int32_t>(std::max_element(adjusted.begin(), adjusted.end()) - adjusted.begin());
  }
  if (params.temperature > 0.0f) {
    const double uniform = UniformAt(params.seed, static_cast<uint64_t>(position));
    const bool truncated = (params.top_k > 0 && params.top_k < num_valid_ids_) || params.top_p < 1.0f;
    out->token = truncated ? DrawTruncated(adjusted, params, uniform)
                           : DrawFromAll(adjusted, params, adjusted[out->token], uniform);
  }
  if (params.num_logprobs >= 0) FillLogprobs(adjusted, params.num_logprobs, out);
}

std::span<const float> Sampler::Adjust(std::span<const float> logits, const SamplingParams& params,
                                       std::span<const int32_t> prompt_tokens,
                                       std::span<const int32_t> output_tokens) {
  const bool penalized = params.repetition_penalty != 1.0f || params.presence_penalty != 0.0f ||
                         params.frequency_penalty != 0.0f;
  const bool stop_masked =
      !params.stop_token_ids.empty() && static_cast<int64_t>(output_tokens.size()) < params.min_tokens;
  if (!penalized && !stop_masked && params.logit_bias.empty()) return logits;

  adjusted_.assign(logits.begin(), logits.end());
  for (const auto& [token, bias] : params.logit_bias) {
    if (token >= 0 && token < num_valid_ids_) adjusted_[token] += bias;
  }
  if (penalized) Penalize(params, prompt_tokens, output_tokens);
  if (stop_masked) {
    // The lowest finite float, not -inf: an all-masked row still has a defined arg max and sums.
    for (const int32_t token : params.stop_token_ids) {
      if (token >= 0 && token < num_valid_ids_) adjusted_[token] = std::numeric_limits<float>::lowest();
    }
  }
  return adjusted_;
}

void Sampler::Penalize(const SamplingParams& params, std::span<const int32_t> prompt_tokens,
                       std::span<const int32_t> output_tokens) {
  const auto repeat = [&](int32_t token) {
    float& logit = adjusted_[token];
    logit = logit > 0.0f ? logit / params.repetition_penalty : logit * params.repetition_penalty;
  };
  history_.assign(output_tokens.begin(), output_tokens.end());
  std::sort(history_.begin(), history_.end());
  for (size_t i = 0; i < history_.size();) {
    size_t end = i;
    while (end < history_.size() && history_[end] == history_[i]) ++end;
    const int32_t token = history_[i];
    if (token < num_valid_ids_) {
      if (params.repetition_penalty != 1.0f) repeat(token);
      adjusted_[token] -= params.presence_penalty + params.frequency_penalty * static_cast<float>(end - i);
    }
    i = end;
  }
  if (params.repetition_penalty == 1.0f) return;
  // Prompt tokens that the output has not repeated yet: each once.
  const size_t num_output = history_.size();
  history_.insert(history_.end(), prompt_tokens.begin(), prompt_tokens.end());
  std::sort(history_.begin() + num_output, history_.end());
  const auto prompt_end = std::unique(history_.begin() + num_output, history_.end());
  for (auto it = history_.begin() + num_output; it != prompt_end; ++it) {
    if (*it < num_valid_ids_ && !std::binary_search(history_.begin(), history_.begin() + num_output, *it)) repeat(*it);
  }
}

void Sampler::FillLogprobs(std::span<const float> logits, int num_logprobs, SampledToken* out) {
  const float largest = *std::max_element(logits.begin(), logits.end());
  const double total = LogSumExp(logits, largest);
  out->logprob = static_cast<float>(logits[out->token] - total);
  if (num_logprobs == 0) return;
  SelectLargest(logits, static_cast<size_t>(std::min(num_logprobs, num_valid_ids_)));
  for (const Candidate& candidate : candidates_) {
    out->top_logprobs.push_back({candidate.token, static_cast<float>(candidate.logit - total)});
  }
}

// Without top-k and top-p no order is needed: the draw walks the vocabulary by id.
int32_t Sampler::DrawFromAll(std::span<const float> logits, const SamplingParams& params, float max_logit,
                             double uniform) {
  const double inverse = InverseTemperature(params);
  const double cutoff = params.min_p;
  double total = 0.0;
  candidates_.clear();
  for (int32_t token = 0; token < num_valid_ids_; ++token) {
    const double weight = std::exp((double{logits[token]} - max_logit) * inverse);
    if (weight < cutoff) continue;
    total += weight;
    candidates_.push_back({static_cast<float>(weight), token});
  }
  double rest = uniform * total;
  for (const Candidate& candidate : candidates_) {
    rest -= candidate.logit;  // holds the weight here
    if (rest < 0.0) return candidate.token;
  }
  return candidates_.back().token;
}

int32_t Sampler::DrawTruncated(std::span<const float> logits, const SamplingParams& params, double uniform) {
  const size_t limit = params.top_k > 0 ? static_cast<size_t>(std::min(params.top_k, num_valid_ids_))
                                        : static_cast<size_t>(num_valid_ids_);
  const float largest = *std::max_element(logits.begin(), logits.end());
  const double inverse = InverseTemperature(params);
  const auto weight_of = [&](float logit) { return std::exp((double{logit} - largest) * inverse); };
  // What top-p is a share of: everything, or what top-k kept. Only the latter needs its members first.
  double kept_mass = 0.0;
  if (limit == static_cast<size_t>(num_valid_ids_)) {
    for (const float logit : logits) kept_mass += weight_of(logit);
  }
  // The nucleus is usually small: sort a prefix, and a longer one while it does not reach p.
  size_t count = std::min<size_t>(limit, params.top_p < 1.0f ? 256 : limit);
  for (;;) {
    SelectLargest(logits, count);
    if (count == limit && kept_mass == 0.0) {
      for (const Candidate& candidate : candidates_) kept_mass += weight_of(candidate.logit);
    }
    if (kept_mass > 0.0) {
      double mass = 0.0;
      size_t nucleus = 0;
      while (nucleus < candidates_.size() && (nucleus == 0 || mass < params.top_p * kept_mass)) {
        mass += weight_of(candidates_[nucleus++].logit);
      }
      if (mass >= params.top_p * kept_mass || count == limit) {
        candidates_.resize(nucleus);
        break;
      }
    }
    count = std::min(limit, count * 8);
  }
  // min-p compares with the largest probability, whose weight is 1.
  double total = 0.0;
  size_t kept = 0;
  for (; kept < candidates_.size(); ++kept) {
    const double weight = weight_of(candidates_[kept].logit);
    if (kept > 0 && weight < params.min_p) break;
    total += weight;
  }
  double rest = uniform * total;
  for (size_t i = 0; i < kept; ++i) {
    rest -= weight_of(candidates_[i].logit);
    if (rest < 0.0) return candidates_[i].token;
  }
  return candidates_[kept - 1].token;
}

void Sampler::SelectLargest(std::span<const float> logits, size_t count) {
  const auto better = [](const Candidate& a, const Candidate& b) {
    return a.logit != b.logit ? a.logit > b.logit : a.token < b.token;
  };
  candidates_.clear();
  for (int32_t token = 0; token < num_valid_ids_; ++token) {
    // A heap of the best `count`: most logits fail the first comparison.
    if (candidates_.size() < count) {
      candidates_.push_back({logits[token], token});
      std::push_heap(candidates_.begin(), candidates_.end(), better);
    } else if (better({logits[token], token}, candidates_.front())) {
      std::pop_heap(candidates_.begin(), candidates_.end(), better);
      candidates_.back() = {logits[token], token};
      std::push_heap(candidates_.begin(), candidates_.end(), better);
    }
  }
  std::sort_heap(candidates_.begin(), candidates_.end(), better);
}

}  // namespace switchyard
