#include "engine/backend/cuda/tensor_map.h"

#include <cuda_runtime_api.h>

#include "engine/backend/cuda/layout.h"

namespace switchyard::cuda {

TensorMapEncoder FindTensorMapEncoder() {
  constexpr unsigned kSince = 12000;  // the version of CUDA whose function it is
  void* function = nullptr;
  cudaDriverEntryPointQueryResult found = cudaDriverEntryPointSymbolNotFound;
  if (cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, kSince, cudaEnableDefault, &found) !=
      cudaSuccess) {
    cudaGetLastError();  // said by the null
    return nullptr;
  }
  return found == cudaDriverEntryPointSuccess ? reinterpret_cast<TensorMapEncoder>(function) : nullptr;
}

CUresult MakeWeightMap(TensorMapEncoder encode, const void* weight, int64_t rows, int64_t k, CUtensorMap* map) {
  const cuuint64_t sizes[] = {static_cast<cuuint64_t>(k), static_cast<cuuint64_t>(rows)};
  const cuuint64_t strides[] = {static_cast<cuuint64_t>(k) * 2};  // bytes, of all dimensions but the first
  const cuuint32_t box[] = {kTileK, kWideTileOut};
  const cuuint32_t steps[] = {1, 1};
  return encode(map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 2, const_cast<void*>(weight), sizes, strides, box, steps,
                CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
}

}  // namespace switchyard::cuda
