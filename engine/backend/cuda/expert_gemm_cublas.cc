// Both providers use the same weights as the native kernel. cuBLAS counts columns first, so a row-major matrix
// [rows][k] is its k x rows matrix: out^T = W x^T is the product with W transposed, features on the m side, rows on n.
#include <algorithm>
#include <utility>
#include <vector>

#include "engine/backend/cuda/cublas.h"
#include "engine/backend/cuda/expert_gemm.h"
#include "engine/base/status_macros.h"

namespace switchyard::cuda {
namespace {

cudaDataType_t DataType(DType dtype) { return dtype == DType::kBF16 ? CUDA_R_16BF : CUDA_R_32F; }

// Activations between the two products, as cuBLAS and SiLU see them.
Planes PlanesOf(void* data, DType dtype, int64_t stride) {
  Planes planes;
  if (dtype == DType::kBF16) {
    planes.bf16 = static_cast<uint16_t*>(data);
  } else {
    planes.f32 = static_cast<float*>(data);
  }
  planes.stride = stride;
  return planes;
}

void LaunchActivation(const CudaExperts& experts, const void* gate_up, int64_t rows, void* out, cudaStream_t stream) {
  GateUpInput in;
  in.stride = experts.gate_up_rows;
  in.interleaved = true;
  if (experts.dtype == DType::kBF16) {
    in.bf16 = static_cast<const uint16_t*>(gate_up);
  } else {
    in.f32 = static_cast<const float*>(gate_up);
  }
  // fp32 rows have no padding in this operation: the padded width counts as real, its weights are zeros.
  LaunchSiluMul(in, rows, experts.intermediate_stride, PlanesOf(out, experts.dtype, experts.intermediate_stride),
                stream);
}

// The shapes of the two products of an expert.
struct Product {
  const void* weight;
  int64_t m;  // padded features
  int64_t k;  // padded
};
Product GateUp(const CudaExperts& experts) {
  return {experts.gate_up.as<void>(), experts.gate_up_rows, experts.hidden_stride};
}
Product Down(const CudaExperts& experts) {
  return {experts.down.as<void>(), experts.down_rows, experts.intermediate_stride};
}

class CublasExpertGemm : public ExpertGemm {
 public:
  CublasExpertGemm(std::unique_ptr<Cublas> cublas, cudaStream_t stream)
      : cublas_(std::move(cublas)), stream_(stream) {}

 protected:
  // Biases and other activations would need passes of their own.
  static bool IsPlain(const ExpertSizes& experts) {
    return experts.form.activation == Activation::kSilu && !experts.form.biases;
  }

  const std::unique_ptr<Cublas> cublas_;
  cudaStream_t const stream_;
};

class GroupedExpertGemm final : public CublasExpertGemm {
 public:
  using CublasExpertGemm::CublasExpertGemm;

  bool Takes(const ExpertSizes& experts, const ExpertBatch&) const override { return IsPlain(experts); }

  // Gathered rows (later the rows of the result) | gate and up | their product.
  int64_t ScratchBytes(const ExpertSizes& experts, int64_t, int64_t max_rows) const override {
    return max_rows * RowElements(experts) * DTypeBytes(experts.dtype);
  }

  absl::Status Run(const CudaExperts& experts, const ExpertBatch& batch, void* scratch) override {
    const int64_t element = DTypeBytes(experts.dtype);
    char* const gathered = static_cast<char*>(scratch);
    char* const gate_up = gathered + batch.max_rows * FirstElements(experts) * element;
    char* const product = gate_up + batch.max_rows * experts.gate_up_rows * element;
    LaunchStampExperts(batch.device.expert_offsets, static_cast<int32_t>(experts.num_experts), false, batch.plan,
                       stream_);
    LaunchGatherRows(
        batch.in, experts.dtype, experts.hidden, batch.in_stride, batch.in_by_row ? nullptr : batch.device.row_to_token,
        batch.device.expert_offsets + experts.num_experts, batch.max_rows, experts.hidden_stride, gathered, stream_);
    // The sizes of the groups have to be known to the host: the one sync of this provider.
    if (offsets_.bytes() == 0) {
      ASSIGN_OR_RETURN(offsets_, PinnedBuffer::Allocate((kMaxExperts + 1) * 4));
    }
    RETURN_IF_ERROR(ToStatus(cudaMemcpyAsync(offsets_.as<void>(), batch.device.expert_offsets,
                                             static_cast<size_t>(experts.num_experts + 1) * 4, cudaMemcpyDeviceToHost,
                                             stream_),
                             "copying the experts' offsets"));
    RETURN_IF_ERROR(ToStatus(cudaStreamSynchronize(stream_), "waiting for the router"));
    RETURN_IF_ERROR(Multiply(GateUp(experts), experts, gathered, gate_up));
    LaunchActivation(experts, gate_up, batch.max_rows, product, stream_);
    RETURN_IF_ERROR(Multiply(Down(experts), experts, product, gathered));
    const bool bf16 = experts.dtype == DType::kBF16;
    LaunchGatherRows(gathered, experts.dtype, experts.hidden, experts.down_rows, nullptr, nullptr, batch.max_rows,
                     bf16 ? batch.out.stride : batch.out_stride,
                     bf16 ? static_cast<void*>(batch.out.bf16) : batch.out.f32, stream_);
    LaunchStampExperts(batch.device.expert_offsets, static_cast<int32_t>(experts.num_experts), true, batch.plan,
                       stream_);
    return absl::OkStatus();
  }

