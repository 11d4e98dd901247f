// A whole step, in the order of engine/model/transformer.cc, as one CUDA graph launch. Weights are random: layers share
// as many different copies as memory holds, in turn, and so do their caches.
#include <algorithm>
#include <deque>
#include <memory>

#include "tests/bench/gpu/attention_layer.h"
#include "tests/bench/gpu/bench.h"
#include "tests/bench/gpu/bench_kernels.h"
#include "tests/bench/gpu/device.h"
#include "tests/bench/gpu/moe_layer.h"

namespace switchyard::bench {
namespace {

constexpr int64_t kMostBytes = int64_t{74} << 30;
constexpr int64_t kBytesBesideLayers = int64_t{15} << 30;  // caches, activations, embedding and logits
constexpr int64_t kCacheElements = int64_t{2} << 30;       // of keys, and of values
constexpr float kEps = 1e-6f;

struct Case {
  int64_t sequences;
  int64_t new_tokens;
  int64_t context;
};

std::vector<Case> CasesOf(const Options& options) {
  if (options.tiny) return {{1, 1, 20}, {5, 1, 20}, {1, 20, 20}};
  if (options.quick) return {{1, 1, 1024}, {32, 1, 1024}, {1, 2048, 2048}};
  return {{1, 1, 1024}, {8, 1, 1024}, {32, 1, 1024}, {64, 1, 1024}, {128, 1, 1024}, {1, 2048, 2048}};
}

struct Mlp {
  DenseMatrix gate_up, down;
  Mlp(int64_t hidden, int64_t intermediate, uint64_t seed)
      : gate_up(2 * intermediate, hidden, seed), down(hidden, intermediate, seed + 1) {}
};

struct LayerWeights {
  Array<float> input_norm, post_attention_norm;
  DenseMatrix qkv, o;
  ExpertMatrices experts;
  std::unique_ptr<Mlp> shared;

  LayerWeights(const Model& m, uint64_t seed)
      : input_norm(m.hidden_size), post_attention_norm(m.hidden_size), qkv(m.qkv_size(), m.hidden_size, 10 * seed),
        o(m.hidden_size, m.q_size(), 10 * seed + 1), experts(m, 10 * seed + 2) {
    FillNormalF32(input_norm.get(), m.hidden_size, 1.0f, 0.1f, 10 * seed + 3);
    FillNormalF32(post_attention_norm.get(), m.hidden_size, 1.0f, 0.1f, 10 * seed + 4);
    if (m.shared_intermediate_size > 0) {
      shared = std::make_unique<Mlp>(m.hidden_size, m.shared_intermediate_size, 10 * seed + 5);
    }
  }
};

double DenseParametersPerLayer(const Model& m) {
  return static_cast<double>(m.hidden_size * (m.qkv_size() + m.q_size()));
}
double MlpParameters(const Model& m, int64_t intermediate) {
  return 3.0 * static_cast<double>(m.hidden_size * intermediate);
}
int64_t LayerBytes(const Model& m) {
  return ExpertMatrices::Bytes(m) +
         2 * static_cast<int64_t>(DenseParametersPerLayer(m) + MlpParameters(m, m.shared_intermediate_size));
}

// One model with its weights; steps of any case.
class StepSection {
 public:
  StepSection(Bench* bench, const Model& model)
      : bench_(bench), m_(model), attention_(model), final_norm_(model.hidden_size),
        embedding_(model.vocab_size * model.hidden_size), lm_head_(model.vocab_size, model.hidden_size, 7),
        kv_(bench->options.tiny ? 1 << 16 : kCacheElements),
        decode_memory_(bench->options.tiny ? 1 << 14 : kPartialFloats) {
    FillNormalBf16(embedding_.get(), 1, 1, embedding_.size(), embedding_.size(), 1.0f, 8);
    FillNormalF32(final_norm_.get(), model.hidden_size, 1.0f, 0.1f, 9);
    if (model.first_k_dense_replace > 0) {
      dense_ = std::make_unique<Mlp>(model.hidden_size, model.dense_intermediate_size, 5);
    }
    const int64_t room = std::min(FreeBytes() + UsedByThis(), kMostBytes) - kBytesBesideLayers;
    const int64_t most = room / LayerBytes(model);
    const int64_t copies = std::clamp<int64_t>(most, 1, NumMoeLayers());
    for (int64_t i = 0; i < copies; ++i) layers_.emplace_back(model, static_cast<uint64_t>(i) + 100);
  }

