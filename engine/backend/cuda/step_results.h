// What a step leaves for the host: one block of device memory at addresses that stay the same, copied in one transfer
// into one of kMaxStepsInFlight page-locked slots, so that the device may begin the next step while the host reads.
#ifndef SWITCHYARD_ENGINE_BACKEND_CUDA_STEP_RESULTS_H_
#define SWITCHYARD_ENGINE_BACKEND_CUDA_STEP_RESULTS_H_

#include <cuda_runtime_api.h>

#include <array>
#include <cstdint>

#include "absl/status/status.h"
#include "engine/backend/cuda/device_memory.h"

namespace switchyard::cuda {

inline constexpr int kMaxStepsInFlight = 2;

class StepResults {
 public:
  StepResults() = default;
  ~StepResults();
  StepResults(const StepResults&) = delete;
  StepResults& operator=(const StepResults&) = delete;

  // Sets `bytes` of the block aside, aligned to 256 bytes, and returns where they begin; the next Allocate makes room.
  int64_t Reserve(int64_t bytes);
  // Gives the block a new address. REQUIRES: nothing in flight.
  absl::Status Allocate();
  template <typename T>
  T* device(int64_t offset) const {
    return reinterpret_cast<T*>(block_.as<char>() + offset);
  }

  // Starts to copy the first `bytes` of the block as they will be when all that the stream holds is done.
  // REQUIRES: in_flight() < kMaxStepsInFlight.
  absl::Status Send(int64_t bytes, cudaStream_t stream);
  // Waits for the oldest copy not yet received; `host` is what it brought, until the next Send.
  absl::Status Receive();
  int in_flight() const { return static_cast<int>(sent_ - received_); }
  size_t next_slot() const { return Slot(sent_); }        // that the next Send fills
  size_t oldest_slot() const { return Slot(received_); }  // that the next Receive waits for
  template <typename T>
  const T* host(int64_t offset) const {
    return reinterpret_cast<const T*>(slots_[Slot(received_ - 1)].as<char>() + offset);
  }

 private:
  static size_t Slot(int64_t number) { return static_cast<size_t>(number % kMaxStepsInFlight); }

  int64_t bytes_ = 0;
  DeviceBuffer block_;
  std::array<PinnedBuffer, kMaxStepsInFlight> slots_;
  std::array<cudaEvent_t, kMaxStepsInFlight> copied_ = {};
  int64_t sent_ = 0;
  int64_t received_ = 0;
};

}  // namespace switchyard::cuda

#endif  // SWITCHYARD_ENGINE_BACKEND_CUDA_STEP_RESULTS_H_
