#include "server/http/exchange.h"

#include <chrono>
#include <string>
#include <utility>

#include "engine/base/status_macros.h"
#include "server/frontend/errors.h"
#include "server/frontend/generation_call.h"
#include "server/frontend/request_validation.h"
#include "server/http/openai_error.h"

namespace switchyard::http {
namespace {

// Shorter bodies are parsed where they arrive: that takes less than a millisecond.
constexpr size_t kInlineBodyBytes = 65'536;

}  // namespace

// The client's side of one call.
class Exchange::Item final : public CallTransport, public std::enable_shared_from_this<Item> {
 public:
  Item(std::shared_ptr<Exchange> exchange, int32_t index)
      : exchange_(std::move(exchange)),
        call_(std::make_shared<GenerationCall>(exchange_->parts_, exchange_->facts_.shape.stream, TimePoint::max())),
        writer_(&exchange_->facts_, index * exchange_->facts_.shape.n) {}

  void Run(v1::GenerateRequest request) {
    call_->Start(shared_from_this(), std::move(request), exchange_->request_id_);
  }
  void Refuse(const absl::Status& status) { call_->Refuse(shared_from_this(), status); }

  void SendRequestId(const std::string&) override { exchange_->Admitted(); }
  void Write(const v1::GenerateStreamResponse& message) override { Add(message, false); }
  void WriteAndFinish(const v1::GenerateStreamResponse& message) override { Add(message, true); }
  void Respond(const v1::GenerateResponse& response) override {
    choices = writer_.Choices(response);
    usage = response.usage();
    exchange_->Ended(shared_from_this(), exchange_->Keep(choices));
  }
  void Finish(const absl::Status& status) override { exchange_->Ended(shared_from_this(), status); }
  void Break(TimePoint since) override { exchange_->BreakOff(since); }

  GenerationCall* call() { return call_.get(); }

  // What is left for the end of the answer. Set before the item has ended.
  std::string choices;
  v1::Usage usage;
  // Guarded by the exchange's lock.
  bool started = false;
  bool ended = false;

 private:
  void Add(const v1::GenerateStreamResponse& message, bool last) {
    if (message.has_usage()) usage = message.usage();
    exchange_->Add(shared_from_this(), writer_.Events(message), last);
  }

