#include "server/frontend/generation_call.h"

#include <chrono>
#include <ctime>
#include <utility>

#include "engine/base/status_macros.h"
#include "server/frontend/call_admission.h"
#include "server/frontend/chat_prompt.h"
#include "server/frontend/errors.h"
#include "server/log.h"

namespace switchyard {
namespace {

TimePoint Now() { return std::chrono::steady_clock::now(); }

// What a template shows as today.
std::tm LocalTime() {
  const std::time_t now = std::chrono::system_clock::to_time_t(std::chrono::system_clock::now());
  std::tm local{};
  localtime_r(&now, &local);
  return local;
}

}  // namespace

GenerationCall::GenerationCall(FrontendParts* parts, bool streaming, TimePoint client_deadline)
    : parts_(parts),
      streaming_(streaming),
      arrival_(Now()),
      deadline_(EffectiveDeadline(arrival_, client_deadline, parts->limits.max_request_seconds)) {
  parts_->metrics->OnOpenCalls(1);
}

GenerationCall::~GenerationCall() = default;

void GenerationCall::Start(std::shared_ptr<CallTransport> transport, v1::GenerateRequest request,
                           const std::string& metadata_id) {
  request_id_ = RequestIdOf(request.request_id(), metadata_id);
  {
    MutexLock lock(&mutex_);
    transport_ = std::move(transport);
  }
  const absl::StatusOr<const ServedModel*> model = AdmitCall(parts_, request_id_, shared_from_this());
  if (!model.ok()) return Fail(model.status());
  const absl::Status serves_text = CheckServesText(**model);
  if (!serves_text.ok()) return Fail(serves_text);
  absl::StatusOr<GenerationSpec> spec = ValidateGenerateRequest(request, (*model)->limits);
  if (!spec.ok()) return Fail(spec.status());
  if (spec->n > parts_->limits.max_num_queued_reqs) {
    return Fail(InvalidRequest("n", "n is " + std::to_string(spec->n) + ", but only " +
                                        std::to_string(parts_->limits.max_num_queued_reqs) +
                                        " requests may wait at this server; use at most that"));
  }
  if (request.has_chat()) return PostChat(**model, std::move(*request.mutable_chat()), *std::move(spec));
  if (request.has_text()) return PostText(**model, std::move(*request.mutable_text()), *std::move(spec));
  const auto& ids = request.token_ids().ids();
  Admit(**model, {ids.begin(), ids.end()}, *std::move(spec));
}

void GenerationCall::PostChat(const ServedModel& model, v1::ChatPrompt chat, GenerationSpec spec) {
  if (model.chat_template == nullptr) {
    return Fail(ErrorWithReason(absl::StatusCode::kFailedPrecondition,
                                "this model has no chat template, or one that this server cannot use; send text or "
                                "token_ids",
                                "NO_CHAT_TEMPLATE"));
  }
  const size_t num_bytes = chat.ByteSizeLong();
  PostPrompt(num_bytes,
             [self = shared_from_this(), &model, chat = std::move(chat), spec = std::move(spec)](bool stopping) {
               if (!stopping) self->AdmitChat(model, chat, spec);
             });
}

void GenerationCall::PostText(const ServedModel& model, std::string text, GenerationSpec spec) {
  const size_t num_bytes = text.size();
  if (num_bytes <= TextWorker::kInlineBytes) return AdmitText(model, text, std::move(spec));
  PostPrompt(num_bytes,
             [self = shared_from_this(), &model, text = std::move(text), spec = std::move(spec)](bool stopping) {
               if (!stopping) self->AdmitText(model, text, spec);
             });
}

// `job` does nothing when the worker stops: EndUnavailable has ended the call then.
void GenerationCall::PostPrompt(size_t num_bytes, TextWorker::Job job) {
  if (parts_->text_worker->Post(num_bytes, std::move(job))) return;
  Fail(parts_->TextWorkerRefused());
}

void GenerationCall::Refuse(std::shared_ptr<CallTransport> transport, const absl::Status& status) {
  {
    MutexLock lock(&mutex_);
    transport_ = std::move(transport);
  }
  Fail(status);
}

// The client may have left while the prompt waited.
bool GenerationCall::HasEnded() const {
  MutexLock lock(&mutex_);
  return IsOver();
}

void GenerationCall::AdmitChat(const ServedModel& model, const v1::ChatPrompt& chat, GenerationSpec spec) {
  if (HasEnded()) return;
  const absl::StatusOr<std::string> text =
      RenderChatPrompt(*model.chat_template, chat, LocalTime(), model.limits.max_prompt_bytes());
  if (!text.ok()) return Fail(text.status());
  AdmitText(model, *text, std::move(spec));
}

void GenerationCall::AdmitText(const ServedModel& model, const std::string& text, GenerationSpec spec) {
  if (HasEnded()) return;
  EncodeOptions options;
  options.add_special_tokens = spec.add_special_tokens;
  options.allow_special_tokens = spec.allow_special_tokens;
  absl::StatusOr<std::vector<int32_t>> prompt = model.tokenizer->Encode(text, options);
  if (!prompt.ok()) {
    return Fail(
        InvalidRequest(spec.prompt_field, "prompt cannot be tokenized: " + std::string(prompt.status().message())));
  }
  // A tokenizer may know more tokens than the model has rows for.
  for (int32_t id : *prompt) {
    if (id < model.limits.vocab_size) continue;
    return Fail(InvalidRequest(spec.prompt_field, "prompt has token " + std::to_string(id) +
                                                      ", but this model has tokens 0 to " +
                                                      WithCommas(model.limits.vocab_size - 1)));
  }
  Admit(model, *std::move(prompt), std::move(spec));
}

void GenerationCall::Admit(const ServedModel& model, std::vector<int32_t> prompt, GenerationSpec spec) {
  const bool has_encoder = model.limits.decoder_start_token_id >= 0;
  const absl::Status fits_encoder =
      has_encoder ? CheckEncoderFits(model.scheduler, static_cast<int64_t>(prompt.size())) : absl::OkStatus();
  if (!fits_encoder.ok()) {
    return Fail(InvalidRequest(spec.prompt_field, std::string(fits_encoder.message())));
  }
  if (has_encoder && !prompt.empty()) prompt.push_back(model.limits.decoder_start_token_id);
  const int64_t num_tokens = static_cast<int64_t>(prompt.size());
  const absl::Status fits_model = FitPrompt(num_tokens, model.limits, &spec);
  if (!fits_model.ok()) return Fail(fits_model);
  const absl::Status fits_pool = CheckFits(model.scheduler, num_tokens, spec.max_tokens);
  if (!fits_pool.ok()) return Fail(InvalidRequest("max_tokens", std::string(fits_pool.message())));
  const absl::Status queued = Enqueue(model, std::move(prompt), spec);
  if (!queued.ok()) Fail(queued);
}

absl::Status GenerationCall::Enqueue(const ServedModel& model, std::vector<int32_t> prompt,
                                     const GenerationSpec& spec) {
  const uint64_t seed = spec.seed.value_or(RandomNumber());
  const std::shared_ptr<TokenStream> stream = MakeStream(model, prompt.size(), spec, seed);
  const bool has_encoder = model.limits.decoder_start_token_id >= 0;
  const int32_t num_encoder_tokens = has_encoder ? static_cast<int32_t>(prompt.size()) - 1 : 0;
  std::vector<std::unique_ptr<Request>> group;
  std::vector<uint64_t> ids;
  for (int32_t i = 0; i < spec.n; ++i) {
    auto request = std::make_unique<Request>();
    request->id = parts_->next_request_id.fetch_add(1, std::memory_order_relaxed);
    request->prompt_tokens = i + 1 < spec.n ? prompt : std::move(prompt);
    request->num_encoder_tokens = num_encoder_tokens;
    request->sampling = spec.sampling;
    request->sampling.seed = SeedOfChoice(seed, i);
    request->eos_token_ids = spec.eos_token_ids;
    request->max_tokens = spec.max_tokens;
    request->priority = spec.priority;
    request->explain_routing = spec.explain;
    request->allow_prefix_reuse = spec.allow_prefix_reuse;
    request->arrival = arrival_;
    request->deadline = deadline_;
    request->sink = TokenStream::Sink(stream, i);
    ids.push_back(request->id);
    group.push_back(std::move(request));
  }
  {
    MutexLock lock(&mutex_);
    if (IsOver()) return absl::OkStatus();
    stream_ = stream;
    queue_ = model.queue;
    queued_ids_ = std::move(ids);
  }
  const absl::Status pushed = FromQueue(*parts_, model.queue->Push(std::move(group)));
  if (!pushed.ok()) return pushed;
  bool over = false;
  {
    MutexLock lock(&mutex_);
    admitted_ = true;
    over = IsOver();
  }
  // An end from elsewhere may have sent its cancels before there was anything to cancel.
  if (over) CancelRequests();
  WritePending();
  return absl::OkStatus();
}

std::shared_ptr<TokenStream> GenerationCall::MakeStream(const ServedModel& model, size_t num_prompt_tokens,
                                                        const GenerationSpec& spec, uint64_t seed) {
  TokenStreamOptions options;
  options.prompt.set_request_id(request_id_);
  options.prompt.set_model(model.limits.served_model_name);
  options.prompt.set_prompt_tokens(static_cast<int32_t>(num_prompt_tokens));
  options.prompt.set_seed(seed);
  options.n = spec.n;
  options.stop = spec.stop;
  options.include_stop = spec.include_stop;
  options.skip_special_tokens = spec.skip_special_tokens;
  options.min_tokens = spec.sampling.min_tokens;
  options.logprobs = spec.sampling.num_logprobs >= 0;
  options.details = options.logprobs || spec.explain;
  options.explain_layers = spec.explain_layers;
  options.moe_layers = model.limits.moe_layers;
  options.max_pending_bytes = streaming_ ? parts_->limits.stream_buffer_bytes : parts_->limits.max_message_bytes;
  return std::make_shared<TokenStream>(model.tokenizer, std::move(options), weak_from_this(), parts_->metrics);
}

void GenerationCall::Fail(const absl::Status& status) {
  parts_->metrics->OnRejected(RejectionOf(*parts_, status));
  {
    MutexLock lock(&mutex_);
    EndWith(status);
  }
  WritePending();
}

// The first one counts.
void GenerationCall::EndWith(const absl::Status& status) {
  if (failure_.ok()) failure_ = status;
}

bool GenerationCall::IsOver() const { return sequencer_.cancelled() || !failure_.ok(); }

void GenerationCall::CancelRequests() {
  RequestQueue* queue = nullptr;
  std::vector<uint64_t> ids;
  {
    MutexLock lock(&mutex_);
    queue = queue_;
    ids = queued_ids_;
  }
  for (uint64_t id : ids) queue->Cancel(id);
}

void GenerationCall::OnWriteDone(bool ok) {
  {
    MutexLock lock(&mutex_);
    sequencer_.OnWriteDone(ok);
    write_started_ = TimePoint::max();
  }
  if (!ok) CancelRequests();
  WritePending();
}

void GenerationCall::OnCancel() {
  {
    MutexLock lock(&mutex_);
    sequencer_.OnCancel();
  }
  if (!DeadlinePassed(deadline_)) CancelRequests();
  WritePending();
}

void GenerationCall::OnDone() {
  parts_->open_calls->Remove(request_id_, this);
  parts_->metrics->OnOpenCalls(-1);
  MutexLock lock(&mutex_);
  transport_.reset();
}

void GenerationCall::Abort() {
  {
    // Before admission there is nothing that the loop could end.
    MutexLock lock(&mutex_);
    if (!admitted_) EndWith(absl::CancelledError("the request was aborted"));
  }
  CancelRequests();
  WritePending();
}

void GenerationCall::EndUnavailable() {
  {
    MutexLock lock(&mutex_);
    if (stream_ != nullptr && stream_->ended()) return;
    EndWith(parts_->EndedByServer());
  }
  CancelRequests();
  WritePending();
}

void GenerationCall::BreakIfStalled(TimePoint now, std::chrono::seconds stalled_for) {
  std::shared_ptr<CallTransport> transport;
  {
    MutexLock lock(&mutex_);
    if (write_started_ == TimePoint::max() || now - write_started_ < stalled_for) return;
    transport = transport_;
  }
  if (transport != nullptr) transport->Break(now - stalled_for);
}

void GenerationCall::OnPending() {
  if (streaming_) parts_->writer->Announce(shared_from_this());
}

void GenerationCall::OnEnded() { parts_->writer->Announce(shared_from_this()); }

void GenerationCall::WritePending() {
  WriteAction action = WriteAction::kNothing;
  std::shared_ptr<CallTransport> transport;
  std::shared_ptr<TokenStream> stream;
  absl::Status status;
  {
    MutexLock lock(&mutex_);
    action = sequencer_.Poll(Demand());
    if (action == WriteAction::kNothing) return;
    if (action != WriteAction::kSendHeaders) write_started_ = Now();
    status = FinalStatus();
    transport = transport_;
    stream = stream_;
  }
  if (action == WriteAction::kSendHeaders) {
    transport->SendRequestId(request_id_);
    {
      MutexLock lock(&mutex_);
      sequencer_.OnHeadersSent();
    }
    return WritePending();  // what could not go before
  }
  if (action == WriteAction::kWrite) return transport->Write(stream->TakeMessage());
  parts_->metrics->OnCallAnswered(static_cast<int>(status.code()));
  LogEnd(status, stream.get());
  if (action == WriteAction::kFinish) {
    transport->Finish(status);
  } else if (streaming_) {
    transport->WriteAndFinish(stream->TakeMessage());
  } else {
    transport->Respond(stream->TakeResponse());
  }
}

WriteDemand GenerationCall::Demand() const {
  WriteDemand demand;
  demand.has_headers = admitted_;
  demand.ended = !failure_.ok();
  demand.ok = failure_.ok();
  if (!admitted_) return demand;
  if (failure_.ok()) {
    // The end first: what is pending after it is final.
    demand.ended = stream_->ended();
    demand.ok = stream_->terminal_status() == TerminalStatus::kOk;
  }
  demand.has_output = streaming_ ? stream_->has_pending() : demand.ended && demand.ok;
  return demand;
}

// So that a request id in a client's hands leads to a reason. What ended well is not worth a line.
void GenerationCall::LogEnd(const absl::Status& status, const TokenStream* stream) const {
  if (status.ok()) return;
  Log(LogLevel::kDebug, "call_ended",
      {{"request_id", request_id_},
       {"code", absl::StatusCodeToString(status.code())},
       {"reason", ReasonOf(status)},
       {"tokens", stream == nullptr ? 0 : stream->num_tokens()}});
}

// What the client is told at the end. After a cancel it hears nothing, but the code is counted.
absl::Status GenerationCall::FinalStatus() const {
  if (!failure_.ok()) return failure_;
  if (sequencer_.cancelled()) return CancelStatus(deadline_);
  const TerminalStatus status = stream_->terminal_status();
  if (status != TerminalStatus::kSlowReader) return FromLoop(*parts_, status);
  return ErrorWithReason(absl::StatusCode::kResourceExhausted,
                         streaming_ ? "the client reads too slowly; too much output waits for it"
                                    : "the answer is larger than one message may be; use GenerateStream",
                         streaming_ ? "SLOW_READER" : "ANSWER_TOO_LARGE");
}

}  // namespace switchyard
