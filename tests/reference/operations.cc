#include "tests/reference/operations.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "engine/base/bf16.h"

namespace switchyard::reference {

double RoundToBf16(double x) { return Bf16ToFloat(FloatToBf16(static_cast<float>(x))); }

Values RoundToBf16(const Values& x) {
  Values rounded;
  for (const double value : x) rounded.push_back(RoundToBf16(value));
  return rounded;
}

double Silu(double x) { return x / (1.0 + std::exp(-x)); }

Result Linear(const Values& in, const Values& weight, const Values& bias, int64_t rows, int64_t n, int64_t k) {
  Result result{Values(rows * n), Values(rows * n)};
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t o = 0; o < n; ++o) {
      double sum = bias.empty() ? 0.0 : bias[o];
      double magnitude = std::abs(sum);
      for (int64_t i = 0; i < k; ++i) {
        const double product = in[r * k + i] * weight[o * k + i];
        sum += product;
        magnitude += std::abs(product);
      }
      result.values[r * n + o] = sum;
      result.magnitudes[r * n + o] = magnitude;
    }
  }
  return result;
}

Values RmsNorm(const Values& in, const Values& weight, int64_t size, double eps) {
  Values out(in.size());
  for (size_t row = 0; row < in.size(); row += size) {
    double squares = 0.0;
    for (int64_t i = 0; i < size; ++i) squares += in[row + i] * in[row + i];
    const double scale = 1.0 / std::sqrt(squares / static_cast<double>(size) + eps);
    for (int64_t i = 0; i < size; ++i) out[row + i] = in[row + i] * scale * weight[i];
  }
  return out;
}

Result ExpertMlp(const Values& x, const Expert& expert, int64_t hidden, int64_t width, bool bf16) {
  const Values gate = Linear(x, expert.gate, {}, 1, width, hidden).values;
  const Values up = Linear(x, expert.up, {}, 1, width, hidden).values;
  Values middle(width);
  for (int64_t i = 0; i < width; ++i) {
    middle[i] = Silu(gate[i]) * up[i];
    if (bf16) middle[i] = RoundToBf16(middle[i]);
  }
  return Linear(middle, expert.down, {}, 1, hidden, width);
}

TokenRouting Route(const Values& logits, const RouterConfig& config) {
  TokenRouting routing;
  const double max = *std::max_element(logits.begin(), logits.end());
  double sum = 0.0;
  for (const double logit : logits) sum += std::exp(logit - max);
  for (const double logit : logits) routing.probabilities.push_back(std::exp(logit - max) / sum);
  routing.logsumexp = max + std::log(sum);

  std::vector<int32_t> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
    return routing.probabilities[a] > routing.probabilities[b];
  });
  double total = config.normalize_eps;
  for (int32_t j = 0; j < config.top_k; ++j) {
    routing.expert_ids.push_back(order[j]);
    routing.expert_weights.push_back(routing.probabilities[order[j]]);
    total += routing.expert_weights.back();
  }
  for (double& weight : routing.expert_weights) weight = (config.normalize ? weight / total : weight) * config.scale;
  if (config.top_k < config.num_experts) {
    routing.margin = routing.probabilities[order[config.top_k - 1]] - routing.probabilities[order[config.top_k]];
  }
  return routing;
}

void PrepareQkv(const AttentionShape& shape, const Values& q_norm, const Values& k_norm, Values* qkv) {
  const int64_t size = shape.qkv_size();
  const int64_t pairs = static_cast<int64_t>(shape.rope_inv_freq.size());
  for (int64_t position = 0; position < static_cast<int64_t>(qkv->size()) / size; ++position) {
    double* const row = qkv->data() + position * size;
    const auto normalize = [&](int64_t first, int64_t count, int64_t group, const Values& weight) {
      const Values normed = RmsNorm(Values(row + first, row + first + count), weight, group, shape.qk_norm_eps);
      std::copy(normed.begin(), normed.end(), row + first);
    };
    if (shape.qk_norm == QkNorm::kFull) {
      normalize(0, shape.q_size(), shape.q_size(), q_norm);
      normalize(shape.q_size(), shape.kv_size(), shape.kv_size(), k_norm);
    }
    if (shape.clip_qkv > 0) {
      for (int64_t i = 0; i < size; ++i) {
        row[i] = std::clamp<double>(row[i], -shape.clip_qkv, shape.clip_qkv);
      }
    }
    if (shape.qk_norm == QkNorm::kHead) {
      normalize(0, shape.q_size(), shape.head_dim, q_norm);
      normalize(shape.q_size(), shape.kv_size(), shape.head_dim, k_norm);
    }
    for (int64_t h = 0; h < shape.num_heads + shape.num_kv_heads; ++h) {
      double* const head = row + h * shape.head_dim;
      for (int64_t m = 0; m < pairs; ++m) {
        const double angle = static_cast<double>(position) * shape.rope_inv_freq[m];
        const double cos = std::cos(angle) * shape.rope_attention_factor;
        const double sin = std::sin(angle) * shape.rope_attention_factor;
        const double low = head[m];
        const double high = head[m + pairs];
        head[m] = low * cos - high * sin;
        head[m + pairs] = high * cos + low * sin;
      }
    }
  }
}

Result Attention(const AttentionShape& shape, const Values& qkv, Values* score_magnitudes) {
  const int64_t size = shape.qkv_size();
  const int64_t num_tokens = static_cast<int64_t>(qkv.size()) / size;
  const int64_t dim = shape.head_dim;
  Result result{Values(num_tokens * shape.q_size()), Values(num_tokens * shape.q_size())};
  score_magnitudes->assign(num_tokens * shape.num_heads, 0.0);
  for (int64_t t = 0; t < num_tokens; ++t) {
    const int64_t first = shape.sliding_window > 0 ? std::max<int64_t>(0, t - shape.sliding_window + 1) : 0;
    for (int64_t h = 0; h < shape.num_heads; ++h) {
      const int64_t kv_head = h / (shape.num_heads / shape.num_kv_heads);
      const double* const q = &qkv[t * size + h * dim];
      double& score_magnitude = (*score_magnitudes)[t * shape.num_heads + h];
      Values scores;
      for (int64_t key = first; key <= t; ++key) {
        const double* const k = &qkv[key * size + shape.q_size() + kv_head * dim];
        double score = 0.0, magnitude = 0.0;
        for (int64_t d = 0; d < dim; ++d) {
          score += q[d] * k[d];
          magnitude += std::abs(q[d] * k[d]);
        }
        scores.push_back(score * shape.scale);
        score_magnitude = std::max(score_magnitude, magnitude * shape.scale);
      }
      const double max = *std::max_element(scores.begin(), scores.end());
      double sum = 0.0;
      for (double& score : scores) sum += score = std::exp(score - max);
      for (int64_t key = first; key <= t; ++key) {
        const double* const v = &qkv[key * size + shape.q_size() + shape.kv_size() + kv_head * dim];
        for (int64_t d = 0; d < dim; ++d) {
          const double product = scores[key - first] / sum * v[d];
          result.values[t * shape.q_size() + h * dim + d] += product;
          result.magnitudes[t * shape.q_size() + h * dim + d] += std::abs(product);
        }
      }
    }
  }
  return result;
}

}  // namespace switchyard::reference
