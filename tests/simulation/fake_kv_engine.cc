#include "tests/simulation/fake_kv_engine.h"

#include <algorithm>
#include <utility>

#include "engine/base/status_macros.h"
#include "tests/simulation/toy_model.h"

namespace switchyard::simulation {

FakeKvEngine::FakeKvEngine(int32_t num_blocks, int32_t block_size, uint64_t nonfinite_one_in)
    : block_size_(block_size), nonfinite_one_in_(nonfinite_one_in) {
  slots_.resize(static_cast<size_t>(num_blocks) * static_cast<size_t>(block_size));
  for (size_t i = 0; i < slots_.size(); ++i) slots_[i] = Hash(0xdead, i);  // garbage, as in fresh memory
}

void FakeKvEngine::Launch(const StepBatch& batch) {
  CHECK(in_flight_.size() < 2);
  Step step;
  step.batch = &batch;
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
    for (const auto view : {slice.tokens, slice.block_table, slice.prompt_tokens, slice.output_tokens}) {
      step.views.push_back({view, {view.begin(), view.end()}});
    }
    if (!slice.sample) continue;
    step.output.tokens.push_back(Sample(slice));
    step.samples_on_host = step.samples_on_host || NeedsHostSampler(*slice.sampling);
  }
  in_flight_.push_back(std::move(step));
}

const StepOutput& FakeKvEngine::Collect() {
  CHECK(!in_flight_.empty());
  Step& step = in_flight_.front();
  CHECK(step.batch->slices.size() * 4 == step.views.size());
  size_t next = 0;
  for (const SequenceSlice& slice : step.batch->slices) {
    for (const auto view : {slice.tokens, slice.block_table, slice.prompt_tokens, slice.output_tokens}) {
      const View& launched = step.views[next++];
      CHECK(view.data() == launched.there.data() && view.size() == launched.there.size());
      CHECK(std::ranges::equal(view, launched.then));
    }
  }
  output_ = std::move(step.output);
  in_flight_.pop_front();
  return output_;
}

// With what the step in flight sampled in the place of ~i.
std::vector<int32_t> FakeKvEngine::KnownTokens(const SequenceSlice& slice) const {
  std::vector<int32_t> tokens(slice.tokens.begin(), slice.tokens.end());
  if (tokens.back() >= 0) return tokens;
  CHECK(tokens.size() == 1 && in_flight_.size() == 1 && !in_flight_[0].samples_on_host);
  const auto i = static_cast<size_t>(~tokens[0]);
  CHECK(i < in_flight_[0].output.tokens.size());
  tokens[0] = in_flight_[0].output.tokens[i].token;
  return tokens;
}

size_t FakeKvEngine::Slot(const SequenceSlice& slice, int32_t position) const {
  return static_cast<size_t>(slice.block_table[position / block_size_]) * block_size_ + position % block_size_;
}

void FakeKvEngine::ComputeChains(const SequenceSlice& slice) {
  uint64_t chain = slice.first_position == 0 ? 0 : slots_[Slot(slice, slice.first_position - 1)];
  int32_t position = slice.first_position;
  for (const int32_t token : KnownTokens(slice)) {
    chain = ExtendChain(chain, token, position++);
    new_chains_.push_back(chain);
  }
}

SampledToken FakeKvEngine::Sample(const SequenceSlice& slice) const {
  const int32_t end = slice.first_position + static_cast<int32_t>(slice.tokens.size());
  uint64_t fold = 0;
  for (int32_t position = 0; position < end; ++position) fold = ExtendFold(fold, slots_[Slot(slice, position)]);
  const Draw draw = DrawToken(fold, *slice.sampling, end, nonfinite_one_in_);
  SampledToken token;
  token.sequence_id = slice.sequence_id;
  token.token = draw.token;
  token.finite = draw.finite;
  return token;
}

}  // namespace switchyard::simulation
