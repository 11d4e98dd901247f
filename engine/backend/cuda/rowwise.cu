// Operations on rows, each element read and written once. All are bound by memory: time = bytes of the planes /
// bandwidth; a decode step has a few rows only and feels the latency, so a thread gets few elements. Sums over a row
// are made by one block whose size depends on the row's width alone, and so do their bits.
#include <ptx.cuh>

#include "engine/backend/cuda/kernels.h"
#include "engine/backend/cuda/warp.cuh"

namespace switchyard::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kMostThreads = 1024;

// Of a kernel that sums over a row.
int ThreadsPerRow(int64_t cols) { return cols > 4 * kThreads ? kMostThreads : kThreads; }

// Of one that does not.
dim3 GridOf(int64_t rows, int64_t cols) { return GridOfRows(rows, cols, kThreads); }

// Writes one element of a row to the planes that there are.
__device__ __forceinline__ void Store(Planes out, int64_t row, int64_t cols, int64_t col, float value) {
  if (out.f32 != nullptr) out.f32[row * cols + col] = value;
  if (out.bf16 != nullptr) out.bf16[row * out.stride + col] = ToBf16Bits(value);
}

// The padding of a row's bf16 plane.
__device__ __forceinline__ void ClearPadding(Planes out, int64_t row, int64_t cols) {
  if (out.bf16 == nullptr) return;
  for (int64_t c = cols + FirstCol(); c < out.stride; c += ColStep()) out.bf16[row * out.stride + c] = 0;
}

// Roofline: bytes = rows * cols * (table element + 4).
__global__ void EmbedKernel(DeviceStep step, const void* table, bool table_is_bf16, int64_t table_stride, int64_t cols,
                            float* out) {
  BeginKernel();
  const int64_t row = blockIdx.x;
  if (row >= step.counts->num_tokens) return;
  int64_t id = step.ids[row];
  if (id < 0) id = step.sampled[~id];
  if (id < 0) id = 0;  // any will do: this sequence has ended
  const int64_t first = id * table_stride;
  for (int64_t c = FirstCol(); c < cols; c += ColStep()) {
    out[row * cols + c] = table_is_bf16 ? Bf16Bits(static_cast<const uint16_t*>(table)[first + c])
                                        : static_cast<const float*>(table)[first + c];
  }
}

// Roofline: bytes = rows * cols * (4 + 6); the second pass reads from the cache.
__global__ void RmsNormKernel(const float* in, const float* weight, float eps, int64_t cols, Planes out) {
  BeginKernel();
  __shared__ float shared[kMostThreads / kWarp];
  const int64_t row = blockIdx.x;
  const float* const x = in + row * cols;
  float squares = 0.0f;
  for (int64_t c = threadIdx.x; c < cols; c += blockDim.x) squares = fmaf(x[c], x[c], squares);
  const float scale = 1.0f / sqrtf(BlockSum(squares, shared) / static_cast<float>(cols) + eps);
  for (int64_t c = threadIdx.x; c < cols; c += blockDim.x) Store(out, row, cols, c, x[c] * scale * weight[c]);
  ClearPadding(out, row, cols);
}

// Roofline: bytes = rows * cols * (4 + 6); the later passes read from the cache.
__global__ void LayerNormKernel(const float* in, const float* weight, const float* bias, float eps, int64_t cols,
                                Planes out) {
  BeginKernel();
  __shared__ float shared[kMostThreads / kWarp];
  const int64_t row = blockIdx.x;
  const float* const x = in + row * cols;
  float sum = 0.0f;
  for (int64_t c = threadIdx.x; c < cols; c += blockDim.x) sum += x[c];
  const float mean = BlockSum(sum, shared) / static_cast<float>(cols);
  float squares = 0.0f;
  for (int64_t c = threadIdx.x; c < cols; c += blockDim.x) squares = fmaf(x[c] - mean, x[c] - mean, squares);
  const float scale = 1.0f / sqrtf(BlockSum(squares, shared) / static_cast<float>(cols) + eps);
  for (int64_t c = threadIdx.x; c < cols; c += blockDim.x) {
    Store(out, row, cols, c, fmaf((x[c] - mean) * scale, weight[c], bias == nullptr ? 0.0f : bias[c]));
  }
  ClearPadding(out, row, cols);
}

// Roofline: bytes = rows * cols * 8.
__global__ void AddBiasKernel(const float* bias, int64_t cols, float* values) {
  BeginKernel();
  for (int64_t c = FirstCol(); c < cols; c += ColStep()) values[blockIdx.x * cols + c] += bias[c];
}

// Roofline: bytes = count * 8.
__global__ void ScaleKernel(float factor, int64_t count, float* values) {
  BeginKernel();
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i < count) values[i] *= factor;
}

// Roofline: bytes = rows * cols * (2 * input element + output).
__global__ void SiluMulKernel(GateUpInput in, int64_t cols, Planes out) {
  BeginKernel();
  const int64_t row = blockIdx.x;
  for (int64_t c = FirstCol(); c < cols; c += ColStep()) {
    const int64_t gate = row * in.stride + (in.interleaved ? GateUpRow(c, 0) : c);
    const int64_t up = row * in.stride + (in.interleaved ? GateUpRow(c, 1) : cols + c);
    const float value = in.f32 != nullptr ? SiluTimes(in.f32[gate], in.f32[up])
                                          : SiluTimes(Bf16Bits(in.bf16[gate]), Bf16Bits(in.bf16[up]));
    Store(out, row, cols, c, value);
  }
  ClearPadding(out, row, cols);
}

