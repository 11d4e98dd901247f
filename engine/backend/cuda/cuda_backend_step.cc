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
  num_timers_ = 0;
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
  in_step_ = false;
  bucket_ = 0;
  return true;
}

void CudaBackend::EndStep() {
  if (recorder_.recording()) Check(recorder_.Finish());
  in_step_ = false;
  bucket_ = 0;
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

absl::StatusOr<const int32_t*> CudaBackend::AllocateBestTokens(int64_t max_rows) {
  ASSIGN_OR_RETURN(best_tokens_, PinnedBuffer::Allocate(max_rows * 4));
  return best_tokens_.as<const int32_t>();
}

void CudaBackend::BestTokens(Matrix logits, int64_t num_ids) {
  const int64_t rows = LaunchRows(logits);
  LaunchBestTokens(Counts(), activations_.ReadF32(logits, rows), rows, logits.cols, num_ids,
                   best_tokens_.as<int32_t>(), stream_);
}

// ---------------------------------------------------------------------------------------------------- results

void CudaBackend::StartTimer() {
  if (num_timers_ == timers_.size()) {
    Timer timer;
    Check(ToStatus(cudaEventCreateWithFlags(&timer.start, cudaEventDefault), "cudaEventCreate"));
    Check(ToStatus(cudaEventCreateWithFlags(&timer.end, cudaEventDefault), "cudaEventCreate"));
    timers_.push_back(timer);
  }
  cudaEventRecordWithFlags(timers_[num_timers_].start, stream_,
                           recorder_.recording() ? cudaEventRecordExternal : cudaEventRecordDefault);
}

void CudaBackend::StopTimer(float* seconds) {
  Timer& timer = timers_[num_timers_++];
  timer.seconds = seconds;
  cudaEventRecordWithFlags(timer.end, stream_,
                           recorder_.recording() ? cudaEventRecordExternal : cudaEventRecordDefault);
  if (recorder_.recording()) recorder_.OnRepeat([this, n = num_timers_](int64_t) { num_timers_ = n; });
}

absl::Status CudaBackend::Wait() {
  const cudaError_t launch = cudaPeekAtLastError();
  const cudaError_t run = cudaStreamSynchronize(stream_);
  Check(ToStatus(launch != cudaSuccess ? launch : run, "the GPU failed"));
  RETURN_IF_ERROR(failure_);
  for (size_t i = 0; i < num_timers_; ++i) {
    float milliseconds = 0.0f;
    if (cudaEventElapsedTime(&milliseconds, timers_[i].start, timers_[i].end) == cudaSuccess) {
      *timers_[i].seconds = milliseconds * 1e-3f;
    } else {
      cudaGetLastError();  // a time that cannot be told is no failure of the step
    }
  }
  num_timers_ = 0;
  return absl::OkStatus();
}

std::span<const float> CudaBackend::HostView(Matrix matrix) {
  const int64_t count = matrix.rows * matrix.cols;
  if (host_view_.bytes() < count * 4) {
    absl::StatusOr<PinnedBuffer> larger = PinnedBuffer::Allocate(2 * count * 4);
    if (!larger.ok()) {
      Check(larger.status());
      return {};
    }
    host_view_ = *std::move(larger);
  }
  if (!failure_.ok()) return {};
  const float* const data = activations_.ReadF32(matrix, matrix.rows);
  Check(ToStatus(cudaMemcpyAsync(host_view_.as<void>(), data, static_cast<size_t>(count) * 4, cudaMemcpyDeviceToHost,
                                 stream_),
                 "copying results"));
  Check(ToStatus(cudaStreamSynchronize(stream_), "copying results"));
  if (!failure_.ok()) return {};
  return {host_view_.as<float>(), static_cast<size_t>(count)};
}

}  // namespace switchyard::cuda
