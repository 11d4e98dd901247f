// Runs steps on the toy model with a model of the KV cache: what it answers depends only on what really lies in the
// slots that a slice's block table names, so a stale, aliased or lost block changes the output.
//
// Takes two steps at once, as the contract of engine.h says, and holds the caller to it: runs a step when it is
// launched, answers when it is collected, and CHECKs that until then nothing moved that the step views.
#ifndef SWITCHYARD_TESTS_SIMULATION_FAKE_KV_ENGINE_H_
#define SWITCHYARD_TESTS_SIMULATION_FAKE_KV_ENGINE_H_

#include <cstdint>
#include <deque>
#include <span>
#include <vector>

#include "engine/step.h"

namespace switchyard::simulation {

class FakeKvEngine {
 public:
  FakeKvEngine(int32_t num_blocks, int32_t block_size, uint64_t nonfinite_one_in);

  // REQUIRES: at most one step in flight; block tables cover the slices.
  void Launch(const StepBatch& batch);
  // Of the oldest step in flight; valid until the next Collect.
  const StepOutput& Collect();

 private:
  // Where a view pointed, and what it showed.
  struct View {
    std::span<const int32_t> there;
    std::vector<int32_t> then;
  };
  struct Step {
    const StepBatch* batch = nullptr;
    std::vector<View> views;
    StepOutput output;
    bool samples_on_host = false;
  };

  std::vector<int32_t> KnownTokens(const SequenceSlice& slice) const;
  size_t Slot(const SequenceSlice& slice, int32_t position) const;
  void ComputeChains(const SequenceSlice& slice);
  SampledToken Sample(const SequenceSlice& slice) const;

  const int32_t block_size_;
  const uint64_t nonfinite_one_in_;
  std::vector<uint64_t> slots_;       // chain hashes, [num_blocks * block_size]
  std::vector<uint64_t> new_chains_;  // of all slices of the step, one after the other
  std::deque<Step> in_flight_;
  StepOutput output_;
};

}  // namespace switchyard::simulation

#endif  // SWITCHYARD_TESTS_SIMULATION_FAKE_KV_ENGINE_H_
