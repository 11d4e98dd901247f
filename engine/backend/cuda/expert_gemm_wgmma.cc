#include <algorithm>
#include <cstdint>
#include <map>
#include <tuple>

#include "absl/strings/str_cat.h"
#include "engine/backend/cuda/expert_products.h"
#include "engine/backend/cuda/tensor_map.h"
#include "engine/backend/cuda/wgmma_gemm.h"
#include "engine/backend/cuda/wgmma_layout.h"
#include "engine/base/status_macros.h"

namespace switchyard::cuda {
namespace {

class WgmmaExpertGemm final : public ExpertGemm {
 public:
  WgmmaExpertGemm(TensorMapEncoder encode, int num_multiprocessors, cudaStream_t stream)
      : encode_(encode), num_multiprocessors_(num_multiprocessors), stream_(stream) {}

  // Every batch of bf16 experts, however small: another kernel for few rows would give them other bits.
  bool Takes(const ExpertSizes& experts, const ExpertBatch&) const override {
    return experts.dtype == DType::kBF16 && IsGated(experts.form.activation);
  }
  int TileTokens(int64_t num_rows, int64_t num_experts) const override {
    return ChooseWgmmaTileTokens(num_rows, num_experts);
  }
  int64_t ScratchBytes(const ExpertSizes& experts, int64_t, int64_t max_rows) const override {
    return ProductBytes(experts, max_rows);
  }

  absl::Status Run(const CudaExperts& experts, const ExpertBatch& batch, void* scratch) override {
    const int64_t units = batch.max_rows * std::max(batch.in_stride, experts.intermediate_stride) / kGatherUnit;
    if (units > INT32_MAX) {
      return absl::InvalidArgumentError(absl::StrCat("expert_gemm is 'wgmma': ", batch.max_rows,
                                                     " rows of a step take ", units, " units of 16 bytes, at most ",
                                                     INT32_MAX));
    }
    const ExpertProducts products = MakeExpertProducts(experts, batch, scratch);
    for (const GroupedGemm& gemm : {products.gate_up, products.down}) {
      ASSIGN_OR_RETURN(const CUtensorMap* const map,
                       MapOf(gemm.weight, experts.num_experts * gemm.weight_rows, gemm.k));
      LaunchWgmmaGemm(gemm, *map, batch.tile_tokens, num_multiprocessors_, stream_);
    }
    return absl::OkStatus();
  }

 private:
  // Made at a layer's first step. It says nothing that its key does not, so it stays right when memory is used anew.
  absl::StatusOr<const CUtensorMap*> MapOf(const void* weight, int64_t rows, int64_t k) {
    const auto [at, is_new] = maps_.try_emplace({weight, rows, k});
    if (!is_new) return &at->second;
    const CUresult result = MakeWeightMap(encode_, weight, rows, k, &at->second);
    if (result == CUDA_SUCCESS) return &at->second;
    maps_.erase(at);
    return absl::InternalError(absl::StrCat("cuTensorMapEncodeTiled for experts of ", rows, " x ", k,
                                            " elements: CUDA driver error ", static_cast<int>(result)));
  }

  TensorMapEncoder const encode_;
  const int num_multiprocessors_;
  cudaStream_t const stream_;
  std::map<std::tuple<const void*, int64_t, int64_t>, CUtensorMap> maps_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<ExpertGemm>> MakeWgmmaExpertGemm(const cudaDeviceProp& device, cudaStream_t stream) {
  if (device.major != 9 || device.minor != 0) {
    return absl::FailedPreconditionError(absl::StrCat("expert_gemm is 'wgmma', but ", device.name,
                                                      " has compute capability ", device.major, ".", device.minor,
                                                      "; it needs 9.0 (Hopper)"));
  }
  TensorMapEncoder const encode = FindTensorMapEncoder();
  if (encode == nullptr) {
    return absl::FailedPreconditionError(
        "expert_gemm is 'wgmma', but the driver has no cuTensorMapEncodeTiled; it needs one for CUDA 12 or newer");
  }
  return std::make_unique<WgmmaExpertGemm>(encode, device.multiProcessorCount, stream);
}

}  // namespace switchyard::cuda
