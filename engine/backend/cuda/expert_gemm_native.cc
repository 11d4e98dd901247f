#include "engine/backend/cuda/expert_products.h"

namespace switchyard::cuda {
namespace {

class NativeExpertGemm final : public ExpertGemm {
 public:
  NativeExpertGemm(int num_multiprocessors, cudaStream_t stream)
      : num_multiprocessors_(num_multiprocessors), stream_(stream) {}

  bool Takes(const ExpertSizes&, const ExpertBatch&) const override { return true; }
  int64_t ScratchBytes(const ExpertSizes& experts, int64_t, int64_t max_rows) const override {
    return ProductBytes(experts, max_rows);
  }

  absl::Status Run(const CudaExperts& experts, const ExpertBatch& batch, void* scratch) override {
    const ExpertProducts products = MakeExpertProducts(experts, batch, scratch);
    for (const GroupedGemm& gemm : {products.gate_up, products.down}) {
      if (experts.dtype == DType::kBF16) {
        LaunchGemmBf16(gemm, batch.tile_tokens, num_multiprocessors_, stream_);
      } else {
        LaunchGemmF32(gemm, batch.tile_tokens, stream_);
      }
    }
    return absl::OkStatus();
  }

 private:
  const int num_multiprocessors_;
  cudaStream_t const stream_;
};

}  // namespace

std::unique_ptr<ExpertGemm> MakeNativeExpertGemm(int num_multiprocessors, cudaStream_t stream) {
  return std::make_unique<NativeExpertGemm>(num_multiprocessors, stream);
}

}  // namespace switchyard::cuda
