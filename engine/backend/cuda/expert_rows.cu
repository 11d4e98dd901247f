// Moving rows into and out of the order that library calls want. Roofline: bytes = rows * row bytes, in and out.
#include <ptx.cuh>

#include "engine/backend/cuda/kernels.h"
#include "engine/backend/cuda/warp.cuh"

namespace switchyard::cuda {
namespace {

constexpr int kThreads = 128;

__device__ __forceinline__ void CopyRow(const uint16_t* from, uint16_t* to, int64_t cols, int64_t stride) {
  for (int64_t c = threadIdx.x; c < stride; c += blockDim.x) to[c] = c < cols ? from[c] : uint16_t{0};
}
__device__ __forceinline__ void CopyRow(const float* from, float* to, int64_t cols, int64_t stride) {
  for (int64_t c = threadIdx.x; c < stride; c += blockDim.x) to[c] = c < cols ? from[c] : 0.0f;
}

// row_to_source null: row r is copied to row r.
template <typename T>
__global__ void GatherRowsKernel(const T* in, int64_t in_stride, int64_t cols, const int32_t* row_to_source,
                                 const int32_t* num_rows, int64_t out_stride, T* out) {
  BeginKernel();
  const int64_t row = blockIdx.x;
  if (num_rows != nullptr && row >= *num_rows) return;
  const int64_t source = row_to_source != nullptr ? row_to_source[row] : row;
  CopyRow(in + source * in_stride, out + row * out_stride, cols, out_stride);
}

__global__ void WeighRowsKernel(const float* in, int64_t cols, const int32_t* row_to_token, const float* row_weights,
                                const int32_t* num_rows, bool bf16, int64_t out_stride, void* out) {
  BeginKernel();
  const int64_t row = blockIdx.x;
  if (row >= *num_rows) return;
  const float* const from = in + row_to_token[row] * cols;
  const float weight = row_weights[row];
  for (int64_t c = threadIdx.x; c < out_stride; c += blockDim.x) {
    const float value = c < cols ? from[c] * weight : 0.0f;
    if (bf16) {
      static_cast<uint16_t*>(out)[row * out_stride + c] = ToBf16Bits(value);
    } else {
      static_cast<float*>(out)[row * out_stride + c] = value;
    }
  }
}

template <typename T>
__global__ void GatherPaddedKernel(const T* in, int64_t in_stride, int64_t tokens, const int32_t* expert_offsets,
                                   int32_t num_experts, const int32_t* row_to_token, int64_t cols, int64_t out_stride,
                                   T* out) {
  BeginKernel();
  const int64_t row = blockIdx.x;
  if (row >= expert_offsets[num_experts]) return;
  int32_t low = 0, high = num_experts - 1;  // the first expert that ends after the row
  while (low < high) {
    const int32_t middle = (low + high) / 2;
    if (expert_offsets[middle + 1] > row) {
      high = middle;
    } else {
      low = middle + 1;
    }
  }
  CopyRow(in + (low * tokens + row_to_token[row]) * in_stride, out + row * out_stride, cols, out_stride);
}

}  // namespace

void LaunchGatherRows(const void* in, DType dtype, int64_t cols, int64_t in_stride, const int32_t* row_to_source,
                      const int32_t* num_rows, int64_t max_rows, int64_t out_stride, void* out, cudaStream_t stream) {
  if (dtype == DType::kBF16) {
    Launch(GatherRowsKernel<uint16_t>, dim3(max_rows), dim3(kThreads), 0, stream, static_cast<const uint16_t*>(in),
           in_stride, cols, row_to_source, num_rows, out_stride, static_cast<uint16_t*>(out));
  } else {
    Launch(GatherRowsKernel<float>, dim3(max_rows), dim3(kThreads), 0, stream, static_cast<const float*>(in), in_stride,
           cols, row_to_source, num_rows, out_stride, static_cast<float*>(out));
  }
}

void LaunchWeighRows(const float* in, int64_t cols, const int32_t* row_to_token, const float* row_weights,
                     const int32_t* num_rows, int64_t max_rows, DType dtype, int64_t out_stride, void* out,
                     cudaStream_t stream) {
  Launch(WeighRowsKernel, dim3(max_rows), dim3(kThreads), 0, stream, in, cols, row_to_token, row_weights, num_rows,
         dtype == DType::kBF16, out_stride, out);
}

void LaunchGatherPadded(const void* in, DType dtype, int64_t in_stride, int64_t tokens, const int32_t* expert_offsets,
                        int32_t num_experts, const int32_t* row_to_token, int64_t max_rows, int64_t cols, Planes out,
                        int64_t out_f32_stride, cudaStream_t stream) {
  if (dtype == DType::kBF16) {
    Launch(GatherPaddedKernel<uint16_t>, dim3(max_rows), dim3(kThreads), 0, stream, static_cast<const uint16_t*>(in),
           in_stride, tokens, expert_offsets, num_experts, row_to_token, cols, out.stride, out.bf16);
  } else {
    Launch(GatherPaddedKernel<float>, dim3(max_rows), dim3(kThreads), 0, stream, static_cast<const float*>(in),
           in_stride, tokens, expert_offsets, num_experts, row_to_token, cols, out_f32_stride, out.f32);
  }
}

}  // namespace switchyard::cuda
