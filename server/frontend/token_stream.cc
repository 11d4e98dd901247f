#include "server/frontend/token_stream.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "engine/tokenizer/utf8.h"

namespace switchyard {
namespace {

// What a token costs in the pending message and on the wire, roughly.
constexpr int64_t kTokenBytes = 6;
constexpr int64_t kTopLogprobBytes = 24;
constexpr int64_t kRoutedExpertBytes = 8;

v1::FinishReason ToProto(FinishReason reason) {
  switch (reason) {
    case FinishReason::kStop: return v1::FINISH_REASON_STOP;
    case FinishReason::kEos: return v1::FINISH_REASON_EOS;
    case FinishReason::kLength: return v1::FINISH_REASON_LENGTH;
    case FinishReason::kCancelled: return v1::FINISH_REASON_CANCELLED;
    case FinishReason::kDeadline: return v1::FINISH_REASON_DEADLINE;
    case FinishReason::kError: return v1::FINISH_REASON_ERROR;
  }
  return v1::FINISH_REASON_ERROR;
}

}  // namespace

struct TokenStream::ChoiceState {
  ChoiceState(const Tokenizer* tokenizer, const TokenStreamOptions& options)
      : decoder(*tokenizer, options.skip_special_tokens), matcher(options.stop, options.include_stop) {}

  int32_t index = 0;
  IncrementalDecoder decoder;
  StopMatcher matcher;
  int32_t num_tokens = 0;
  bool stopped = false;       // by a stop string: later text does not count
  int pending_position = -1;  // in pending_.choices
  TimePoint last_token;
};

class TokenStream::ChoiceSink : public TokenSink {
 public:
  ChoiceSink(std::shared_ptr<TokenStream> stream, int32_t index) : stream_(std::move(stream)), index_(index) {}
  SinkVerdict OnToken(const SampledToken& token, bool is_stop_token) override {
    return stream_->AddToken(index_, token, is_stop_token);
  }
  void OnFinished(const FinishedEvent& event) override { stream_->EndChoice(index_, event); }

