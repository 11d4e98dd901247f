#include "engine/backend/cpu/kv_attention.h"

#include <algorithm>
#include <atomic>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "engine/base/status_macros.h"

namespace switchyard::cpu {
namespace {

constexpr int64_t kMaxRotatedPairs = 512;
constexpr int32_t kRowsPerTask = 64;  // query rows of one attention task: enough to reuse keys from L2
constexpr int32_t kLatentHeadsPerTask = 16;  // all heads share the latents: one sequence has to keep all threads busy

struct QkvRow {
  float* row;
  int32_t position;
  const int32_t* block_table;
};

// Cosines and sines of one position.
class Rotation {
 public:
  Rotation(const Kernels& kernels, const AttentionShape& shape, int32_t position)
      : rotate_(shape.rope_interleaved ? kernels.rotate_pairs : kernels.rotate),
        pairs_(static_cast<int64_t>(shape.rope_inv_freq.size())) {
    kernels.rope_angles(position, shape.rope_inv_freq.data(), pairs_, shape.rope_attention_factor, cos_, sin_);
  }
  void Apply(float* x) const { rotate_(cos_, sin_, pairs_, x); }

 private:
  void (*const rotate_)(const float* cos, const float* sin, int64_t size, float* x);
  const int64_t pairs_;
  alignas(64) float cos_[kMaxRotatedPairs];
  alignas(64) float sin_[kMaxRotatedPairs];
};

float Temperature(const AttentionShape& shape, int32_t position) {
  const float steps = std::floor(static_cast<float>(position + 1) / shape.temperature_floor);
  return 1.0f + shape.temperature_scale * std::log1p(steps);
}

// Of the position's group, from the start of its layer and head.
int64_t GroupOffset(const KvLayout& layout, const QkvRow& at) {
  const int32_t index = at.position / kKeyGroup;
  return at.block_table[index / layout.groups_per_block] * layout.block_stride +
         index % layout.groups_per_block * layout.group_stride;
}

// Runs body(row, position, block_table) for every row of the slices. Every thread takes its part of each slice: 16
// tokens share a group's cache lines, so parts are contiguous.
template <typename Body>
void ForSliceRows(Context& context, std::span<const AttentionSlice> slices, const Body& body) {
  const int num_threads = context.pool.num_threads();
  context.pool.Run([&](int thread) {
    for (const AttentionSlice& slice : slices) {
      const bool whole = slice.num_tokens < num_threads;
      const int64_t turn = (&slice - slices.data()) % num_threads;
      const auto [first, last] = whole ? std::pair<int64_t, int64_t>{0, turn == thread ? slice.num_tokens : 0}
                                       : WorkerPool::Part(slice.num_tokens, thread, num_threads);
      for (int64_t t = first; t < last; ++t) {
        body(slice.first_row + t, slice.first_position + static_cast<int32_t>(t), slice.block_table);
      }
    }
  });
}

void PrepareRow(const Kernels& kernels, const AttentionShape& shape, const CpuWeight* q_norm, const CpuWeight* k_norm,
                const CpuKvCache& cache, int32_t layer, const QkvRow& at) {
  float* const q = at.row;
  float* const k = q + shape.q_size();
  float* const v = k + shape.kv_size();
  const float eps = shape.qk_norm_eps;
  if (shape.qk_norm == QkNorm::kFull) {
    kernels.rms_norm(q, q_norm->data.as<float>(), shape.q_size(), eps, q);
    kernels.rms_norm(k, k_norm->data.as<float>(), shape.kv_size(), eps, k);
  }
  if (shape.clip_qkv > 0.0f) {
    // Written so that NaN stays NaN.
    for (int64_t i = 0; i < shape.qkv_size(); ++i) {
      const float x = at.row[i];
      at.row[i] = x > shape.clip_qkv ? shape.clip_qkv : x < -shape.clip_qkv ? -shape.clip_qkv : x;
    }
  }
  const Rotation rotation(kernels, shape, at.position);
  for (int32_t h = 0; h < shape.num_heads + shape.num_kv_heads; ++h) {
    float* const head = q + int64_t{h} * shape.head_dim;
    if (shape.qk_norm == QkNorm::kHead) {
      const CpuWeight* norm = h < shape.num_heads ? q_norm : k_norm;
      kernels.rms_norm(head, norm->data.as<float>(), shape.head_dim, eps, head);
    }
    rotation.Apply(head);
    if (shape.qk_norm == QkNorm::kL2AfterRope) {
      const float mean = kernels.dot(head, head, shape.head_dim) / static_cast<float>(shape.head_dim);
      kernels.scale(1.0f / std::sqrt(mean + eps), shape.head_dim, head);
    }
  }
  if (shape.temperature_scale != 0.0f) kernels.scale(Temperature(shape, at.position), shape.q_size(), q);
  const KvLayout& layout = cache.layout();
  const int64_t group = GroupOffset(layout, at);
  for (int32_t h = 0; h < shape.num_kv_heads; ++h) {
    const int64_t first = int64_t{h} * shape.head_dim;
    kernels.store_key_value(layout, cache.head(layer, h) + group, at.position % kKeyGroup, k + first, v + first);
  }
}

absl::Status CheckShape(const KvCacheShape& shape) {
  if (shape.head_dim > kMaxHeadDim) {
    return absl::InvalidArgumentError(absl::StrCat("head_dim is ", shape.head_dim, ", at most ", kMaxHeadDim));
  }
  if (shape.num_layers <= 0 || shape.num_blocks <= 0 || shape.num_kv_heads <= 0 || shape.head_dim <= 0 ||
      shape.head_dim % 2 != 0) {
    return absl::InvalidArgumentError(absl::StrCat("KV cache of ", shape.num_layers, " layers, ", shape.num_blocks,
                                                   " blocks, ", shape.num_kv_heads, " heads of ", shape.head_dim,
                                                   ": sizes must be positive and the head size even"));
  }
  if (shape.latent_dim < 0 || shape.latent_dim >= shape.head_dim || (shape.latent_dim > 0 && shape.num_kv_heads > 1)) {
    return absl::InvalidArgumentError(absl::StrCat("a latent of ", shape.latent_dim, " in ", shape.num_kv_heads,
                                                   " heads of ", shape.head_dim,
                                                   ": expected one head that is larger than the latent"));
  }
  if (shape.block_size <= 0 || shape.block_size % kKeyGroup != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("block_size is ", shape.block_size, ", expected a multiple of ", kKeyGroup));
  }
  return absl::OkStatus();
}

KvLayout LayoutOf(const KvCacheShape& shape) {
  KvLayout layout;
  layout.dtype = shape.dtype == DType::kF32 ? DType::kF32 : DType::kBF16;
  layout.groups_per_block = shape.block_size / kKeyGroup;
  layout.head_dim = shape.head_dim;
  layout.dim_pad = static_cast<int32_t>(CeilDiv(shape.head_dim, kStepK) * kStepK);
  layout.is_latent = shape.latent_dim > 0;
  layout.value_dim = layout.is_latent ? shape.latent_dim : shape.head_dim;
  const int64_t bytes = int64_t{kKeyGroup} * layout.dim_pad * DTypeBytes(layout.dtype);
  layout.keys_bytes = layout.is_latent ? 0 : bytes;
  layout.group_stride = layout.keys_bytes + bytes;
  layout.head_stride = layout.groups_per_block * layout.group_stride;
  layout.block_stride = shape.num_kv_heads * layout.head_stride;
  layout.layer_stride = shape.num_blocks * layout.block_stride;
  return layout;
}

}  // namespace

