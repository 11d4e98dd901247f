// Loads the parts of a weight on all workers.
#ifndef SWITCHYARD_ENGINE_BACKEND_CPU_LOAD_UNITS_H_
#define SWITCHYARD_ENGINE_BACKEND_CPU_LOAD_UNITS_H_

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

// Runs unit(i, staging, &num_nonfinite) for i in [0, count) on the workers until one fails; adds up the last.
template <typename Unit>
absl::Status LoadUnits(Context& context, int64_t count, int64_t staging_bytes, int64_t* num_nonfinite,
                       const Unit& unit) {
  ASSIGN_OR_RETURN(const Buffer staging, AllocateStaging(context, staging_bytes));
  FirstError error;
  std::atomic<int64_t> next{0}, nonfinite{0};
  context.pool.Run([&](int thread) {
    char* const mine = staging.template as<char>() + thread * staging_bytes;
    for (int64_t i = next.fetch_add(1, std::memory_order_relaxed); i < count && !error.failed();
         i = next.fetch_add(1, std::memory_order_relaxed)) {
      int64_t found = 0;
      error.Add(unit(i, mine, &found));
      nonfinite.fetch_add(found, std::memory_order_relaxed);
    }
  });
  *num_nonfinite += nonfinite.load();
  return error.Take();
}

}  // namespace switchyard::cpu

#endif  // SWITCHYARD_ENGINE_BACKEND_CPU_LOAD_UNITS_H_