 private:
  const std::shared_ptr<TokenStream> stream_;
  const int32_t index_;
};

TokenStream::TokenStream(const Tokenizer* tokenizer, TokenStreamOptions options, std::weak_ptr<StreamListener> listener,
                         ServingMetrics* metrics)
    : tokenizer_(tokenizer), options_(std::move(options)), listener_(std::move(listener)), metrics_(metrics) {
  MutexLock lock(&mutex_);
  choices_.reserve(static_cast<size_t>(options_.n));
  for (int32_t i = 0; i < options_.n; ++i) choices_.emplace_back(tokenizer_, options_).index = i;
  *pending_.mutable_prompt() = options_.prompt;
  usage_.set_prompt_tokens(options_.prompt.prompt_tokens());
}

TokenStream::~TokenStream() = default;

std::shared_ptr<TokenSink> TokenStream::Sink(const std::shared_ptr<TokenStream>& stream, int32_t index) {
  return std::make_shared<ChoiceSink>(stream, index);
}

SinkVerdict TokenStream::AddToken(int32_t index, const SampledToken& token, bool is_stop_token) {
  bool was_empty = false;
  SinkVerdict verdict = SinkVerdict::kContinue;
  {
    MutexLock lock(&mutex_);
    // Before the token is taken: one that is refused does not count, so it must not be sent either.
    if (pending_bytes_ > options_.max_pending_bytes) return SinkVerdict::kSlowReader;
    ChoiceState& choice = choices_[static_cast<size_t>(index)];
    was_empty = pending_.choices_size() == 0;
    ObserveLatency(&choice);
    ++choice.num_tokens;
    v1::ChoiceDelta* delta = PendingDelta(&choice);
    delta->add_token_ids(token.token);
    pending_bytes_ += kTokenBytes;
    if (options_.details) AddDetail(token, delta);
    if (!is_stop_token || options_.include_stop) {
      if (AddText(&choice, choice.decoder.Push(token.token), delta)) verdict = SinkVerdict::kStop;
    }
  }
  if (was_empty) {
    if (auto listener = listener_.lock()) listener->OnPending();
  }
  return verdict;
}

void TokenStream::EndChoice(int32_t index, const FinishedEvent& event) {
  bool all_ended = false;
  bool was_empty = false;
  {
    MutexLock lock(&mutex_);
    ChoiceState& choice = choices_[static_cast<size_t>(index)];
    was_empty = pending_.choices_size() == 0;
    v1::ChoiceDelta* delta = PendingDelta(&choice);
    if (!choice.stopped) {
      AddText(&choice, choice.decoder.Flush(), delta);
      choice.matcher.Flush(delta->mutable_text());
    }
    // A stop string can become complete only when the last, incomplete character is flushed; it counts all the same.
    delta->set_finish_reason(choice.stopped && event.status == TerminalStatus::kOk ? v1::FINISH_REASON_STOP
                                                                                   : ToProto(event.reason));
    delta->set_matched_stop(choice.matcher.matched());
    AddUsage(event);
    if (terminal_status_ == TerminalStatus::kOk) terminal_status_ = event.status;
    all_ended = ++num_ended_ == options_.n;
    if (all_ended) *pending_.mutable_usage() = usage_;
  }
  const auto listener = listener_.lock();
  if (listener == nullptr) return;
  if (all_ended) {
    listener->OnEnded();
  } else if (was_empty) {
    listener->OnPending();
  }
}

v1::ChoiceDelta* TokenStream::PendingDelta(ChoiceState* choice) {
  if (choice->pending_position < 0) {
    choice->pending_position = pending_.choices_size();
    pending_.add_choices()->set_index(choice->index);
  }
  return pending_.mutable_choices(choice->pending_position);
}

// True when the text now contains a stop string.
bool TokenStream::AddText(ChoiceState* choice, const std::string& text, v1::ChoiceDelta* delta) {
  const size_t before = delta->text().size();
  if (choice->num_tokens <= options_.min_tokens) {
    *delta->mutable_text() += text;
  } else {
    choice->stopped = choice->matcher.Push(text, delta->mutable_text());
  }
  pending_bytes_ += static_cast<int64_t>(delta->text().size() - before);
  return choice->stopped;
}

void TokenStream::AddDetail(const SampledToken& token, v1::ChoiceDelta* delta) {
  v1::TokenDetail* detail = delta->add_details();
  if (options_.logprobs) detail->set_logprob(token.logprob);
  for (const TokenLogprob& likely : token.top_logprobs) {
    v1::TopLogprob* entry = detail->add_top_logprobs();
    entry->set_token_id(likely.token);
    entry->set_logprob(likely.logprob);
    LossyUtf8 text;
    text.Push(tokenizer_->TokenText(likely.token), entry->mutable_text());
    text.Flush(entry->mutable_text());
    pending_bytes_ += kTopLogprobBytes + static_cast<int64_t>(entry->text().size());
  }
  const RoutingTrace& trace = token.routing;
  const size_t top_k = trace.margins.empty() ? 0 : trace.expert_ids.size() / trace.margins.size();
  for (int32_t position : options_.explain_layers) {
    const size_t at = static_cast<size_t>(position);
    if (at >= trace.margins.size()) break;
    v1::LayerRouting* routing = detail->add_routing();
    routing->set_layer(options_.moe_layers[at]);
    routing->set_margin(trace.margins[at]);
    for (size_t rank = at * top_k; rank < (at + 1) * top_k; ++rank) {
      routing->add_expert_ids(trace.expert_ids[rank]);
      routing->add_expert_weights(trace.expert_weights[rank]);
    }
    pending_bytes_ += static_cast<int64_t>(top_k) * kRoutedExpertBytes;
  }
}

void TokenStream::AddUsage(const FinishedEvent& event) {
  usage_.set_completion_tokens(usage_.completion_tokens() + event.num_output_tokens);
  usage_.set_cached_prompt_tokens(usage_.cached_prompt_tokens() + event.num_cached_prompt_tokens);
  usage_.set_preemptions(usage_.preemptions() + event.num_preemptions);
  usage_.set_queue_seconds(std::max(usage_.queue_seconds(), event.queue_seconds));
  usage_.set_prefill_seconds(std::max(usage_.prefill_seconds(), event.prefill_seconds));
  usage_.set_decode_seconds(std::max(usage_.decode_seconds(), event.decode_seconds));
}

void TokenStream::ObserveLatency(ChoiceState* choice) {
  const TimePoint now = std::chrono::steady_clock::now();
  if (metrics_ != nullptr && choice->num_tokens > 0) {
    metrics_->OnInterTokenLatency(std::chrono::duration<double>(now - choice->last_token).count());
  }
  choice->last_token = now;
}

bool TokenStream::has_pending() const {
  MutexLock lock(&mutex_);
  return pending_.choices_size() > 0;
}

int32_t TokenStream::num_tokens() const {
  int32_t count = 0;
  MutexLock lock(&mutex_);
  for (const ChoiceState& choice : choices_) count += choice.num_tokens;
  return count;
}

bool TokenStream::ended() const {
  MutexLock lock(&mutex_);
  return num_ended_ == options_.n;
}

TerminalStatus TokenStream::terminal_status() const {
  MutexLock lock(&mutex_);
  return terminal_status_;
}

v1::GenerateStreamResponse TokenStream::TakeMessage() {
  v1::GenerateStreamResponse message;
  MutexLock lock(&mutex_);
  message.Swap(&pending_);
  pending_bytes_ = 0;
  for (ChoiceState& choice : choices_) choice.pending_position = -1;
  return message;
}

v1::GenerateResponse TokenStream::TakeResponse() {
  v1::GenerateStreamResponse all = TakeMessage();
  v1::GenerateResponse response;
  response.mutable_prompt()->Swap(all.mutable_prompt());
  response.mutable_usage()->Swap(all.mutable_usage());
  std::sort(all.mutable_choices()->pointer_begin(), all.mutable_choices()->pointer_end(),
            [](const v1::ChoiceDelta* a, const v1::ChoiceDelta* b) { return a->index() < b->index(); });
  for (v1::ChoiceDelta& delta : *all.mutable_choices()) {
    v1::Choice* choice = response.add_choices();
    choice->set_index(delta.index());
    choice->mutable_text()->swap(*delta.mutable_text());
    choice->mutable_token_ids()->Swap(delta.mutable_token_ids());
    choice->mutable_details()->Swap(delta.mutable_details());
    choice->set_finish_reason(delta.finish_reason());
    choice->mutable_matched_stop()->swap(*delta.mutable_matched_stop());
  }
  return response;
}

}  // namespace switchyard