int64_t CpuKvCache::BlockBytes(const KvCacheShape& shape) { return shape.num_layers * LayoutOf(shape).block_stride; }

absl::StatusOr<std::unique_ptr<CpuKvCache>> CpuKvCache::Create(const KvCacheShape& shape) {
  RETURN_IF_ERROR(CheckShape(shape));
  auto cache = std::make_unique<CpuKvCache>();
  cache->layout_ = LayoutOf(shape);
  ASSIGN_OR_RETURN(cache->data_, Buffer::Allocate(shape.num_layers * cache->layout_.layer_stride, "the KV cache"));
  return cache;
}

void RunPrepareQkv(Context& context, const AttentionShape& shape, std::span<const AttentionSlice> slices,
                   const CpuWeight* q_norm, const CpuWeight* k_norm, int32_t layer, const CpuKvCache& cache,
                   float* qkv) {
  CHECK(static_cast<int64_t>(shape.rope_inv_freq.size()) <= kMaxRotatedPairs && !cache.layout().is_latent);
  ForSliceRows(context, slices, [&](int64_t row, int32_t position, const int32_t* block_table) {
    PrepareRow(context.kernels, shape, q_norm, k_norm, cache, layer,
               {qkv + row * shape.qkv_size(), position, block_table});
  });
}

void RunPrepareLatent(Context& context, const AttentionShape& shape, std::span<const AttentionSlice> slices,
                      const CpuWeight& norm, int32_t layer, const CpuKvCache& cache, const float* q, int64_t q_width,
                      float* latent, float* queries) {
  CHECK(static_cast<int64_t>(shape.rope_inv_freq.size()) <= kMaxRotatedPairs && cache.layout().is_latent);
  const Kernels& kernels = context.kernels;
  const int64_t rotated = 2 * static_cast<int64_t>(shape.rope_inv_freq.size());
  const int64_t q_head = q_width / shape.num_heads;
  ForSliceRows(context, slices, [&](int64_t row, int32_t position, const int32_t* block_table) {
    const Rotation rotation(kernels, shape, position);
    for (int64_t h = 0; h < shape.num_heads; ++h) {
      const float* const from = q + row * q_width + (h + 1) * q_head - rotated;
      float* const to = queries + row * shape.q_size() + (h + 1) * shape.head_dim - rotated;
      std::copy_n(from, rotated, to);
      rotation.Apply(to);
    }
    const QkvRow at = {latent + row * shape.head_dim, position, block_table};
    kernels.rms_norm(at.row, norm.data.as<float>(), shape.latent_dim, shape.qk_norm_eps, at.row);
    rotation.Apply(at.row + shape.latent_dim);
    kernels.store_latent(cache.layout(), cache.head(layer, 0) + GroupOffset(cache.layout(), at), position % kKeyGroup,
                         at.row);
  });
}

