// The calls that the engine works for: bounds their number, finds them by request id for Abort, and all of them for
// whoever looks for stalled ones or ends what the engine cannot. Thread-safe.
#ifndef SWITCHYARD_SERVER_FRONTEND_OPEN_CALLS_H_
#define SWITCHYARD_SERVER_FRONTEND_OPEN_CALLS_H_

#include <chrono>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "engine/base/mutex.h"
#include "server/scheduler/request.h"

namespace switchyard {

// One open call, as its transport and the server see it. All methods, any thread.
class OpenCall {
 public:
  virtual ~OpenCall() = default;

  // Events of the transport.
  virtual void OnWriteDone(bool ok) = 0;
  virtual void OnCancel() = 0;  // the client went away, or its deadline passed
  virtual void OnDone() = 0;    // after the end: the transport is gone

  // Ends the requests as cancelled; the client gets what there is so far.
  virtual void Abort() = 0;
  // Ends the call as UNAVAILABLE, after what is pending, without waiting for the engine: it hangs, or the server goes
  // down. No-op when all its requests have ended.
  virtual void EndUnavailable() = 0;
  // Breaks the call off if its client has not read anything for `stalled_for`.
  virtual void BreakIfStalled(TimePoint now, std::chrono::seconds stalled_for) = 0;
};

class OpenCalls {
 public:
  explicit OpenCalls(int max_calls) : max_calls_(static_cast<size_t>(max_calls)) {}

  // Ids need not be unique. False: there are too many calls already; it was not added.
  bool Add(const std::string& request_id, const std::shared_ptr<OpenCall>& call);
  // No-op for a call that was not added.
  void Remove(const std::string& request_id, OpenCall* call);

  std::vector<std::shared_ptr<OpenCall>> Find(const std::string& request_id) const;
  std::vector<std::shared_ptr<OpenCall>> All() const;

 private:
  const size_t max_calls_;
  mutable Mutex mutex_;
  std::unordered_multimap<std::string, std::weak_ptr<OpenCall>> by_request_id_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace switchyard

#endif  // SWITCHYARD_SERVER_FRONTEND_OPEN_CALLS_H_
