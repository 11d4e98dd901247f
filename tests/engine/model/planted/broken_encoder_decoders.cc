#include "tests/engine/model/planted/broken_encoder_decoders.h"

#include <algorithm>
#include <vector>

#include "engine/base/status_macros.h"
#include "tests/support/forwarding_backend.h"

namespace switchyard::testing {
namespace {

float* Row(Matrix matrix, int64_t row) { return static_cast<float*>(matrix.data) + row * matrix.cols; }

class BrokenEncoderDecoder final : public ForwardingBackend {
 public:
  BrokenEncoderDecoder(Backend* inner, EncoderDecoderFault fault) : ForwardingBackend(inner), fault_(fault) {}

  absl::Status PrepareBidirectional(const AttentionShape& shape, int32_t max_tokens, int32_t max_slices,
                                    DType dtype) override {
    ASSIGN_OR_RETURN(scratch_, inner_->AllocateMatrix(max_tokens, shape.qkv_size()));
    return inner_->PrepareBidirectional(shape, max_tokens, max_slices, dtype);
  }

  void RmsNorm(Matrix in, const Weight& weight, float eps, Matrix out) override {
    if (fault_ == EncoderDecoderFault::kNormsSubtractTheMean) {
      inner_->LayerNorm(in, weight, nullptr, eps, out);
    } else {
      inner_->RmsNorm(in, weight, eps, out);
    }
  }

  void Attention(const AttentionShape& shape, std::span<const AttentionSlice> slices, int32_t layer,
                 const KvCache& cache, Matrix qkv, Matrix out) override {
    AttentionShape actual = shape;
    if (fault_ == EncoderDecoderFault::kBiasInFirstLayerOnly && layer > 0) actual.relative_bias = nullptr;
    bias_ = shape.relative_bias;
    inner_->Attention(actual, slices, layer, cache, qkv, out);
  }

  void CrossAttention(const AttentionShape& shape, std::span<const AttentionSlice> slices, int32_t layer,
                      const KvCache& cache, Matrix q, Matrix out) override {
    AttentionShape actual = shape;
    if (fault_ == EncoderDecoderFault::kCrossAttentionBiased) actual.relative_bias = bias_;
    if (fault_ != EncoderDecoderFault::kCrossAttentionToItself) {
      inner_->CrossAttention(actual, slices, layer, cache, q, out);
      return;
    }
    const Matrix qkv = scratch_.Front(q.rows, shape.qkv_size());
    for (int64_t t = 0; t < q.rows; ++t) std::copy_n(Row(q, t), q.cols, Row(qkv, t));
    inner_->Attention(actual, slices, layer, cache, qkv, out);
  }

  void BidirectionalAttention(const AttentionShape& shape, std::span<const AttentionSlice> slices, Matrix qkv,
                              Matrix out) override {
    if (fault_ != EncoderDecoderFault::kEncoderIsCausal) {
      inner_->BidirectionalAttention(shape, slices, qkv, out);
      return;
    }
    const Matrix part = scratch_.Front(out.rows, out.cols);
    for (const AttentionSlice& slice : slices) {
      for (int32_t t = 0; t < slice.num_tokens; ++t) {
        AttentionSlice seen = slice;
        seen.num_tokens = t + 1;
        inner_->BidirectionalAttention(shape, {&seen, 1}, qkv, part);
        std::copy_n(Row(part, slice.first_row + t), out.cols, Row(out, slice.first_row + t));
      }
    }
  }

  void LimitChoices(const RouterConfig& config, std::span<const RowGroup> groups, Routing* routing) override {
    if (fault_ != EncoderDecoderFault::kLastComeFirst) {
      inner_->LimitChoices(config, groups, routing);
      return;
    }
    CHECK(config.top_k == 1);
    for (const RowGroup& group : groups) {
      std::vector<int32_t> taken(static_cast<size_t>(config.num_experts));
      for (int64_t t = group.first_row + group.num_rows - 1; t >= group.first_row; --t) {
        if (++taken[routing->expert_ids[t]] > config.capacity) routing->expert_ids[t] = kDropped;
      }
    }
  }

  void ExpertMlp(Matrix in, const ExpertWeights& experts, const ExpertBatches& batches, Matrix rows_out) override {
    expert_input_ = in;
    inner_->ExpertMlp(in, experts, batches, rows_out);
  }

  void Combine(Matrix rows, const Routing& routing, const ExpertBatches& batches, Matrix out) override {
    inner_->Combine(rows, routing, batches, out);
    for (int64_t t = 0; t < out.rows; ++t) {
      if (routing.expert_ids[t] != kDropped) continue;
      for (int64_t i = 0; i < out.cols; ++i) {
        float& value = Row(out, t)[i];
        if (fault_ == EncoderDecoderFault::kDroppedBecomeZero) value = 0.0f;
        if (fault_ == EncoderDecoderFault::kDroppedKeepTheirInput) {
          value += routing.expert_weights[t] * Row(expert_input_, t)[i];
        }
      }
    }
  }

 private:
  const EncoderDecoderFault fault_;
  const Weight* bias_ = nullptr;  // the decoder's
  Matrix scratch_;                // [max_tokens, qkv_size]
  Matrix expert_input_;           // of the MoE layer in progress
};

}  // namespace

std::unique_ptr<Backend> MakeBrokenEncoderDecoder(Backend* inner, EncoderDecoderFault fault) {
  return std::make_unique<BrokenEncoderDecoder>(inner, fault);
}

}  // namespace switchyard::testing
