#include "engine/backend/cpu/router.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "engine/base/status_macros.h"

namespace switchyard::cpu {
namespace {

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

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
      context.kernels.gemm_f32(rows, num_rows, reinterpret_cast<const float*>(weight.panel(p)), weight.in, c);
      context.kernels.store_panel(c, num_rows, cols, nullptr, false, logits + chunk * weight.out + first_col,
                                  weight.out);
    }
  }
}

// `scores`: logits in, probabilities out (zeros if the logits are not finite).
void RouteToken(const Kernels& kernels, const RouterConfig& config, float* scores, int32_t* ids, float* weights,
                float* margin, float* logsumexp) {
  const int32_t num_experts = config.num_experts;
  const int32_t k = config.top_k;
  if (!std::all_of(scores, scores + num_experts, [](float x) { return std::isfinite(x); })) {
    for (int32_t j = 0; j < k; ++j) {
      ids[j] = j;
      weights[j] = kNaN;
    }
    std::fill_n(scores, num_experts, 0.0f);
    *margin = 0.0f;
    *logsumexp = 0.0f;
    return;
  }
  float max = 0.0f, sum = 0.0f;
  kernels.softmax(scores, num_experts, scores, &max, &sum);
  *logsumexp = max + std::log(sum);

  // Insertion into a sorted list of k; a later expert must be strictly better, so ties go to the lower id.
  int32_t kept = 0;
  float runner_up = 0.0f;  // the best score that fell off or never got in
  for (int32_t e = 0; e < num_experts; ++e) {
    const float score = scores[e];
    if (kept == k && !(score > weights[k - 1])) {
      runner_up = std::max(runner_up, score);
      continue;
    }
    int32_t place = kept < k ? kept++ : k - 1;
    if (kept == k && place == k - 1 && e >= k) runner_up = std::max(runner_up, weights[k - 1]);
    for (; place > 0 && score > weights[place - 1]; --place) {
      weights[place] = weights[place - 1];
      ids[place] = ids[place - 1];
    }
    weights[place] = score;
    ids[place] = e;
  }
  *margin = k < num_experts ? weights[k - 1] - runner_up : 0.0f;

  float total = config.normalize_eps;
  if (config.normalize) {
    for (int32_t j = 0; j < k; ++j) total += weights[j];
  }
  for (int32_t j = 0; j < k; ++j) weights[j] = (config.normalize ? weights[j] / total : weights[j]) * config.scale;
}

}  // namespace

void RunRouter(Context& context, const float* in, int64_t num_tokens, const CpuWeight& weight,
               const RouterConfig& config, Routing* routing) {
  CHECK(num_tokens <= context.scratch.max_tokens);
  CHECK(weight.out == config.num_experts && weight.out <= context.scratch.sizes.num_experts);
  float* const scores = context.scratch.router_scores.as<float>();
  const int num_threads = context.pool.num_threads();
  const int64_t k = config.top_k;
  routing->num_tokens = static_cast<int32_t>(num_tokens);
  routing->top_k = config.top_k;
  routing->num_experts = config.num_experts;

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
      RouteToken(context.kernels, config, scores + t * config.num_experts, routing->expert_ids + t * k,
                 routing->expert_weights + t * k, routing->margins + t, routing->logsumexps + t);
    }
    context.pool.Barrier();
    const auto [first_expert, last_expert] = WorkerPool::Part(config.num_experts, thread, num_threads);
    float* const sums = routing->probability_sums;
    std::fill(sums + first_expert, sums + last_expert, 0.0f);
    for (int64_t t = 0; t < num_tokens; ++t) {
      for (int64_t e = first_expert; e < last_expert; ++e) sums[e] += scores[t * config.num_experts + e];
    }
  });
}

void GroupChoicesByExpert(const Routing& routing, ExpertBatches* batches) {
  const int32_t num_rows = routing.num_tokens * routing.top_k;
  batches->num_experts = routing.num_experts;
  batches->num_rows = num_rows;
  int32_t* const offsets = batches->expert_offsets;
  std::fill_n(offsets, routing.num_experts + 1, 0);
  for (int32_t choice = 0; choice < num_rows; ++choice) ++offsets[routing.expert_ids[choice] + 1];
  for (int32_t e = 0; e < routing.num_experts; ++e) offsets[e + 1] += offsets[e];
  // Placing advances offsets[e] to the end of expert e, which is the start of e + 1; the shift back follows.
  for (int32_t choice = 0; choice < num_rows; ++choice) {
    const int32_t row = offsets[routing.expert_ids[choice]]++;
    batches->choice_to_row[choice] = row;
    batches->row_to_token[row] = choice / routing.top_k;
  }
  std::copy_backward(offsets, offsets + routing.num_experts, offsets + routing.num_experts + 1);
  offsets[0] = 0;
}

}  // namespace switchyard::cpu
