// Tensor maps: what the copy engine of compute capability 9.0 wants to know of a matrix. The driver makes them; it is
// asked through the CUDA runtime, so that nothing links against it.
#ifndef SWITCHYARD_ENGINE_BACKEND_CUDA_TENSOR_MAP_H_
#define SWITCHYARD_ENGINE_BACKEND_CUDA_TENSOR_MAP_H_

#include <cuda.h>

#include <cstdint>

namespace switchyard::cuda {

using TensorMapEncoder = decltype(&cuTensorMapEncodeTiled);

// Null: the driver has no such function.
TensorMapEncoder FindTensorMapEncoder();

// A map of the bfloat16 matrix [rows][k] at `weight` from which boxes of 128 rows and 64 k are copied, 128-byte
// swizzle. k is a multiple of 64, `weight` one of 16. CUDA_SUCCESS, or what the driver does not like. No stream is
// touched.
CUresult MakeWeightMap(TensorMapEncoder encode, const void* weight, int64_t rows, int64_t k, CUtensorMap* map);

}  // namespace switchyard::cuda

#endif  // SWITCHYARD_ENGINE_BACKEND_CUDA_TENSOR_MAP_H_