  const std::shared_ptr<Exchange> exchange_;
  const std::shared_ptr<GenerationCall> call_;
  ChoiceWriter writer_;
};

Exchange::Exchange(FrontendParts* parts, Endpoint endpoint, std::string request_id, std::shared_ptr<AnswerSink> sink)
    : parts_(parts), endpoint_(endpoint), request_id_(std::move(request_id)), sink_(std::move(sink)) {}

Exchange::~Exchange() = default;

void Exchange::Begin(std::string body) {
  const size_t num_bytes = body.size();
  if (num_bytes <= kInlineBodyBytes) return Start(ReadOpenAiRequest(endpoint_, body));
  const auto job = [self = shared_from_this(), body = std::move(body)](bool stopping) {
    self->Start(stopping ? self->parts_->EndedByServer() : ReadOpenAiRequest(self->endpoint_, body));
  };
  if (!parts_->text_worker->Post(num_bytes, job)) Start(parts_->TextWorkerRefused());
}

void Exchange::Start(absl::StatusOr<OpenAiRequest> request) {
  if (request.ok()) {
    const absl::Status accepted = Accept(*request);
    if (!accepted.ok()) request = accepted;
  }
  facts_.id = (endpoint_ == Endpoint::kChat ? "chatcmpl-" : "cmpl-") + request_id_;
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  facts_.created = std::chrono::duration_cast<std::chrono::seconds>(now).count();
  std::vector<std::shared_ptr<Item>> items;
  for (size_t i = 0; i < (request.ok() ? request->prompts.size() : 1); ++i) {
    items.push_back(std::make_shared<Item>(shared_from_this(), static_cast<int32_t>(i)));
  }
  {
    MutexLock lock(&mutex_);
    items_ = items;
    begun_ = true;
  }
  for (size_t i = 0; i < items.size() && !Skips(); ++i) {
    if (request.ok()) {
      items[i]->Run(std::move(request->prompts[i]));
    } else {
      items[i]->Refuse(request.status());
    }
    Started(items[i]);
  }
  Advance();
}

// Sets the facts that calls and answer share. A call looks for the model again, and may find what was not there yet.
absl::Status Exchange::Accept(const OpenAiRequest& request) {
  ASSIGN_OR_RETURN(const ServedModel* model, parts_->AdmittingModel());
  const auto num_prompts = static_cast<int64_t>(request.prompts.size());
  if (num_prompts > 1 && num_prompts * request.shape.n > parts_->limits.max_num_queued_reqs) {
    return InvalidRequest("prompt", "prompt has " + std::to_string(num_prompts) + " prompts for " +
                                        std::to_string(request.shape.n) + " choices each, but only " +
                                        WithCommas(parts_->limits.max_num_queued_reqs) +
                                        " requests may wait at this server; send fewer prompts, or a smaller n");
  }
  facts_.shape = request.shape;
  facts_.model = model->limits.served_model_name;
  facts_.tokenizer = model->tokenizer;
  return absl::OkStatus();
}

// True when what has not started need not: it counts as ended.
bool Exchange::Skips() {
  MutexLock lock(&mutex_);
  if (!gone_ && failure_.ok()) return false;
  for (const auto& item : items_) {
    if (item->started || item->ended) continue;
    item->ended = true;
    ++num_ended_;
  }
  return true;
}

// Whoever ended all calls before this one was among the started ones has left it out.
void Exchange::Started(const std::shared_ptr<Item>& item) {
  bool is_left_out = false;
  {
    MutexLock lock(&mutex_);
    item->started = true;
    is_left_out = !item->ended && (gone_ || !failure_.ok());
  }
  if (is_left_out) item->call()->OnCancel();
}

void Exchange::Admitted() {
  {
    MutexLock lock(&mutex_);
    ++num_admitted_;
  }
  Advance();
}

void Exchange::Add(const std::shared_ptr<Item>& item, const std::string& events, bool last) {
  // Of these tokens there is nothing to say yet.
  if (events.empty() && !last) return item->call()->OnWriteDone(true);
  {
    MutexLock lock(&mutex_);
    events_ += events;
    if (!last) unsent_.push_back(item);
  }
  if (last) return Ended(item, absl::OkStatus());
  Advance();
}

// Each call bounds what it has generated; as JSON, and together, that may still be too much.
absl::Status Exchange::Keep(const std::string& choices) {
  const auto max_bytes = static_cast<size_t>(parts_->limits.max_message_bytes);
  MutexLock lock(&mutex_);
  num_kept_bytes_ += choices.size();
  if (num_kept_bytes_ <= max_bytes) return absl::OkStatus();
  return ErrorWithReason(absl::StatusCode::kResourceExhausted,
                         "the answer is larger than " + WithCommas(parts_->limits.max_message_bytes) +
                             " bytes; use stream, or ask for fewer prompts, choices, tokens or logprobs",
                         "ANSWER_TOO_LARGE");
}

void Exchange::Ended(const std::shared_ptr<Item>& item, const absl::Status& status) {
  std::vector<std::shared_ptr<Item>> others;
  {
    MutexLock lock(&mutex_);
    item->ended = true;
    ++num_ended_;
    if (!status.ok() && failure_.ok()) {
      failure_ = status;
      for (const auto& other : items_) {
        if (other->started && !other->ended) others.push_back(other);
      }
    }
  }
  for (const auto& other : others) other->call()->OnCancel();
  Advance();
}

void Exchange::OnSent(bool ok) {
  std::vector<std::shared_ptr<Item>> sent;
  {
    MutexLock lock(&mutex_);
    in_flight_since_ = TimePoint::max();
    sent.swap(sending_);
  }
  for (const auto& item : sent) item->call()->OnWriteDone(ok);
  if (!ok) return OnGone();
  Advance();
}

void Exchange::OnGone() {
  std::vector<std::shared_ptr<Item>> running;
  {
    MutexLock lock(&mutex_);
    gone_ = true;
    for (const auto& item : items_) {
      if (item->started && !item->ended) running.push_back(item);
    }
  }
  for (const auto& item : running) item->call()->OnCancel();
  Advance();
}

// To its call an item's output is being written while it waits here for the other items, too: only of a part on its way
// is it known that nobody reads it.
void Exchange::BreakOff(TimePoint since) {
  std::shared_ptr<AnswerSink> sink;
  {
    MutexLock lock(&mutex_);
    if (in_flight_since_ <= since) sink = sink_;
  }
  if (sink != nullptr) sink->Break();
}

bool Exchange::AllEnded() const { return begun_ && num_ended_ == items_.size(); }

bool Exchange::MayAnswer() const {
  if (in_flight_since_ != TimePoint::max() || last_sent_ || gone_) return false;
  if (AllEnded()) return true;
  if (!facts_.shape.stream || events_.empty()) return false;
  return head_sent_ || num_admitted_ == items_.size();
}

void Exchange::Advance() {
  std::vector<std::shared_ptr<Item>> dropped;
  std::shared_ptr<AnswerSink> sink;
  AnswerPart part;
  bool over = false;
  {
    MutexLock lock(&mutex_);
    // Output that nobody will read must not hold up the end of its call.
    if (gone_ || (!failure_.ok() && !head_sent_)) {
      dropped.swap(unsent_);
      events_.clear();
    }
    if (MayAnswer()) {
      part = NextPart();
      sink = sink_;
      sending_.swap(unsent_);
      in_flight_since_ = std::chrono::steady_clock::now();
      head_sent_ = true;
      last_sent_ = part.last;
    }
    over = in_flight_since_ == TimePoint::max() && AllEnded() && (gone_ || last_sent_);
  }
  for (const auto& item : dropped) item->call()->OnWriteDone(false);
  if (sink != nullptr) sink->Send(std::move(part));
  if (over) Release();
}

// From here on neither calls nor connection are used.
void Exchange::Release() {
  std::vector<std::shared_ptr<Item>> items;
  std::shared_ptr<AnswerSink> sink;
  {
    MutexLock lock(&mutex_);
    items.swap(items_);
    sink.swap(sink_);
  }
  for (const auto& item : items) item->call()->OnDone();
}

AnswerHead Exchange::Head(std::string content_type) const {
  return {200, std::move(content_type), {{"x-request-id", request_id_}}};
}

AnswerPart Exchange::NextPart() {
  if (!facts_.shape.stream || (!failure_.ok() && !head_sent_)) return WholeAnswer();
  AnswerPart part;
  part.body.swap(events_);
  part.last = AllEnded();
  if (!head_sent_) {
    part.head = Head("text/event-stream; charset=utf-8");
    part.head->headers.emplace_back("Cache-Control", "no-cache");
    part.head->headers.emplace_back("X-Accel-Buffering", "no");  // nginx would collect the events
  }
  if (!part.last) return part;
  if (!failure_.ok()) {
    part.body += "data: " + ErrorJson(failure_) + "\n\n";
  } else if (facts_.shape.include_usage) {
    part.body += UsageEvent(facts_, TotalUsage());
  }
  part.body += kDoneEvent;
  return part;
}

AnswerPart Exchange::WholeAnswer() const {
  if (!failure_.ok()) return ErrorAnswer(failure_, request_id_);
  std::string choices;
  for (const auto& item : items_) choices += (choices.empty() ? "" : ",") + item->choices;
  return {Head("application/json"), AnswerJson(facts_, choices, TotalUsage()), true};
}

v1::Usage Exchange::TotalUsage() const {
  v1::Usage total;
  for (const auto& item : items_) {
    total.set_prompt_tokens(total.prompt_tokens() + item->usage.prompt_tokens());
    total.set_completion_tokens(total.completion_tokens() + item->usage.completion_tokens());
    total.set_cached_prompt_tokens(total.cached_prompt_tokens() + item->usage.cached_prompt_tokens());
  }
  return total;
}

}  // namespace switchyard::http
