#include "server/frontend/watch_reactor.h"

#include "server/frontend/grpc_status.h"

namespace switchyard {

void WatchReactor::Begin() { self_ = shared_from_this(); }

void WatchReactor::Poke() {
  {
    MutexLock lock(&mutex_);
    if (ended_) return;
    poked_ = true;
  }
  Advance();
}

void WatchReactor::End(const absl::Status& status) {
  {
    MutexLock lock(&mutex_);
    if (!ended_) status_ = status;
    ended_ = true;
  }
  Advance();
}

bool WatchReactor::ended() const {
  MutexLock lock(&mutex_);
  return ended_ || sequencer_.cancelled();
}

void WatchReactor::OnWriteDone(bool ok) {
  {
    MutexLock lock(&mutex_);
    sequencer_.OnWriteDone(ok);
  }
  Advance();
}

void WatchReactor::OnCancel() {
  {
    MutexLock lock(&mutex_);
    sequencer_.OnCancel();
  }
  Advance();
}

void WatchReactor::OnDone() { self_.reset(); }

void WatchReactor::Advance() {
  WriteAction action = WriteAction::kNothing;
  absl::Status status;
  {
    MutexLock lock(&mutex_);
    WriteDemand demand;
    demand.has_output = poked_;
    demand.ended = ended_;
    demand.ok = false;  // the status goes by itself, whatever went before it
    action = sequencer_.Poll(demand);
    if (action == WriteAction::kWrite) poked_ = false;
    status = ended_ ? status_ : absl::CancelledError("the client went away");
  }
  if (action == WriteAction::kWrite) {
    buffer_ = Produce();
    StartWrite(&buffer_);
  } else if (action == WriteAction::kFinish) {
    if (metrics_ != nullptr) metrics_->OnCallAnswered(static_cast<int>(status.code()));
    Finish(ToGrpcStatus(status));
  }
}

}  // namespace switchyard