 private:
  // The first part of the scratch holds the inputs, and later the outputs.
  static int64_t FirstElements(const ExpertSizes& experts) {
    return std::max(experts.hidden_stride, experts.down_rows);
  }
  static int64_t RowElements(const ExpertSizes& experts) {
    return FirstElements(experts) + experts.gate_up_rows + experts.intermediate_stride;
  }

  absl::Status Multiply(const Product& product, const CudaExperts& experts, const char* in, char* out) {
    const int64_t element = DTypeBytes(experts.dtype);
    sizes_.clear();
    weights_.clear();
    inputs_.clear();
    outputs_.clear();
    for (int64_t e = 0; e < experts.num_experts; ++e) {
      const int64_t first = offsets_.as<int32_t>()[e];
      const int64_t rows = offsets_.as<int32_t>()[e + 1] - first;
      if (rows == 0) continue;
      sizes_.push_back(static_cast<int>(rows));
      weights_.push_back(static_cast<const char*>(product.weight) + e * product.m * product.k * element);
      inputs_.push_back(in + first * product.k * element);
      outputs_.push_back(out + first * product.m * element);
    }
    const size_t groups = sizes_.size();
    if (groups == 0) return absl::OkStatus();
    // Pointers are read on the device, from page-locked memory; the sync of the next layer comes before their reuse.
    RETURN_IF_ERROR(UploadPointers());
    const void* const* const pointers = pointers_.as<const void*>() + turn_ * 3 * kMaxExperts;
    transposed_.assign(groups, CUBLAS_OP_T);
    plain_.assign(groups, CUBLAS_OP_N);
    m_.assign(groups, static_cast<int>(product.m));
    k_.assign(groups, static_cast<int>(product.k));
    one_.assign(groups, 1.0f);
    zero_.assign(groups, 0.0f);
    single_.assign(groups, 1);
    turn_ ^= 1;
    const cudaDataType_t type = DataType(experts.dtype);
    return ToStatus(
        cublas_->functions().gemm_grouped_batched(
            cublas_->handle(), transposed_.data(), plain_.data(), m_.data(), sizes_.data(), k_.data(), one_.data(),
            pointers, type, k_.data(), pointers + kMaxExperts, type, k_.data(), zero_.data(),
            const_cast<void* const*>(pointers + 2 * kMaxExperts), type, m_.data(), static_cast<int>(groups),
            single_.data(), CUBLAS_COMPUTE_32F),
        "cublasGemmGroupedBatchedEx");
  }

  absl::Status UploadPointers() {
    if (pointers_.bytes() == 0) {
      ASSIGN_OR_RETURN(pointers_, PinnedBuffer::Allocate(2 * 3 * kMaxExperts * static_cast<int64_t>(sizeof(void*))));
    }
    const void** const to = pointers_.as<const void*>() + turn_ * 3 * kMaxExperts;
    std::copy(weights_.begin(), weights_.end(), to);
    std::copy(inputs_.begin(), inputs_.end(), to + kMaxExperts);
    std::copy(outputs_.begin(), outputs_.end(), to + 2 * kMaxExperts);
    return absl::OkStatus();
  }

