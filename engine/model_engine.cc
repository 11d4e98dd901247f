#include "engine/model_engine.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/base/status_macros.h"

namespace switchyard {
namespace {

// Of the token to be drawn.
int64_t SampledPosition(const SequenceSlice& slice) {
  return slice.first_position + static_cast<int64_t>(slice.tokens.size());
}

// Ids that may be sampled: what lies behind the tokenizer's is padding.
int32_t NumValidIds(const ModelLimits& limits, int32_t vocab_size) {
  return limits.num_valid_ids > 0 ? std::min(vocab_size, limits.num_valid_ids) : vocab_size;
}

}  // namespace

ModelEngine::ModelEngine(LoadedModel loaded)
    : facts_(std::move(loaded.facts)),
      limits_(loaded.limits),
      backend_(std::move(loaded.backend)),
      model_(std::move(loaded.model)),
      cache_(std::move(loaded.cache)) {
  ids_.reserve(limits_.max_tokens);
  slices_.reserve(limits_.max_logit_rows);
  for (Step& step : steps_) {
    step.logit_rows.reserve(limits_.max_logit_rows);
    step.sampled_slices.reserve(limits_.max_logit_rows);
  }
  sampling_.reserve(limits_.max_logit_rows);
  output_.tokens.reserve(limits_.max_logit_rows);
  samplers_.reserve(backend_->num_host_threads());
  const int32_t num_valid_ids = NumValidIds(limits_, facts_.vocab_size);
  for (int thread = 0; thread < backend_->num_host_threads(); ++thread) samplers_.emplace_back(num_valid_ids);
  output_.stats.moe_layers.resize(model_->moe_layers().size());
  output_.stats.expert_gemm_layers.reserve(facts_.expert_gemms.size());
}

// An id of the vocabulary, or one that the step in flight is about to sample.
bool ModelEngine::IsKnownToken(const SequenceSlice& slice, int32_t id) const {
  if (id >= 0) return id < facts_.vocab_size;
  return num_in_flight() > 0 && slice.tokens.size() == 1 &&
         ~id < static_cast<int32_t>(LastLaunched().sampled_slices.size());
}

absl::Status ModelEngine::CheckSlice(const SequenceSlice& slice) const {
  const int64_t end = slice.first_position + static_cast<int64_t>(slice.tokens.size());
  const int64_t num_blocks = (end + facts_.block_size - 1) / facts_.block_size;
  if (slice.tokens.empty() || slice.first_position < 0 || end > facts_.max_model_len ||
      static_cast<int64_t>(slice.block_table.size()) < num_blocks || (slice.sample && slice.sampling == nullptr)) {
    return absl::InternalError(absl::StrCat("slice of sequence ", slice.sequence_id, " is malformed"));
  }
  RETURN_IF_ERROR(CheckEncoderTokens(slice));
  for (const int32_t id : slice.tokens) {
    if (IsKnownToken(slice, id)) continue;
    return absl::InternalError(absl::StrCat("slice of sequence ", slice.sequence_id, " has token id ", id,
                                            ", the vocabulary ", facts_.vocab_size));
  }
  for (const int32_t block : slice.block_table.first(static_cast<size_t>(num_blocks))) {
    if (block >= 0 && block < facts_.num_kv_blocks) continue;
    return absl::InternalError(absl::StrCat("slice of sequence ", slice.sequence_id, " has KV block ", block,
                                            ", the pool ", facts_.num_kv_blocks));
  }
  return absl::OkStatus();
}

// An encoder reads its tokens at once, and only the decoder has logits.
absl::Status ModelEngine::CheckEncoderTokens(const SequenceSlice& slice) const {
  const int64_t end = slice.first_position + static_cast<int64_t>(slice.tokens.size());
  const int32_t num_encoder_tokens = slice.num_encoder_tokens;
  const bool has_encoder = facts_.num_encoder_layers > 0;
  const bool whole = slice.first_position == 0 ? end >= num_encoder_tokens : slice.first_position >= num_encoder_tokens;
  if (has_encoder == (num_encoder_tokens > 0) && num_encoder_tokens >= 0 && whole &&
      (!slice.sample || end > num_encoder_tokens)) {
    return absl::OkStatus();
  }
  return absl::InternalError(absl::StrCat("slice of sequence ", slice.sequence_id, " has positions ",
                                          slice.first_position, " to ", end - 1, " and ", num_encoder_tokens,
                                          " encoder tokens, ",
                                          has_encoder ? "which run in one slice" : "but the model has no encoder"));
}

absl::Status ModelEngine::CheckBatch(const StepBatch& batch) const {
  if (num_in_flight() >= facts_.max_steps_in_flight) {
    return absl::InternalError(absl::StrCat(num_in_flight(), " steps are in flight, at most ",
                                            facts_.max_steps_in_flight, " may be"));
  }
  if (num_in_flight() > 0 && !LastLaunched().sampled_on_device && !LastLaunched().sampled_slices.empty()) {
    return absl::InternalError("the step in flight has tokens that the host samples: it has to be collected first");
  }
  int64_t num_tokens = 0;
  for (const SequenceSlice& slice : batch.slices) {
    RETURN_IF_ERROR(CheckSlice(slice));
    num_tokens += static_cast<int64_t>(slice.tokens.size());
  }
  if (batch.slices.empty() || static_cast<int64_t>(batch.slices.size()) > limits_.max_logit_rows ||
      num_tokens > limits_.max_tokens) {
    return absl::InternalError(absl::StrCat("a step of ", batch.slices.size(), " sequences and ", num_tokens,
                                            " tokens is outside the engine's limits"));
  }
  return absl::OkStatus();
}

absl::Status ModelEngine::Launch(const StepBatch& batch) {
  RETURN_IF_ERROR(CheckBatch(batch));
  Step& step = StepNumber(num_launched_);
  ids_.clear();
  slices_.clear();
  step.logit_rows.clear();
  step.sampled_slices.clear();
  bool explain_routing = false;
  for (const SequenceSlice& slice : batch.slices) {
    slices_.push_back({.first_row = static_cast<int64_t>(ids_.size()),
                       .num_tokens = static_cast<int32_t>(slice.tokens.size()),
                       .first_position = slice.first_position,
                       .block_table = slice.block_table.data(),
                       .num_encoder_tokens = slice.num_encoder_tokens,
                       .prompt_end = slice.num_encoder_tokens + static_cast<int32_t>(slice.prompt_tokens.size())});
    ids_.insert(ids_.end(), slice.tokens.begin(), slice.tokens.end());
    if (!slice.sample) continue;
    step.logit_rows.push_back(static_cast<int32_t>(ids_.size()) - 1);
    step.sampled_slices.push_back(&slice);
    explain_routing |= slice.explain_routing;
  }
  DescribeSampling(step);
  step.sampled_on_device = !sampling_.empty();
  step.num_tokens = static_cast<int32_t>(ids_.size());
  step.start = Clock::now();
  ++num_launched_;
  step.logits = model_->Forward({.ids = ids_,
                                 .slices = slices_,
                                 .logit_rows = step.logit_rows,
                                 .sampling = sampling_,
                                 .explain_routing = explain_routing},
                                cache_.get());
  return absl::OkStatus();
}

// What each row's token is drawn by, if the device can draw those of all rows: else the logits are copied anyway.
void ModelEngine::DescribeSampling(const Step& step) {
  sampling_.clear();
  if (model_->sampled_tokens() == nullptr) return;
  for (const SequenceSlice* slice : step.sampled_slices) {
    const SamplingParams& params = *slice->sampling;
    if (NeedsHostSampler(params)) return sampling_.clear();
    sampling_.push_back({.seed = params.seed,
                         .position = SampledPosition(*slice),
                         .temperature = params.temperature,
                         .top_p = params.top_p,
                         .min_p = params.min_p,
                         .top_k = params.top_k});
  }
}

absl::StatusOr<const StepOutput*> ModelEngine::Collect() {
  if (num_in_flight() == 0) return absl::InternalError("no step is in flight");
  const Step& step = StepNumber(num_collected_++);
  RETURN_IF_ERROR(backend_->Wait());
  const int64_t num_sampled = static_cast<int64_t>(step.sampled_slices.size());
  output_.tokens.resize(num_sampled);
  if (num_sampled > 0) {
    host_logits_ = step.sampled_on_device ? std::span<const float>() : backend_->HostView(step.logits);
    if (!step.sampled_on_device && host_logits_.empty()) return backend_->Wait();
    backend_->ParallelFor(num_sampled, [&](int thread, int64_t i) { SampleRow(step, &samplers_[thread], i); });
  }
  const auto moe_layers = model_->moe_layers();
  for (size_t i = 0; i < moe_layers.size(); ++i) moe_layers[i]->FillStats(&output_.stats.moe_layers[i]);
  FillExpertGemmLayers(*backend_, &output_.stats);
  output_.stats.num_tokens = step.num_tokens;
  // A step that was launched behind another began when that one ended.
  const Clock::time_point now = Clock::now();
  output_.stats.seconds = std::chrono::duration<float>(now - std::max(step.start, last_collected_)).count();
  last_collected_ = now;
  return &output_;
}

void ModelEngine::SampleRow(const Step& step, Sampler* sampler, int64_t i) {
  const SequenceSlice& slice = *step.sampled_slices[i];
  SampledToken& out = output_.tokens[i];
  out.sequence_id = slice.sequence_id;
  if (host_logits_.empty()) {
    const int32_t token = model_->sampled_tokens()[i];
    out.finite = token >= 0;
    out.token = std::max(token, 0);
    out.top_logprobs.clear();
  } else {
    const auto logits = host_logits_.subspan(static_cast<size_t>(i) * facts_.vocab_size, facts_.vocab_size);
    sampler->Sample(logits, *slice.sampling, slice.prompt_tokens, slice.output_tokens, SampledPosition(slice), &out);
  }
  if (slice.explain_routing) {
    FillRoutingTrace(step.logit_rows[i], &out.routing);
  } else {
    out.routing.expert_ids.clear();
    out.routing.expert_weights.clear();
    out.routing.margins.clear();
  }
}

void ModelEngine::FillRoutingTrace(int32_t row, RoutingTrace* trace) const {
  trace->expert_ids.clear();
  trace->expert_weights.clear();
  trace->margins.clear();
  const int32_t decoder_row = model_->DecoderRow(row);
  for (const MoeLayer* layer : model_->decoder_moe_layers()) {
    const Routing& routing = layer->routing();
    const int64_t first = int64_t{decoder_row} * routing.top_k;
    trace->expert_ids.insert(trace->expert_ids.end(), routing.expert_ids + first,
                             routing.expert_ids + first + routing.top_k);
    trace->expert_weights.insert(trace->expert_weights.end(), routing.expert_weights + first,
                                 routing.expert_weights + first + routing.top_k);
    trace->margins.push_back(routing.margins[decoder_row]);
  }
}

}  // namespace switchyard
