#include "tests/bench/gpu/models.h"

namespace switchyard::bench {
namespace {

Model Mixtral() {
  Model m;
  m.name = "Mixtral-8x7B";
  m.hidden_size = 4096;
  m.moe_intermediate_size = 14336;
  m.num_experts = 8;
  m.top_k = 2;
  m.norm_topk_prob = true;
  m.num_hidden_layers = 32;
  m.num_attention_heads = 32;
  m.num_key_value_heads = 8;
  m.head_dim = 128;
  m.vocab_size = 32000;
  m.goal_tokens_per_second = 140;
  m.known_tokens_per_second = 125;
  return m;
}

Model Olmoe() {
  Model m;
  m.name = "OLMoE-1B-7B";
  m.hidden_size = 2048;
  m.moe_intermediate_size = 1024;
  m.num_experts = 64;
  m.top_k = 8;
  m.num_hidden_layers = 16;
  m.num_attention_heads = 16;
  m.num_key_value_heads = 16;
  m.head_dim = 128;
  m.qk_norm = 1;
  m.vocab_size = 50304;
  m.goal_tokens_per_second = 1100;
  m.known_tokens_per_second = 800;
  return m;
}

Model Qwen3() {
  Model m;
  m.name = "Qwen3-30B-A3B";
  m.hidden_size = 2048;
  m.moe_intermediate_size = 768;
  m.num_experts = 128;
  m.top_k = 8;
  m.norm_topk_prob = true;
  m.num_hidden_layers = 48;
  m.num_attention_heads = 32;
  m.num_key_value_heads = 4;
  m.head_dim = 128;
  m.qk_norm = 2;
  m.vocab_size = 151936;
  m.goal_tokens_per_second = 450;
  m.known_tokens_per_second = 300;
  return m;
}

Model DeepSeekMoe() {
  Model m;
  m.name = "DeepSeekMoE-16B";
  m.hidden_size = 2048;
  m.moe_intermediate_size = 1408;
  m.num_experts = 64;
  m.top_k = 6;
  m.num_hidden_layers = 28;
  m.first_k_dense_replace = 1;
  m.dense_intermediate_size = 10944;
  m.shared_intermediate_size = 2816;
  m.num_attention_heads = 16;
  m.num_key_value_heads = 16;
  m.head_dim = 128;
  m.vocab_size = 102400;
  return m;
}

}  // namespace

std::vector<Model> Models(const std::string& filter) {
  std::vector<Model> models;
  for (const Model& model : {Mixtral(), Olmoe(), Qwen3(), DeepSeekMoe()}) {
    if (model.name.find(filter) != std::string::npos) models.push_back(model);
  }
  return models;
}

Model TinyModel() {
  Model m;
  m.name = "tiny";
  m.hidden_size = 72;  // padded to 128
  m.moe_intermediate_size = 40;
  m.num_experts = 6;
  m.top_k = 2;
  m.norm_topk_prob = true;
  m.num_hidden_layers = 2;
  m.first_k_dense_replace = 1;
  m.dense_intermediate_size = 48;
  m.shared_intermediate_size = 24;
  m.num_attention_heads = 4;
  m.num_key_value_heads = 2;
  m.head_dim = 24;
  m.qk_norm = 2;
  m.vocab_size = 100;
  return m;
}

}  // namespace switchyard::bench