void RunStoreEncoderKv(Context& context, const AttentionShape& shape, std::span<const AttentionSlice> slices,
                       int32_t layer, const CpuKvCache& cache, const float* kv) {
  const KvLayout& layout = cache.layout();
  CHECK(!layout.is_latent);
  ForSliceRows(context, slices, [&](int64_t row, int32_t position, const int32_t* block_table) {
    const float* const keys = kv + row * 2 * shape.kv_size();
    const int64_t group = GroupOffset(layout, {nullptr, position, block_table});
    for (int32_t h = 0; h < shape.num_kv_heads; ++h) {
      const float* const key = keys + int64_t{h} * shape.head_dim;
      context.kernels.store_key_value(layout, cache.head(layer, h) + group, position % kKeyGroup, key,
                                      key + shape.kv_size());
    }
  });
}

void RunAttention(Context& context, const AttentionShape& shape, std::span<const AttentionSlice> slices, int32_t layer,
                  const CpuKvCache& cache, QueryRows queries, KeysSeen seen, float* out) {
  CHECK(shape.has_sinks == (shape.sinks != nullptr) && cache.layout().is_latent == (shape.latent_dim > 0));
  const bool latent = shape.latent_dim > 0;
  const float* const sinks =
      shape.has_sinks ? static_cast<const CpuWeight*>(shape.sinks)->data.as<float>() : nullptr;
  const float* const relative_bias =
      shape.relative_bias == nullptr ? nullptr : static_cast<const CpuWeight*>(shape.relative_bias)->data.as<float>();
  // A task's heads read one KV head.
  const int32_t heads_per_task =
      latent ? std::min(shape.num_heads, kLatentHeadsPerTask) : shape.num_heads / shape.num_kv_heads;
  const int64_t parts = CeilDiv(shape.num_heads, heads_per_task);
  const int32_t tokens_per_task = std::max(1, kRowsPerTask / heads_per_task);
  std::vector<int64_t>& offsets = context.scratch.task_offsets;
  CHECK(offsets.capacity() > slices.size() && cache.layout().dim_pad <= context.scratch.sizes.dim_pad);
  offsets.assign(1, 0);
  for (const AttentionSlice& slice : slices) {
    offsets.push_back(offsets.back() + CeilDiv(slice.num_tokens, tokens_per_task) * parts);
  }

  std::atomic<int64_t> next{0};
  context.pool.Run([&](int thread) {
    for (int64_t i = next.fetch_add(1, std::memory_order_relaxed); i < offsets.back();
         i = next.fetch_add(1, std::memory_order_relaxed)) {
      const auto slice_index = std::upper_bound(offsets.begin(), offsets.end(), i) - offsets.begin() - 1;
      const AttentionSlice& slice = slices[static_cast<size_t>(slice_index)];
      const int64_t within = i - offsets[static_cast<size_t>(slice_index)];
      const int32_t part = static_cast<int32_t>(within % parts);
      const int32_t first_token = static_cast<int32_t>(within / parts) * tokens_per_task;
      const int64_t first_row = slice.first_row + first_token;
      const int32_t first_head = part * heads_per_task;
      AttentionTask task;
      task.layout = &cache.layout();
      task.cache = cache.head(layer, latent ? 0 : part);
      task.block_table = slice.block_table;
      task.q = queries.rows + first_row * queries.stride + int64_t{first_head} * shape.head_dim;
      task.q_stride = queries.stride;
      task.out = out + first_row * shape.out_size() + int64_t{first_head} * cache.layout().value_dim;
      task.out_stride = shape.out_size();
      task.num_tokens = std::min(tokens_per_task, slice.num_tokens - first_token);
      task.heads_per_kv = std::min(heads_per_task, shape.num_heads - first_head);
      task.first_position = slice.first_position + first_token;
      task.sliding_window = shape.sliding_window;
      task.chunk_size = shape.chunk_size;
      task.sinks = sinks == nullptr ? nullptr : sinks + first_head;
      task.first_key = slice.num_encoder_tokens;
      task.num_keys = seen == KeysSeen::kOfEncoder ? slice.num_encoder_tokens : 0;
      task.relative_max_distance = shape.relative_max_distance;
      if (relative_bias != nullptr) {
        task.relative_bias = relative_bias + first_head * (int64_t{2} * shape.relative_max_distance + 1);
      }
      task.scale = shape.scale;
      task.scratch = context.AttentionScratch(thread);
      context.kernels.attend(task);
    }
  });
}

}  // namespace switchyard::cpu
