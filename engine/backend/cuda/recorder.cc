#include "engine/backend/cuda/recorder.h"

#include <utility>

#include "engine/backend/cuda/device_memory.h"
#include "engine/base/status_macros.h"

namespace switchyard::cuda {
namespace {

constexpr size_t kMaxRecordings = 64;  // each takes memory of the device, some megabytes with many layers

}  // namespace

Recorder::Action Recorder::Begin(const StepForm& form) {
  const auto found = recordings_.find(form);
  if (found != recordings_.end()) {
    cudaGraphLaunch(found->second.graph, stream_);  // a failure stays with the runtime until Wait asks
    repeated_ = &found->second;
    ++num_repeats_;
    return Action::kRepeated;
  }
  // Once directly, so that whatever is made on first use exists; and most forms of a short test never come back.
  if (++seen_[form] < 2 || recordings_.size() >= kMaxRecordings) return Action::kRunDirectly;
  if (cudaPeekAtLastError() != cudaSuccess) return Action::kRunDirectly;  // for Wait, and not to be taken below
  if (cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal) != cudaSuccess) {
    cudaGetLastError();  // recording is a convenience
    return Action::kRunDirectly;
  }
  form_ = form;
  current_ = {};
  recording_ = true;
  return Action::kRecord;
}

absl::Status Recorder::Finish() {
  recording_ = false;
  cudaGraph_t graph = nullptr;
  RETURN_IF_ERROR(ToStatus(cudaStreamEndCapture(stream_, &graph), "recording a step"));
  const absl::Status made = ToStatus(cudaGraphInstantiate(&current_.graph, graph, 0), "recording a step");
  cudaGraphDestroy(graph);
  RETURN_IF_ERROR(made);
  const Recording& recording = recordings_[form_] = std::move(current_);
  return ToStatus(cudaGraphLaunch(recording.graph, stream_), "running a recorded step");
}

void Recorder::RunOnRepeat(int64_t num_tokens) const {
  for (const auto& work : repeated_->on_repeat) work(num_tokens);
}

void Recorder::Forget() {
  for (auto& [form, recording] : recordings_) cudaGraphExecDestroy(recording.graph);
  recordings_.clear();
  seen_.clear();
  repeated_ = nullptr;
}

}  // namespace switchyard::cuda
