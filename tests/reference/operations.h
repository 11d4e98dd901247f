// The operations of engine/backend/backend.h as plain loops in double: the oracle that every backend is compared with.
//
// Matrices are row-major std::vector<double> without padding. Each result comes with a *magnitude* of the same shape:
// the sum of the absolute values that were added up. Rounding errors of another implementation are bounded by a small
// multiple of machine epsilon times that magnitude, so tests compute their tolerance from it.
#ifndef SWITCHYARD_TESTS_REFERENCE_OPERATIONS_H_
#define SWITCHYARD_TESTS_REFERENCE_OPERATIONS_H_

#include <cstdint>
#include <functional>
#include <vector>

#include "engine/backend/backend.h"

namespace switchyard::reference {

using Values = std::vector<double>;

struct Result {
  Values values;
  Values magnitudes;
};

// x rounded to bfloat16.
double RoundToBf16(double x);
Values RoundToBf16(const Values& x);

double Silu(double x);

// in [rows, k], weight [n, k], bias [n] or empty -> [rows, n].
Result Linear(const Values& in, const Values& weight, const Values& bias, int64_t rows, int64_t n, int64_t k);

// in / sqrt(mean(in^2) + eps) * weight, per row of `size`.
Values RmsNorm(const Values& in, const Values& weight, int64_t size, double eps);

// (in - mean) / sqrt(variance + eps) * weight + bias, per row of `size`; an empty bias is none.
Values LayerNorm(const Values& in, const Values& weight, const Values& bias, int64_t size, double eps);

// What stands between the projections; `gate` is ignored where the activation has none.
double Activate(const ExpertForm& form, double gate, double up);

// gate (where the form has one) and up [width, hidden], down [hidden, width]; x and result [hidden]; biases may be empty. What stands between
// the projections is rounded to bfloat16 when `bf16`.
struct Expert {
  Values gate;
  Values up;
  Values down;
  Values gate_bias;
  Values up_bias;
  Values down_bias;
};
Result ExpertMlp(const Values& x, const Expert& expert, const ExpertForm& form, int64_t hidden, int64_t width,
                 bool bf16);

// One token's routing from its logits. `choice_bias` is empty where the config has none.
struct TokenRouting {
  std::vector<int32_t> expert_ids;
  Values expert_weights;
  Values probabilities;
  double margin = 0.0;
  double logsumexp = 0.0;
};
TokenRouting Route(const Values& logits, const RouterConfig& config, const Values& choice_bias);

// One whole sequence from position 0: qkv [num_tokens, qkv_size] as projected. Norms, clips and rotates q and k in
// place; q_norm and k_norm as in Backend::PrepareQkv.
void PrepareQkv(const AttentionShape& shape, const Values& q_norm, const Values& k_norm, Values* qkv);

// Rotates the first 2 * rope_inv_freq.size() elements of `x` as the shape says.
void Rotate(const AttentionShape& shape, int64_t position, double* x);

// Causal attention over a prepared sequence -> [num_tokens, q_size]; `sinks` [num_heads] or empty. `score_magnitudes`
// [num_tokens, num_heads]: the largest scale * sum |q||k| over the keys that the row sees.
Result Attention(const AttentionShape& shape, const Values& qkv, const Values& sinks, Values* score_magnitudes);

// What attention reads besides the shape. Row t of q [num_rows, q_size] stands at position first_position + t and sees
// the keys [first_key(t), last_key(t)] of `kv` [num_keys, 2 * kv_size], each at the position of its number.
struct AttentionOperands {
  const Values& q;
  const Values& kv;
  int64_t first_position = 0;
  std::function<int64_t(int64_t)> first_key;
  std::function<int64_t(int64_t)> last_key;
  Values sinks = {};          // [num_heads] or empty
  Values relative_bias = {};  // [num_heads, 2 * relative_max_distance + 1] or empty
};
Result AttentionOver(const AttentionShape& shape, const AttentionOperands& operands, Values* score_magnitudes);

}  // namespace switchyard::reference

#endif  // SWITCHYARD_TESTS_REFERENCE_OPERATIONS_H_
