// One admitted request on its way to the scheduler, and the sink its tokens go to.
#ifndef SWITCHYARD_SERVER_SCHEDULER_REQUEST_H_
#define SWITCHYARD_SERVER_SCHEDULER_REQUEST_H_

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "engine/sampling_params.h"
#include "engine/step.h"

namespace switchyard {

using TimePoint = std::chrono::steady_clock::time_point;

enum class FinishReason : uint8_t {
  kStop,       // a stop string or one of the request's own stop token ids
  kEos,        // the model's end-of-sequence token
  kLength,     // max_tokens, or the model's context is full
  kCancelled,  // the client went away or Abort was called
  kDeadline,   // the gRPC deadline passed, queued or running
  kError,      // the model produced a non-finite logit, or the engine failed; see TerminalStatus
};
inline constexpr int kNumFinishReasons = 6;

// Why a request ended, for the status that the client sees.
enum class TerminalStatus : uint8_t {
  kOk,                // kStop, kEos, kLength
  kCancelled,
  kDeadlineExceeded,
  kUnavailable,       // the engine failed or the drain limit was reached: try another replica
  kDataLoss,          // a non-finite logit
  kSlowReader,        // the client read too slowly and its buffer is full
};

struct FinishedEvent {
  FinishReason reason = FinishReason::kLength;
  TerminalStatus status = TerminalStatus::kOk;
  int32_t num_output_tokens = 0;
  int32_t num_cached_prompt_tokens = 0;  // prompt tokens whose KV was reused
  int32_t num_preemptions = 0;
  double queue_seconds = 0.0;            // admission to first step
  double prefill_seconds = 0.0;          // first step to first token
  double decode_seconds = 0.0;           // first token to the end
};

enum class SinkVerdict : uint8_t {
  kContinue,
  kStop,        // the sink saw a stop string: finish with kStop
  kSlowReader,  // the sink's buffer is full: finish with kError / kSlowReader
};

// Where a sequence's tokens go. The serving loop calls it, so it must not block and must not throw.
class TokenSink {
 public:
  virtual ~TokenSink() = default;
  // One sampled token, in order. `token` is valid during the call only. Stop ids and EOS are delivered too, and flagged.
  virtual SinkVerdict OnToken(const SampledToken& token, bool is_stop_token) = 0;
  // Exactly once, last.
  virtual void OnFinished(const FinishedEvent& event) = 0;
};

struct Request {
  uint64_t id = 0;                      // unique within the process
  std::vector<int32_t> prompt_tokens;   // not empty
  // Of an encoder-decoder: so many of the prompt's tokens, the first ones, are the encoder's and run in one step; the
  // rest is what the decoder begins with, at least one.
  int32_t num_encoder_tokens = 0;
  std::vector<float> image = {};        // for an image classifier: its values; the prompt stands for its patches
  SamplingParams sampling;              // stop_token_ids = own_stop_token_ids + EOS unless ignore_eos
  std::vector<int32_t> eos_token_ids;   // empty with ignore_eos; a hit finishes with kEos, other stop ids with kStop
  int32_t max_tokens = 0;               // > 0; prompt + max_tokens <= max_model_len
  int32_t priority = 0;                 // lower runs first under the priority policy
  bool explain_routing = false;
  bool allow_prefix_reuse = true;
  TimePoint arrival;
  TimePoint deadline = TimePoint::max();
  std::shared_ptr<TokenSink> sink;      // shared: the gRPC side may outlive the sequence, or the other way round
};

}  // namespace switchyard

#endif  // SWITCHYARD_SERVER_SCHEDULER_REQUEST_H_
