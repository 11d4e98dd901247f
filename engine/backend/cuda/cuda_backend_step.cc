// A step from its inputs to its results.
#include "engine/backend/cuda/cuda_backend_impl.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "engine/base/status_macros.h"

namespace switchyard::cuda {
namespace {

// 131,072 tokens: their partial results fit kPartialFloats with 128 heads of 256.
constexpr int64_t kMaxRecordedChunks = 512;

}  // namespace

bool CudaBackend::BeginStep(const StepInputs& step, const KvCache& cache) {
  const CudaKvCache& kv = static_cast<const CudaKvCache&>(cache);
  announced_ = step;
  in_step_ = true;
  CHECK(results_.in_flight() < kMaxStepsInFlight);
  touched().Clear();
  touched().logit_rows.assign(step.logit_rows.begin(), step.logit_rows.end());
  touched().explain_routing = step.explain_routing;
  Check(step_.Upload(step, kv.shape.block_size, stream_));
  if (step_.generation() != recorded_generation_) {
    recorder_.Forget();
    recorded_generation_ = step_.generation();
  }
  const int64_t rows = step_.num_tokens();
  const bool decode_only = step_.num_decode_rows() == rows && static_cast<int64_t>(step.logit_rows.size()) == rows;
  bucket_ = decode_only ? std::min(RowBucket(rows), max_tokens_) : 0;
  chunk_bucket_ = ChunkBucket(step_.longest_decode() / kKeyChunk + 1);
  if (!failure_.ok() || bucket_ == 0 || chunk_bucket_ > kMaxRecordedChunks || !expert_gemms_->recordable()) {
    bucket_ = 0;
    return false;
  }
  switch (recorder_.Begin({bucket_, chunk_bucket_})) {
    case Recorder::Action::kRunDirectly: bucket_ = 0; return false;
    case Recorder::Action::kRecord: return false;
    case Recorder::Action::kRepeated: break;
  }
  recorder_.RunOnRepeat(rows);
  FinishStep();
  return true;
}

void CudaBackend::EndStep() {
  if (recorder_.recording()) Check(recorder_.Finish());
  FinishStep();
}

int64_t CudaBackend::LaunchRows(Matrix matrix) const {
  if (!failure_.ok()) return 0;
  return bucket_ == 0 ? matrix.rows : std::min(bucket_, activations_.Capacity(matrix));
}

// Waits and copies, which no recording could repeat.
void CudaBackend::UploadSingle(const StepInputs& inputs, int32_t block_size) {
  CHECK(!recorder_.recording());
  Check(single_.Upload(inputs, block_size, stream_));
}

UploadedStep& CudaBackend::InputsFor(std::span<const AttentionSlice> slices, int32_t block_size) {
  if (in_step_ && slices.data() == announced_.slices.data() && slices.size() == announced_.slices.size()) return step_;
  UploadSingle({.ids = {}, .slices = slices, .logit_rows = {}}, block_size);
  return single_;
}

}  // namespace switchyard::cuda
