// Runs steps on the toy model with a model of the KV cache: what it answers depends only on what really lies in the
// slots that a slice's block table names, so a stale, aliased or lost block changes the output.
#ifndef SWITCHYARD_TESTS_SIMULATION_FAKE_KV_ENGINE_H_
#define SWITCHYARD_TESTS_SIMULATION_FAKE_KV_ENGINE_H_

#include <cstdint>
#include <vector>

#include "engine/step.h"

namespace switchyard::simulation {

class FakeKvEngine {
 public:
  FakeKvEngine(int32_t num_blocks, int32_t block_size, uint64_t nonfinite_one_in);

  // Valid until the next call. REQUIRES: block tables cover the slices.
  const StepOutput& Run(const StepBatch& batch);

 private:
  size_t Slot(const SequenceSlice& slice, int32_t position) const;
  void ComputeChains(const SequenceSlice& slice);
  void Sample(const SequenceSlice& slice);

  const int32_t block_size_;
  const uint64_t nonfinite_one_in_;
  std::vector<uint64_t> slots_;       // chain hashes, [num_blocks * block_size]
  std::vector<uint64_t> new_chains_;  // of all slices of the step, one after the other
  StepOutput output_;
};

}  // namespace switchyard::simulation

#endif  // SWITCHYARD_TESTS_SIMULATION_FAKE_KV_ENGINE_H_
