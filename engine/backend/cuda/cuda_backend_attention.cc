// Keys, values and attention.
#include "engine/backend/cuda/cuda_backend_impl.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "engine/base/status_macros.h"

namespace switchyard::cuda {
namespace {

static_assert(kKvBlockUnit % kKeyRun == 0 && kKeyBlock % kKeyRun == 0);

absl::Status CheckShape(const KvCacheShape& shape) {
  const int32_t max_head_dim = shape.latent_dim > 0 ? kMaxLatentHeadDim : kMaxHeadDim;
  if (shape.num_layers <= 0 || shape.num_blocks <= 0 || shape.num_kv_heads <= 0 || shape.head_dim <= 0 ||
      shape.head_dim % 2 != 0 || shape.head_dim > max_head_dim) {
    return absl::InvalidArgumentError(absl::StrCat("KV cache of ", shape.num_layers, " layers, ", shape.num_blocks,
                                                   " blocks, ", shape.num_kv_heads, " heads of ", shape.head_dim,
                                                   ": sizes must be positive and the head size even, at most ",
                                                   max_head_dim));
  }
  if (shape.latent_dim < 0 || shape.latent_dim >= shape.head_dim || shape.latent_dim > kMaxLatentDim ||
      (shape.latent_dim > 0 && shape.num_kv_heads > 1)) {
    return absl::InvalidArgumentError(
        absl::StrCat("a latent of ", shape.latent_dim, " in ", shape.num_kv_heads, " heads of ", shape.head_dim,
                     ": expected one head that is larger than the latent, and a latent of at most ", kMaxLatentDim));
  }
  if (shape.block_size <= 0 || shape.block_size % kKvBlockUnit != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("block_size is ", shape.block_size, ", expected a multiple of ", kKvBlockUnit));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<KvCache>> CudaBackend::AllocateKvCache(const KvCacheShape& shape) {
  RETURN_IF_ERROR(CheckShape(shape));
  auto cache = std::make_unique<CudaKvCache>();
  cache->shape = shape;
  cache->dim_pad = CudaKvCache::DimPad(shape);
  const bool latent = shape.latent_dim > 0;
  const int64_t bytes = KvBlockBytes(shape) / (latent ? 1 : 2) * shape.num_blocks;
  ASSIGN_OR_RETURN(cache->keys, DeviceBuffer::Allocate(bytes, "the KV cache"));
  if (!latent) {
    ASSIGN_OR_RETURN(cache->values, DeviceBuffer::Allocate(bytes, "the KV cache"));
  }
  return cache;
}

const float* CudaBackend::OnDevice(const std::vector<float>& values) {
  if (values.empty()) return nullptr;
  for (const DeviceVector& vector : vectors_) {
    if (vector.values == values) return vector.data.as<float>();
  }
  CHECK(!recorder_.recording());
  DeviceVector vector;
  vector.values = values;
  absl::StatusOr<DeviceBuffer> data = DeviceBuffer::Allocate(static_cast<int64_t>(values.size()) * 4, "RoPE");
  if (!data.ok()) {
    Check(data.status());
    return nullptr;
  }
  vector.data = *std::move(data);
  vectors_.push_back(std::move(vector));
  const DeviceVector& kept = vectors_.back();
  Check(ToStatus(cudaMemcpyAsync(kept.data.as<void>(), kept.values.data(), values.size() * 4, cudaMemcpyHostToDevice,
                                 stream_),
                 "copying RoPE frequencies"));
  return kept.data.as<float>();
}

AttentionArgs CudaBackend::ArgsFor(const AttentionShape& shape, const CudaKvCache& cache, int32_t layer) {
  AttentionArgs args;
  args.num_heads = shape.num_heads;
  args.num_kv_heads = shape.num_kv_heads;
  args.head_dim = shape.head_dim;
  args.dim_pad = cache.dim_pad;
  args.latent_dim = shape.latent_dim;
  args.sliding_window = shape.sliding_window;
  args.chunk_size = shape.chunk_size;
  args.scale = shape.scale;
  args.sinks = Vector(shape.sinks);
  args.block_size = cache.shape.block_size;
  args.cache_is_bf16 = cache.shape.dtype == DType::kBF16;
  args.keys = cache.LayerOf(cache.keys, layer);
  args.values = shape.latent_dim > 0 ? args.keys : cache.LayerOf(cache.values, layer);
  args.max_shared_bytes = max_shared_bytes_;
  args.num_multiprocessors = num_multiprocessors_;
  return args;
}

void CudaBackend::AddRope(const AttentionShape& shape, AttentionArgs* args) {
  args->inv_freq = OnDevice(shape.rope_inv_freq);
  args->rotated_pairs = static_cast<int32_t>(shape.rope_inv_freq.size());
  args->rope_interleaved = shape.rope_interleaved;
  args->rope_factor = shape.rope_attention_factor;
}

void CudaBackend::PrepareQkv(const AttentionShape& shape, std::span<const AttentionSlice> slices, const Weight* q_norm,
                             const Weight* k_norm, int32_t layer, KvCache& cache, Matrix qkv) {
  const CudaKvCache& kv = static_cast<const CudaKvCache&>(cache);
  const int64_t rows = LaunchRows(qkv);
  AttentionArgs args = ArgsFor(shape, kv, layer);
  args.qk_norm = static_cast<int32_t>(shape.qk_norm);
  args.qk_norm_eps = shape.qk_norm_eps;
  args.q_norm = Vector(q_norm);
  args.k_norm = Vector(k_norm);
  args.clip = shape.clip_qkv;
  AddRope(shape, &args);
  args.temperature_scale = shape.temperature_scale;
  args.temperature_floor = shape.temperature_floor;
  float* const data = activations_.ReadF32(qkv, rows);
  activations_.Write(qkv, Activations::kF32);
  LaunchPrepareQkv(InputsFor(slices, kv.shape.block_size).device(), args, rows, data, stream_);
}

void CudaBackend::Attention(const AttentionShape& shape, std::span<const AttentionSlice> slices, int32_t layer,
                            const KvCache& cache, Matrix qkv, Matrix out) {
  const CudaKvCache& kv = static_cast<const CudaKvCache&>(cache);
  const AttentionArgs args = ArgsFor(shape, kv, layer);
  const int64_t rows = LaunchRows(qkv);
  const float* const data = activations_.ReadF32(qkv, rows);
  // The values of latents go to LinearPerHead.
  const Planes planes = activations_.Write(out, shape.latent_dim > 0 ? Activations::kF32 : PlanesForReaders());
  UploadedStep& inputs = InputsFor(slices, kv.shape.block_size);
  if (rows == 0) return;
  if (!args.cache_is_bf16) {
    LaunchAttentionF32(inputs.device(), args, rows, data, planes, stream_);
    return;
  }
  if (shape.latent_dim > 0) return AttendLatents(inputs, args, data, planes);
  const int64_t max_chunks = MaxChunks(inputs);
  // Past the scratch's capacity a decode row walks through its chunks like a prefill, with the same result.
  const bool split = MaxDecodeRows(ScratchForDecode(), args, max_chunks) > 0;
  if (split && inputs.num_decode_rows() > 0) Decode(inputs, args, max_chunks, data, planes);
  if (split && inputs.num_decode_rows() == inputs.num_tokens()) return;
  CHECK(!recorder_.recording());
  Check(inputs.UploadTiles(PrefillTileRows(args), /*all=*/!split, stream_));
  if (!failure_.ok()) return;
  LaunchAttentionPrefill(inputs.device(), args, inputs.tiles(), inputs.num_tiles(), data, planes, stream_);
}

// As many rows at a time as the scratch holds results for.
void CudaBackend::Decode(const UploadedStep& inputs, const AttentionArgs& args, int64_t max_chunks, const float* qkv,
                         Planes out) {
  const int64_t rows = bucket_ > 0 ? bucket_ : inputs.num_decode_rows();
  const DecodeScratch scratch = ScratchForDecode();
  const int64_t at_once = MaxDecodeRows(scratch, args, max_chunks);
  for (int64_t first = 0; first < rows; first += at_once) {
    LaunchAttentionDecode(inputs.device(), args, first, std::min(at_once, rows - first), max_chunks, qkv, scratch,
                          out, stream_);
  }
}

}  // namespace switchyard::cuda
