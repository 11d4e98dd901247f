// The benchmark's own kernels: random data, the read ceiling, and plain references. Started on Stream().
#ifndef SWITCHYARD_TESTS_BENCH_GPU_BENCH_KERNELS_H_
#define SWITCHYARD_TESTS_BENCH_GPU_BENCH_KERNELS_H_

#include <cstdint>

#include "engine/backend/cuda/attention_kernels.h"

namespace switchyard::bench {

// Normal values of deviation `sigma` in [rows][cols] of a bf16 matrix of `padded_rows` rows of `stride` elements, zeros
// elsewhere. REQUIRES: stride is even. The same seed gives the same values.
void FillNormalBf16(uint16_t* out, int64_t rows, int64_t padded_rows, int64_t cols, int64_t stride, float sigma,
                    uint64_t seed);
void FillNormalF32(float* out, int64_t count, float mean, float sigma, uint64_t seed);

// Reads `bytes` (a multiple of 16) once; *sink is written only if the data is what it never is.
void ReadAll(const void* data, int64_t bytes, uint32_t* sink);

// out[i][o] = sum over k of in[i * in_stride + k] * weight[o * k_stride + k], one fp32 sum per lane and k apart by 32.
// Input row i is in[sources[i]]; weight matrix i begins `matrices[i] * matrix_elements` elements into `weight`.
void ReferenceLinear(const uint16_t* weight, const int32_t* matrices, int64_t matrix_elements, int64_t k_stride,
                     const float* in, const int32_t* sources, int64_t in_stride, int64_t rows, int64_t k, int64_t outs,
                     float* out);

// Attention of `num_samples` rows in fp32, causal, bf16 cache. scores: [num_samples][heads][max_context] floats.
// out: [num_samples][heads * head_dim].
void ReferenceAttention(const cuda::DeviceStep& step, const cuda::AttentionArgs& args, const int32_t* samples,
                        int64_t num_samples, int64_t max_context, const float* qkv, float* scores, float* out);

}  // namespace switchyard::bench

#endif  // SWITCHYARD_TESTS_BENCH_GPU_BENCH_KERNELS_H_
