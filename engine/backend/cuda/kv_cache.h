// Paged keys and values in device memory: [layer][block][kv head][position][dim_pad], keys and values apart.
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
  DeviceBuffer values;

  static int32_t DimPad(const KvCacheShape& shape) { return static_cast<int32_t>(RoundUp(shape.head_dim, 32)); }
  // Keys, or values, of one block in one layer.
  static int64_t BlockElements(const KvCacheShape& shape) {
    return int64_t{shape.num_kv_heads} * shape.block_size * DimPad(shape);
  }
  void* LayerOf(const DeviceBuffer& buffer, int32_t layer) const {
    return buffer.as<char>() + layer * shape.num_blocks * BlockElements(shape) * DTypeBytes(shape.dtype);
  }
};

}  // namespace switchyard::cuda

#endif  // SWITCHYARD_ENGINE_BACKEND_CUDA_KV_CACHE_H_
