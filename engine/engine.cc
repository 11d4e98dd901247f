#include "engine/engine.h"

#include <algorithm>
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
#include "engine/model_engine.h"
#include "engine/vision/classifier_engine.h"

namespace switchyard {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int64_t kMaxBatch = 1 << 20;  // sequences or tokens of a step
constexpr int64_t kMaxThreads = 1024;
constexpr int64_t kMaxBlockSize = 1024;
constexpr int64_t kMaxKvCacheBytes = int64_t{1} << 50;

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

// All that can be said before anything is loaded.
absl::Status DescribeModel(const EngineOptions& options, const ModelConfig& config, LoadedModel* loaded) {
  ModelFacts& facts = loaded->facts;
  ASSIGN_OR_RETURN(facts.dtype, ChooseDType(options.dtype, config.dtype));
  facts.architecture = config.model_type;
  facts.backend = loaded->backend->description();
  facts.expert_gemms = ExpertGemmNames(*loaded->backend);
  facts.vocab_size = config.vocab_size;
  facts.max_model_len = config.max_position_embeddings;
  if (options.max_model_len > 0) {
    if (options.max_model_len > config.max_position_embeddings) {
      return absl::InvalidArgumentError(absl::StrCat("max_model_len is ", options.max_model_len,
                                                     ", but the model's max_position_embeddings is ",
                                                     config.max_position_embeddings));
    }
    facts.max_model_len = options.max_model_len;
  }
  facts.num_layers = config.num_layers();
  facts.num_encoder_layers = config.num_encoder_layers;
  facts.decoder_start_token_id = config.decoder_start_token_id;
  for (int32_t l = 0; l < config.num_layers(); ++l) {
    if (!config.layers[l].is_moe) continue;
    facts.moe_layers.push_back(l);
    facts.num_experts = config.layers[l].moe.router.num_experts;
    facts.top_k = config.layers[l].moe.router.top_k;
  }
  const ParameterCounts parameters = CountParameters(config);
  facts.num_parameters = parameters.total;
  facts.num_active_parameters = parameters.active;
  return absl::OkStatus();
}

absl::StatusOr<KvCacheShape> SizeKvCache(const EngineOptions& options, const ModelConfig& config,
                                         const LoadedModel& loaded, int64_t kv_cache_bytes) {
  const ModelFacts& facts = loaded.facts;
  const AttentionShape& attention = config.layers.front().attention.shape;
  KvCacheShape shape;
  shape.num_layers = config.num_decoder_layers();
  shape.block_size = options.block_size;
  shape.num_kv_heads = attention.num_kv_heads;
  shape.head_dim = attention.head_dim;
  shape.dtype = facts.dtype;
  shape.latent_dim = attention.latent_dim;
  const int64_t block_bytes = loaded.backend->KvBlockBytes(shape);
  const int64_t needed = (int64_t{facts.max_model_len} + options.block_size - 1) / options.block_size;
  // More blocks than max_num_seqs full-length sequences can hold would never be used.
  const int64_t num_blocks = std::min(kv_cache_bytes / block_bytes, needed * options.max_num_seqs);
  if (num_blocks < needed) {
    return absl::ResourceExhaustedError(
        absl::StrCat("the KV cache of ", kv_cache_bytes, " bytes holds ", num_blocks * options.block_size,
                     " tokens, but one sequence of max_model_len ", facts.max_model_len, " needs ",
                     needed * block_bytes, " bytes; raise kv_cache_memory or lower max_model_len"));
  }
  shape.num_blocks = static_cast<int32_t>(std::min<int64_t>(num_blocks, INT32_MAX));
  return shape;
}

absl::StatusOr<ExpertPlan> ChooseQuantization(const EngineOptions& options, const ModelConfig& config,
                                              const Weights& weights, LoadedModel* loaded) {
  ModelFacts& facts = loaded->facts;
  const ExpertPlan plan = PlanExperts(config, weights, facts.dtype, *loaded->backend);
  const char* const dtype = DTypeName(facts.dtype);
  const bool is_quantized = config.quantization.fp8_blocks || config.quantization.mxfp4;
  if (options.quantization == "keep" && is_quantized && plan.other_layers > 0) {
    return absl::FailedPreconditionError(absl::StrCat(
        "quantization is keep, but ", plan.other_layers, " of ", plan.other_layers + plan.kept_layers,
        " MoE layers would have their experts as ", dtype, " on ", loaded->backend->description(),
        "; experts stay quantized on a CPU, with dtype bfloat16, as mxfp4 or as fp8 with a scale per ",
        "128 columns or a multiple; use auto"));
  }
  facts.expert_dtype = plan.kept_layers == 0 ? dtype : QuantizedFormatName(plan.kept);
  if (plan.kept_layers > 0 && plan.other_layers > 0) absl::StrAppend(&facts.expert_dtype, ", ", dtype);
  return plan;
}

// The KV cache first: its checks cost nothing, and scratch is sized by it.
absl::Status LoadModel(const EngineOptions& options, const ModelConfig& config, const Weights& weights,
                       LoadedModel* loaded) {
  ModelFacts& facts = loaded->facts;
  Backend& backend = *loaded->backend;
  ASSIGN_OR_RETURN(const ExpertPlan experts, ChooseQuantization(options, config, weights, loaded));
  const MemoryNeeds needs = NeedsOf(options, config, facts.dtype, experts, backend);
  RETURN_IF_ERROR(CheckMemory(needs, 0));
  int64_t kv_cache_bytes = options.kv_cache_bytes;
  if (kv_cache_bytes == 0) {
    kv_cache_bytes = backend.DefaultKvCacheBytes(needs.available_bytes - needs.weight_bytes - needs.activation_bytes);
  }
  ASSIGN_OR_RETURN(const KvCacheShape shape, SizeKvCache(options, config, *loaded, kv_cache_bytes));
  const int64_t block_bytes = backend.KvBlockBytes(shape);
  RETURN_IF_ERROR(CheckMemory(needs, shape.num_blocks * block_bytes));
  ASSIGN_OR_RETURN(loaded->cache, backend.AllocateKvCache(shape));
  facts.block_size = shape.block_size;
  facts.num_kv_blocks = shape.num_blocks;
  facts.kv_bytes_per_token = block_bytes / shape.block_size;
  weights.StartReading();
  ASSIGN_OR_RETURN(loaded->model, LoadLanguageModel(config, weights, facts.dtype, loaded->limits, &backend));
  facts.max_steps_in_flight = std::min(backend.max_steps_in_flight(), ModelEngine::kMaxStepsInFlight);
  facts.weight_bytes = loaded->model->weight_bytes();
  facts.num_nonfinite_weights = loaded->model->num_nonfinite_weights();
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<Engine>> CreateModelEngine(const EngineOptions& options) {
  const Clock::time_point start = Clock::now();
  RETURN_IF_ERROR(CheckOptions(options));
  LoadedModel loaded;
  loaded.limits = LimitsOf(options);
  ASSIGN_OR_RETURN(ModelConfig config, ReadModelConfig(options.model_dir, options.max_model_len));
  if (options.expert_capacity == "none") RemoveExpertCapacity(&config);
  ASSIGN_OR_RETURN(const GenerationConfig generation, ReadGenerationConfig(options.model_dir));
  loaded.facts.eos_token_ids = generation.eos_token_ids.empty() ? config.eos_token_ids : generation.eos_token_ids;
  loaded.facts.sampling_defaults = DefaultsOf(generation);
  std::unique_ptr<Weights> weights;
  if (options.load_format == LoadFormat::kDummy) {
    weights = MakeDummyWeights(config, options.seed);
  } else {
    ASSIGN_OR_RETURN(weights, OpenWeights(config, options.model_dir));
  }
  ASSIGN_OR_RETURN(CreatedBackend created, CreateBackend(BackendOptionsOf(options)));
  loaded.backend = std::move(created.backend);
  loaded.facts.backend_reason = std::move(created.reason);
  RETURN_IF_ERROR(CheckServed(config, *loaded.backend));
  RETURN_IF_ERROR(DescribeModel(options, config, &loaded));
  RETURN_IF_ERROR(LoadModel(options, config, *weights, &loaded));
  loaded.facts.load_seconds = std::chrono::duration<double>(Clock::now() - start).count();
  return std::make_unique<ModelEngine>(std::move(loaded));
}

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
  return CreateModelEngine(options);
}

}  // namespace switchyard
