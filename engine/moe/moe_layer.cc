#include "engine/moe/moe_layer.h"

#include <algorithm>
#include <utility>

#include "engine/base/status_macros.h"

namespace switchyard {

void GatedMlp::Forward(Backend* backend, Matrix h, const FeedForwardScratch& scratch, OutputMode mode,
                       Matrix out) const {
  const Matrix both = scratch.gate_up.Front(h.rows, 2 * int64_t{intermediate_size});
  const Matrix product = scratch.intermediate.Front(h.rows, intermediate_size);
  backend->Linear(h, *gate_up, OutputMode::kAssign, both);
  backend->SiluMul(both, product);
  backend->Linear(product, *down, mode, out);
}

void PlainMlp::Forward(Backend* backend, Matrix h, const FeedForwardScratch& scratch, OutputMode mode,
                       Matrix out) const {
  const Matrix middle = scratch.intermediate.Front(h.rows, intermediate_size);
  backend->Linear(h, *up, OutputMode::kAssign, middle);
  backend->Activate(activation, middle);
  backend->Linear(middle, *down, mode, out);
}

absl::StatusOr<std::unique_ptr<MoeLayer>> MoeLayer::Create(const MoeConfig& config, MoeLayerWeights weights,
                                                           int32_t max_tokens, Backend* backend) {
  std::unique_ptr<MoeLayer> layer(new MoeLayer(config, std::move(weights), backend));
  ASSIGN_OR_RETURN(layer->routing_, backend->AllocateRouting(max_tokens, layer->config_.router));
  ASSIGN_OR_RETURN(layer->batches_, backend->AllocateExpertBatches(max_tokens, layer->config_.router));
  return layer;
}

void MoeLayer::Forward(Matrix h, const FeedForwardScratch& scratch, Matrix x, std::span<const RowGroup> groups) {
  backend_->StartTimer();
  backend_->Route(h, *weights_.router, config_.router, &routing_);
  if (config_.router.capacity > 0 && !groups.empty()) backend_->LimitChoices(config_.router, groups, &routing_);
  backend_->GroupByExpert(routing_, &batches_);
  const Matrix rows = scratch.expert_rows.Front(h.rows * config_.router.top_k, h.cols);
  backend_->ExpertMlp(h, *weights_.experts, batches_, rows);
  backend_->Combine(rows, routing_, batches_, x);
  if (weights_.output_bias != nullptr) backend_->AddBias(*weights_.output_bias, x);
  if (weights_.shared.intermediate_size > 0) {
    if (weights_.shared_expert_gate == nullptr) {
      weights_.shared.Forward(backend_, h, scratch, OutputMode::kAdd, x);
    } else {
      const Matrix shared = scratch.shared_out.Front(h.rows, h.cols);
      weights_.shared.Forward(backend_, h, scratch, OutputMode::kAssign, shared);
      backend_->AddGated(h, *weights_.shared_expert_gate, shared, x);
    }
  }
  backend_->StopTimer(&seconds_);
}

void MoeLayer::Skip() {
  routing_.num_tokens = 0;
  batches_.num_rows = 0;
  std::fill_n(batches_.expert_offsets, config_.router.num_experts + 1, 0);
  std::fill_n(batches_.expert_seconds, config_.router.num_experts, 0.0f);
  std::fill_n(routing_.probability_sums, config_.router.num_experts, 0.0f);
  *routing_.squared_logsumexp_sum = 0.0;
  seconds_ = 0.0f;
}

void MoeLayer::FillStats(MoeLayerStats* stats) const {
  const int32_t num_experts = config_.router.num_experts;
  stats->num_tokens = routing_.num_tokens;
  stats->tokens_per_expert.resize(num_experts);
  for (int32_t e = 0; e < num_experts; ++e) {
    stats->tokens_per_expert[e] = batches_.expert_offsets[e + 1] - batches_.expert_offsets[e];
  }
  stats->num_dropped = routing_.num_tokens * config_.router.top_k - batches_.num_rows;
  stats->seconds_per_expert.assign(batches_.expert_seconds, batches_.expert_seconds + num_experts);
  stats->probability_sums.assign(routing_.probability_sums, routing_.probability_sums + num_experts);
  stats->squared_logsumexp_sum = *routing_.squared_logsumexp_sum;
  stats->seconds = seconds_;
}

std::vector<std::string> ExpertGemmNames(const Backend& backend) {
  std::vector<std::string> names;
  for (const ExpertGemmCount& gemm : backend.expert_gemms()) names.push_back(gemm.provider);
  return names;
}

void FillExpertGemmLayers(const Backend& backend, StepStats* stats) {
  stats->expert_gemm_layers.clear();
  for (const ExpertGemmCount& gemm : backend.expert_gemms()) stats->expert_gemm_layers.push_back(gemm.layers);
}

}  // namespace switchyard
