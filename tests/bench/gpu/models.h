// The four models whose shapes are measured, and what is asked of them.
#ifndef SWITCHYARD_TESTS_BENCH_GPU_MODELS_H_
#define SWITCHYARD_TESTS_BENCH_GPU_MODELS_H_

#include <cstdint>
#include <string>
#include <vector>

namespace switchyard::bench {

// Names as in Hugging Face configs.
struct Model {
  std::string name;
  int64_t hidden_size = 0;
  int64_t moe_intermediate_size = 0;
  int32_t num_experts = 0;
  int32_t top_k = 0;
  bool norm_topk_prob = false;
  int32_t num_hidden_layers = 0;
  int32_t first_k_dense_replace = 0;
  int64_t dense_intermediate_size = 0;   // of those
  int64_t shared_intermediate_size = 0;  // of all shared experts together
  int32_t num_attention_heads = 0;
  int32_t num_key_value_heads = 0;
  int32_t head_dim = 0;
  int32_t qk_norm = 0;  // as cuda::AttentionArgs
  int64_t vocab_size = 0;
  double goal_tokens_per_second = 0.0;  // of batch 1; 0: none
  double known_tokens_per_second = 0.0;

  int64_t q_size() const { return int64_t{num_attention_heads} * head_dim; }
  int64_t kv_size() const { return int64_t{num_key_value_heads} * head_dim; }
  int64_t qkv_size() const { return q_size() + 2 * kv_size(); }
  int64_t expert_parameters() const { return 3 * hidden_size * moe_intermediate_size; }
};

// Models whose name contains `filter`.
std::vector<Model> Models(const std::string& filter);
// The same kinds of blocks, a few dozen elements wide.
Model TinyModel();

}  // namespace switchyard::bench

#endif  // SWITCHYARD_TESTS_BENCH_GPU_MODELS_H_
