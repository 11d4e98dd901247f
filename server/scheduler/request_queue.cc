#include "server/scheduler/request_queue.h"

#include <iterator>
#include <utility>

#include "absl/strings/str_cat.h"

namespace switchyard {

RequestQueue::RequestQueue(int64_t max_requests, int64_t max_tokens)
    : max_requests_(max_requests), max_tokens_(max_tokens) {}

absl::Status RequestQueue::Push(std::unique_ptr<Request> request) {
  std::vector<std::unique_ptr<Request>> group;
  group.push_back(std::move(request));
  return Push(std::move(group));
}

absl::Status RequestQueue::Push(std::vector<std::unique_ptr<Request>> group) {
  int64_t num_tokens = 0;
  for (const auto& request : group) num_tokens += static_cast<int64_t>(request->prompt_tokens.size());
  MutexLock lock(&mutex_);
  if (closed_) return absl::UnavailableError("the server is draining and takes no new requests");
  const int64_t requests = waiting_requests_ + static_cast<int64_t>(pending_.requests.size());
  const int64_t tokens = waiting_tokens_ + pending_tokens_;
  if (requests + static_cast<int64_t>(group.size()) > max_requests_) {
    return absl::ResourceExhaustedError(absl::StrCat("the request queue is full: ", requests, " requests wait and ",
                                                     group.size(), " more exceed the limit of ", max_requests_));
  }
  if (requests > 0 && tokens + num_tokens > max_tokens_) {
    return absl::ResourceExhaustedError(absl::StrCat("the request queue is full: ", tokens, " tokens wait and ",
                                                     num_tokens, " more exceed the limit of ", max_tokens_));
  }
  pending_.requests.insert(pending_.requests.end(), std::make_move_iterator(group.begin()),
                           std::make_move_iterator(group.end()));
  pending_tokens_ += num_tokens;
  arrived_.NotifyOne();
  return absl::OkStatus();
}

void RequestQueue::Cancel(uint64_t request_id) {
  MutexLock lock(&mutex_);
  pending_.cancelled.push_back(request_id);
  arrived_.NotifyOne();
}

void RequestQueue::Close() {
  MutexLock lock(&mutex_);
  closed_ = true;
}

RequestQueue::Batch RequestQueue::TakeAll() {
  MutexLock lock(&mutex_);
  // Still waiting, now in the scheduler's hands: counted until SetWaiting says better, so that the bound has no gap.
  waiting_requests_ += static_cast<int64_t>(pending_.requests.size());
  waiting_tokens_ += pending_tokens_;
  pending_tokens_ = 0;
  return std::exchange(pending_, Batch());
}

void RequestQueue::WaitUntil(TimePoint deadline) {
  MutexLock lock(&mutex_);
  while (!woken_ && pending_.requests.empty() && pending_.cancelled.empty()) {
    if (!arrived_.WaitUntil(&mutex_, deadline)) break;
  }
  woken_ = false;
}

void RequestQueue::Wake() {
  MutexLock lock(&mutex_);
  woken_ = true;
  arrived_.NotifyOne();
}

void RequestQueue::SetWaiting(int64_t num_requests, int64_t num_tokens) {
  MutexLock lock(&mutex_);
  waiting_requests_ = num_requests;
  waiting_tokens_ = num_tokens;
}

}  // namespace switchyard
