// The paged KV cache, what happens to q, k and v before attention, and attention itself.
#ifndef SWITCHYARD_ENGINE_BACKEND_CPU_KV_ATTENTION_H_
#define SWITCHYARD_ENGINE_BACKEND_CPU_KV_ATTENTION_H_

#include <memory>
#include <span>

#include "absl/status/statusor.h"
#include "engine/backend/backend.h"
#include "engine/backend/cpu/context.h"
#include "engine/backend/cpu/layout.h"
#include "engine/backend/cpu/memory.h"
#include "engine/backend/cpu/weights.h"

namespace switchyard::cpu {

// Values in the cache are always finite: a V row with NaN or infinity is stored as zeros and its key becomes NaN, so
// rows that attend to it turn NaN while rows that must not see it (weight 0) stay as they are: 0 * NaN never happens.
class CpuKvCache final : public KvCache {
 public:
  // See Backend::KvBlockBytes: head_dim is rounded up to 32.
  static int64_t BlockBytes(const KvCacheShape& shape);

  // INVALID_ARGUMENT: a size is not positive, head_dim is odd or above kMaxHeadDim, or block_size no multiple of 16.
  // RESOURCE_EXHAUSTED: not enough memory.
  static absl::StatusOr<std::unique_ptr<CpuKvCache>> Create(const KvCacheShape& shape);

  const KvLayout& layout() const { return layout_; }
  char* head(int32_t layer, int32_t kv_head) const {
    return data_.as<char>() + layer * layout_.layer_stride + kv_head * layout_.head_stride;
  }

 private:
  KvLayout layout_;
  Buffer data_;
};

// See Backend::PrepareQkv. Bytes: qkv once in and out, k and v once into the cache.
void RunPrepareQkv(Context& context, const AttentionShape& shape, std::span<const AttentionSlice> slices,
                   const CpuWeight* q_norm, const CpuWeight* k_norm, int32_t layer, const CpuKvCache& cache,
                   float* qkv);

// See Backend::PrepareLatent. Bytes: latents once in, once into the cache; rotated parts of the queries once.
void RunPrepareLatent(Context& context, const AttentionShape& shape, std::span<const AttentionSlice> slices,
                      const CpuWeight& norm, int32_t layer, const CpuKvCache& cache, const float* q, int64_t q_width,
                      float* latent, float* queries);

// See Backend::StoreEncoderKv. Bytes: k and v once in and once into the cache.
void RunStoreEncoderKv(Context& context, const AttentionShape& shape, std::span<const AttentionSlice> slices,
                       int32_t layer, const CpuKvCache& cache, const float* kv);

// Which keys a row sees.
enum class KeysSeen : uint8_t {
  kUpToItself,  // from the slice's num_encoder_tokens on
  kOfEncoder,   // all num_encoder_tokens of the slice
};

// Queries of all heads of a row lie side by side, rows `stride` floats apart.
struct QueryRows {
  const float* rows = nullptr;
  int64_t stride = 0;
};

// See Backend::Attention and CrossAttention. Floor of decode: bytes of the keys and values seen / read bandwidth.
void RunAttention(Context& context, const AttentionShape& shape, std::span<const AttentionSlice> slices, int32_t layer,
                  const CpuKvCache& cache, QueryRows queries, KeysSeen seen, float* out);

}  // namespace switchyard::cpu

#endif  // SWITCHYARD_ENGINE_BACKEND_CPU_KV_ATTENTION_H_
