// The engine's front door: token ids in, token ids out. Knows nothing of requests, text, gRPC or metrics.
//
//   ASSIGN_OR_RETURN(auto engine, CreateEngine(options));
//   RETURN_IF_ERROR(engine->Launch(batch));            // starts a step
//   ASSIGN_OR_RETURN(const StepOutput* out, engine->Collect());  // waits for it
//
// Guarantee: a sequence's tokens and logprobs depend on its own tokens, sampling parameters and seed only: not on its
// batch mates, on how its prompt was chunked, or on whether its KV was recomputed or reused (bitwise on the CPU).
//
// Threads: Launch and Collect belong to one thread at a time. The engine's worker threads are private to it.
#ifndef SWITCHYARD_ENGINE_ENGINE_H_
#define SWITCHYARD_ENGINE_ENGINE_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/base/dtype.h"
#include "engine/step.h"

namespace switchyard {

enum class LoadFormat { kSafetensors, kDummy };

struct EngineOptions {
  std::string model_dir;                             // Hugging Face folder; kDummy needs only config.json in it
  LoadFormat load_format = LoadFormat::kSafetensors;
  std::string dtype = "auto";                        // auto (the config's) | float32 | bfloat16
  std::string device = "auto";                       // auto | cpu | cuda
  // Of checkpoints with quantized experts (mxfp4, fp8 in blocks): auto keeps them so in memory where the backend can,
  // to the same results bit for bit; dequantize makes them `dtype`; keep refuses where they would be dequantized.
  std::string quantization = "auto";
  uint64_t seed = 0;                                 // of dummy weights
  int32_t num_tokenizer_ids = 0;                     // ids from here on are padding and never sampled; 0 = none are
  int num_threads = 0;                               // CPU workers; 0 = one per available core
  std::string cpu_isa = "auto";                      // auto | scalar | avx2 | avx512 | avx512_bf16 | amx
  // Who multiplies the experts on a GPU: auto | fastest | native | wgmma | cublas_grouped | cublas_padded.
  std::string expert_gemm = "auto";
  std::string expert_gemm_table;                     // file that auto and fastest choose by; empty: none
  double gpu_memory_utilization = 0.9;               // share of the GPU's free memory that may be used
  int32_t max_model_len = 0;                         // tokens per sequence; 0 = the model's own limit
  int32_t max_num_seqs = 64;                         // slices per step; sizes buffers
  int32_t max_num_batched_tokens = 512;              // tokens per step; sizes buffers
  int32_t block_size = 16;                           // tokens per KV block, a multiple of 16
  int64_t kv_cache_bytes = 0;                        // size of the KV pool; 0 = what the backend thinks right
  // Of models trained with a limit of rows per expert. none: experts take every row. config: the limit of config.json,
  // counted over one request's prompt; rows beyond it pass the layer by. Tokens generated one by one are never limited.
  std::string expert_capacity = "none";
};

// What the model's makers recommend (generation_config.json); a request's own values win.
struct SamplingDefaults {
  std::optional<float> temperature;
  std::optional<float> top_p;
  std::optional<int> top_k;
  std::optional<float> repetition_penalty;
};

// Facts about the loaded model that the server shows, checks against and sizes by.
struct ModelFacts {
  std::string architecture;           // Hugging Face model_type, e.g. "mixtral"
  std::string backend;                // e.g. "cpu (amx, 2 threads)"
  std::vector<std::string> expert_gemms;  // who may multiply the experts: see ExpertGemmCount
  std::string backend_reason;         // why this one runs, e.g. "asked for"
  DType dtype = DType::kF32;
  std::string expert_dtype;           // of the experts' matrices in memory: as dtype, or "mxfp4", "fp8"; else both
  int64_t num_parameters = 0;
  int64_t num_active_parameters = 0;  // per token
  int64_t weight_bytes = 0;           // in memory
  int64_t num_nonfinite_weights = 0;  // NaN or infinite: a damaged checkpoint, whose answers may end as not finite
  int32_t vocab_size = 0;
  int32_t max_model_len = 0;
  std::vector<int32_t> eos_token_ids;  // generation_config.json, else config.json
  SamplingDefaults sampling_defaults;
  int32_t num_layers = 0;
  std::vector<int32_t> moe_layers;    // layer index of each MoE layer: position i in StepStats::moe_layers
  // Encoder-decoders: layers [0, num_encoder_layers) are the encoder's; the prompt is its input and runs in one step,
  // see SequenceSlice::num_encoder_tokens. 0: a decoder alone.
  int32_t num_encoder_layers = 0;
  int32_t decoder_start_token_id = -1;  // what the decoder of an encoder-decoder begins with
  int32_t num_experts = 0;
  int32_t top_k = 0;
  int32_t block_size = 0;
  int32_t num_kv_blocks = 0;
  int64_t kv_bytes_per_token = 0;     // in memory, with what the backend's layout adds
  double load_seconds = 0.0;
  // Steps that may be launched before the first of them is collected: 1, or 2 where the device samples and can start on
  // the next step while the host still reads the last one.
  int32_t max_steps_in_flight = 1;
  // Of an image classifier; 0: it is a language model.
  int32_t num_classes = 0;
  int32_t image_size = 0;             // pixels of a side; three channels
  int32_t tokens_per_image = 0;

  bool is_classifier() const { return num_classes > 0; }
};

class Engine {
 public:
  virtual ~Engine() = default;

  virtual const ModelFacts& facts() const = 0;

  // Starts a step. REQUIRES: fewer than facts().max_steps_in_flight in flight, and no slice of it with `sample`
  // NeedsHostSampler; slices within the limits of EngineOptions, ids below vocab_size, blocks of the pool. INTERNAL: not
  // so; nothing was started, this step is not to be collected, and the next Launch may follow.
  virtual absl::Status Launch(const StepBatch& batch) = 0;

  // Waits for the oldest step in flight; the result is valid until the next Collect.
  // INTERNAL: the device failed, with its words; every later call fails the same way.
  virtual absl::StatusOr<const StepOutput*> Collect() = 0;
};

// A folder with an image classifier gives an engine whose facts say so (vision/classifier_engine.h).
// INVALID_ARGUMENT: config, weights or options are wrong; the message lists every problem found.
// NOT_FOUND: no such folder, or no config or weights in it.
// UNIMPLEMENTED: a model_type or a block of it that this engine does not serve.
// RESOURCE_EXHAUSTED: not enough memory or threads; says how much is needed and which option to lower. Checked before
// the first weight is read.
// FAILED_PRECONDITION: the asked-for device or instruction set is not there, or does not keep quantized experts.
// DATA_LOSS: a file changed or could not be read while it was loaded.
absl::StatusOr<std::unique_ptr<Engine>> CreateEngine(const EngineOptions& options);

}  // namespace switchyard

#endif  // SWITCHYARD_ENGINE_ENGINE_H_
