#include "tests/engine/vision/planted/broken_vision_backend.h"

#include <algorithm>
#include <vector>

#include "tests/support/forwarding_backend.h"

namespace switchyard::testing {
namespace {

float* Row(Matrix matrix, int64_t row) { return static_cast<float*>(matrix.data) + row * matrix.cols; }

class BrokenVisionBackend final : public ForwardingBackend {
 public:
  BrokenVisionBackend(Backend* inner, VisionFault fault) : ForwardingBackend(inner), fault_(fault) {}

  void LayerNorm(Matrix in, const Weight& weight, const Weight* bias, float eps, Matrix out) override {
    const bool is_final = in.data == out.data;
    if (fault_ == VisionFault::kNormsKeepTheMean) {
      inner_->RmsNorm(in, weight, eps, out);
      inner_->AddBias(*bias, out);
    } else if (fault_ == VisionFault::kBlocksReadUnnormed && !is_final) {
      std::copy_n(Row(in, 0), in.rows * in.cols, Row(out, 0));
    } else if (fault_ != VisionFault::kNoFinalNorm || !is_final) {
      inner_->LayerNorm(in, weight, bias, eps, out);
    }
  }

  void BidirectionalAttention(const AttentionShape& shape, std::span<const AttentionSlice> slices, Matrix qkv,
                              Matrix out) override {
    AttentionShape actual = shape;
    if (fault_ == VisionFault::kScoresNotScaled) actual.scale = 1.0f;
    inner_->BidirectionalAttention(actual, slices, qkv, out);
  }

  void SelectRows(Matrix in, std::span<const int32_t> rows, Matrix out) override {
    inner_->SelectRows(in, rows, out);
    if (fault_ != VisionFault::kMeanForClassToken) return;
    const int64_t tokens = in.rows / out.rows;
    for (int64_t image = 0; image < out.rows; ++image) {
      for (int64_t i = 0; i < in.cols; ++i) {
        float sum = 0.0f;
        for (int64_t t = 0; t < tokens; ++t) sum += Row(in, image * tokens + t)[i];
        Row(out, image)[i] = sum / static_cast<float>(tokens);
      }
    }
  }

  void Activate(Activation activation, Matrix matrix) override {
    if (fault_ == VisionFault::kNoTanh && activation == Activation::kTanh) return;
    const bool relu = fault_ == VisionFault::kReluInDenseLayers && activation == Activation::kGeluTanh;
    inner_->Activate(relu ? Activation::kRelu : activation, matrix);
  }

  void Route(Matrix in, const Weight& router, const RouterConfig& config, Routing* routing) override {
    inner_->Route(in, router, config, routing);
    if (fault_ == VisionFault::kWeightsAreOne) {
      std::fill_n(routing->expert_weights, routing->num_tokens * routing->top_k, 1.0f);
    }
  }

  void LimitChoices(const RouterConfig& config, std::span<const RowGroup> groups, Routing* routing) override {
    if (fault_ == VisionFault::kImagesShareCapacity) {
      const RowGroup all = {groups.front().first_row, routing->num_tokens};
      inner_->LimitChoices(config, {&all, 1}, routing);
    } else if (fault_ == VisionFault::kRanksCompete) {
      for (const RowGroup& group : groups) LimitTokenByToken(config, group, routing);
    } else {
      inner_->LimitChoices(config, groups, routing);
    }
  }

 private:
  static void LimitTokenByToken(const RouterConfig& config, const RowGroup& group, Routing* routing) {
    std::vector<int32_t> taken(static_cast<size_t>(config.num_experts));
    const int64_t first = group.first_row * config.top_k;
    for (int64_t choice = first; choice < first + group.num_rows * config.top_k; ++choice) {
      int32_t& expert = routing->expert_ids[choice];
      if (++taken[expert] > config.capacity) expert = kDropped;
    }
  }

  const VisionFault fault_;
};

}  // namespace

std::unique_ptr<Backend> MakeBrokenVisionBackend(Backend* inner, VisionFault fault) {
  return std::make_unique<BrokenVisionBackend>(inner, fault);
}

}  // namespace switchyard::testing
