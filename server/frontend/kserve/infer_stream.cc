#include "server/frontend/kserve/infer_stream.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "server/frontend/errors.h"
#include "server/frontend/generation_call.h"
#include "server/frontend/kserve/classification_call.h"
#include "server/frontend/kserve/text_response.h"

namespace switchyard::kserve {

// One request of the stream, from its message to its last answer.
class InferStream::Item : public std::enable_shared_from_this<Item> {
 public:
  virtual ~Item() = default;

  const std::string& id() const { return id_; }

  std::shared_ptr<OpenCall> call;
  bool started = false;  // under the stream's lock: `call` is there and may be cancelled

 protected:
  Item(std::shared_ptr<InferStream> stream, std::string id) : stream_(std::move(stream)), id_(std::move(id)) {}

  void Send(inference::ModelInferResponse response, bool last) {
    (*response.mutable_parameters())["triton_final_response"].set_bool_param(last);
    Outgoing outgoing{shared_from_this(), {}, last};
    outgoing.message.mutable_infer_response()->Swap(&response);
    stream_->Push(std::move(outgoing));
  }

  const std::shared_ptr<InferStream> stream_;

 private:
  const std::string id_;
};

class InferStream::TextItem final : public Item, public CallTransport {
 public:
  TextItem(std::shared_ptr<InferStream> stream, TextReply reply)
      : Item(std::move(stream), reply.id), answers_(std::move(reply)) {}

  void SendRequestId(const std::string&) override {}  // the stream's headers are nobody's in particular
  void Write(const v1::GenerateStreamResponse& message) override { Send(answers_.Next(message), /*last=*/false); }
  void WriteAndFinish(const v1::GenerateStreamResponse& message) override { Send(answers_.Next(message), true); }
  void Respond(const v1::GenerateResponse& response) override { Send(answers_.Whole(response), /*last=*/true); }
  void Finish(const absl::Status& status) override {
    if (!status.ok()) return stream_->Fail(shared_from_this(), status);
    Send(answers_.Next({}), /*last=*/true);  // the end came after its last text had left
  }
  void Break(TimePoint) override {}  // one client reads for all requests: see Sweep

 private:
  TextAnswers answers_;
};

class InferStream::ImageItem final : public Item, public ClassificationTransport {
 public:
  ImageItem(std::shared_ptr<InferStream> stream, std::string id) : Item(std::move(stream), std::move(id)) {}

