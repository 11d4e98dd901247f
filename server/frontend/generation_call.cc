#include "server/frontend/generation_call.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <random>
#include <utility>

#include "engine/base/status_macros.h"
#include "server/frontend/errors.h"
#include "server/frontend/open_calls.h"

namespace switchyard {
namespace {

// A cancel this close to the deadline is the deadline: gRPC reports both the same way, and the client's clock, which
// started before the request travelled, runs out a little earlier. The loop ends what is past its deadline.
constexpr std::chrono::milliseconds kDeadlineSlack{20};

TimePoint Now() { return std::chrono::steady_clock::now(); }

uint64_t RandomNumber() {
  thread_local std::mt19937_64 generator{std::random_device{}() + (uint64_t{std::random_device{}()} << 32)};
  return generator();
}

std::string MakeRequestId() {
  char id[32];
  std::snprintf(id, sizeof(id), "req-%016llx", static_cast<unsigned long long>(RandomNumber()));
  return id;
}

TimePoint EffectiveDeadline(TimePoint arrival, TimePoint client_deadline, double max_seconds) {
  return std::min(client_deadline, arrival + std::chrono::duration_cast<TimePoint::duration>(
                                                 std::chrono::duration<double>(max_seconds)));
}

// Full queues say when to come back; spread by +-20 % so that refused callers do not return together.
double RetrySeconds(const ServingMetrics& metrics) {
  const double jitter = 0.8 + 0.4 * static_cast<double>(RandomNumber() % 1024) / 1023.0;
  return std::clamp(metrics.EstimateQueueSeconds() * jitter, 0.1, 30.0);
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

void GenerationCall::Start(std::shared_ptr<CallTransport> transport, const v1::GenerateRequest& request,
                           const std::string& metadata_id) {
  request_id_ = !request.request_id().empty() ? request.request_id() : metadata_id;
  if (!IsValidRequestId(request_id_)) request_id_ = MakeRequestId();
  {
    MutexLock lock(&mutex_);
    transport_ = transport;
  }
  const absl::StatusOr<const ServedModel*> model = parts_->AdmittingModel();
  if (!model.ok()) return Fail(model.status(), UnavailableReason());
  if (!parts_->open_calls->Add(this)) {
    return Fail(
        Overloaded("this server has " + std::to_string(parts_->limits.max_open_calls) + " open calls, its limit",
                   "TOO_MANY_CALLS", RetrySeconds(*parts_->metrics)),
        Rejection::kTooManyCalls);
  }
  absl::StatusOr<GenerationSpec> spec = ValidateGenerateRequest(request, (*model)->limits);
  if (!spec.ok()) {
    return Fail(spec.status(), absl::IsNotFound(spec.status()) ? Rejection::kNotFound : Rejection::kInvalid);
  }
  parts_->open_calls->SetRequestId(request_id_, shared_from_this());
  transport->SendRequestId(request_id_);
  if (request.text().size() <= TextWorker::kInlineBytes) {
    Admit(**model, request, *std::move(spec));
    return;
  }
  auto job = [self = shared_from_this(), model = *model, request, spec = *std::move(spec)] {
    self->Admit(*model, request, spec);
  };
  if (!parts_->text_worker->Post(std::move(job))) {
    Fail(Overloaded("too many long prompts wait to be tokenized", "TOKENIZER_BUSY", 0.5), Rejection::kQueueFull);
  }
}

void GenerationCall::Refuse(std::shared_ptr<CallTransport> transport, const absl::Status& status) {
  {
    MutexLock lock(&mutex_);
    transport_ = std::move(transport);
  }
  Fail(status, Rejection::kInvalid);
}

void GenerationCall::Admit(const ServedModel& model, const v1::GenerateRequest& request, GenerationSpec spec) {
  absl::StatusOr<std::vector<int32_t>> prompt = TokenizePrompt(model, request, &spec);
  if (!prompt.ok()) return Fail(prompt.status(), Rejection::kInvalid);
  const absl::Status queued = Enqueue(model, *std::move(prompt), spec);
  if (!queued.ok()) Fail(queued, absl::IsUnavailable(queued) ? UnavailableReason() : Rejection::kQueueFull);
}

absl::StatusOr<std::vector<int32_t>> GenerationCall::TokenizePrompt(const ServedModel& model,
                                                                    const v1::GenerateRequest& request,
                                                                    GenerationSpec* spec) {
  std::vector<int32_t> prompt;
  if (request.has_text()) {
    EncodeOptions options;
    options.add_special_tokens = spec->add_special_tokens;
    options.allow_special_tokens = spec->allow_special_tokens;
    auto encoded = model.tokenizer->Encode(request.text(), options);
    if (!encoded.ok())
      return InvalidRequest("text", "prompt cannot be tokenized: " + std::string(encoded.status().message()));
    prompt = *std::move(encoded);
    // A tokenizer may know more tokens than the model has rows for.
    for (int32_t id : prompt) {
      if (id < model.limits.vocab_size) continue;
      return InvalidRequest("text", "prompt has token " + std::to_string(id) + ", but this model has tokens 0 to " +
                                        WithCommas(model.limits.vocab_size - 1));
    }
  } else {
    prompt.assign(request.token_ids().ids().begin(), request.token_ids().ids().end());
  }
  RETURN_IF_ERROR(FitPrompt(static_cast<int64_t>(prompt.size()), model.limits, spec));
  const absl::Status fits = CheckFits(model.scheduler, static_cast<int64_t>(prompt.size()), spec->max_tokens);
  if (!fits.ok()) return InvalidRequest("max_tokens", std::string(fits.message()));
  return prompt;
}

absl::Status GenerationCall::Enqueue(const ServedModel& model, std::vector<int32_t> prompt,
                                     const GenerationSpec& spec) {
  const uint64_t seed = spec.seed.value_or(RandomNumber());
  OpenStream(model, prompt.size(), spec, seed);
  for (int32_t i = 0; i < spec.n; ++i) {
    auto request = std::make_unique<Request>();
    request->id = parts_->next_request_id.fetch_add(1, std::memory_order_relaxed);
    request->prompt_tokens = i + 1 < spec.n ? prompt : std::move(prompt);
    request->sampling = spec.sampling;
    request->sampling.seed = SeedOfChoice(seed, i);
    request->eos_token_ids = spec.eos_token_ids;
    request->max_tokens = spec.max_tokens;
    request->priority = spec.priority;
    request->explain_routing = spec.explain;
    request->allow_prefix_reuse = spec.allow_prefix_reuse;
    request->arrival = arrival_;
    request->deadline = deadline_;
    {
      // The id is known before the loop can see the request, so that a cancel in between is not lost.
      MutexLock lock(&mutex_);
      if (sequencer_.cancelled()) break;
      request->sink = TokenStream::Sink(stream_, i);
      queued_ids_.push_back(request->id);
    }
    const absl::Status pushed = model.queue->Push(std::move(request));
    if (pushed.ok()) continue;
    CancelRequests();
    if (pushed.code() == absl::StatusCode::kUnavailable) return parts_->EndedByServer();
    return Overloaded(std::string(pushed.message()), "QUEUE_FULL", RetrySeconds(*parts_->metrics));
  }
  bool cancelled = false;
  {
    MutexLock lock(&mutex_);
    cancelled = sequencer_.cancelled();
  }
  if (cancelled) CancelRequests();
  return absl::OkStatus();
}

void GenerationCall::OpenStream(const ServedModel& model, size_t num_prompt_tokens, const GenerationSpec& spec,
                                uint64_t seed) {
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
  auto stream = std::make_shared<TokenStream>(model.tokenizer, std::move(options), weak_from_this(), parts_->metrics);
  MutexLock lock(&mutex_);
  stream_ = std::move(stream);
  queue_ = model.queue;
}

void GenerationCall::Fail(const absl::Status& status, Rejection reason) {
  parts_->metrics->OnRejected(reason);
  {
    MutexLock lock(&mutex_);
    failure_ = status;
  }
  WritePending();
}

Rejection GenerationCall::UnavailableReason() const {
  switch (parts_->phase.load(std::memory_order_relaxed)) {
    case ServingPhase::kStarting: return Rejection::kStarting;
    case ServingPhase::kDraining: return Rejection::kDraining;
    default: return Rejection::kEngineFailed;
  }
}

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
  if (Now() + kDeadlineSlack < deadline_) CancelRequests();
  WritePending();
}

void GenerationCall::OnDone() {
  parts_->open_calls->Remove(this, request_id_);
  parts_->metrics->OnOpenCalls(-1);
  MutexLock lock(&mutex_);
  transport_.reset();
}

void GenerationCall::Abort() { CancelRequests(); }

void GenerationCall::BreakIfStalled(TimePoint now, std::chrono::seconds stalled_for) {
  std::shared_ptr<CallTransport> transport;
  {
    MutexLock lock(&mutex_);
    if (write_started_ == TimePoint::max() || now - write_started_ < stalled_for) return;
    transport = transport_;
  }
  if (transport != nullptr) transport->Break();
}

void GenerationCall::OnPending() {
  if (streaming_) parts_->writer->Announce(shared_from_this());
}

void GenerationCall::OnEnded() {
  parts_->writer->Announce(shared_from_this());
  parts_->writer->Flush();
}

void GenerationCall::WritePending() {
  WriteAction action = WriteAction::kNothing;
  std::shared_ptr<CallTransport> transport;
  std::shared_ptr<TokenStream> stream;
  absl::Status status;
  {
    MutexLock lock(&mutex_);
    action = sequencer_.Poll(Demand());
    if (action == WriteAction::kNothing) return;
    if (action == WriteAction::kWrite) write_started_ = Now();
    status = FinalStatus();
    transport = transport_;
    stream = stream_;
  }
  if (action == WriteAction::kWrite) return transport->Write(stream->TakeMessage());
  parts_->metrics->OnCallAnswered(static_cast<int>(status.code()));
  if (action == WriteAction::kFinish) {
    transport->Finish(status);
  } else if (streaming_) {
    transport->WriteAndFinish(stream->TakeMessage());
  } else {
    transport->WriteAndFinish(stream->TakeResponse());
  }
}

WriteDemand GenerationCall::Demand() const {
  WriteDemand demand;
  if (!failure_.ok()) {
    demand.ended = true;
    demand.ok = false;
  } else if (stream_ != nullptr) {
    // The end first: what is pending after it is final.
    demand.ended = stream_->ended();
    demand.ok = stream_->terminal_status() == TerminalStatus::kOk;
    demand.has_output = streaming_ ? stream_->has_pending() : demand.ended && demand.ok;
  }
  return demand;
}

// What the client is told at the end. After a cancel it hears nothing, but the code is counted.
absl::Status GenerationCall::FinalStatus() const {
  if (!failure_.ok()) return failure_;
  if (sequencer_.cancelled()) {
    return Now() + kDeadlineSlack < deadline_ ? absl::CancelledError("the client went away")
                                              : absl::DeadlineExceededError("the deadline passed");
  }
  switch (stream_->terminal_status()) {
    case TerminalStatus::kOk: return absl::OkStatus();
    case TerminalStatus::kCancelled: return absl::CancelledError("the request was aborted");
    case TerminalStatus::kDeadlineExceeded: return absl::DeadlineExceededError("the deadline passed");
    case TerminalStatus::kUnavailable: return parts_->EndedByServer();
    case TerminalStatus::kDataLoss:
      return ErrorWithReason(absl::StatusCode::kDataLoss, "the model produced a logit that is not finite",
                             "NON_FINITE_LOGIT");
    case TerminalStatus::kSlowReader:
      return ErrorWithReason(absl::StatusCode::kResourceExhausted,
                             streaming_ ? "the client reads too slowly; too much output waits for it"
                                        : "the answer is larger than one message may be; use GenerateStream",
                             streaming_ ? "SLOW_READER" : "ANSWER_TOO_LARGE");
  }
  return absl::OkStatus();
}

}  // namespace switchyard
