// Paged keys and values in device memory: [layer][block][kv head][position][dim_pad], keys and values apart. Of latents
// (MLA) there are only keys, whose fronts are the values.
#ifndef SWITCHYARD_ENGINE_BACKEND_CUDA_KV_CACHE_H_
#define SWITCHYARD_ENGINE_BACKEND_CUDA_KV_CACHE_H_

#include <cstdint>

#include "engine/backend/backend.h"
#include "engine/backend/cuda/device_memory.h"
#include "engine/backend/cuda/layout.h"

namespace switchyard::cuda {

struct CudaKvCache final : public KvCache {
  KvCacheShape shape;
  int32_t dim_pad = 0;
  DeviceBuffer keys;
  DeviceBuffer values;  // empty for latents

  static int32_t DimPad(const KvCacheShape& shape) { return static_cast<int32_t>(RoundUp(shape.head_dim, 32)); }
  // Keys, or values, of one block in one layer.
  static int64_t BlockElements(const KvCacheShape& shape) {
    return int64_t{shape.num_kv_heads} * shape.block_size * DimPad(shape);
  }
  // Of one block in all layers.
  static int64_t BlockBytes(const KvCacheShape& shape) {
    const int64_t keys = shape.num_layers * BlockElements(shape) * DTypeBytes(shape.dtype);
    return shape.latent_dim > 0 ? keys : 2 * keys;
  }
  void* LayerOf(const DeviceBuffer& buffer, int32_t layer) const {
    return buffer.as<char>() + layer * shape.num_blocks * BlockElements(shape) * DTypeBytes(shape.dtype);
  }
};

}  // namespace switchyard::cuda

#endif  // SWITCHYARD_ENGINE_BACKEND_CUDA_KV_CACHE_H_
