// The generating calls that are open: bounds their number, finds them by request id for Abort, and finds those whose
// client stopped reading. Thread-safe.
#ifndef SWITCHYARD_SERVER_FRONTEND_OPEN_CALLS_H_
#define SWITCHYARD_SERVER_FRONTEND_OPEN_CALLS_H_

#include <memory>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "engine/base/mutex.h"

namespace switchyard {

class GenerationCall;

class OpenCalls {
 public:
  explicit OpenCalls(int max_calls) : max_calls_(static_cast<size_t>(max_calls)) {}

  // False: there are too many already.
  bool Add(GenerationCall* call);
  // Ids need not be unique.
  void SetRequestId(const std::string& request_id, const std::shared_ptr<GenerationCall>& call);
  void Remove(GenerationCall* call, const std::string& request_id);

  std::vector<std::shared_ptr<GenerationCall>> Find(const std::string& request_id) const;
  // Those with a request id, that is all but the ones that are being looked at.
  std::vector<std::shared_ptr<GenerationCall>> All() const;

 private:
  const size_t max_calls_;
  mutable Mutex mutex_;
  std::unordered_set<GenerationCall*> calls_ ABSL_GUARDED_BY(mutex_);
  std::unordered_multimap<std::string, std::weak_ptr<GenerationCall>> by_request_id_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace switchyard

#endif  // SWITCHYARD_SERVER_FRONTEND_OPEN_CALLS_H_
