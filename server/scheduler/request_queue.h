// Hands requests from the gRPC threads (producers) to the serving loop (the one consumer). Thread-safe.
// Bounded on purpose, by requests and by prompt tokens: a full queue is an answer to the caller, not a wait.
//
// The bound covers everything that waits: what is still in this queue and what the scheduler holds as waiting, which
// it reports back with SetWaiting. Cancels pass through here too and are never refused.
#ifndef SWITCHYARD_SERVER_SCHEDULER_REQUEST_QUEUE_H_
#define SWITCHYARD_SERVER_SCHEDULER_REQUEST_QUEUE_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "engine/base/mutex.h"
#include "server/scheduler/request.h"

namespace switchyard {

class RequestQueue {
 public:
  // max_requests: how many may wait. max_tokens: how many prompt tokens may wait together (one group always fits).
  RequestQueue(int64_t max_requests, int64_t max_tokens);

  // Takes the whole group or nothing: the choices of one call. REQUIRES: not empty, at most `max_requests`.
  // RESOURCE_EXHAUSTED: full; the message says which bound. UNAVAILABLE: closed, the server drains.
  // On an error nothing was kept and no sink was called.
  absl::Status Push(std::vector<std::unique_ptr<Request>> group);
  absl::Status Push(std::unique_ptr<Request> request);  // a group of one

  // Asks the loop to end the request as cancelled; unknown or finished ids are ignored.
  void Cancel(uint64_t request_id);

  // After this Push answers UNAVAILABLE. Idempotent.
  void Close();

  // The consumer's side -------------------------------------------------------------------------------------

  struct Batch {
    std::vector<std::unique_ptr<Request>> requests;
    std::vector<uint64_t> cancelled;
  };
  // Takes all that is there; never blocks.
  Batch TakeAll();
  // Blocks until something is there, Wake() was called, or `deadline`.
  void WaitUntil(TimePoint deadline);
  void Wake();
  // What the scheduler holds as waiting: counts against the bounds.
  void SetWaiting(int64_t num_requests, int64_t num_tokens);

 private:
  const int64_t max_requests_;
  const int64_t max_tokens_;
  Mutex mutex_;
  CondVar arrived_;
  Batch pending_ ABSL_GUARDED_BY(mutex_);
  int64_t pending_tokens_ ABSL_GUARDED_BY(mutex_) = 0;
  int64_t waiting_requests_ ABSL_GUARDED_BY(mutex_) = 0;
  int64_t waiting_tokens_ ABSL_GUARDED_BY(mutex_) = 0;
  bool woken_ ABSL_GUARDED_BY(mutex_) = false;
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace switchyard

#endif  // SWITCHYARD_SERVER_SCHEDULER_REQUEST_QUEUE_H_
