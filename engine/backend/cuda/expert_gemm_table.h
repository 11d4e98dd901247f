// The file of --expert-gemm-table: which provider multiplies the experts of which shape fastest, on which device.
// `switchyard_bench_gpu --tune` writes it, people may edit it; entries of several files can be put into one.
//
//   {"format": "switchyard expert gemm table 1",
//    "entries": [
//     {"device": "NVIDIA H200", "hidden": 2048, "intermediate": 768, "experts": 128, "top_k": 8, "dtype": "bfloat16",
//      "always": "native",
//      "fastest": [{"max_tokens": 32, "provider": "native"},
//                  {"max_tokens": 256, "provider": "cublas_padded"},
//                  {"max_tokens": 8192, "provider": "native"}],
//      "measured": {...}}]}
//
//   device     as the CUDA runtime names it
//   dtype      of the experts' weights in device memory: bfloat16 or float32
//   always     the provider of --expert-gemm auto, for steps of every size; one that is batch_invariant
//   fastest    the providers of --expert-gemm fastest: each for steps of more tokens than the line before, up to
//              max_tokens; native for larger ones. Up to kMaxRecordedRows tokens only what can be recorded, and a
//              step counts as the RowBucket that it falls into
//   measured   optional, for people: never read
//
// Every field is required, none other is allowed, and a device and shape has one entry.
#ifndef SWITCHYARD_ENGINE_BACKEND_CUDA_EXPERT_GEMM_TABLE_H_
#define SWITCHYARD_ENGINE_BACKEND_CUDA_EXPERT_GEMM_TABLE_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/backend/cuda/expert_gemm_kinds.h"
#include "engine/base/dtype.h"

namespace switchyard::cuda {

inline constexpr char kExpertGemmTableFormat[] = "switchyard expert gemm table 1";

struct ExpertGemmShape {
  int64_t hidden = 0;
  int64_t intermediate = 0;
  int64_t num_experts = 0;
  int64_t top_k = 0;
  DType dtype = DType::kBF16;
  bool operator==(const ExpertGemmShape&) const = default;
};

struct ExpertGemmBucket {
  int64_t max_tokens = 0;
  const ExpertGemmKind* provider = nullptr;
};

struct ExpertGemmEntry {
  std::string device;
  ExpertGemmShape shape;
  const ExpertGemmKind* always = nullptr;
  std::vector<ExpertGemmBucket> fastest;  // by max_tokens, ascending
};

// INVALID_ARGUMENT: `what`, the field, its value and what is allowed.
absl::StatusOr<std::vector<ExpertGemmEntry>> ParseExpertGemmTable(std::string_view text, const std::string& what);

// As ParseExpertGemmTable. NOT_FOUND: no such file. DATA_LOSS: it could not be read.
absl::StatusOr<std::vector<ExpertGemmEntry>> ReadExpertGemmTable(const std::string& file);

}  // namespace switchyard::cuda

#endif  // SWITCHYARD_ENGINE_BACKEND_CUDA_EXPERT_GEMM_TABLE_H_
