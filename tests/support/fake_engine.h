// An engine without a model, for tests of the server: it repeats the prompt.
//
//   prompt "abc"  ->  output "abcabcabc..."      (output token i = prompt token i modulo the length of the prompt)
//
// Every token goes to top_k experts of each MoE layer, starting at expert (token + layer) modulo the experts. Steps can
// be slowed down, made to fail and made to hang.
#ifndef SWITCHYARD_TESTS_SUPPORT_FAKE_ENGINE_H_
#define SWITCHYARD_TESTS_SUPPORT_FAKE_ENGINE_H_

#include <algorithm>
#include <atomic>
#include <chrono>
#include <limits>
#include <thread>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/engine.h"

namespace switchyard {

class FakeEngine : public Engine {
 public:
  static constexpr int32_t kEos = 256;      // as in ByteTokenizerJson
  static constexpr int32_t kNotFinite = 1;  // drawing this token means that a logit was not finite

  FakeEngine() {
    facts_.architecture = "fake";
    facts_.backend = "fake";
    facts_.expert_dtype = "mxfp4";
    facts_.vocab_size = 257;
    facts_.max_model_len = 1024;
    facts_.eos_token_ids = {kEos};
    facts_.num_layers = 3;
    facts_.moe_layers = {1, 2};
    facts_.num_experts = 8;
    facts_.top_k = 2;
    facts_.block_size = 16;
    facts_.num_kv_blocks = 512;
    facts_.num_parameters = 1000;
  }

  ModelFacts* mutable_facts() { return &facts_; }
  const ModelFacts& facts() const override { return facts_; }

  void set_step_time(std::chrono::microseconds time) { step_time_micros_.store(time.count()); }
  void FailNextStep() { fail_.store(true); }
  // The step in flight ends only when this is false again.
  void set_hangs(bool hangs) { hangs_.store(hangs); }
  // The step after so many ends only when this is more, so that a test and the engine take turns.
  void set_steps_allowed(int64_t steps) { steps_allowed_.store(steps); }

  absl::Status Launch(const StepBatch& batch) override {
    if (fail_.load()) return absl::InternalError("the fake device is gone");
    output_.tokens.clear();
    output_.stats = EmptyStats();
    for (const SequenceSlice& slice : batch.slices) {
      CountRows(slice);
      if (slice.sample) output_.tokens.push_back(Sample(slice));
    }
    return absl::OkStatus();
  }

  absl::StatusOr<const StepOutput*> Collect() override {
    while (hangs_.load() || num_steps_ >= steps_allowed_.load()) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    ++num_steps_;
    std::this_thread::sleep_for(std::chrono::microseconds(step_time_micros_.load()));
    output_.stats.seconds = 1e-6f * static_cast<float>(step_time_micros_.load());
    return &output_;
  }

 private:
  StepStats EmptyStats() const {
    StepStats stats;
    MoeLayerStats layer;
    layer.tokens_per_expert.resize(static_cast<size_t>(facts_.num_experts));
    layer.seconds_per_expert.resize(static_cast<size_t>(facts_.num_experts));
    layer.probability_sums.resize(static_cast<size_t>(facts_.num_experts));
    layer.seconds = 1e-5f;
    stats.moe_layers.assign(facts_.moe_layers.size(), layer);
    return stats;
  }

  int32_t ExpertOf(int32_t token, size_t layer, int32_t rank) const {
    return (token + static_cast<int32_t>(layer) + rank) % facts_.num_experts;
  }

  void CountRows(const SequenceSlice& slice) {
    output_.stats.num_tokens += static_cast<int32_t>(slice.tokens.size());
    for (size_t layer = 0; layer < output_.stats.moe_layers.size(); ++layer) {
      MoeLayerStats& stats = output_.stats.moe_layers[layer];
      stats.num_tokens += static_cast<int32_t>(slice.tokens.size());
      for (int32_t token : slice.tokens) {
        for (int32_t rank = 0; rank < facts_.top_k; ++rank) {
          const size_t expert = static_cast<size_t>(ExpertOf(token, layer, rank));
          ++stats.tokens_per_expert[expert];
          stats.seconds_per_expert[expert] += 1e-6f;
          stats.probability_sums[expert] += 1.0f / static_cast<float>(facts_.top_k);
        }
        stats.squared_logsumexp_sum += 4.0;
      }
    }
  }

  SampledToken Sample(const SequenceSlice& slice) const {
    SampledToken sampled;
    sampled.sequence_id = slice.sequence_id;
    sampled.token = slice.prompt_tokens[slice.output_tokens.size() % slice.prompt_tokens.size()];
    const auto& stops = slice.sampling->stop_token_ids;
    const bool too_early = static_cast<int>(slice.output_tokens.size()) < slice.sampling->min_tokens;
    if (too_early && std::find(stops.begin(), stops.end(), sampled.token) != stops.end()) sampled.token = 'm';
    sampled.finite = sampled.token != kNotFinite;
    sampled.logprob = -0.5f;
    for (int i = 0; i < slice.sampling->num_logprobs; ++i) {
      sampled.top_logprobs.push_back({(sampled.token + i) % facts_.vocab_size, -0.5f - static_cast<float>(i)});
    }
    if (slice.explain_routing) sampled.routing = Trace(slice.tokens.back());
    return sampled;
  }

  RoutingTrace Trace(int32_t token) const {
    RoutingTrace trace;
    for (size_t layer = 0; layer < facts_.moe_layers.size(); ++layer) {
      for (int32_t rank = 0; rank < facts_.top_k; ++rank) {
        trace.expert_ids.push_back(ExpertOf(token, layer, rank));
        trace.expert_weights.push_back(1.0f / static_cast<float>(facts_.top_k));
      }
      trace.margins.push_back(0.25f);
    }
    return trace;
  }

  ModelFacts facts_;
  StepOutput output_;
  std::atomic<int64_t> step_time_micros_{0};
  std::atomic<bool> fail_{false};
  std::atomic<bool> hangs_{false};
  int64_t num_steps_ = 0;
  std::atomic<int64_t> steps_allowed_{std::numeric_limits<int64_t>::max()};
};

}  // namespace switchyard

#endif  // SWITCHYARD_TESTS_SUPPORT_FAKE_ENGINE_H_