  void Run(const Case& c) {
    step_ = std::make_unique<StepData>(c.sequences, c.new_tokens, c.context, m_.vocab_size, 110);
    Allocate();
    const Candidate whole = {"native", [this](int) { Enqueue(); }};
    Poison(logits_.get(), logits_.bytes());
    whole.run(0);
    Synchronize();
    CheckLogits(c);
    const double touched = TouchedExperts();
    TimingPlan plan = bench_->Plan(1);
    plan.max_calls = 1;
    plan.seconds *= 6;
    Add(c, touched, TimeSideBySide({whole}, plan)[0]);
  }

 private:
  int64_t NumMoeLayers() const { return m_.num_hidden_layers - m_.first_k_dense_replace; }
  int64_t UsedByThis() const { return embedding_.bytes() + lm_head_.data.bytes() + 2 * kv_.keys.bytes(); }
  std::string Name(const Case& c) const {
    if (c.new_tokens == 1) {
      return m_.name + " decode B=" + std::to_string(c.sequences) + " context " + std::to_string(c.context);
    }
    return m_.name + " prefill " + std::to_string(c.sequences * c.new_tokens);
  }

  void Allocate() {
    const int64_t rows = step_->rows();
    const int64_t widest = std::max(m_.shared_intermediate_size, m_.dense_intermediate_size);
    buffers_ = std::make_unique<MoeBuffers>(m_, rows);
    batches_.clear();
    for (int64_t l = 0; l < NumMoeLayers(); ++l) batches_.emplace_back(m_, rows);
    qkv_ = Array<float>(rows * m_.qkv_size());
    attended_ = Array<float>(rows * m_.q_size());
    attended_bf16_ = Array<uint16_t>(rows * cuda::RoundUp(m_.q_size(), cuda::kTileK));
    gate_up_ = Array<float>(rows * 2 * widest);
    product_ = Array<uint16_t>(rows * cuda::RoundUp(widest, cuda::kTileK));
    product_f32_ = Array<float>(rows * widest);
    last_ = Array<float>(step_->logit_rows() * m_.hidden_size);
    last_bf16_ = Array<uint16_t>(step_->logit_rows() * HiddenStride());
    logits_ = Array<float>(step_->logit_rows() * m_.vocab_size);
    const int64_t elements = KvElements(m_, step_->num_blocks());
    kv_copies_ = std::clamp<int64_t>(kv_.keys.size() / elements, 1, m_.num_hidden_layers);
    CUDA_OK(elements <= kv_.keys.size() ? cudaSuccess : cudaErrorMemoryAllocation);
  }

  int64_t HiddenStride() const { return cuda::RoundUp(m_.hidden_size, cuda::kTileK); }
  int TileOf(int64_t rows) const { return cuda::ChooseTileTokens(rows, 1); }
  void Normalize(const Array<float>& weight) {
    cuda::LaunchRmsNorm(buffers_->x.get(), weight.get(), kEps, step_->rows(), m_.hidden_size,
                        {buffers_->h_f32.get(), buffers_->h.get(), HiddenStride()}, Stream());
  }

