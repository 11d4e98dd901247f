// What is known of the providers of the experts' products by their names alone. Needs neither CUDA nor absl, so that
// the program that measures them (tests/bench/gpu) judges them by the same facts as the backend.
#ifndef SWITCHYARD_ENGINE_BACKEND_CUDA_EXPERT_GEMM_KINDS_H_
#define SWITCHYARD_ENGINE_BACKEND_CUDA_EXPERT_GEMM_KINDS_H_

#include <cstdint>
#include <limits>
#include <string_view>

#include "engine/backend/cuda/layout.h"

namespace switchyard::cuda {

inline constexpr int64_t kMaxPaddedTokens = 256;
inline constexpr int64_t kAnyTokens = std::numeric_limits<int64_t>::max();

struct ExpertGemmKind {
  const char* name = "";  // as the user writes it
  // The bits of a row depend on nothing else in its batch, and batches of every size are taken.
  bool batch_invariant = false;
  bool recordable = false;  // a step that uses it can be recorded
  int64_t max_tokens = 0;   // of a batch that it takes
};

inline constexpr ExpertGemmKind kExpertGemmKinds[] = {
    {"native", true, true, kAnyTokens},
    {"wgmma", true, true, kAnyTokens},
    {"cublas_grouped", false, false, kAnyTokens},
    {"cublas_padded", false, true, kMaxPaddedTokens},
};
inline constexpr const ExpertGemmKind& kNativeExpertGemm = kExpertGemmKinds[0];

// Null: there is none of this name.
constexpr const ExpertGemmKind* FindExpertGemmKind(std::string_view name) {
  for (const ExpertGemmKind& kind : kExpertGemmKinds) {
    if (name == kind.name) return &kind;
  }
  return nullptr;
}

// Whether a table may name it for all steps of first_tokens to last_tokens: of those that can be recorded, the steps
// that are must not do without it.
constexpr bool ServesTokens(const ExpertGemmKind& kind, int64_t first_tokens, int64_t last_tokens) {
  return last_tokens <= kind.max_tokens && (kind.recordable || first_tokens > kMaxRecordedRows);
}

}  // namespace switchyard::cuda

#endif  // SWITCHYARD_ENGINE_BACKEND_CUDA_EXPERT_GEMM_KINDS_H_
