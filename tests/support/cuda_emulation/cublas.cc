#include <cublas_v2.h>

#include <cstdint>
#include <cstring>

#include "emulation.h"
#include "engine/backend/cuda/cublas.h"
#include "engine/base/bf16.h"

struct EmulatedCublas {
  cudaStream_t stream = nullptr;
};

namespace {

float Read(const void* data, cudaDataType_t type, int64_t i) {
  return type == CUDA_R_32F ? static_cast<const float*>(data)[i]
                            : switchyard::Bf16ToFloat(static_cast<const uint16_t*>(data)[i]);
}

struct Gemm {
  cublasOperation_t transa, transb;
  int64_t m, n, k;
  float alpha, beta;
  const void *a, *b;
  void* c;
  int64_t lda, ldb, ldc;
  cudaDataType_t type, c_type;
};

bool IsValid(const Gemm& gemm) {
  const auto aligned = [](const void* pointer) { return reinterpret_cast<uintptr_t>(pointer) % 16 == 0; };
  return gemm.m > 0 && gemm.n >= 0 && gemm.k > 0 && aligned(gemm.a) && aligned(gemm.b) && aligned(gemm.c) &&
         gemm.lda >= (gemm.transa == CUBLAS_OP_T ? gemm.k : gemm.m) &&
         gemm.ldb >= (gemm.transb == CUBLAS_OP_T ? gemm.n : gemm.k) && gemm.ldc >= gemm.m;
}

// Column-major c = alpha op(a) op(b) + beta c with fp32 sums.
void Multiply(const Gemm& gemm) {
  for (int64_t j = 0; j < gemm.n; ++j) {
    for (int64_t i = 0; i < gemm.m; ++i) {
      float sum = 0.0f;
      for (int64_t l = 0; l < gemm.k; ++l) {
        const int64_t at = gemm.transa == CUBLAS_OP_T ? l + i * gemm.lda : i + l * gemm.lda;
        const int64_t bt = gemm.transb == CUBLAS_OP_T ? j + l * gemm.ldb : l + j * gemm.ldb;
        sum += Read(gemm.a, gemm.type, at) * Read(gemm.b, gemm.type, bt);
      }
      const int64_t ct = i + j * gemm.ldc;
      const float value = gemm.alpha * sum + (gemm.beta == 0.0f ? 0.0f : gemm.beta * Read(gemm.c, gemm.c_type, ct));
      if (gemm.c_type == CUDA_R_32F) {
        static_cast<float*>(gemm.c)[ct] = value;
      } else {
        static_cast<uint16_t*>(gemm.c)[ct] = switchyard::FloatToBf16(value);
      }
    }
  }
}

}  // namespace

cublasStatus_t cublasCreate_v2(cublasHandle_t* handle) {
  *handle = new EmulatedCublas;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasDestroy_v2(cublasHandle_t handle) {
  delete handle;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasGetVersion_v2(cublasHandle_t, int* version) {
  *version = 0;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasSetStream_v2(cublasHandle_t handle, cudaStream_t stream) {
  handle->stream = stream;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasSetWorkspace_v2(cublasHandle_t, void*, size_t) { return CUBLAS_STATUS_SUCCESS; }

cublasStatus_t cublasGemmEx(cublasHandle_t handle, cublasOperation_t transa, cublasOperation_t transb, int m, int n,
                            int k, const void* alpha, const void* a, cudaDataType a_type, int lda, const void* b,
                            cudaDataType, int ldb, const void* beta, void* c, cudaDataType c_type, int ldc,
                            cublasComputeType_t, cublasGemmAlgo_t) {
  const Gemm gemm = {transa, transb, m, n, k, *static_cast<const float*>(alpha), *static_cast<const float*>(beta), a, b,
                     c, lda, ldb, ldc, a_type, c_type};
  if (!IsValid(gemm)) return CUBLAS_STATUS_INVALID_VALUE;
  cuda_emulation::RunOnStream(handle->stream, [gemm] { Multiply(gemm); });
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasGemmGroupedBatchedEx(cublasHandle_t handle, const cublasOperation_t transa[],
                                          const cublasOperation_t transb[], const int m[], const int n[], const int k[],
                                          const void* alpha, const void* const a[], cudaDataType_t a_type,
                                          const int lda[], const void* const b[], cudaDataType_t, const int ldb[],
                                          const void* beta, void* const c[], cudaDataType_t, const int ldc[],
                                          int group_count, const int group_size[], cublasComputeType_t) {
  for (int g = 0, i = 0; g < group_count; ++g) {
    for (int member = 0; member < group_size[g]; ++member, ++i) {
      const Gemm gemm = {transa[g], transb[g], m[g], n[g], k[g], static_cast<const float*>(alpha)[g],
                         static_cast<const float*>(beta)[g], a[i], b[i], c[i], lda[g], ldb[g], ldc[g], a_type, a_type};
      if (!IsValid(gemm)) return CUBLAS_STATUS_INVALID_VALUE;
      cuda_emulation::RunOnStream(handle->stream, [gemm] { Multiply(gemm); });
    }
  }
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasGemmStridedBatchedEx(cublasHandle_t handle, cublasOperation_t transa, cublasOperation_t transb,
                                          int m, int n, int k, const void* alpha, const void* a, cudaDataType a_type,
                                          int lda, long long stride_a, const void* b, cudaDataType, int ldb,
                                          long long stride_b, const void* beta, void* c, cudaDataType, int ldc,
                                          long long stride_c, int batch_count, cublasComputeType_t, cublasGemmAlgo_t) {
  const int64_t element = a_type == CUDA_R_32F ? 4 : 2;
  for (int i = 0; i < batch_count; ++i) {
    const Gemm gemm = {transa, transb, m, n, k, *static_cast<const float*>(alpha), *static_cast<const float*>(beta),
                       static_cast<const char*>(a) + i * stride_a * element,
                       static_cast<const char*>(b) + i * stride_b * element,
                       static_cast<char*>(c) + i * stride_c * element, lda, ldb, ldc, a_type, a_type};
    if (!IsValid(gemm)) return CUBLAS_STATUS_INVALID_VALUE;
    cuda_emulation::RunOnStream(handle->stream, [gemm] { Multiply(gemm); });
  }
  return CUBLAS_STATUS_SUCCESS;
}

namespace switchyard::cuda {

absl::StatusOr<CublasFunctions> OpenCublas() {
  CublasFunctions functions;
  functions.create = cublasCreate_v2;
  functions.destroy = cublasDestroy_v2;
  functions.set_stream = cublasSetStream_v2;
  functions.set_workspace = cublasSetWorkspace_v2;
  functions.gemm_grouped_batched = cublasGemmGroupedBatchedEx;
  functions.gemm_strided_batched = cublasGemmStridedBatchedEx;
  return functions;
}

}  // namespace switchyard::cuda
