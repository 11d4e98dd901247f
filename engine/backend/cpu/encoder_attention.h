// Attention of an encoder: every row sees all rows of its slice, and nothing is cached.
#ifndef SWITCHYARD_ENGINE_BACKEND_CPU_ENCODER_ATTENTION_H_
#define SWITCHYARD_ENGINE_BACKEND_CPU_ENCODER_ATTENTION_H_

#include <memory>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/backend/backend.h"
#include "engine/backend/cpu/context.h"
#include "engine/backend/cpu/kv_attention.h"

namespace switchyard::cpu {

// Keys and values of one call, in the layout of a KV cache of one layer, so that the kernels are those of the decoder.
// Each slice begins at a group of its own: a row's bits do not depend on the slices before it.
class EncoderAttention {
 public:
  // See Backend::PrepareBidirectional.
  static absl::StatusOr<std::unique_ptr<EncoderAttention>> Create(const AttentionShape& shape, int32_t max_tokens,
                                                                  int32_t max_slices, DType dtype);

  const KvLayout& layout() const { return cache_->layout(); }

  // See Backend::BidirectionalAttention. FLOP: 4 * head_dim per head and pair of rows of a slice.
  void Run(Context& context, const AttentionShape& shape, std::span<const AttentionSlice> slices, float* qkv,
           float* out);

 private:
  EncoderAttention() = default;

  std::unique_ptr<CpuKvCache> cache_;
  std::vector<int32_t> blocks_;          // 0, 1, 2, ...: block tables of the slices, one after the other
  std::vector<AttentionSlice> placed_;   // the slices of a call with their place in the cache
};

}  // namespace switchyard::cpu

#endif  // SWITCHYARD_ENGINE_BACKEND_CPU_ENCODER_ATTENTION_H_
