// Routing and experts.
#include "engine/backend/cuda/cuda_backend_impl.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "engine/base/status_macros.h"

namespace switchyard::cuda {

absl::StatusOr<Routing> CudaBackend::AllocateRouting(int32_t max_tokens, const RouterConfig& config) {
  CHECK(config.num_experts <= kMaxExperts && config.top_k <= kMaxTopK);  // CheckServed has said so
  RoutingMemory memory;
  const int64_t choices = int64_t{max_tokens} * config.top_k;
  const auto place = [&](char* base, RoutingArrays* arrays) {
    return PlaceArrays(base, std::pair(&arrays->expert_ids, choices), std::pair(&arrays->expert_weights, choices),
                       std::pair(&arrays->margins, int64_t{max_tokens}),
                       std::pair(&arrays->logsumexps, int64_t{max_tokens}));
  };
  RETURN_IF_ERROR(AllocateShared("routing", place(nullptr, &memory.host),
                                 PlaceRoutingResults(nullptr, config.num_experts, &memory.host), &memory));
  place(memory.host_memory.get(), &memory.host);
  place(memory.device_memory.as<char>(), &memory.device);
  PlaceRoutingResults(memory.host_results.get(), config.num_experts, &memory.host);
  memory.num_experts = config.num_experts;
  memory.top_k = config.top_k;
  max_experts_ = std::max(max_experts_, config.num_experts);
  max_top_k_ = std::max(max_top_k_, config.top_k);
  weighs_inputs_ |= config.weigh_input;

  Routing routing;
  routing.top_k = config.top_k;
  routing.num_experts = config.num_experts;
  routing.expert_ids = memory.host.expert_ids;
  routing.expert_weights = memory.host.expert_weights;
  routing.margins = memory.host.margins;
  routing.logsumexps = memory.host.logsumexps;
  routing.probability_sums = memory.host.probability_sums;
  routing.squared_logsumexp_sum = memory.host.squared_logsumexp_sum;
  routings_.emplace(routing.expert_ids, std::move(memory));
  return routing;
}

absl::StatusOr<ExpertBatches> CudaBackend::AllocateExpertBatches(int32_t max_tokens, const RouterConfig& config) {
  const int64_t choices = int64_t{max_tokens} * config.top_k;
  if (choices > INT32_MAX) {
    return absl::InvalidArgumentError(absl::StrCat("a step of ", max_tokens, " tokens, each to ", config.top_k,
                                                   " experts, makes ", choices, " rows, at most ", INT32_MAX));
  }
  BatchMemory memory;
  BatchArrays host = {};
  ExpertBatches batches;
  const int64_t weights = config.weigh_input ? choices : 0;
  const auto place = [&](char* base, BatchArrays* arrays) {
    const int64_t bytes = PlaceArrays(base, std::pair(&arrays->choice_to_row, choices),
                                      std::pair(&arrays->row_to_token, choices),
                                      std::pair(&arrays->row_weights, weights));
    if (!config.weigh_input) arrays->row_weights = nullptr;
    return bytes;
  };
  RETURN_IF_ERROR(AllocateShared("expert batches", place(nullptr, &host),
                                 PlaceBatchResults(nullptr, config.num_experts, &host, &memory.host_stamps),
                                 &memory));
  place(memory.host_memory.get(), &host);
  place(memory.device_memory.as<char>(), &memory.device);
  PlaceBatchResults(memory.host_results.get(), config.num_experts, &host, &memory.host_stamps);
  memory.seconds = std::make_unique<float[]>(static_cast<size_t>(config.num_experts));
  memory.num_experts = config.num_experts;
  batches.num_experts = config.num_experts;
  batches.expert_offsets = host.expert_offsets;
  batches.choice_to_row = host.choice_to_row;
  batches.row_to_token = host.row_to_token;
  batches.expert_seconds = memory.seconds.get();
  batches.row_weights = host.row_weights;
  batches_.emplace(batches.expert_offsets, std::move(memory));
  return batches;
}

void CudaBackend::Route(Matrix in, const Weight& router, const RouterConfig& config, Routing* routing) {
  const CudaWeight& weight = Cuda(router);
  const int64_t rows = LaunchRows(in);
  const RoutingMemory& memory = routings_.at(routing->expert_ids);
  CHECK(memory.device.probability_sums != nullptr);  // PrepareScratch comes first
  RouterArgs args;
  args.num_experts = config.num_experts;
  args.top_k = config.top_k;
  args.score = static_cast<int32_t>(config.score);
  args.weights = static_cast<int32_t>(config.weights);
  args.normalize = config.normalize;
  args.normalize_power = config.normalize_power;
  args.normalize_eps = config.normalize_eps;
  args.scale = config.scale;
  args.num_groups = config.num_groups;
  args.topk_group = config.topk_group;
  args.group_by_two = config.group_score == GroupScore::kTopTwoSum;
  args.mixer_threshold = config.mixer_threshold;
  args.bias = weight.bias.as<float>();
  args.choice_bias = Vector(config.choice_bias);
  routing->top_k = config.top_k;
  routing->num_experts = config.num_experts;
  routing->weigh_input = config.weigh_input;
  Touch(routing, in.rows);
  if (recorder_.recording()) {
    recorder_.OnRepeat([this, routing](int64_t num_tokens) { Touch(routing, num_tokens); });
  }
  LaunchRoute(Counts(), activations_.ReadF32(in, rows), rows, in.cols, weight.data.as<float>(), weight.stride, args,
              router_scratch_.as<void>(), memory.device, stream_);
}

void CudaBackend::GroupByExpert(const Routing& routing, ExpertBatches* batches) {
  const BatchMemory& memory = batches_.at(batches->expert_offsets);
  if (!failure_.ok()) return;
  const int64_t tokens = bucket_ > 0 ? bucket_ : routing.num_tokens;
  ExpertBatch batch;
  batch.tokens = tokens;
  batch.max_rows = tokens * routing.top_k;
  batch.in_by_row = memory.device.row_weights != nullptr;
  plan_tile_tokens_ = expert_gemms_->TileTokens(expert_sizes_, routing.num_experts, batch);
  Touch(batches, int64_t{routing.num_tokens} * routing.top_k);
  if (recorder_.recording()) {
    recorder_.OnRepeat([this, batches, top_k = routing.top_k](int64_t num_tokens) {
      Touch(batches, num_tokens * top_k);
    });
  }
  const RoutingArrays& chosen = routings_.at(routing.expert_ids).device;
  LaunchGroupByExpert(Counts(), chosen.expert_ids, chosen.expert_weights, tokens, routing.top_k, routing.num_experts,
                      plan_tile_tokens_, memory.plan, memory.device, stream_);
}

void CudaBackend::ExpertMlp(Matrix in, const ExpertWeights& experts, const ExpertBatches& batches, Matrix rows_out) {
  const CudaExperts& weights = static_cast<const CudaExperts&>(experts);
  const BatchMemory& memory = batches_.at(batches.expert_offsets);
  const int64_t tokens = LaunchRows(in);
  const int64_t top_k = in.rows == 0 ? 0 : batches.num_rows / in.rows;
  const bool bf16 = weights.dtype == DType::kBF16;
  ExpertBatch batch;
  batch.tokens = tokens;
  batch.max_rows = tokens * top_k;
  batch.tile_tokens = plan_tile_tokens_;
  batch.plan = memory.plan;
  batch.device = memory.device;
  if (memory.device.row_weights != nullptr) {
    batch.in = weighed_rows_.as<void>();
    batch.in_by_row = true;
    batch.in_stride = weights.hidden_stride;
    LaunchWeighRows(activations_.ReadF32(in, tokens), in.cols, memory.device.row_to_token, memory.device.row_weights,
                    memory.device.expert_offsets + batches.num_experts, batch.max_rows, weights.dtype,
                    weights.hidden_stride, weighed_rows_.as<void>(), stream_);
  } else if (bf16) {
    const Activations::Bf16View view = activations_.ReadBf16(in, tokens);
    batch.in = view.data;
    batch.in_stride = view.stride;
  } else {
    batch.in = activations_.ReadF32(in, tokens);
    batch.in_stride = in.cols;
  }
  batch.out = activations_.Write(rows_out, bf16 ? Activations::kBf16 : Activations::kF32);
  batch.out_stride = rows_out.cols;
  const size_t provider = expert_gemms_->Choose(weights, batch);
  Check(expert_gemms_->Run(provider, weights, batch, expert_scratch_.as<void>()));
  if (recorder_.recording()) recorder_.OnRepeat([this, provider](int64_t) { expert_gemms_->Count(provider); });
}

void CudaBackend::Combine(Matrix rows, const Routing& routing, const ExpertBatches& batches, Matrix out) {
  const int64_t tokens = LaunchRows(out);
  const float* f32 = nullptr;
  Activations::Bf16View view = {nullptr, rows.cols};
  if (activations_.HasBf16(rows)) {
    view = activations_.ReadBf16(rows, rows.rows);
  } else {
    f32 = activations_.ReadF32(rows, rows.rows);
  }
  float* const sums = activations_.ReadF32(out, tokens);
  activations_.Write(out, Activations::kF32);
  LaunchCombine(Counts(), f32, view.data, view.stride,
                routing.weigh_input ? nullptr : routings_.at(routing.expert_ids).device.expert_weights,
                batches_.at(batches.expert_offsets).device.choice_to_row, tokens, routing.top_k, out.cols, sums,
                stream_);
}

}  // namespace switchyard::cuda
