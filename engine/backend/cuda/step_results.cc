#include "engine/backend/cuda/step_results.h"

#include "engine/base/status_macros.h"

namespace switchyard::cuda {

StepResults::~StepResults() {
  for (cudaEvent_t event : copied_) {
    if (event != nullptr) cudaEventDestroy(event);
  }
}

int64_t StepResults::Reserve(int64_t bytes) {
  const int64_t offset = bytes_;
  bytes_ += RoundUp(bytes, 256);
  return offset;
}

absl::Status StepResults::Allocate() {
  CHECK(in_flight() == 0);
  ASSIGN_OR_RETURN(block_, DeviceBuffer::Allocate(bytes_, "a step's results"));
  for (int slot = 0; slot < kMaxStepsInFlight; ++slot) {
    ASSIGN_OR_RETURN(slots_[slot], PinnedBuffer::Allocate(bytes_));
    if (copied_[slot] != nullptr) continue;
    RETURN_IF_ERROR(
        ToStatus(cudaEventCreateWithFlags(&copied_[slot], cudaEventDisableTiming), "cudaEventCreate"));
  }
  return absl::OkStatus();
}

absl::Status StepResults::Send(int64_t bytes, cudaStream_t stream) {
  CHECK(in_flight() < kMaxStepsInFlight && bytes <= bytes_);
  const size_t slot = next_slot();
  if (bytes > 0) {
    RETURN_IF_ERROR(ToStatus(cudaMemcpyAsync(slots_[slot].as<void>(), block_.as<void>(), static_cast<size_t>(bytes),
                                             cudaMemcpyDeviceToHost, stream),
                             "copying a step's results"));
  }
  RETURN_IF_ERROR(ToStatus(cudaEventRecord(copied_[slot], stream), "copying a step's results"));
  ++sent_;
  return absl::OkStatus();
}

absl::Status StepResults::Receive() {
  CHECK(in_flight() > 0);
  const size_t slot = oldest_slot();
  ++received_;
  return ToStatus(cudaEventSynchronize(copied_[slot]), "the GPU failed");
}

}  // namespace switchyard::cuda