// Roofline: bytes = rows * (in_cols + 3 * cols) * 4.
__global__ void AddGatedKernel(const float* in, const float* gate, int64_t in_cols, const float* values, int64_t cols,
                               float* out) {
  BeginKernel();
  __shared__ float shared[kMostThreads / kWarp];
  const int64_t row = blockIdx.x;
  float sum = 0.0f;
  for (int64_t c = threadIdx.x; c < in_cols; c += blockDim.x) sum = fmaf(in[row * in_cols + c], gate[c], sum);
  const float factor = 1.0f / (1.0f + expf(-BlockSum(sum, shared)));
  for (int64_t c = threadIdx.x; c < cols; c += blockDim.x) {
    out[row * cols + c] = fmaf(factor, values[row * cols + c], out[row * cols + c]);
  }
}

// Roofline: bytes = rows * cols * 8.
__global__ void SelectRowsKernel(DeviceStep step, const float* in, int64_t cols, float* out) {
  BeginKernel();
  const int64_t row = blockIdx.x;
  if (row >= step.counts->num_logit_rows) return;
  const float* const from = in + step.logit_rows[row] * cols;
  for (int64_t c = FirstCol(); c < cols; c += ColStep()) out[row * cols + c] = from[c];
}

// Roofline: bytes = rows * cols * 6.
__global__ void ToBf16Kernel(const float* in, int64_t cols, Planes out) {
  BeginKernel();
  const int64_t row = blockIdx.x;
  for (int64_t c = FirstCol(); c < cols; c += ColStep()) Store(out, row, cols, c, in[row * cols + c]);
  ClearPadding(out, row, cols);
}

// Roofline: bytes = rows * cols * 6.
__global__ void ToF32Kernel(const uint16_t* in, int64_t stride, int64_t cols, float* out) {
  BeginKernel();
  const int64_t row = blockIdx.x;
  for (int64_t c = FirstCol(); c < cols; c += ColStep()) out[row * cols + c] = Bf16Bits(in[row * stride + c]);
}

// Roofline: bytes = the values once, while loading.
__global__ void CountNonfiniteKernel(const void* values, bool is_bf16, int64_t count, unsigned long long* total) {
  BeginKernel();
  const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x;
  unsigned long long found = 0;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += step) {
    const float value =
        is_bf16 ? Bf16Bits(static_cast<const uint16_t*>(values)[i]) : static_cast<const float*>(values)[i];
    found += isfinite(value) ? 0 : 1;
  }
  if (found > 0) atomicAdd(total, found);
}

}  // namespace

void LaunchEmbed(const DeviceStep& step, int64_t rows, const void* table, bool table_is_bf16, int64_t table_stride,
                 int64_t cols, float* out, cudaStream_t stream) {
  Launch(EmbedKernel, GridOf(rows, cols), dim3(kThreads), 0, stream, step, table, table_is_bf16, table_stride, cols,
         out);
}

void LaunchRmsNorm(const float* in, const float* weight, float eps, int64_t rows, int64_t cols, Planes out,
                   cudaStream_t stream) {
  Launch(RmsNormKernel, dim3(rows), dim3(ThreadsPerRow(cols)), 0, stream, in, weight, eps, cols, out);
}

void LaunchLayerNorm(const float* in, const float* weight, const float* bias, float eps, int64_t rows, int64_t cols,
                     Planes out, cudaStream_t stream) {
  Launch(LayerNormKernel, dim3(rows), dim3(ThreadsPerRow(cols)), 0, stream, in, weight, bias, eps, cols, out);
}

void LaunchAddBias(const float* bias, int64_t rows, int64_t cols, float* values, cudaStream_t stream) {
  Launch(AddBiasKernel, GridOf(rows, cols), dim3(kThreads), 0, stream, bias, cols, values);
}

void LaunchScale(float factor, int64_t count, float* values, cudaStream_t stream) {
  Launch(ScaleKernel, dim3(CeilDiv(count, kThreads)), dim3(kThreads), 0, stream, factor, count, values);
}

void LaunchSiluMul(GateUpInput in, int64_t rows, int64_t cols, Planes out, cudaStream_t stream) {
  Launch(SiluMulKernel, GridOf(rows, cols), dim3(kThreads), 0, stream, in, cols, out);
}

void LaunchAddGated(const float* in, const float* gate, int64_t in_cols, const float* values, int64_t rows,
                    int64_t cols, float* out, cudaStream_t stream) {
  Launch(AddGatedKernel, dim3(rows), dim3(ThreadsPerRow(in_cols)), 0, stream, in, gate, in_cols, values, cols, out);
}

void LaunchSelectRows(const DeviceStep& step, const float* in, int64_t rows, int64_t cols, float* out,
                      cudaStream_t stream) {
  Launch(SelectRowsKernel, GridOf(rows, cols), dim3(kThreads), 0, stream, step, in, cols, out);
}

void LaunchToBf16(const float* in, int64_t rows, int64_t cols, uint16_t* out, int64_t stride, cudaStream_t stream) {
  Launch(ToBf16Kernel, GridOf(rows, stride), dim3(kThreads), 0, stream, in, cols, Planes{nullptr, out, stride});
}

void LaunchToF32(const uint16_t* in, int64_t stride, int64_t rows, int64_t cols, float* out, cudaStream_t stream) {
  Launch(ToF32Kernel, GridOf(rows, cols), dim3(kThreads), 0, stream, in, stride, cols, out);
}

void LaunchCountNonfinite(const void* values, bool is_bf16, int64_t count, unsigned long long* total,
                          cudaStream_t stream) {
  const int64_t blocks = CeilDiv(count, kThreads * 16);
  Launch(CountNonfiniteKernel, dim3(blocks < 4096 ? blocks : 4096), dim3(kThreads), 0, stream, values, is_bf16, count,
         total);
}

}  // namespace switchyard::cuda
