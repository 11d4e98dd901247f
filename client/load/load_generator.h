// Sends a plan to a server and takes the times.
//
// One thread does everything: it waits on one completion queue for the next answer or the next send time, whichever
// comes first, so that hundreds of streams cost a fraction of a core and no time is taken late because a thread had to
// wake up. (The callback API would be shorter, but after an idle second its threads may sleep for 100 ms: that would
// be measured as the server's time to first token.)
#ifndef SWITCHYARD_CLIENT_LOAD_LOAD_GENERATOR_H_
#define SWITCHYARD_CLIENT_LOAD_LOAD_GENERATOR_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "client/load/plan.h"
#include "client/load/statistics.h"
#include "client/switchyard_client.h"

namespace switchyard {

struct LoadOptions {
  ClientOptions client = {};
  int max_concurrency = 0;  // open requests at most; 0 = as many as the plan wants
  int num_connections = 1;  // TCP connections that requests take turns on
  absl::Duration request_timeout = absl::InfiniteDuration();
  bool ignore_eos = false;
  float temperature = 0;
};

struct LoadProgress {
  double elapsed_seconds = 0;
  int64_t running = 0;
  int64_t ended = 0;
  int64_t failed = 0;  // of those that ended
  int64_t output_tokens = 0;
};

struct LoadRun {
  std::vector<RequestRecord> records;  // of the requests that were sent, in that order
  double duration = 0;                 // seconds from the start to the last end
  int64_t peak_concurrency = 0;
  double cpu_seconds = 0;  // that this process spent meanwhile
};

// Returns when every request has ended. Failed requests are in the records; an error is returned only when nothing
// could be sent at all (errors of Client::Create).
// `on_progress` (may be empty) is called about ten times a second on the calling thread. When `stop` (may be null)
// becomes true, open requests are cancelled, the rest is not sent, and what there is is returned.
absl::StatusOr<LoadRun> RunLoad(const std::vector<PlannedRequest>& plan, const LoadOptions& options,
                                const std::function<void(const LoadProgress&)>& on_progress,
                                const std::atomic<bool>* stop);

}  // namespace switchyard

#endif  // SWITCHYARD_CLIENT_LOAD_LOAD_GENERATOR_H_
