// The inputs of a step in device memory: one transfer from one page-locked block, at addresses that stay the same.
#ifndef SWITCHYARD_ENGINE_BACKEND_CUDA_STEP_INPUTS_H_
#define SWITCHYARD_ENGINE_BACKEND_CUDA_STEP_INPUTS_H_

#include <cuda_runtime_api.h>

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "engine/backend/backend.h"
#include "engine/backend/cuda/device_memory.h"
#include "engine/backend/cuda/kernels.h"

namespace switchyard::cuda {

class UploadedStep {
 public:
  UploadedStep() = default;
  ~UploadedStep();
  UploadedStep(const UploadedStep&) = delete;
  UploadedStep& operator=(const UploadedStep&) = delete;

  // Starts the transfer. Positions and tables are those of `slices`; without slices there are none, and without ids
  // they count as zeros. Grows its memory when a step is larger than any before: then the addresses change, and
  // `generation` with them.
  absl::Status Upload(const StepInputs& step, int32_t block_size, cudaStream_t stream);

  // Where Embed finds the tokens that the step before sampled.
  void SetSampled(const int32_t* sampled) { device_.sampled = sampled; }

  const DeviceStep& device() const { return device_; }
  // Tiles of the last Upload's slices, cut to `tile_rows` rows; without those of a single row unless `all`.
  absl::Status UploadTiles(int32_t tile_rows, bool all, cudaStream_t stream);
  const PrefillTile* tiles() const { return tiles_device_.as<PrefillTile>(); }
  int64_t num_tiles() const { return num_tiles_; }

  int64_t num_tokens() const { return num_tokens_; }
  int64_t num_decode_rows() const { return num_decode_rows_; }
  int32_t longest_decode() const { return longest_decode_; }  // the largest position of a decode row
  int64_t generation() const { return generation_; }

 private:
  struct Sizes {
    int64_t tokens = 0;
    int64_t logit_rows = 0;
    int64_t tables = 0;
  };
  absl::Status Grow(const Sizes& sizes);
  absl::Status WaitForLast();

  PinnedBuffer host_;
  DeviceBuffer memory_;
  Sizes capacity_;
  DeviceStep device_ = {};
  cudaEvent_t copied_ = nullptr;
  bool under_way_ = false;

  PinnedBuffer tiles_host_;
  DeviceBuffer tiles_device_;
  int64_t num_tiles_ = 0;
  int32_t tile_rows_ = 0;  // what the tiles were cut to; 0: not yet
  bool all_tiles_ = false;
  std::vector<AttentionSlice> slices_;

  int64_t num_tokens_ = 0;
  int64_t num_decode_rows_ = 0;
  int32_t longest_decode_ = 0;
  int64_t generation_ = 0;
};

}  // namespace switchyard::cuda

#endif  // SWITCHYARD_ENGINE_BACKEND_CUDA_STEP_INPUTS_H_
