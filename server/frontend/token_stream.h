// The text of one call's choices, from tokens to messages: the serving loop pours tokens in on one side, the writer
// takes messages out on the other.
//
//   serving loop --OnToken--> decode -> stop strings -> pending delta of the choice --TakeMessage--> StreamWriter
//
// All tokens since the last TakeMessage go into one message, so a slow connection gets fewer, larger messages. What
// is pending is bounded in bytes: beyond it the choice ends with kSlowReader. Tells its listener when output appears
// in an empty stream, and when the last choice has ended.
//
// Threads: sinks are called by the serving loop, the rest by any thread. One mutex, held for microseconds; the
// listener is called without it.
#ifndef SWITCHYARD_SERVER_FRONTEND_TOKEN_STREAM_H_
#define SWITCHYARD_SERVER_FRONTEND_TOKEN_STREAM_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "engine/base/mutex.h"
#include "engine/tokenizer/tokenizer.h"
#include "server/frontend/request_validation.h"
#include "server/frontend/stop_matcher.h"
#include "server/metrics/serving_metrics.h"
#include "server/scheduler/request.h"
#include "switchyard/v1/inference_service.pb.h"

namespace switchyard {

class TokenStream;

// Told by a TokenStream that there is something to send. Must not block.
class StreamListener {
 public:
  virtual ~StreamListener() = default;
  // Both may wait for the end of the step.
  virtual void OnPending() = 0;
  virtual void OnEnded() = 0;
};

struct TokenStreamOptions {
  v1::PromptFacts prompt;
  int32_t n = 1;
  std::vector<std::string> stop;
  bool include_stop = false;
  bool skip_special_tokens = true;
  int32_t min_tokens = 0;  // stop strings count only in text of later tokens
  bool details = false;    // log-probabilities or routing were asked for
  bool logprobs = false;
  std::vector<int32_t> explain_layers;  // positions in `moe_layers`; empty: no routing
  std::vector<int32_t> moe_layers;      // layer index of each position
  int64_t max_pending_bytes = 1 << 20;
};

class TokenStream {
 public:
  // `tokenizer` and `metrics` (may be null) outlive the stream; the listener may go away at any time.
  TokenStream(const Tokenizer* tokenizer, TokenStreamOptions options, std::weak_ptr<StreamListener> listener,
              ServingMetrics* metrics);
  ~TokenStream();

  // The sink of one choice; keeps `stream` alive.
  static std::shared_ptr<TokenSink> Sink(const std::shared_ptr<TokenStream>& stream, int32_t index);

  bool has_pending() const;
  // Of all choices so far.
  int32_t num_tokens() const;
  // All choices have ended.
  bool ended() const;

  // All that is pending, as one message: the prompt facts in the first, the usage in the last.
  v1::GenerateStreamResponse TakeMessage();

  // The whole answer. REQUIRES: ended(), and nothing was taken.
  v1::GenerateResponse TakeResponse();

  // kOk when every choice so far ended by itself, otherwise the first failure.
  TerminalStatus terminal_status() const;

 private:
  class ChoiceSink;
  struct ChoiceState;

  SinkVerdict AddToken(int32_t index, const SampledToken& token, bool is_stop_token);
  void EndChoice(int32_t index, const FinishedEvent& event);
  v1::ChoiceDelta* PendingDelta(ChoiceState* choice) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void AddDetail(const SampledToken& token, v1::ChoiceDelta* delta) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool AddText(ChoiceState* choice, const std::string& text, v1::ChoiceDelta* delta)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void AddUsage(const FinishedEvent& event) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void ObserveLatency(ChoiceState* choice);

  const Tokenizer* const tokenizer_;
  const TokenStreamOptions options_;
  const std::weak_ptr<StreamListener> listener_;
  ServingMetrics* const metrics_;

  mutable Mutex mutex_;
  std::vector<ChoiceState> choices_ ABSL_GUARDED_BY(mutex_);
  v1::GenerateStreamResponse pending_ ABSL_GUARDED_BY(mutex_);
  int64_t pending_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  v1::Usage usage_ ABSL_GUARDED_BY(mutex_);
  int32_t num_ended_ ABSL_GUARDED_BY(mutex_) = 0;
  TerminalStatus terminal_status_ ABSL_GUARDED_BY(mutex_) = TerminalStatus::kOk;
};

}  // namespace switchyard

#endif  // SWITCHYARD_SERVER_FRONTEND_TOKEN_STREAM_H_
