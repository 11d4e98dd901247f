// Records the operations of a decode step as a CUDA graph and repeats it for later steps of the same form: one launch
// instead of a dozen per layer.
//
// A form is the number of rows and the length of the longest context, both rounded up; kernels learn the real counts
// from device memory, and rows beyond them do nothing. A form is recorded the second time it occurs, and a
// bounded number of them.
#ifndef SWITCHYARD_ENGINE_BACKEND_CUDA_RECORDER_H_
#define SWITCHYARD_ENGINE_BACKEND_CUDA_RECORDER_H_

#include <cuda_runtime_api.h>

#include <compare>
#include <cstdint>
#include <functional>
#include <map>
#include <vector>

#include "absl/status/status.h"
#include "engine/backend/cuda/layout.h"

namespace switchyard::cuda {

// Rows of a recorded step that serves `rows`; 0: steps of so many rows are not recorded.
constexpr int64_t RowBucket(int64_t rows) {
  for (const int bucket : {1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 160, 192, kMaxRecordedRows}) {
    if (rows <= bucket) return bucket;
  }
  return 0;
}

// Chunks of keys of a recorded step whose longest row has `chunks`: a power of two.
constexpr int64_t ChunkBucket(int64_t chunks) {
  int64_t bucket = 1;
  while (bucket < chunks) bucket *= 2;
  return bucket;
}

struct StepForm {
  int64_t rows = 0;
  int64_t chunks = 0;
  auto operator<=>(const StepForm&) const = default;
};

class Recorder {
 public:
  explicit Recorder(cudaStream_t stream) : stream_(stream) {}
  ~Recorder() { Forget(); }
  Recorder(const Recorder&) = delete;
  Recorder& operator=(const Recorder&) = delete;

  enum class Action { kRunDirectly, kRecord, kRepeated };

  // Repeats the form if it is recorded, with `after_repeat` of the recording called; otherwise says whether the
  // operations that follow, up to Finish, are to be recorded.
  Action Begin(const StepForm& form);
  // Ends a recording and runs it. `after_repeat` is what the host has to do each time it is repeated.
  absl::Status Finish();
  bool recording() const { return recording_; }

  // While recording: host work that belongs to each repeat, with the step's real number of tokens.
  void OnRepeat(std::function<void(int64_t num_tokens)> work) { current_.on_repeat.push_back(std::move(work)); }
  // Does that work for the form that was repeated last.
  void RunOnRepeat(int64_t num_tokens) const;

  // Drops all recordings: addresses they use have changed.
  void Forget();
  int64_t num_repeats() const { return num_repeats_; }

 private:
  struct Recording {
    cudaGraphExec_t graph = nullptr;
    std::vector<std::function<void(int64_t)>> on_repeat;
  };

  cudaStream_t const stream_;
  std::map<StepForm, int> seen_;
  std::map<StepForm, Recording> recordings_;
  const Recording* repeated_ = nullptr;
  StepForm form_;
  Recording current_;
  bool recording_ = false;
  int64_t num_repeats_ = 0;
};

}  // namespace switchyard::cuda

#endif  // SWITCHYARD_ENGINE_BACKEND_CUDA_RECORDER_H_
