#include "engine/engine.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "engine/backend/backend.h"
#include "engine/base/status_macros.h"
#include "engine/checkpoint/weight_table.h"
#include "engine/checkpoint/weights.h"
#include "engine/config/generation_config.h"
#include "engine/config/model_config.h"
#include "engine/config/weight_dtype.h"
#include "engine/model/expert_plan.h"
#include "engine/model/language_model.h"
#include "engine/sampling/sampler.h"
#include "engine/vision/classifier_engine.h"

namespace switchyard {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int64_t kMaxBatch = 1 << 20;  // sequences or tokens of a step
constexpr int64_t kMaxThreads = 1024;
constexpr int64_t kMaxBlockSize = 1024;
constexpr int64_t kMaxKvCacheBytes = int64_t{1} << 50;

double SecondsSince(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

// Of the token to be drawn.
int64_t SampledPosition(const SequenceSlice& slice) {
  return slice.first_position + static_cast<int64_t>(slice.tokens.size());
}

class ModelEngine : public Engine {
 public:
  static absl::StatusOr<std::unique_ptr<Engine>> Create(const EngineOptions& options);

  const ModelFacts& facts() const override { return facts_; }
  absl::Status Launch(const StepBatch& batch) override;
  absl::StatusOr<const StepOutput*> Collect() override;

 private:
  ModelEngine() = default;

  absl::Status DescribeModel(const EngineOptions& options, const ModelConfig& config);
  absl::StatusOr<KvCacheShape> SizeKvCache(const EngineOptions& options, const ModelConfig& config,
                                           int64_t kv_cache_bytes) const;
  absl::StatusOr<ExpertPlan> ChooseQuantization(const EngineOptions& options, const ModelConfig& config,
                                                const Weights& weights);
  absl::Status LoadModel(const EngineOptions& options, const ModelConfig& config, const Weights& weights);
  void ReserveStep(const EngineOptions& options);
  // A step between Launch and the return of its Collect.
  struct Step {
    std::vector<const SequenceSlice*> sampled_slices;  // of the caller's batch
    std::vector<int32_t> logit_rows;                   // parallel to these
    bool sampled_on_device = false;
    int32_t num_tokens = 0;
    Clock::time_point start;
    Matrix logits;
  };
  static constexpr int64_t kMaxStepsInFlight = 2;

  int64_t num_in_flight() const { return num_launched_ - num_collected_; }
  Step& StepNumber(int64_t number) { return steps_[static_cast<size_t>(number % kMaxStepsInFlight)]; }
  const Step& LastLaunched() const { return steps_[static_cast<size_t>((num_launched_ - 1) % kMaxStepsInFlight)]; }
  bool IsKnownToken(const SequenceSlice& slice, int32_t id) const;
  absl::Status CheckSlice(const SequenceSlice& slice) const;
  absl::Status CheckEncoderTokens(const SequenceSlice& slice) const;
  absl::Status CheckBatch(const StepBatch& batch) const;
  void DescribeSampling(const Step& step);
  void SampleRow(const Step& step, Sampler* sampler, int64_t i);
  void FillRoutingTrace(int32_t row, RoutingTrace* trace) const;

  ModelFacts facts_;
  int32_t max_num_seqs_ = 0;
  int32_t max_num_batched_tokens_ = 0;
  std::unique_ptr<Backend> backend_;
  std::unique_ptr<LanguageModel> model_;
  std::unique_ptr<KvCache> cache_;

  // Steps by their number modulo the most in flight, and what only Launch needs; capacity reserved for the largest step.
  std::array<Step, kMaxStepsInFlight> steps_;
  int64_t num_launched_ = 0;
  int64_t num_collected_ = 0;
  Clock::time_point last_collected_;
  std::vector<int32_t> ids_;
  std::vector<AttentionSlice> slices_;
  std::vector<RowSampling> sampling_;  // parallel to logit_rows where the device draws the tokens, else empty
  std::span<const float> host_logits_;
  std::vector<Sampler> samplers_;  // one per host thread
  StepOutput output_;
};

SamplingDefaults DefaultsOf(const GenerationConfig& generation) {
  SamplingDefaults defaults;
  defaults.temperature = generation.do_sample.value_or(true) ? generation.temperature : 0.0f;
  defaults.top_p = generation.top_p;
  defaults.top_k = generation.top_k;
  defaults.repetition_penalty = generation.repetition_penalty;
  return defaults;
}

// What the type system leaves open; the rest is checked by who knows the limits (backend, config).
absl::Status CheckOptions(const EngineOptions& options) {
  std::vector<std::string> problems;
  const auto check = [&problems](const char* name, int64_t value, int64_t min, int64_t max) {
    if (value >= min && value <= max) return;
    problems.push_back(absl::StrCat(name, " is ", value, ", expected ", min, " to ", max));
  };
  check("num_tokenizer_ids", options.num_tokenizer_ids, 0, INT32_MAX);
  check("num_threads", options.num_threads, 0, kMaxThreads);
  check("max_model_len", options.max_model_len, 0, INT32_MAX);
  check("max_num_seqs", options.max_num_seqs, 1, kMaxBatch);
  check("max_num_batched_tokens", options.max_num_batched_tokens, 1, kMaxBatch);
  check("kv_cache_bytes", options.kv_cache_bytes, 0, kMaxKvCacheBytes);
  if (options.block_size < kKvBlockUnit || options.block_size > kMaxBlockSize ||
      options.block_size % kKvBlockUnit != 0) {
    problems.push_back(absl::StrCat("block_size is ", options.block_size, ", expected a multiple of ", kKvBlockUnit,
                                    " up to ", kMaxBlockSize));
  }
  if (options.expert_capacity != "none" && options.expert_capacity != "config") {
    problems.push_back(absl::StrCat("expert_capacity is '", options.expert_capacity, "'; use none or config"));
  }
  if (options.quantization != "auto" && options.quantization != "keep" && options.quantization != "dequantize") {
    problems.push_back(absl::StrCat("quantization is '", options.quantization, "'; use auto, keep or dequantize"));
  }
  const absl::Status dtype = ChooseDType(options.dtype, DType::kF32).status();
  if (!dtype.ok()) problems.emplace_back(dtype.message());
  return problems.empty() ? absl::OkStatus() : absl::InvalidArgumentError(absl::StrJoin(problems, "\n"));
}

BackendOptions BackendOptionsOf(const EngineOptions& options) {
  BackendOptions backend;
  backend.device = options.device;
  backend.cpu_isa = options.cpu_isa;
  backend.num_threads = options.num_threads;
  backend.keep_quantized = options.quantization != "dequantize";
  backend.expert_gemm = options.expert_gemm;
  backend.expert_gemm_table = options.expert_gemm_table;
  backend.memory_utilization = options.gpu_memory_utilization;
  return backend;
}

void RemoveExpertCapacity(ModelConfig* config) {
  for (LayerConfig& layer : config->layers) layer.moe.router.capacity = 0;
}

// Ids that may be sampled: what lies behind the tokenizer's is padding.
int32_t NumValidIds(const EngineOptions& options, int32_t vocab_size) {
  return options.num_tokenizer_ids > 0 ? std::min(vocab_size, options.num_tokenizer_ids) : vocab_size;
}

ModelLimits LimitsOf(const EngineOptions& options) {
  return {.max_tokens = options.max_num_batched_tokens,
          .max_logit_rows = options.max_num_seqs,
          .num_valid_ids = options.num_tokenizer_ids};
}

std::string Mib(int64_t bytes) { return absl::StrCat((bytes + (1 << 20) - 1) >> 20, " MiB"); }

// What a model takes beside its KV cache, and what there is.
struct MemoryNeeds {
  int64_t weight_bytes = 0;
  int64_t activation_bytes = 0;
  int64_t available_bytes = 0;
};

MemoryNeeds NeedsOf(const EngineOptions& options, const ModelConfig& config, DType dtype, const ExpertPlan& experts,
                    const Backend& backend) {
  MemoryNeeds needs;
  needs.weight_bytes = CountParameters(config).in_memory * DTypeBytes(dtype) - experts.saved_bytes;
  needs.activation_bytes = backend.ActivationBytes(ActivationBytes(config, LimitsOf(options)));
  needs.available_bytes = backend.AvailableBytes();
  return needs;
}

// Everything large against what is free, at once and before any of it is taken: memory is reserved lazily, so that one
// part after the other would seem to fit until the system runs out.
absl::Status CheckMemory(const MemoryNeeds& needs, int64_t kv_bytes) {
  const int64_t needed = needs.weight_bytes + kv_bytes + needs.activation_bytes;
  if (needed <= needs.available_bytes) return absl::OkStatus();
  return absl::ResourceExhaustedError(absl::StrCat(
      "the model needs ", Mib(needed), " (weights ", Mib(needs.weight_bytes), ", KV cache ", Mib(kv_bytes),
      ", activations ", Mib(needs.activation_bytes), "), but only ", Mib(needs.available_bytes),
      " are available; lower kv_cache_memory or max_num_batched_tokens, or serve a smaller model or dtype"));
}

absl::StatusOr<std::unique_ptr<Engine>> ModelEngine::Create(const EngineOptions& options) {
  const Clock::time_point start = Clock::now();
  RETURN_IF_ERROR(CheckOptions(options));
  std::unique_ptr<ModelEngine> engine(new ModelEngine);
  ASSIGN_OR_RETURN(ModelConfig config, ReadModelConfig(options.model_dir, options.max_model_len));
  if (options.expert_capacity == "none") RemoveExpertCapacity(&config);
  ASSIGN_OR_RETURN(const GenerationConfig generation, ReadGenerationConfig(options.model_dir));
  engine->facts_.eos_token_ids = generation.eos_token_ids.empty() ? config.eos_token_ids : generation.eos_token_ids;
  engine->facts_.sampling_defaults = DefaultsOf(generation);
  std::unique_ptr<Weights> weights;
  if (options.load_format == LoadFormat::kDummy) {
    weights = MakeDummyWeights(config, options.seed);
  } else {
    ASSIGN_OR_RETURN(weights, OpenWeights(config, options.model_dir));
  }
  ASSIGN_OR_RETURN(CreatedBackend created, CreateBackend(BackendOptionsOf(options)));
  engine->backend_ = std::move(created.backend);
  engine->facts_.backend_reason = std::move(created.reason);
  RETURN_IF_ERROR(CheckServed(config, *engine->backend_));
  RETURN_IF_ERROR(engine->DescribeModel(options, config));
  RETURN_IF_ERROR(engine->LoadModel(options, config, *weights));
  engine->ReserveStep(options);
  engine->facts_.load_seconds = SecondsSince(start);
  return engine;
}

absl::Status ModelEngine::DescribeModel(const EngineOptions& options, const ModelConfig& config) {
  ASSIGN_OR_RETURN(facts_.dtype, ChooseDType(options.dtype, config.dtype));
  facts_.architecture = config.model_type;
  facts_.backend = backend_->description();
  facts_.expert_gemms = ExpertGemmNames(*backend_);
  facts_.vocab_size = config.vocab_size;
  facts_.max_model_len = config.max_position_embeddings;
  if (options.max_model_len > 0) {
    if (options.max_model_len > config.max_position_embeddings) {
      return absl::InvalidArgumentError(absl::StrCat("max_model_len is ", options.max_model_len,
                                                     ", but the model's max_position_embeddings is ",
                                                     config.max_position_embeddings));
    }
    facts_.max_model_len = options.max_model_len;
  }
  facts_.num_layers = config.num_layers();
  facts_.num_encoder_layers = config.num_encoder_layers;
  facts_.decoder_start_token_id = config.decoder_start_token_id;
  for (int32_t l = 0; l < config.num_layers(); ++l) {
    if (!config.layers[l].is_moe) continue;
    facts_.moe_layers.push_back(l);
    facts_.num_experts = config.layers[l].moe.router.num_experts;
    facts_.top_k = config.layers[l].moe.router.top_k;
  }
  const ParameterCounts parameters = CountParameters(config);
  facts_.num_parameters = parameters.total;
  facts_.num_active_parameters = parameters.active;
  return absl::OkStatus();
}

absl::StatusOr<KvCacheShape> ModelEngine::SizeKvCache(const EngineOptions& options, const ModelConfig& config,
                                                      int64_t kv_cache_bytes) const {
  const AttentionShape& attention = config.layers.front().attention.shape;
  KvCacheShape shape;
  shape.num_layers = config.num_decoder_layers();
  shape.block_size = options.block_size;
  shape.num_kv_heads = attention.num_kv_heads;
  shape.head_dim = attention.head_dim;
  shape.dtype = facts_.dtype;
  shape.latent_dim = attention.latent_dim;
  const int64_t block_bytes = backend_->KvBlockBytes(shape);
  const int64_t needed = (int64_t{facts_.max_model_len} + options.block_size - 1) / options.block_size;
  // More blocks than max_num_seqs full-length sequences can hold would never be used.
  const int64_t num_blocks = std::min(kv_cache_bytes / block_bytes, needed * options.max_num_seqs);
  if (num_blocks < needed) {
    return absl::ResourceExhaustedError(
        absl::StrCat("the KV cache of ", kv_cache_bytes, " bytes holds ", num_blocks * options.block_size,
                     " tokens, but one sequence of max_model_len ", facts_.max_model_len, " needs ",
                     needed * block_bytes, " bytes; raise kv_cache_memory or lower max_model_len"));
  }
  shape.num_blocks = static_cast<int32_t>(std::min<int64_t>(num_blocks, INT32_MAX));
  return shape;
}

absl::StatusOr<ExpertPlan> ModelEngine::ChooseQuantization(const EngineOptions& options, const ModelConfig& config,
                                                           const Weights& weights) {
  const ExpertPlan plan = PlanExperts(config, weights, facts_.dtype, *backend_);
  const char* const dtype = DTypeName(facts_.dtype);
  const bool is_quantized = config.quantization.fp8_blocks || config.quantization.mxfp4;
  if (options.quantization == "keep" && is_quantized && plan.other_layers > 0) {
    return absl::FailedPreconditionError(absl::StrCat(
        "quantization is keep, but ", plan.other_layers, " of ", plan.other_layers + plan.kept_layers,
        " MoE layers would have their experts as ", dtype, " on ", backend_->description(),
        "; experts stay quantized on a CPU, with dtype bfloat16, as mxfp4 or as fp8 with a scale per ",
        "128 columns or a multiple; use auto"));
  }
  facts_.expert_dtype = plan.kept_layers == 0 ? dtype : QuantizedFormatName(plan.kept);
  if (plan.kept_layers > 0 && plan.other_layers > 0) absl::StrAppend(&facts_.expert_dtype, ", ", dtype);
  return plan;
}

// The KV cache first: its checks cost nothing, and scratch is sized by it.
absl::Status ModelEngine::LoadModel(const EngineOptions& options, const ModelConfig& config, const Weights& weights) {
  ASSIGN_OR_RETURN(const ExpertPlan experts, ChooseQuantization(options, config, weights));
  const MemoryNeeds needs = NeedsOf(options, config, facts_.dtype, experts, *backend_);
  RETURN_IF_ERROR(CheckMemory(needs, 0));
  int64_t kv_cache_bytes = options.kv_cache_bytes;
  if (kv_cache_bytes == 0) {
    kv_cache_bytes = backend_->DefaultKvCacheBytes(needs.available_bytes - needs.weight_bytes - needs.activation_bytes);
  }
  ASSIGN_OR_RETURN(const KvCacheShape shape, SizeKvCache(options, config, kv_cache_bytes));
  const int64_t block_bytes = backend_->KvBlockBytes(shape);
  RETURN_IF_ERROR(CheckMemory(needs, shape.num_blocks * block_bytes));
  ASSIGN_OR_RETURN(cache_, backend_->AllocateKvCache(shape));
  facts_.block_size = shape.block_size;
  facts_.num_kv_blocks = shape.num_blocks;
  facts_.kv_bytes_per_token = block_bytes / shape.block_size;
  weights.StartReading();
  ASSIGN_OR_RETURN(model_, LoadLanguageModel(config, weights, facts_.dtype, LimitsOf(options), backend_.get()));
  facts_.max_steps_in_flight = std::min<int>(backend_->max_steps_in_flight(), kMaxStepsInFlight);
  facts_.weight_bytes = model_->weight_bytes();
  facts_.num_nonfinite_weights = model_->num_nonfinite_weights();
  return absl::OkStatus();
}

void ModelEngine::ReserveStep(const EngineOptions& options) {
  max_num_seqs_ = options.max_num_seqs;
  max_num_batched_tokens_ = options.max_num_batched_tokens;
  ids_.reserve(max_num_batched_tokens_);
  slices_.reserve(max_num_seqs_);
  for (Step& step : steps_) {
    step.logit_rows.reserve(max_num_seqs_);
    step.sampled_slices.reserve(max_num_seqs_);
  }
  sampling_.reserve(max_num_seqs_);
  output_.tokens.reserve(max_num_seqs_);
  const int32_t num_valid_ids = NumValidIds(options, facts_.vocab_size);
  samplers_.reserve(backend_->num_host_threads());
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
  if (batch.slices.empty() || static_cast<int64_t>(batch.slices.size()) > max_num_seqs_ ||
      num_tokens > max_num_batched_tokens_) {
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
  output_.stats.seconds = static_cast<float>(SecondsSince(std::max(step.start, last_collected_)));
  last_collected_ = Clock::now();
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

}  // namespace

namespace {

// As many images per step as its tokens allow, but no fewer than are worth a batch.
absl::StatusOr<std::unique_ptr<Engine>> CreateClassifier(const EngineOptions& options) {
  ASSIGN_OR_RETURN(const VisionConfig config, ReadVisionConfig(options.model_dir));
  ImageClassifierOptions classifier;
  classifier.dummy_weights = options.load_format == LoadFormat::kDummy;
  classifier.seed = options.seed;
  classifier.dtype = options.dtype;
  classifier.backend = BackendOptionsOf(options);
  classifier.max_batch = std::min(
      options.max_num_seqs, std::max(classifier.max_batch, options.max_num_batched_tokens / config.tokens_per_image()));
  return CreateClassifierEngine(options.model_dir, classifier);
}

}  // namespace

absl::StatusOr<std::unique_ptr<Engine>> CreateEngine(const EngineOptions& options) {
  if (HoldsImageClassifier(options.model_dir)) return CreateClassifier(options);
  return ModelEngine::Create(options);
}

}  // namespace switchyard