  void Enqueue() {
    cuda::LaunchEmbed(step_->device(), step_->rows(), embedding_.get(), true, m_.hidden_size, m_.hidden_size,
                      buffers_->x.get(), Stream());
    for (int64_t l = 0; l < m_.num_hidden_layers; ++l) {
      const LayerWeights& weights = layers_[static_cast<size_t>(l) % layers_.size()];
      Attend(weights, l);
      Normalize(weights.post_attention_norm);
      if (l < m_.first_k_dense_replace) {
        RunMlp(*dense_, m_.dense_intermediate_size);
      } else {
        RunMoe(weights, &batches_[static_cast<size_t>(l - m_.first_k_dense_replace)]);
        if (weights.shared != nullptr) RunMlp(*weights.shared, m_.shared_intermediate_size);
      }
    }
    const int64_t rows = step_->logit_rows();
    cuda::LaunchSelectRows(step_->device(), buffers_->x.get(), rows, m_.hidden_size, last_.get(), Stream());
    cuda::LaunchRmsNorm(last_.get(), final_norm_.get(), kEps, rows, m_.hidden_size,
                        {last_.get(), last_bf16_.get(), HiddenStride()}, Stream());
    RunDense(lm_head_, last_bf16_.get(), rows, TileOf(rows), cuda::GemmOutput::kAssign, logits_.get());
  }

  void Attend(const LayerWeights& weights, int64_t layer) {
    const int64_t rows = step_->rows(), stride = cuda::RoundUp(m_.q_size(), cuda::kTileK);
    Normalize(weights.input_norm);
    RunDense(weights.qkv, buffers_->h.get(), rows, TileOf(rows), cuda::GemmOutput::kAssign, qkv_.get());
    const cuda::AttentionArgs args = attention_.Args(kv_, step_->num_blocks(), layer % kv_copies_);
    cuda::LaunchPrepareQkv(step_->device(), args, rows, qkv_.get(), Stream());
    RunAttention(step_.get(), args, qkv_.get(), decode_memory_, {attended_.get(), attended_bf16_.get(), stride});
    RunDense(weights.o, attended_bf16_.get(), rows, TileOf(rows), cuda::GemmOutput::kAdd, buffers_->x.get());
  }

  void RunMoe(const LayerWeights& weights, RoutedBatch* batch) {
    const int64_t tokens = step_->rows(), rows = tokens * m_.top_k;
    const int tile = cuda::ChooseTileTokens(rows, m_.num_experts);
    const cuda::StepCounts* const counts = step_->device().counts;
    RunRoute(m_, weights.experts, tokens, buffers_.get(), counts);
    batch->Group(tile, buffers_->routing.expert_ids, tokens, counts);
    RunGateUp(weights.experts, batch, rows, tile, buffers_.get());
    RunDown(weights.experts, batch, rows, tile, buffers_.get());
    RunCombine(m_, *batch, buffers_->routing.expert_weights, tokens, buffers_.get(), counts);
  }

  void RunMlp(const Mlp& mlp, int64_t intermediate) {
    const int64_t rows = step_->rows();
    RunDense(mlp.gate_up, buffers_->h.get(), rows, TileOf(rows), cuda::GemmOutput::kAssign, gate_up_.get());
    cuda::GateUpInput in;
    in.f32 = gate_up_.get();
    in.stride = 2 * intermediate;
    cuda::LaunchSiluMul(in, rows, intermediate,
                        {product_f32_.get(), product_.get(), cuda::RoundUp(intermediate, cuda::kTileK)}, Stream());
    RunDense(mlp.down, product_.get(), rows, TileOf(rows), cuda::GemmOutput::kAdd, buffers_->x.get());
  }

  // Every logit is written, finite, and not all of them are the same.
  void CheckLogits(const Case& c) {
    Array<unsigned long long> bad(1);
    Clear(bad.get(), bad.bytes());
    cuda::LaunchCountNonfinite(logits_.get(), false, logits_.size(), bad.get(), Stream());
    std::vector<float> first(static_cast<size_t>(m_.vocab_size));
    Copy(first.data(), logits_.get(), m_.vocab_size * 4);
    const bool varies = *std::max_element(first.begin(), first.end()) > *std::min_element(first.begin(), first.end());
    bench_->Check("step " + Name(c) + " logits", bad.ToHost()[0] == 0 && varies ? 0.0 : 1.0);
  }

