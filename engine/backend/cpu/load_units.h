// Loads the parts of a weight on all workers.
#ifndef SWITCHYARD_ENGINE_BACKEND_CPU_LOAD_UNITS_H_
#define SWITCHYARD_ENGINE_BACKEND_CPU_LOAD_UNITS_H_

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/backend/cpu/context.h"
#include "engine/backend/cpu/memory.h"
#include "engine/base/mutex.h"
#include "engine/base/status_macros.h"

namespace switchyard::cpu {

// The first error of a parallel load; afterwards the other units are skipped.
class FirstError {
 public:
  void Add(absl::Status status) {
    if (status.ok()) return;
    MutexLock lock(&mutex_);
    if (status_.ok()) status_ = std::move(status);
    failed_.store(true, std::memory_order_relaxed);
  }
  bool failed() const { return failed_.load(std::memory_order_relaxed); }
  absl::Status Take() {
    MutexLock lock(&mutex_);
    return status_;
  }

 private:
  Mutex mutex_;
  absl::Status status_ ABSL_GUARDED_BY(mutex_);
  std::atomic<bool> failed_{false};
};

// Memory for `bytes` per worker while loading.
inline absl::StatusOr<Buffer> AllocateStaging(const Context& context, int64_t bytes) {
  return Buffer::Allocate(bytes * context.pool.num_threads(), "staging for weights");
}

// Units of `unit_bytes` that fill a huge page. The kernel clears a new page whole for each worker that touches it
// before the first is done, so a page should be one worker's alone.
inline int64_t UnitsPerHugePage(int64_t unit_bytes) { return CeilDiv(kHugePage, std::max<int64_t>(unit_bytes, 1)); }

// Runs unit(i, staging, &num_nonfinite) for i in [0, count) on the workers until one fails; adds up the last. A worker
// takes `run` units in a row, fewer where that would leave others without.
template <typename Unit>
absl::Status LoadUnits(Context& context, int64_t count, int64_t run, int64_t staging_bytes, int64_t* num_nonfinite,
                       const Unit& unit) {
  ASSIGN_OR_RETURN(const Buffer staging, AllocateStaging(context, staging_bytes));
  run = std::max<int64_t>(1, std::min(run, count / context.pool.num_threads()));
  FirstError error;
  std::atomic<int64_t> next{0}, nonfinite{0};
  context.pool.Run([&](int thread) {
    char* const mine = staging.template as<char>() + thread * staging_bytes;
    int64_t found = 0;
    for (int64_t first = next.fetch_add(run, std::memory_order_relaxed); first < count && !error.failed();
         first = next.fetch_add(run, std::memory_order_relaxed)) {
      const int64_t end = std::min(first + run, count);
      for (int64_t i = first; i < end && !error.failed(); ++i) error.Add(unit(i, mine, &found));
    }
    nonfinite.fetch_add(found, std::memory_order_relaxed);
  });
  *num_nonfinite += nonfinite.load();
  return error.Take();
}

}  // namespace switchyard::cpu

#endif  // SWITCHYARD_ENGINE_BACKEND_CPU_LOAD_UNITS_H_