  void Respond(const std::string&, const Classification& images) override { Send(ToResponse(images), /*last=*/true); }
  void Finish(const absl::Status& status) override { stream_->Fail(shared_from_this(), status); }
  void Break() override {}  // see Sweep
};

InferStream::InferStream(FrontendParts* parts, Options options) : parts_(parts), options_(std::move(options)) {}

InferStream::~InferStream() = default;

void InferStream::Start(std::shared_ptr<Transport> transport) {
  {
    MutexLock lock(&mutex_);
    transport_ = std::move(transport);
  }
  Advance();
}

void InferStream::End(const absl::Status& status) {
  {
    MutexLock lock(&mutex_);
    // Whose client has sent all ends with what runs, and that has ends of its own.
    if (end_.ok() && !half_closed_) end_ = status;
  }
  Advance();
}

void InferStream::Sweep(TimePoint now, std::chrono::seconds stalled_for, std::chrono::seconds idle_for) {
  std::shared_ptr<Transport> stalled;
  {
    MutexLock lock(&mutex_);
    if (write_started_ != TimePoint::max() && now - write_started_ >= stalled_for) stalled = transport_;
    if (TakesRequests() && open_.empty() && now - idle_since_ >= idle_for) {
      end_ = ErrorWithReason(
          absl::StatusCode::kUnavailable,
          "the stream had no request for " + std::to_string(idle_for.count()) + " s; open another one", "IDLE_STREAM");
    }
  }
  if (stalled != nullptr) stalled->Break();
  Advance();
}

void InferStream::OnRequest(const absl::StatusOr<inference::ModelInferRequest>& request) {
  // A server that does not serve says so first.
  const absl::StatusOr<const ServedModel*> model = parts_->AdmittingModel();
  const bool is_classifier = model.ok() && (*model)->facts.is_classifier();
  const absl::Status readable = !model.ok() ? model.status() : request.status();
  if (is_classifier) {
    auto images = readable.ok() ? ReadImageRequest(*request, **model, parts_->limits.max_num_queued_reqs) : readable;
    Run(request, std::move(images));
  } else {
    Run(request, readable.ok() ? ReadTextRequest(*request, parts_->limits.max_message_bytes) : readable);
  }
}

// The id of an answer to what could not be read.
std::string InferStream::IdOf(const absl::StatusOr<inference::ModelInferRequest>& request) {
  return request.ok() && request->id().size() <= static_cast<size_t>(kMaxRequestIdBytes) ? request->id() : "";
}

TimePoint InferStream::DeadlineOf(std::optional<std::chrono::microseconds> timeout) const {
  return timeout ? std::min(options_.deadline, std::chrono::steady_clock::now() + *timeout) : options_.deadline;
}

// False: a message may still arrive while the stream ends, or has ended; its status is the answer.
bool InferStream::Open(const std::shared_ptr<Item>& item) {
  MutexLock lock(&mutex_);
  reading_ = false;
  if (!TakesRequests()) return false;
  open_.push_back(item);
  return true;
}

// The call of `item` runs, or has ended already.
void InferStream::Started(const std::shared_ptr<Item>& item) {
  bool dropping = false;
  {
    MutexLock lock(&mutex_);
    item->started = true;
    dropping = dropping_;
  }
  if (dropping) item->call->OnCancel();
  Advance();
}

void InferStream::Run(const absl::StatusOr<inference::ModelInferRequest>& request, absl::StatusOr<TextRequest> text) {
  TextReply reply;
  reply.id = IdOf(request);
  if (text.ok()) reply = std::move(text->reply);
  const auto item = std::make_shared<TextItem>(shared_from_this(), std::move(reply));
  if (!Open(item)) return;
  const auto call = std::make_shared<GenerationCall>(parts_, text.ok() && text->stream,
                                                     DeadlineOf(text.ok() ? text->timeout : std::nullopt));
  item->call = call;
  if (text.ok()) {
    call->Start(item, std::move(text->generate), options_.metadata_id);
  } else {
    call->Refuse(item, text.status());
  }
  Started(item);
}

void InferStream::Run(const absl::StatusOr<inference::ModelInferRequest>& request,
                      absl::StatusOr<ImageRequest> images) {
  const auto item = std::make_shared<ImageItem>(shared_from_this(), IdOf(request));
  if (!Open(item)) return;
  const auto call =
      std::make_shared<ClassificationCall>(parts_, DeadlineOf(images.ok() ? images->timeout : std::nullopt));
  item->call = call;
  if (images.ok()) {
    call->Start(item, *std::move(images), options_.metadata_id);
  } else {
    call->Refuse(item, images.status());
  }
  Started(item);
}

void InferStream::OnRequestsEnd() {
  {
    MutexLock lock(&mutex_);
    reading_ = false;
    half_closed_ = true;
  }
  Advance();
}

// The last word to a request that failed.
void InferStream::Fail(const std::shared_ptr<Item>& item, const absl::Status& status) {
  Outgoing outgoing{item, {}, /*last=*/true};
  if (!options_.errors_end_stream) {
    const absl::Status shown = WithoutInsides(status);
    outgoing.message.set_error_message(std::string(shown.message()));
    inference::ModelInferResponse* response = outgoing.message.mutable_infer_response();
    response->set_id(item->id());
    (*response->mutable_parameters())["triton_final_response"].set_bool_param(true);
    (*response->mutable_parameters())["status_code"].set_string_param(absl::StatusCodeToString(shown.code()));
    return Push(std::move(outgoing));
  }
  {
    MutexLock lock(&mutex_);
    if (end_.ok()) end_ = status;
  }
  DropAll();
  Written(outgoing, /*ok=*/false);
  Advance();
}

void InferStream::Push(Outgoing outgoing) {
  bool dropped = false;
  {
    MutexLock lock(&mutex_);
    dropped = dropping_;
    if (!dropped) queue_.push_back(std::move(outgoing));
  }
  if (dropped) Written(outgoing, /*ok=*/false);
  Advance();
}

// `outgoing` has left, or was dropped: its call may go on, or is over.
void InferStream::Written(const Outgoing& outgoing, bool ok) {
  if (!outgoing.last) return outgoing.item->call->OnWriteDone(ok);
  outgoing.item->call->OnDone();  // first: the stream may end as soon as it has no open request
  MutexLock lock(&mutex_);
  open_.erase(std::remove(open_.begin(), open_.end(), outgoing.item), open_.end());
  idle_since_ = std::chrono::steady_clock::now();
}

// Nobody reads what comes from here on: everything that runs is cancelled, what waits is thrown away.
void InferStream::DropAll() {
  std::deque<Outgoing> dropped;
  std::vector<std::shared_ptr<Item>> running;
  {
    MutexLock lock(&mutex_);
    if (dropping_) return;
    dropping_ = true;
    dropped.swap(queue_);
    for (const auto& item : open_) {
      if (item->started) running.push_back(item);
    }
  }
  for (const Outgoing& outgoing : dropped) Written(outgoing, /*ok=*/false);
  for (const auto& item : running) item->call->OnCancel();
}

void InferStream::OnWriteDone(bool ok) {
  Outgoing written;
  {
    MutexLock lock(&mutex_);
    std::swap(written, writing_);
    write_started_ = TimePoint::max();
  }
  Written(written, ok);
  Advance();
}

void InferStream::OnCancel() {
  {
    MutexLock lock(&mutex_);
    cancelled_ = true;
  }
  DropAll();
  Advance();
}

void InferStream::OnDone() {
  MutexLock lock(&mutex_);
  transport_.reset();
}

bool InferStream::TakesRequests() const { return !half_closed_ && !cancelled_ && end_.ok(); }

InferStream::Action InferStream::Next() {
  if (finished_ || transport_ == nullptr) return Action::kNothing;
  if (writing_.item == nullptr && !queue_.empty()) {
    writing_ = std::move(queue_.front());
    queue_.pop_front();
    write_started_ = std::chrono::steady_clock::now();
    return Action::kWrite;
  }
  if (TakesRequests() && !reading_ && !read_call_ && open_.size() < kMaxRequests) {
    reading_ = true;
    read_call_ = true;
    return Action::kRead;
  }
  if (TakesRequests() || writing_.item != nullptr || !open_.empty() || read_call_) return Action::kNothing;
  finished_ = true;
  write_started_ = std::chrono::steady_clock::now();
  return Action::kFinish;
}

absl::Status InferStream::FinalStatus() const {
  if (cancelled_) return absl::CancelledError("the client went away");
  return end_;
}

void InferStream::Advance() {
  while (true) {
    Action action = Action::kNothing;
    std::shared_ptr<Transport> transport;
    const inference::ModelStreamInferResponse* message = nullptr;
    absl::Status status;
    {
      MutexLock lock(&mutex_);
      action = Next();
      transport = transport_;
      message = &writing_.message;
      status = FinalStatus();
    }
    if (action == Action::kNothing) return;
    if (action == Action::kWrite) transport->Write(*message);
    if (action == Action::kFinish) transport->Finish(status);
    if (action == Action::kRead) {
      transport->Read();
      MutexLock lock(&mutex_);
      read_call_ = false;
    }
  }
}

}  // namespace switchyard::kserve