  // Experts with rows in the step that just ran, summed over its layers.
  double TouchedExperts() const {
    int64_t touched = 0;
    for (const RoutedBatch& batch : batches_) {
      const std::vector<int32_t> offsets = batch.Offsets();
      for (int32_t e = 0; e < m_.num_experts; ++e) touched += offsets[e] < offsets[e + 1] ? 1 : 0;
    }
    return static_cast<double>(touched);
  }

  void Add(const Case& c, double touched, const Spread& us) {
    const double rows = static_cast<double>(step_->rows()), logit_rows = static_cast<double>(step_->logit_rows());
    const double moe_layers = static_cast<double>(NumMoeLayers());
    const double expert = static_cast<double>(m_.expert_parameters());
    const double per_token = m_.num_hidden_layers * DenseParametersPerLayer(m_) +
                             moe_layers * (MlpParameters(m_, m_.shared_intermediate_size) +
                                           static_cast<double>(m_.hidden_size * m_.num_experts)) +
                             m_.first_k_dense_replace * MlpParameters(m_, m_.dense_intermediate_size);
    const double head = static_cast<double>(m_.hidden_size * m_.vocab_size);
    const double expert_bytes = touched * expert * 2, expert_flops = 2 * rows * moe_layers * m_.top_k * expert;
    const double dense_bytes = 2 * (per_token + head), dense_flops = 2 * (rows * per_token + logit_rows * head);
    const double kv_bytes = static_cast<double>(c.sequences * c.context * m_.kv_size()) * 4 * m_.num_hidden_layers;
    const double kv_flops = 4 * step_->num_pairs() * static_cast<double>(m_.q_size()) * m_.num_hidden_layers;
    const Limits& limits = bench_->limits;
    Result result;
    result.section = "step";
    result.name = Name(c);
    result.provider = "native, 1 graph";
    result.us = us;
    result.bytes = expert_bytes + dense_bytes + kv_bytes;
    result.flops = expert_flops + dense_flops + kv_flops;
    result.floor_us = limits.FloorUs(expert_bytes, expert_flops) + limits.FloorUs(dense_bytes, dense_flops) +
                      limits.FloorUs(kv_bytes, kv_flops);
    result.targets = TargetsOf(c);
    result.more = {{"tokens_per_second", 1e6 * rows / us.median},
                   {"touched_experts_per_layer", touched / moe_layers},
                   {"moe_layers", moe_layers},
                   {"weight_copies", static_cast<double>(layers_.size())},
                   {"kv_copies", static_cast<double>(kv_copies_)}};
    bench_->report.Add(std::move(result));
  }

  Targets TargetsOf(const Case& c) const {
    if (c.new_tokens == 1 && c.sequences >= 32) return {"50-55%", "75-80%", "85%"};
    if (c.new_tokens > 1 || c.sequences > 1 || m_.goal_tokens_per_second == 0) return {};
    return {"", std::to_string(static_cast<int>(m_.known_tokens_per_second)) + " t/s",
            std::to_string(static_cast<int>(m_.goal_tokens_per_second)) + " t/s"};
  }

  Bench* const bench_;
  const Model m_;
  const AttentionLayer attention_;
  Array<float> final_norm_;
  Array<uint16_t> embedding_;
  DenseMatrix lm_head_;
  const KvMemory kv_;
  const DecodeMemory decode_memory_;
  std::deque<LayerWeights> layers_;
  std::unique_ptr<Mlp> dense_;
  // Of the case:
  std::unique_ptr<StepData> step_;
  std::unique_ptr<MoeBuffers> buffers_;
  std::deque<RoutedBatch> batches_;
  int64_t kv_copies_ = 1;
  Array<float> qkv_, attended_, gate_up_, product_f32_, last_, logits_;
  Array<uint16_t> attended_bf16_, product_, last_bf16_;
};

}  // namespace

void MeasureStep(Bench* bench) {
  bench->report.Heading("whole step, random weights");
  for (const Model& model : bench->models()) {
    StepSection section(bench, model);
    for (const Case& c : CasesOf(bench->options)) section.Run(c);
  }
}

}  // namespace switchyard::bench
