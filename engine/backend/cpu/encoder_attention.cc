#include "engine/backend/cpu/encoder_attention.h"

#include <algorithm>
#include <numeric>

#include "absl/strings/str_cat.h"
#include "engine/base/status_macros.h"

namespace switchyard::cpu {

absl::StatusOr<std::unique_ptr<EncoderAttention>> EncoderAttention::Create(const AttentionShape& shape,
                                                                           int32_t max_tokens, int32_t max_slices,
                                                                           DType dtype) {
  if (shape.latent_dim > 0 || shape.has_sinks || shape.qk_norm == QkNorm::kFull || shape.qk_norm == QkNorm::kHead) {
    return absl::InvalidArgumentError("bidirectional attention with latents, sinks or q/k norms is not served");
  }
  std::unique_ptr<EncoderAttention> attention(new EncoderAttention);
  KvCacheShape cache;
  cache.num_layers = 1;
  cache.block_size = kKeyGroup;
  // A slice fills its last group only in part.
  cache.num_blocks = static_cast<int32_t>((int64_t{max_tokens} + int64_t{kKeyGroup - 1} * max_slices) / kKeyGroup);
  cache.num_kv_heads = shape.num_kv_heads;
  cache.head_dim = shape.head_dim;
  cache.dtype = dtype;
  ASSIGN_OR_RETURN(attention->cache_, CpuKvCache::Create(cache));
  attention->blocks_.resize(static_cast<size_t>(cache.num_blocks));
  std::iota(attention->blocks_.begin(), attention->blocks_.end(), 0);
  attention->placed_.reserve(static_cast<size_t>(max_slices));
  return attention;
}

void EncoderAttention::Run(Context& context, const AttentionShape& shape, std::span<const AttentionSlice> slices,
                           float* qkv, float* out) {
  CHECK(slices.size() <= placed_.capacity());
  placed_.clear();
  int64_t first_block = 0;
  for (const AttentionSlice& slice : slices) {
    placed_.push_back({.first_row = slice.first_row,
                       .num_tokens = slice.num_tokens,
                       .first_position = 0,
                       .block_table = blocks_.data() + first_block,
                       .num_encoder_tokens = slice.num_tokens});
    first_block += CeilDiv(slice.num_tokens, kKeyGroup);
  }
  CHECK(first_block <= static_cast<int64_t>(blocks_.size()));
  RunPrepareQkv(context, shape, placed_, nullptr, nullptr, /*layer=*/0, *cache_, qkv);
  RunAttention(context, shape, placed_, /*layer=*/0, *cache_, {qkv, shape.qkv_size()}, KeysSeen::kOfEncoder, out);
}

}  // namespace switchyard::cpu
