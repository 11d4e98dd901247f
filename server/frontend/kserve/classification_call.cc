#include "server/frontend/kserve/classification_call.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "server/frontend/call_admission.h"

namespace switchyard::kserve {
namespace {

TimePoint Now() { return std::chrono::steady_clock::now(); }

}  // namespace

class ClassificationCall::ImageSink final : public TokenSink {
 public:
  ImageSink(std::shared_ptr<ClassificationCall> call, size_t index) : call_(std::move(call)), index_(index) {}
  SinkVerdict OnToken(const SampledToken& token, bool) override {
    call_->OnImage(index_, token.logits);
    return SinkVerdict::kContinue;
  }
  void OnFinished(const FinishedEvent& event) override { call_->OnImageEnded(event.status); }

 private:
  const std::shared_ptr<ClassificationCall> call_;
  const size_t index_;
};

ClassificationCall::ClassificationCall(FrontendParts* parts, TimePoint client_deadline)
    : parts_(parts),
      arrival_(Now()),
      deadline_(EffectiveDeadline(arrival_, client_deadline, parts->limits.max_request_seconds)) {
  parts_->metrics->OnOpenCalls(1);
}

void ClassificationCall::Start(std::shared_ptr<ClassificationTransport> transport, ImageRequest request,
                               const std::string& metadata_id) {
  request_id_ = RequestIdOf(request.id, metadata_id);
  {
    MutexLock lock(&mutex_);
    transport_ = std::move(transport);
  }
  const absl::StatusOr<const ServedModel*> model = AdmitCall(parts_, request_id_, shared_from_this());
  if (!model.ok()) return Fail(model.status());
  const absl::Status queued = Enqueue(**model, std::move(request));
  if (!queued.ok()) Fail(queued);
}

void ClassificationCall::Refuse(std::shared_ptr<ClassificationTransport> transport, const absl::Status& status) {
  {
    MutexLock lock(&mutex_);
    transport_ = std::move(transport);
  }
  Fail(status);
}

absl::Status ClassificationCall::Enqueue(const ServedModel& model, ImageRequest request) {
  std::vector<std::unique_ptr<Request>> group;
  std::vector<uint64_t> ids;
  for (std::vector<float>& image : request.images) {
    auto queued = std::make_unique<Request>();
    queued->id = parts_->next_request_id.fetch_add(1, std::memory_order_relaxed);
    queued->prompt_tokens.resize(static_cast<size_t>(model.facts.tokens_per_image));
    queued->image = std::move(image);
    queued->max_tokens = 1;  // the class
    queued->priority = request.priority;
    queued->arrival = arrival_;
    queued->deadline = deadline_;
    queued->sink = std::make_shared<ImageSink>(shared_from_this(), group.size());
    ids.push_back(queued->id);
    group.push_back(std::move(queued));
  }
  {
    MutexLock lock(&mutex_);
    classification_.model = model.limits.served_model_name;
    classification_.id = std::move(request.id);
    classification_.num_classes = model.facts.num_classes;
    classification_.logits.resize(group.size() * static_cast<size_t>(model.facts.num_classes));
    num_running_ = group.size();
    queue_ = model.queue;
    queued_ids_ = std::move(ids);
  }
  const absl::Status pushed = FromQueue(*parts_, model.queue->Push(std::move(group)));
  if (!pushed.ok()) return pushed;
  bool ended = false;
  {
    MutexLock lock(&mutex_);
    ended = ended_;
  }
  // An end from elsewhere may have sent its cancels before there was anything to cancel.
  if (ended) CancelRequests();
  return absl::OkStatus();
}

void ClassificationCall::OnImage(size_t index, const std::vector<float>& logits) {
  MutexLock lock(&mutex_);
  std::copy(logits.begin(), logits.end(),
            classification_.logits.begin() +
                static_cast<std::ptrdiff_t>(index * static_cast<size_t>(classification_.num_classes)));
}

void ClassificationCall::OnImageEnded(TerminalStatus status) {
  {
    MutexLock lock(&mutex_);
    if (terminal_status_ == TerminalStatus::kOk) terminal_status_ = status;
    if (--num_running_ > 0) return;
  }
  parts_->writer->Announce(shared_from_this());
}

void ClassificationCall::WritePending() {
  TerminalStatus status = TerminalStatus::kOk;
  {
    MutexLock lock(&mutex_);
    status = terminal_status_;
  }
  End(FromLoop(*parts_, status));
}

void ClassificationCall::OnCancel() {
  if (!DeadlinePassed(deadline_)) CancelRequests();  // otherwise the loop ends them
  End(CancelStatus(deadline_));
}

void ClassificationCall::OnDone() {
  parts_->open_calls->Remove(request_id_, this);
  parts_->metrics->OnOpenCalls(-1);
  MutexLock lock(&mutex_);
  transport_.reset();
}

void ClassificationCall::Abort() {
  CancelRequests();
  End(absl::CancelledError("the request was aborted"));
}

void ClassificationCall::EndUnavailable() {
  {
    MutexLock lock(&mutex_);
    if (queue_ != nullptr && num_running_ == 0) return;  // its answer is on its way
  }
  CancelRequests();
  End(parts_->EndedByServer());
}

void ClassificationCall::BreakIfStalled(TimePoint now, std::chrono::seconds stalled_for) {
  std::shared_ptr<ClassificationTransport> transport;
  {
    MutexLock lock(&mutex_);
    if (ended_at_ == TimePoint::max() || now - ended_at_ < stalled_for) return;
    transport = transport_;
  }
  if (transport != nullptr) transport->Break();
}

void ClassificationCall::CancelRequests() {
  RequestQueue* queue = nullptr;
  std::vector<uint64_t> ids;
  {
    MutexLock lock(&mutex_);
    queue = queue_;
    ids = queued_ids_;
  }
  for (const uint64_t id : ids) queue->Cancel(id);
}

void ClassificationCall::Fail(const absl::Status& status) {
  parts_->metrics->OnRejected(RejectionOf(*parts_, status));
  End(status);
}

// The first one counts.
void ClassificationCall::End(const absl::Status& status) {
  std::shared_ptr<ClassificationTransport> transport;
  Classification classification;
  {
    MutexLock lock(&mutex_);
    if (ended_) return;
    ended_ = true;
    ended_at_ = Now();
    transport = transport_;
    if (status.ok()) classification = std::move(classification_);
  }
  parts_->metrics->OnCallAnswered(static_cast<int>(status.code()));
  if (status.ok()) {
    transport->Respond(request_id_, classification);
  } else {
    transport->Finish(status);
  }
}

}  // namespace switchyard::kserve