  PinnedBuffer offsets_;   // of the experts
  PinnedBuffer pointers_;  // two turns (gate and up, down) of a, b and c
  int turn_ = 0;
  std::vector<int> sizes_, m_, k_, single_;
  std::vector<float> one_, zero_;
  std::vector<cublasOperation_t> transposed_, plain_;
  std::vector<const void*> weights_, inputs_;
  std::vector<void*> outputs_;
};

class PaddedExpertGemm final : public CublasExpertGemm {
 public:
  using CublasExpertGemm::CublasExpertGemm;

  bool Takes(const ExpertSizes& experts, const ExpertBatch& batch) const override {
    return IsPlain(experts) && batch.tokens <= kMaxPaddedTokens && !batch.in_by_row;
  }

  // Gate and up (later the rows of the result) of every expert and token | their product.
  int64_t ScratchBytes(const ExpertSizes& experts, int64_t tokens, int64_t) const override {
    const int64_t rows = experts.num_experts * std::min(tokens, kMaxPaddedTokens);
    return rows * (FirstElements(experts) + experts.intermediate_stride) * DTypeBytes(experts.dtype) +
           InputBytes(experts);
  }

  absl::Status Run(const CudaExperts& experts, const ExpertBatch& batch, void* scratch) override {
    const int64_t rows = experts.num_experts * batch.tokens;
    const int32_t num_experts = static_cast<int32_t>(experts.num_experts);
    char* const in = static_cast<char*>(scratch);
    char* const first = in + InputBytes(experts);
    char* const product = first + rows * FirstElements(experts) * DTypeBytes(experts.dtype);
    LaunchStampExperts(batch.device.expert_offsets, num_experts, false, batch.plan, stream_);
    LaunchGatherRows(batch.in, experts.dtype, experts.hidden, batch.in_stride, nullptr, nullptr, batch.tokens,
                     experts.hidden_stride, in, stream_);
    RETURN_IF_ERROR(Multiply(GateUp(experts), experts, batch, in, 0, first));
    LaunchActivation(experts, first, rows, product, stream_);
    RETURN_IF_ERROR(
        Multiply(Down(experts), experts, batch, product, batch.tokens * experts.intermediate_stride, first));
    LaunchGatherPadded(first, experts.dtype, experts.down_rows, batch.tokens, batch.device.expert_offsets, num_experts,
                       batch.device.row_to_token, batch.max_rows, experts.hidden, batch.out, batch.out_stride, stream_);
    LaunchStampExperts(batch.device.expert_offsets, num_experts, true, batch.plan, stream_);
    return absl::OkStatus();
  }

 private:
  static int64_t FirstElements(const ExpertSizes& experts) { return std::max(experts.gate_up_rows, experts.down_rows); }
  static int64_t InputBytes(const ExpertSizes& experts) {
    return kMaxPaddedTokens * experts.hidden_stride * DTypeBytes(experts.dtype);
  }

  absl::Status Multiply(const Product& product, const CudaExperts& experts, const ExpertBatch& batch, const void* in,
                        int64_t in_step, void* out) {
    const float one = 1.0f, zero = 0.0f;
    const cudaDataType_t type = DataType(experts.dtype);
    const int m = static_cast<int>(product.m), k = static_cast<int>(product.k), n = static_cast<int>(batch.tokens);
    return ToStatus(
        cublas_->functions().gemm_strided_batched(
            cublas_->handle(), CUBLAS_OP_T, CUBLAS_OP_N, m, n, k, &one, product.weight, type, k, product.m * product.k,
            in, type, k, in_step, &zero, out, type, m, product.m * batch.tokens, static_cast<int>(experts.num_experts),
            CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT),
        "cublasGemmStridedBatchedEx");
  }
};

template <typename Provider>
absl::StatusOr<std::unique_ptr<ExpertGemm>> Make(cudaStream_t stream) {
  ASSIGN_OR_RETURN(const CublasFunctions functions, OpenCublas());
  ASSIGN_OR_RETURN(std::unique_ptr<Cublas> cublas, Cublas::Create(functions, stream));
  return std::make_unique<Provider>(std::move(cublas), stream);
}

}  // namespace

absl::StatusOr<std::unique_ptr<ExpertGemm>> MakeCublasGroupedExpertGemm(cudaStream_t stream) {
  return Make<GroupedExpertGemm>(stream);
}

absl::StatusOr<std::unique_ptr<ExpertGemm>> MakeCublasPaddedExpertGemm(cudaStream_t stream) {
  return Make<PaddedExpertGemm>(stream);
}

}  // namespace switchyard::cuda
