// Latent attention (MLA).
#include <algorithm>

#include "engine/backend/cuda/cuda_backend_impl.h"

namespace switchyard::cuda {

void CudaBackend::PrepareLatent(const AttentionShape& shape, std::span<const AttentionSlice> slices,
                                const Weight& norm, int32_t layer, KvCache& cache, Matrix q, Matrix latent,
                                Matrix queries) {
  const CudaKvCache& kv = static_cast<const CudaKvCache&>(cache);
  const int64_t rows = LaunchRows(latent);
  AttentionArgs args = ArgsFor(shape, kv, layer);
  args.qk_norm_eps = shape.qk_norm_eps;
  args.k_norm = Vector(&norm);
  AddRope(shape, &args);
  const float* const projected = activations_.ReadF32(q, rows);
  float* const latents = activations_.ReadF32(latent, rows);
  float* const rotated = activations_.ReadF32(queries, rows);
  activations_.Write(latent, Activations::kF32);
  activations_.Write(queries, Activations::kF32);
  LaunchPrepareLatent(InputsFor(slices, kv.shape.block_size).device(), args, rows, q.cols, projected, latents, rotated,
                      stream_);
}

void CudaBackend::AttendLatents(UploadedStep& inputs, const AttentionArgs& args, const float* queries, Planes out) {
  const int64_t rows = bucket_ > 0 ? bucket_ : inputs.num_decode_rows();
  const int64_t max_chunks = MaxChunks(inputs);
  const DecodeScratch scratch = ScratchForDecode();
  const int64_t at_once = MaxDecodeRows(scratch, args, max_chunks);
  // Partial results of 128 heads are more bytes than the keys that they come from: only where the rows alone would
  // leave multiprocessors idle.
  const bool split = at_once > 0 && rows * LatentBlocks(args) < num_multiprocessors_;
  if (!split) LaunchLatentRows(inputs.device(), args, rows, queries, out, stream_);
  for (int64_t first = 0; split && first < rows; first += at_once) {
    LaunchLatentSplit(inputs.device(), args, first, std::min(at_once, rows - first), max_chunks, queries,
                      scratch, out, stream_);
  }
  if (inputs.num_decode_rows() == inputs.num_tokens()) return;
  CHECK(!recorder_.recording());
  Check(inputs.UploadTiles(LatentTileRows(args), /*all=*/false, stream_));
  if (!failure_.ok()) return;
  LaunchLatentTiles(inputs.device(), args, inputs.tiles(), inputs.num_tiles(), queries, out, stream_);
}

}  // namespace switchyard::cuda
