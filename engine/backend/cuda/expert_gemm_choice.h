// Which provider multiplies the experts of a call, as --expert-gemm says.
//
//   auto          native; with a table of measurements, for each shape the one provider that it names for steps of
//                 every size. It is batch_invariant, so that answers do not depend on who shares the batch
//   fastest       for each shape the provider that the table names for the step's number of tokens: the last bits of an
//                 answer may depend on the batch
//   a provider    that one, whatever a table says
//
// native takes the experts of shapes that the table does not know, and what the chosen provider does not take. The
// number of tokens is rounded up as recorded steps round it, so that a recorded step uses the provider that the same
// step used before it was recorded.
#ifndef SWITCHYARD_ENGINE_BACKEND_CUDA_EXPERT_GEMM_CHOICE_H_
#define SWITCHYARD_ENGINE_BACKEND_CUDA_EXPERT_GEMM_CHOICE_H_

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/backend/backend.h"
#include "engine/backend/cuda/expert_gemm.h"
#include "engine/backend/cuda/expert_gemm_table.h"

namespace switchyard::cuda {

class ExpertGemmChoice {
 public:
  // INVALID_ARGUMENT: an unknown name, `fastest` without a table, or a table that cannot be used. NOT_FOUND: no such
  // file, or no cuBLAS where it is asked for. Whatever making the provider returns.
  static absl::StatusOr<std::unique_ptr<ExpertGemmChoice>> Create(const BackendOptions& options,
                                                                  const cudaDeviceProp& device, cudaStream_t stream);

  // For people: "native experts".
  const std::string& description() const { return description_; }
  // All that may run, native first.
  std::span<const ExpertGemmCount> counts() const { return counts_; }
  // Whether steps can be recorded with it.
  bool recordable() const { return recordable_; }
  // Scratch that is enough for any of them.
  int64_t ScratchBytes(const ExpertSizes& experts, int64_t tokens, int64_t max_rows) const;

  // The place in counts() of the provider for this batch; tokens, max_rows and in_by_row of it are read.
  size_t Choose(const ExpertSizes& experts, const ExpertBatch& batch) const;
  // Rows of a tile of the plan for this batch, which is made before it is known which of the model's `layers` with so
  // many experts it is for: what suits the provider, or where layers differ what none of theirs finds too large.
  int TileTokens(std::span<const ExpertSizes> layers, int64_t num_experts, const ExpertBatch& batch) const;
  int SmallestTileTokens() const;
  // Multiplies with it, and counts.
  absl::Status Run(size_t provider, const CudaExperts& experts, const ExpertBatch& batch, void* scratch);
  // Counts one more layer: where a recording is repeated.
  void Count(size_t provider) { ++counts_[provider].layers; }

 private:
  struct Entry {
    ExpertGemmShape shape;
    std::vector<std::pair<int64_t, size_t>> buckets;  // largest number of tokens, provider
  };

  // Adds the provider if it is not there yet.
  absl::StatusOr<size_t> Add(const ExpertGemmKind& kind, const cudaDeviceProp& device, cudaStream_t stream);
  absl::Status AddTable(const BackendOptions& options, const cudaDeviceProp& device, cudaStream_t stream);
  size_t Wanted(const ExpertSizes& experts, const ExpertBatch& batch) const;

  std::vector<std::unique_ptr<ExpertGemm>> providers_;  // native first
  std::vector<ExpertGemmCount> counts_;                 // of each of them
  size_t default_ = 0;                                  // where there is no table
  std::vector<Entry> entries_;                          // of this device
  bool recordable_ = true;
  std::string description_;
};

}  // namespace switchyard::cuda

#endif  // SWITCHYARD_ENGINE_BACKEND_CUDA_EXPERT_GEMM_CHOICE_H_
