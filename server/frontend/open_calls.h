// The generating calls that are open: bounds their number, finds them by request id for Abort, and all of them for
// whoever looks for stalled ones or ends what the engine cannot. Thread-safe.
#ifndef SWITCHYARD_SERVER_FRONTEND_OPEN_CALLS_H_
#define SWITCHYARD_SERVER_FRONTEND_OPEN_CALLS_H_

#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "engine/base/mutex.h"

namespace switchyard {

class GenerationCall;

class OpenCalls {
 public:
  explicit OpenCalls(int max_calls) : max_calls_(static_cast<size_t>(max_calls)) {}

  // Ids need not be unique. False: there are too many calls already; it was not added.
  bool Add(const std::string& request_id, const std::shared_ptr<GenerationCall>& call);
  // No-op for a call that was not added.
  void Remove(const std::string& request_id, GenerationCall* call);

  std::vector<std::shared_ptr<GenerationCall>> Find(const std::string& request_id) const;
  std::vector<std::shared_ptr<GenerationCall>> All() const;

 private:
  const size_t max_calls_;
  mutable Mutex mutex_;
  std::unordered_multimap<std::string, std::weak_ptr<GenerationCall>> by_request_id_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace switchyard

#endif  // SWITCHYARD_SERVER_FRONTEND_OPEN_CALLS_H_
