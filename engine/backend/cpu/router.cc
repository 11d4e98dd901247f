#include "engine/backend/cpu/router.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "engine/base/status_macros.h"

namespace switchyard::cpu {
namespace {

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();

void Logits(Context& context, const float* in, int64_t first_row, int64_t last_row, const CpuWeight& weight,
            int64_t first_panel, int64_t last_panel, int thread, float* logits) {
  const float** const rows = context.RowPointers(thread);
  float* const c = context.PanelResults(thread);
  for (int64_t chunk = first_row; chunk < last_row; chunk += kChunkRows) {
    const int num_rows = static_cast<int>(std::min(kChunkRows, last_row - chunk));
    for (int r = 0; r < num_rows; ++r) rows[r] = in + (chunk + r) * weight.in;
    for (int64_t p = first_panel; p < last_panel; ++p) {
      const int64_t first_col = p * kPanelCols;
      const int cols = static_cast<int>(std::min<int64_t>(kPanelCols, weight.out - first_col));
      const float* const bias = weight.bias_or_null();
      context.kernels.gemm_f32(rows, num_rows, reinterpret_cast<const float*>(weight.panel(p)), weight.in, c);
      context.kernels.store_panel(c, num_rows, cols, bias == nullptr ? nullptr : bias + first_col, false,
                                  logits + chunk * weight.out + first_col, weight.out);
    }
  }
}

// What the router says about one token.
struct TokenChoice {
  int32_t* ids;
  float* weights;
  float* margin;
  float* logsumexp;
};

// The k largest of `scores` with their ids, largest first. A later expert must be strictly better, so ties go to the
// lower id. Returns the last kept minus the best that was not; 0 where nothing else could have been.
float ChooseTopK(const float* scores, int32_t num_experts, int32_t k, int32_t* ids, float* best) {
  int32_t kept = 0;
  float runner_up = -kInfinity;  // the best score that fell off or never got in
  for (int32_t e = 0; e < num_experts; ++e) {
    const float score = scores[e];
    if (kept == k && !(score > best[k - 1])) {
      runner_up = std::max(runner_up, score);
      continue;
    }
    int32_t place = kept < k ? kept++ : k - 1;
    if (kept == k && place == k - 1 && e >= k) runner_up = std::max(runner_up, best[k - 1]);
    for (; place > 0 && score > best[place - 1]; --place) {
      best[place] = best[place - 1];
      ids[place] = ids[place - 1];
    }
    best[place] = score;
    ids[place] = e;
  }
  return runner_up > -kInfinity ? best[k - 1] - runner_up : 0.0f;
}

void FinishWeights(const RouterConfig& config, float* weights) {
  const int32_t k = config.top_k;
  float total = config.normalize_eps;
  if (config.normalize && config.normalize_power == 1.0f) {
    for (int32_t j = 0; j < k; ++j) total += weights[j];
  } else if (config.normalize) {
    float powers = 0.0f;
    for (int32_t j = 0; j < k; ++j) powers += std::pow(std::fabs(weights[j]), config.normalize_power);
    total += std::pow(powers, 1.0f / config.normalize_power);
  }
  for (int32_t j = 0; j < k; ++j) weights[j] = (config.normalize ? weights[j] / total : weights[j]) * config.scale;
}

// Logits that are not all finite: valid experts, weights that show it.
void RefuseToken(const RouterConfig& config, float* scores, const TokenChoice& out) {
  for (int32_t j = 0; j < config.top_k; ++j) {
    out.ids[j] = j;
    out.weights[j] = kNaN;
  }
  std::fill_n(scores, config.num_experts, 0.0f);
  *out.margin = 0.0f;
  *out.logsumexp = 0.0f;
}

void Probabilities(const Kernels& kernels, int32_t num_experts, float* scores, float* logsumexp) {
  float max = 0.0f, sum = 0.0f;
  kernels.softmax(scores, num_experts, scores, &max, &sum);
  *logsumexp = max + std::log(sum);
}

// Softmax scores, chosen and weighed as they are.
void RoutePlainToken(const Kernels& kernels, const RouterConfig& config, float* scores, const TokenChoice& out) {
  Probabilities(kernels, config.num_experts, scores, out.logsumexp);
  *out.margin = ChooseTopK(scores, config.num_experts, config.top_k, out.ids, out.weights);
  FinishWeights(config, out.weights);
}

float Sigmoid(float x) { return 1.0f / (1.0f + std::exp(-x)); }

float ScoreOfGroup(GroupScore kind, const float* first, const float* last) {
  float best = -kInfinity, second = -kInfinity;
  for (const float* c = first; c != last; ++c) {
    if (*c > best) {
      second = best;
      best = *c;
    } else if (*c > second) {
      second = *c;
    }
  }
  return kind == GroupScore::kTopTwoSum && last - first > 1 ? best + second : best;
}

// Hides all but the topk_group best groups. `group_scores` has room for one number per group.
void LimitGroups(const RouterConfig& config, float* choice, float* group_scores) {
  const int32_t size = config.num_experts / config.num_groups;
  for (int32_t g = 0; g < config.num_groups; ++g) {
    group_scores[g] = ScoreOfGroup(config.group_score, choice + g * size, choice + (g + 1) * size);
  }
  // A group stays if fewer than topk_group are ahead of it: better ones, and equal ones before it.
  for (int32_t g = 0; g < config.num_groups; ++g) {
    int32_t ahead = 0;
    for (int32_t other = 0; other < config.num_groups; ++other) {
      ahead += group_scores[other] > group_scores[g] || (other < g && group_scores[other] == group_scores[g]) ? 1 : 0;
    }
    if (ahead >= config.topk_group) std::fill_n(choice + g * size, size, -kInfinity);
  }
}

// Rank by rank over the experts that are left: softmax over those near the best of them.
void WeighBySparseMixer(const RouterConfig& config, const float* logits, const TokenChoice& out) {
  for (int32_t j = 0; j < config.top_k; ++j) {
    const float best = logits[out.ids[j]];
    float sum = 0.0f;
    for (int32_t e = 0; e < config.num_experts; ++e) {
      if (std::find(out.ids, out.ids + j, e) != out.ids + j) continue;
      const bool far = (best - logits[e]) / std::max(std::fabs(logits[e]), best) > config.mixer_threshold;
      if (!far) sum += std::exp(logits[e] - best);
    }
    out.weights[j] = 1.0f / sum;
  }
}

void WeighChosen(const RouterConfig& config, const float* logits, const float* scores, const TokenChoice& out) {
  const int32_t k = config.top_k;
  switch (config.weights) {
    case RouterWeights::kScore:
      for (int32_t j = 0; j < k; ++j) out.weights[j] = scores[out.ids[j]];
      return;
    case RouterWeights::kSigmoid:
      for (int32_t j = 0; j < k; ++j) out.weights[j] = Sigmoid(logits[out.ids[j]]);
      return;
    case RouterWeights::kSparseMixer:
      return WeighBySparseMixer(config, logits, out);
    case RouterWeights::kSoftmaxOfChosen: {
      float max = -kInfinity, sum = 0.0f;
      for (int32_t j = 0; j < k; ++j) max = std::max(max, logits[out.ids[j]]);
      for (int32_t j = 0; j < k; ++j) sum += out.weights[j] = std::exp(logits[out.ids[j]] - max);
      for (int32_t j = 0; j < k; ++j) out.weights[j] /= sum;
      return;
    }
  }
}

// Any rule. `temp`: RouterTempElements.
void RouteAnyToken(const Kernels& kernels, const RouterConfig& config, const float* choice_bias, float* temp,
                   float* scores, const TokenChoice& out) {
  const int32_t num_experts = config.num_experts;
  float* const logits = temp;
  float* const choice = temp + num_experts;
  float* const raw = temp + 2 * num_experts;
  std::copy_n(scores, num_experts, logits);
  Probabilities(kernels, num_experts, scores, out.logsumexp);
  for (int32_t e = 0; e < num_experts; ++e) {
    raw[e] = config.score == RouterScore::kSigmoid   ? Sigmoid(logits[e])
             : config.score == RouterScore::kSoftmax ? scores[e]
                                                     : logits[e];
    choice[e] = choice_bias == nullptr ? raw[e] : raw[e] + choice_bias[e];
  }
  if (config.num_groups > 1) LimitGroups(config, choice, temp + 3 * num_experts);
  *out.margin = ChooseTopK(choice, num_experts, config.top_k, out.ids, out.weights);
  WeighChosen(config, logits, raw, out);
  FinishWeights(config, out.weights);
}

bool IsPlain(const RouterConfig& config) {
  return config.score == RouterScore::kSoftmax && config.weights == RouterWeights::kScore && config.num_groups <= 1 &&
         !config.has_choice_bias;
}

}  // namespace

int64_t RouterTempElements(const RouterConfig& config) {
  return IsPlain(config) ? 0 : int64_t{3} * config.num_experts + config.num_groups;
}

void RunRouter(Context& context, const float* in, int64_t num_tokens, const CpuWeight& weight,
               const RouterConfig& config, Routing* routing) {
  CHECK(num_tokens <= context.scratch.max_tokens);
  CHECK(weight.out == config.num_experts && weight.out <= context.scratch.sizes.num_experts);
  CHECK(RouterTempElements(config) <= context.scratch.sizes.router_temp);
  CHECK(config.has_choice_bias == (config.choice_bias != nullptr));
  const bool plain = IsPlain(config);
  const float* const choice_bias =
      config.has_choice_bias ? static_cast<const CpuWeight*>(config.choice_bias)->data.as<float>() : nullptr;
  float* const scores = context.scratch.router_scores.as<float>();
  const int num_threads = context.pool.num_threads();
  const int64_t k = config.top_k;
  routing->num_tokens = static_cast<int32_t>(num_tokens);
  routing->top_k = config.top_k;
  routing->num_experts = config.num_experts;
  routing->weigh_input = config.weigh_input;

  context.pool.Run([&](int thread) {
    const auto [first, last] = WorkerPool::Part(num_tokens, thread, num_threads);
    if (num_tokens >= 8 * num_threads) {
      Logits(context, in, first, last, weight, 0, weight.num_panels(), thread, scores);
    } else {
      const auto [first_panel, last_panel] = WorkerPool::Part(weight.num_panels(), thread, num_threads);
      Logits(context, in, 0, num_tokens, weight, first_panel, last_panel, thread, scores);
      context.pool.Barrier();
    }
    for (int64_t t = first; t < last; ++t) {
      float* const token_scores = scores + t * config.num_experts;
      const TokenChoice out = {routing->expert_ids + t * k, routing->expert_weights + t * k, routing->margins + t,
                               routing->logsumexps + t};
      if (!std::all_of(token_scores, token_scores + config.num_experts, [](float x) { return std::isfinite(x); })) {
        RefuseToken(config, token_scores, out);
      } else if (plain) {
        RoutePlainToken(context.kernels, config, token_scores, out);
      } else {
        RouteAnyToken(context.kernels, config, choice_bias, context.RouterTemp(thread), token_scores, out);
      }
    }
    context.pool.Barrier();
    const auto [first_expert, last_expert] = WorkerPool::Part(config.num_experts, thread, num_threads);
    float* const sums = routing->probability_sums;
    std::fill(sums + first_expert, sums + last_expert, 0.0f);
    for (int64_t t = 0; t < num_tokens; ++t) {
      for (int64_t e = first_expert; e < last_expert; ++e) sums[e] += scores[t * config.num_experts + e];
    }
  });
  double squares = 0.0;
  for (int64_t t = 0; t < num_tokens; ++t) squares += double{routing->logsumexps[t]} * double{routing->logsumexps[t]};
  *routing->squared_logsumexp_sum = squares;
}

void GroupChoicesByExpert(const Routing& routing, ExpertBatches* batches) {
  const int32_t num_choices = routing.num_tokens * routing.top_k;
  batches->num_experts = routing.num_experts;
  int32_t* const offsets = batches->expert_offsets;
  std::fill_n(offsets, routing.num_experts + 1, 0);
  for (int32_t choice = 0; choice < num_choices; ++choice) {
    const int32_t expert = routing.expert_ids[choice];
    if (expert != kDropped) ++offsets[expert + 1];
  }
  for (int32_t e = 0; e < routing.num_experts; ++e) offsets[e + 1] += offsets[e];
  batches->num_rows = offsets[routing.num_experts];
  // Placing advances offsets[e] to the end of expert e, which is the start of e + 1; the shift back follows.
  for (int32_t choice = 0; choice < num_choices; ++choice) {
    const int32_t expert = routing.expert_ids[choice];
    if (expert == kDropped) {
      batches->choice_to_row[choice] = kDropped;
      continue;
    }
    const int32_t row = offsets[expert]++;
    batches->choice_to_row[choice] = row;
    batches->row_to_token[row] = choice / routing.top_k;
    if (batches->row_weights != nullptr) batches->row_weights[row] = routing.expert_weights[choice];
  }
  std::copy_backward(offsets, offsets + routing.num_experts, offsets + routing.num_experts + 1);
  offsets[0] = 0;
}

}  // namespace switchyard::cpu
