#include "tests/reference/operations.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>
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

Values LayerNorm(const Values& in, const Values& weight, const Values& bias, int64_t size, double eps) {
  Values out(in.size());
  for (size_t row = 0; row < in.size(); row += size) {
    double mean = 0.0, variance = 0.0;
    for (int64_t i = 0; i < size; ++i) mean += in[row + i] / static_cast<double>(size);
    for (int64_t i = 0; i < size; ++i)
      variance += (in[row + i] - mean) * (in[row + i] - mean) / static_cast<double>(size);
    const double scale = 1.0 / std::sqrt(variance + eps);
    for (int64_t i = 0; i < size; ++i) {
      out[row + i] = (in[row + i] - mean) * scale * weight[i] + (bias.empty() ? 0.0 : bias[i]);
    }
  }
  return out;
}

double Activate(const ExpertForm& form, double gate, double up) {
  if (form.activation == Activation::kSilu) return Silu(gate) * up;
  if (form.activation == Activation::kRelu) return std::max(up, 0.0);
  if (form.activation == Activation::kGeluTanh) {
    return 0.5 * up * (1.0 + std::tanh(std::sqrt(2.0 / std::numbers::pi) * (up + 0.044715 * up * up * up)));
  }
  if (form.activation == Activation::kTanh) return std::tanh(up);
  const double limit = form.limit;
  const double g = std::min(gate, limit), u = std::clamp(up, -limit, limit);
  return (u + 1.0) * g / (1.0 + std::exp(-1.702 * g));
}

Result ExpertMlp(const Values& x, const Expert& expert, const ExpertForm& form, int64_t hidden, int64_t width,
                 bool bf16) {
  const bool gated = IsGated(form.activation);
  const Values gate =
      gated ? Linear(x, expert.gate, expert.gate_bias, 1, width, hidden).values : Values(static_cast<size_t>(width));
  const Values up = Linear(x, expert.up, expert.up_bias, 1, width, hidden).values;
  Values middle(width);
  for (int64_t i = 0; i < width; ++i) {
    middle[i] = Activate(form, gate[i], up[i]);
    if (bf16) middle[i] = RoundToBf16(middle[i]);
  }
  return Linear(middle, expert.down, expert.down_bias, 1, hidden, width);
}

namespace {

constexpr double kMasked = -std::numeric_limits<double>::infinity();

Values Softmax(const Values& logits) {
  const double max = *std::max_element(logits.begin(), logits.end());
  double sum = 0.0;
  Values probabilities;
  for (const double logit : logits) sum += std::exp(logit - max);
  for (const double logit : logits) probabilities.push_back(std::exp(logit - max) / sum);
  return probabilities;
}

double Sigmoid(double x) { return 1.0 / (1.0 + std::exp(-x)); }

// Ids by falling value, equal ones by rising id.
std::vector<int32_t> Order(const Values& values) {
  std::vector<int32_t> order(values.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) { return values[a] > values[b]; });
  return order;
}

void MaskGroups(const RouterConfig& config, Values* choice) {
  const int64_t size = config.num_experts / config.num_groups;
  Values scores;
  for (int32_t g = 0; g < config.num_groups; ++g) {
    Values group(choice->begin() + g * size, choice->begin() + (g + 1) * size);
    std::sort(group.rbegin(), group.rend());
    scores.push_back(config.group_score == GroupScore::kTopTwoSum && size > 1 ? group[0] + group[1] : group[0]);
  }
  const std::vector<int32_t> order = Order(scores);
  for (int32_t i = config.topk_group; i < config.num_groups; ++i) {
    std::fill_n(choice->begin() + order[i] * size, size, kMasked);
  }
}

// As Phi-3.5-MoE's code: two rounds over masked logits.
Values SparseMixerWeights(const RouterConfig& config, const Values& logits, const std::vector<int32_t>& ids) {
  Values weights, left = logits;
  for (int32_t j = 0; j < config.top_k; ++j) {
    const double max = *std::max_element(left.begin(), left.end());
    Values masked = left;
    for (size_t e = 0; e < logits.size(); ++e) {
      if ((max - logits[e]) / std::max(std::abs(logits[e]), max) > config.mixer_threshold) masked[e] = kMasked;
    }
    weights.push_back(Softmax(masked)[ids[j]]);
    left[ids[j]] = kMasked;
  }
  return weights;
}

Values WeightsOf(const RouterConfig& config, const Values& logits, const Values& scores,
                 const std::vector<int32_t>& ids) {
  if (config.weights == RouterWeights::kSparseMixer) return SparseMixerWeights(config, logits, ids);
  Values weights;
  for (const int32_t id : ids) {
    weights.push_back(config.weights == RouterWeights::kScore     ? scores[id]
                      : config.weights == RouterWeights::kSigmoid ? Sigmoid(logits[id])
                                                                  : logits[id]);
  }
  return config.weights == RouterWeights::kSoftmaxOfChosen ? Softmax(weights) : weights;
}

}  // namespace

