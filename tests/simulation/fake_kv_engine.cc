#include "tests/simulation/fake_kv_engine.h"

#include "tests/simulation/toy_model.h"

namespace switchyard::simulation {

FakeKvEngine::FakeKvEngine(int32_t num_blocks, int32_t block_size, uint64_t nonfinite_one_in)
    : block_size_(block_size), nonfinite_one_in_(nonfinite_one_in) {
  slots_.resize(static_cast<size_t>(num_blocks) * static_cast<size_t>(block_size));
  for (size_t i = 0; i < slots_.size(); ++i) slots_[i] = Hash(0xdead, i);  // garbage, as in fresh memory
}

const StepOutput& FakeKvEngine::Run(const StepBatch& batch) {
  output_.tokens.clear();
  // All slices read the cache as it was before the step, then all write: nobody may lean on a batch mate's new KV.
  new_chains_.clear();
  for (const SequenceSlice& slice : batch.slices) ComputeChains(slice);
  size_t next = 0;
  for (const SequenceSlice& slice : batch.slices) {
    for (size_t i = 0; i < slice.tokens.size(); ++i) {
      slots_[Slot(slice, slice.first_position + static_cast<int32_t>(i))] = new_chains_[next++];
    }
  }
  for (const SequenceSlice& slice : batch.slices) {
    if (slice.sample) Sample(slice);
  }
  return output_;
}

size_t FakeKvEngine::Slot(const SequenceSlice& slice, int32_t position) const {
  return static_cast<size_t>(slice.block_table[position / block_size_]) * block_size_ + position % block_size_;
}

void FakeKvEngine::ComputeChains(const SequenceSlice& slice) {
  uint64_t chain = slice.first_position == 0 ? 0 : slots_[Slot(slice, slice.first_position - 1)];
  int32_t position = slice.first_position;
  for (const int32_t token : slice.tokens) {
    chain = ExtendChain(chain, token, position++);
    new_chains_.push_back(chain);
  }
}

void FakeKvEngine::Sample(const SequenceSlice& slice) {
  const int32_t end = slice.first_position + static_cast<int32_t>(slice.tokens.size());
  uint64_t fold = 0;
  for (int32_t position = 0; position < end; ++position) fold = ExtendFold(fold, slots_[Slot(slice, position)]);
  const Draw draw = DrawToken(fold, *slice.sampling, end, nonfinite_one_in_);
  SampledToken token;
  token.sequence_id = slice.sequence_id;
  token.token = draw.token;
  token.finite = draw.finite;
  output_.tokens.push_back(token);
}

}  // namespace switchyard::simulation
