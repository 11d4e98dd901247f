// The engine of a language model: runs steps, one behind the other, and samples what the device does not.
#ifndef SWITCHYARD_ENGINE_MODEL_ENGINE_H_
#define SWITCHYARD_ENGINE_MODEL_ENGINE_H_

#include <array>
#include <chrono>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/backend/backend.h"
#include "engine/engine.h"
#include "engine/model/language_model.h"
#include "engine/sampling/sampler.h"

namespace switchyard {

// Ready to run. The backend owns what the others lie in.
struct LoadedModel {
  ModelFacts facts;
  ModelLimits limits;
  std::unique_ptr<Backend> backend;
  std::unique_ptr<LanguageModel> model;
  std::unique_ptr<KvCache> cache;
};

class ModelEngine final : public Engine {
 public:
  static constexpr int kMaxStepsInFlight = 2;

  explicit ModelEngine(LoadedModel loaded);

  const ModelFacts& facts() const override { return facts_; }
  absl::Status Launch(const StepBatch& batch) override;
  absl::StatusOr<const StepOutput*> Collect() override;

 private:
  using Clock = std::chrono::steady_clock;

  // A step between Launch and the return of its Collect.
  struct Step {
    std::vector<const SequenceSlice*> sampled_slices;  // of the caller's batch
    std::vector<int32_t> logit_rows;                   // parallel to these
    bool sampled_on_device = false;
    int32_t num_tokens = 0;
    Clock::time_point start;
    Matrix logits;
  };
  int64_t num_in_flight() const { return num_launched_ - num_collected_; }
  Step& StepNumber(int64_t number) { return steps_[static_cast<size_t>(number % kMaxStepsInFlight)]; }
  const Step& LastLaunched() const { return steps_[static_cast<size_t>((num_launched_ - 1) % kMaxStepsInFlight)]; }
  bool IsKnownToken(const SequenceSlice& slice, int32_t id) const;
  absl::Status CheckSlice(const SequenceSlice& slice) const;
  absl::Status CheckEncoderTokens(const SequenceSlice& slice) const;
  absl::Status CheckBatch(const StepBatch& batch) const;
  void DescribeSampling(const Step& step);
  void SampleRow(const Step& step, Sampler* sampler, int64_t i);
  void FillRoutingTrace(int32_t row, RoutingTrace* trace) const;

  const ModelFacts facts_;
  const ModelLimits limits_;
  const std::unique_ptr<Backend> backend_;
  const std::unique_ptr<LanguageModel> model_;
  const std::unique_ptr<KvCache> cache_;

  // Steps by their number modulo the most in flight, and what only Launch needs; capacity is reserved for the largest.
  std::array<Step, kMaxStepsInFlight> steps_;
  int64_t num_launched_ = 0;
  int64_t num_collected_ = 0;
  Clock::time_point last_collected_;
  std::vector<int32_t> ids_;
  std::vector<AttentionSlice> slices_;
  std::vector<RowSampling> sampling_;  // parallel to logit_rows where the device draws the tokens, else empty
  std::span<const float> host_logits_;
  std::vector<Sampler> samplers_;  // one per host thread
  StepOutput output_;
};

}  // namespace switchyard

#endif  // SWITCHYARD_ENGINE_MODEL_ENGINE_H_
