#include "engine/sampling/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace switchyard {
namespace {

// Penalties and biases of finite logits can leave the range of float (1e38 divided by 0.01). They saturate instead: an
// infinite logit would make weights and logprobs NaN. NaN itself cannot arise from the ranges that requests may use.
float Saturated(double value) {
  constexpr double kMax = std::numeric_limits<float>::max();
  return static_cast<float>(std::clamp(value, -kMax, kMax));
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

bool IsPenalized(const SamplingParams& params) {
  return params.repetition_penalty != 1.0f || params.presence_penalty != 0.0f || params.frequency_penalty != 0.0f;
}

bool IsStopMasked(const SamplingParams& params, std::span<const int32_t> output_tokens) {
  return !params.stop_token_ids.empty() && static_cast<int64_t>(output_tokens.size()) < params.min_tokens;
}

}  // namespace

Sampler::Sampler(int32_t num_valid_ids) : num_valid_ids_(num_valid_ids), counts_(static_cast<size_t>(num_valid_ids)) {
  adjusted_.reserve(counts_.size());
  candidates_.reserve(counts_.size());
  units_.reserve(counts_.size());
}

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
    const TokenWeights weights(adjusted[out->token], params.temperature);
    const bool truncated = (params.top_k > 0 && params.top_k < num_valid_ids_) || params.top_p < 1.0f;
    out->token = truncated ? DrawTruncated(adjusted, params, weights, position)
                           : DrawFromAll(adjusted, params, weights, position);
  }
  if (params.num_logprobs >= 0) FillLogprobs(adjusted, params.num_logprobs, out);
}

std::span<const float> Sampler::Adjust(std::span<const float> logits, const SamplingParams& params,
                                       std::span<const int32_t> prompt_tokens,
                                       std::span<const int32_t> output_tokens) {
  const bool penalized = IsPenalized(params);
  const bool stop_masked = IsStopMasked(params, output_tokens);
  if (!penalized && !stop_masked && params.logit_bias.empty()) return logits;

  adjusted_.assign(logits.begin(), logits.end());
  for (const auto& [token, bias] : params.logit_bias) {
    if (IsValid(token)) adjusted_[token] = Saturated(double{adjusted_[token]} + bias);
  }
  if (penalized) Penalize(params, prompt_tokens, output_tokens);
  if (stop_masked) {
    // The lowest finite float, not -inf: an all-masked row still has a defined arg max and sums.
    for (const int32_t token : params.stop_token_ids) {
      if (IsValid(token)) adjusted_[token] = std::numeric_limits<float>::lowest();
    }
  }
  return adjusted_;
}

// Each token of the history once, however often it occurs: the counts say how often, and that it is done.
void Sampler::Penalize(const SamplingParams& params, std::span<const int32_t> prompt_tokens,
                       std::span<const int32_t> output_tokens) {
  constexpr int32_t kDone = -1;
  const double repetition = params.repetition_penalty;
  const auto repeat = [&](double logit) { return logit > 0.0 ? logit / repetition : logit * repetition; };
  for (const int32_t token : output_tokens) {
    if (IsValid(token)) ++counts_[token];
  }
  for (const int32_t token : output_tokens) {
    if (!IsValid(token) || counts_[token] == kDone) continue;
    const double charge = params.presence_penalty + double{params.frequency_penalty} * counts_[token];
    adjusted_[token] = Saturated(repeat(adjusted_[token]) - charge);
    counts_[token] = kDone;
  }
  if (params.repetition_penalty != 1.0f) {
    for (const int32_t token : prompt_tokens) {
      if (!IsValid(token) || counts_[token] == kDone) continue;
      adjusted_[token] = Saturated(repeat(adjusted_[token]));
      counts_[token] = kDone;
    }
  }
  for (const std::span<const int32_t> tokens : {prompt_tokens, output_tokens}) {
    for (const int32_t token : tokens) {
      if (IsValid(token)) counts_[token] = 0;
    }
  }
}

void Sampler::FillLogprobs(std::span<const float> logits, int num_logprobs, SampledToken* out) {
  const float largest = *std::max_element(logits.begin(), logits.end());
  const double total = LogSumExp(logits, largest);
  out->logprob = Saturated(logits[out->token] - total);
  if (num_logprobs == 0) return;
  SelectLargest(logits, static_cast<size_t>(std::min(num_logprobs, num_valid_ids_)));
  for (const Candidate& candidate : candidates_) {
    out->top_logprobs.push_back({candidate.token, Saturated(candidate.logit - total)});
  }
}

// Without top-k and top-p no order is needed: the draw walks the vocabulary by id, first in parts, then within one.
int32_t Sampler::DrawFromAll(std::span<const float> logits, const SamplingParams& params, const TokenWeights& weights,
                             int64_t position) {
  constexpr size_t kPart = 1024;
  const uint64_t least = LeastUnits(params.min_p);
  const auto units_of = [&](float logit) {
    const uint64_t units = weights.Units(logit);
    return units >= least ? units : 0;
  };
  units_.clear();
  uint64_t total = 0;
  for (size_t first = 0; first < logits.size(); first += kPart) {
    uint64_t units = 0;
    for (const float logit : logits.subspan(first, std::min(kPart, logits.size() - first))) units += units_of(logit);
    units_.push_back(units);
    total += units;
  }
  uint64_t unit = DrawUnit(params.seed, position, total);
  size_t token = 0;
  for (const uint64_t units : units_) {
    if (unit < units) break;
    unit -= units;
    token += kPart;
  }
  for (;; ++token) {
    const uint64_t units = units_of(logits[token]);
    if (unit < units) return static_cast<int32_t>(token);
    unit -= units;
  }
}

int32_t Sampler::DrawTruncated(std::span<const float> logits, const SamplingParams& params,
                               const TokenWeights& weights, int64_t position) {
  const size_t num_ids = static_cast<size_t>(num_valid_ids_);
  uint64_t mass = 0;  // of what top-p is a share of: what top-k kept, or everything
  if (params.top_k > 0 && params.top_k < num_valid_ids_) {
    SelectLargest(logits, static_cast<size_t>(params.top_k));
    for (const Candidate& candidate : candidates_) mass += weights.Units(candidate.logit);
    KeepNucleus(NucleusTarget(params.top_p, mass), weights);
  } else {
    for (const float logit : logits) mass += weights.Units(logit);
    const uint64_t target = NucleusTarget(params.top_p, mass);
    // The nucleus is usually small: sort a prefix, and a longer one while it does not reach p.
    size_t count = std::min<size_t>(num_ids, 256);
    for (SelectLargest(logits, count); !KeepNucleus(target, weights); SelectLargest(logits, count)) {
      count = std::min(num_ids, count * 8);
    }
  }
  // min-p compares with the largest probability, whose weight is known.
  const uint64_t least = LeastUnits(params.min_p);
  uint64_t total = 0;
  units_.clear();
  for (const Candidate& candidate : candidates_) {
    const uint64_t units = weights.Units(candidate.logit);
    units_.push_back(units >= least ? units : 0);
    total += units_.back();
  }
  uint64_t unit = DrawUnit(params.seed, position, total);
  size_t drawn = 0;
  for (; unit >= units_[drawn]; ++drawn) unit -= units_[drawn];
  return candidates_[drawn].token;
}

bool Sampler::KeepNucleus(uint64_t target, const TokenWeights& weights) {
  uint64_t mass = 0;
  size_t size = 0;
  while (size < candidates_.size() && mass < target) mass += weights.Units(candidates_[size++].logit);
  candidates_.resize(size);
  return mass >= target;
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