TokenRouting Route(const Values& logits, const RouterConfig& config, const Values& choice_bias) {
  TokenRouting routing;
  routing.probabilities = Softmax(logits);
  const double max = *std::max_element(logits.begin(), logits.end());
  double sum = 0.0;
  for (const double logit : logits) sum += std::exp(logit - max);
  routing.logsumexp = max + std::log(sum);

  Values scores = config.score == RouterScore::kSoftmax ? routing.probabilities : logits;
  if (config.score == RouterScore::kSigmoid) {
    for (double& score : scores) score = Sigmoid(score);
  }
  Values choice = scores;
  for (size_t e = 0; e < choice_bias.size(); ++e) choice[e] += choice_bias[e];
  if (config.num_groups > 1) MaskGroups(config, &choice);
  const std::vector<int32_t> order = Order(choice);
  routing.expert_ids.assign(order.begin(), order.begin() + config.top_k);
  if (config.top_k < config.num_experts && choice[order[config.top_k]] > kMasked) {
    routing.margin = choice[order[config.top_k - 1]] - choice[order[config.top_k]];
  }
  routing.expert_weights = WeightsOf(config, logits, scores, routing.expert_ids);
  double powers = 0.0;
  for (const double weight : routing.expert_weights) powers += std::pow(std::abs(weight), config.normalize_power);
  const double total = std::pow(powers, 1.0 / config.normalize_power) + config.normalize_eps;
  for (double& weight : routing.expert_weights) weight = (config.normalize ? weight / total : weight) * config.scale;
  return routing;
}

void Rotate(const AttentionShape& shape, int64_t position, double* x) {
  const int64_t pairs = static_cast<int64_t>(shape.rope_inv_freq.size());
  for (int64_t m = 0; m < pairs; ++m) {
    const double angle = static_cast<double>(position) * shape.rope_inv_freq[m];
    const double cos = std::cos(angle) * shape.rope_attention_factor;
    const double sin = std::sin(angle) * shape.rope_attention_factor;
    double& low = x[shape.rope_interleaved ? 2 * m : m];
    double& high = x[shape.rope_interleaved ? 2 * m + 1 : m + pairs];
    const double before = low;
    low = low * cos - high * sin;
    high = high * cos + before * sin;
  }
}

void PrepareQkv(const AttentionShape& shape, const Values& q_norm, const Values& k_norm, Values* qkv) {
  const int64_t size = shape.qkv_size();
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
    const int64_t num_rotated = shape.num_heads + shape.num_kv_heads;
    for (int64_t h = 0; h < num_rotated; ++h) Rotate(shape, position, row + h * shape.head_dim);
    if (shape.qk_norm == QkNorm::kL2AfterRope) {
      const Values ones(shape.head_dim, 1.0);
      normalize(0, shape.q_size() + shape.kv_size(), shape.head_dim, ones);
    }
    if (shape.temperature_scale != 0.0f) {
      const double steps = std::floor(static_cast<double>(position + 1) / shape.temperature_floor);
      for (int64_t i = 0; i < shape.q_size(); ++i) row[i] *= 1.0 + shape.temperature_scale * std::log(1.0 + steps);
    }
  }
}

Result Attention(const AttentionShape& shape, const Values& qkv, const Values& sinks, Values* score_magnitudes) {
  const int64_t size = shape.qkv_size();
  Values q, kv;
  for (auto row = qkv.begin(); row != qkv.end(); row += size) {
    q.insert(q.end(), row, row + shape.q_size());
    kv.insert(kv.end(), row + shape.q_size(), row + size);
  }
  const auto first_key = [&shape](int64_t t) {
    if (shape.chunk_size > 0) return t / shape.chunk_size * shape.chunk_size;
    return shape.sliding_window > 0 ? std::max<int64_t>(0, t - shape.sliding_window + 1) : 0;
  };
  const auto last_key = [](int64_t t) { return t; };
  return AttentionOver(shape, {.q = q, .kv = kv, .first_key = first_key, .last_key = last_key, .sinks = sinks},
                       score_magnitudes);
}

Result AttentionOver(const AttentionShape& shape, const AttentionOperands& operands, Values* score_magnitudes) {
  const int64_t num_rows = static_cast<int64_t>(operands.q.size()) / shape.q_size();
  const int64_t dim = shape.head_dim, limit = shape.relative_max_distance;
  Result result{Values(num_rows * shape.q_size()), Values(num_rows * shape.q_size())};
  score_magnitudes->assign(num_rows * shape.num_heads, 0.0);
  for (int64_t t = 0; t < num_rows; ++t) {
    const int64_t first = operands.first_key(t), last = operands.last_key(t);
    for (int64_t h = 0; h < shape.num_heads; ++h) {
      const int64_t kv_head = h / (shape.num_heads / shape.num_kv_heads);
      const double* const q = &operands.q[t * shape.q_size() + h * dim];
      double& score_magnitude = (*score_magnitudes)[t * shape.num_heads + h];
      Values scores;
      for (int64_t key = first; key <= last; ++key) {
        const double* const k = &operands.kv[key * 2 * shape.kv_size() + kv_head * dim];
        double score = 0.0, magnitude = 0.0;
        for (int64_t d = 0; d < dim; ++d) {
          score += q[d] * k[d];
          magnitude += std::abs(q[d] * k[d]);
        }
        score *= shape.scale;
        magnitude *= shape.scale;
        if (!operands.relative_bias.empty()) {
          const int64_t distance = std::clamp(key - operands.first_position - t, -limit, limit);
          const double bias = operands.relative_bias[h * (2 * limit + 1) + distance + limit];
          score += bias;
          magnitude += std::abs(bias);
        }
        scores.push_back(score);
        score_magnitude = std::max(score_magnitude, magnitude);
      }
      double max = *std::max_element(scores.begin(), scores.end());
      const bool has_sinks = !operands.sinks.empty();
      if (has_sinks) max = std::max(max, operands.sinks[h]);
      double sum = has_sinks ? std::exp(operands.sinks[h] - max) : 0.0;
      for (double& score : scores) sum += score = std::exp(score - max);
      for (int64_t key = first; key <= last; ++key) {
        const double* const v = &operands.kv[key * 2 * shape.kv_size() + shape.kv_size() + kv_head * dim];
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
