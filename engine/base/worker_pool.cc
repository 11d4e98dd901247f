#include "engine/base/worker_pool.h"

#include <sched.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <system_error>

#include "absl/strings/str_cat.h"
#include "engine/base/cgroup.h"

namespace switchyard {
namespace {

constexpr auto kSpinTime = std::chrono::microseconds(100);
constexpr int kSpinsPerClock = 64;
constexpr int kSpinsBeforeYield = 4096;

void Pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

}  // namespace

void SpinBarrier::Wait() {
  if (size_ == 1) return;
  const uint32_t generation = generation_.load(std::memory_order_acquire);
  if (arrived_.fetch_add(1, std::memory_order_acq_rel) == size_ - 1) {
    arrived_.store(0, std::memory_order_relaxed);
    generation_.store(generation + 1, std::memory_order_release);
    return;
  }
  for (int spins = 0; generation_.load(std::memory_order_acquire) == generation; ++spins) {
    if (spins < kSpinsBeforeYield) {
      Pause();
    } else {
      std::this_thread::yield();
    }
  }
}

int WorkerPool::NumAvailableCores() {
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof(set), &set) != 0) return 1;
  const double quota = std::min<double>(kMaxThreads, std::ceil(ReadCgroupLimits().num_cores.value_or(kMaxThreads)));
  return std::max(1, std::min(static_cast<int>(quota), CPU_COUNT(&set)));
}

absl::StatusOr<std::unique_ptr<WorkerPool>> WorkerPool::Create(int num_threads) {
  std::unique_ptr<WorkerPool> pool(new WorkerPool(num_threads));
  WorkerPool* const self = pool.get();
  for (int thread = 1; thread < num_threads; ++thread) {
    try {
      pool->workers_.emplace_back([self, thread] { self->WorkerLoop(thread); });
    } catch (const std::system_error& error) {  // the destructor ends those that run
      return absl::ResourceExhaustedError(absl::StrCat("num_threads is ", num_threads, ", but only ", thread,
                                                       " could be started: ", error.what()));
    }
  }
  return pool;
}

WorkerPool::~WorkerPool() {
  stop_.store(true, std::memory_order_relaxed);
  job_number_.fetch_add(1, std::memory_order_seq_cst);
  {
    MutexLock lock(&mutex_);
    wake_.NotifyAll();
  }
  for (std::thread& worker : workers_) worker.join();
}

void WorkerPool::RunErased(Entry entry, void* context) {
  if (num_threads_ == 1) {
    entry(context, 0);
    return;
  }
  entry_ = entry;
  context_ = context;
  still_running_.store(num_threads_ - 1, std::memory_order_relaxed);
  // Sequentially consistent against the sleeper's pair (count itself, read the job number): one of the two sees the
  // other, so no job is slept through.
  job_number_.fetch_add(1, std::memory_order_seq_cst);
  if (num_sleeping_.load(std::memory_order_seq_cst) > 0) {
    MutexLock lock(&mutex_);
    wake_.NotifyAll();
  }
  entry(context, 0);
  for (int spins = 0; still_running_.load(std::memory_order_acquire) > 0; ++spins) {
    if (spins < kSpinsBeforeYield) {
      Pause();
    } else {
      std::this_thread::yield();
    }
  }
}

uint32_t WorkerPool::WaitForJob(uint32_t last_job) {
  const auto give_up = std::chrono::steady_clock::now() + kSpinTime;
  do {
    for (int i = 0; i < kSpinsPerClock; ++i) {
      const uint32_t job = job_number_.load(std::memory_order_acquire);
      if (job != last_job) return job;
      Pause();
    }
  } while (std::chrono::steady_clock::now() < give_up);

  MutexLock lock(&mutex_);
  num_sleeping_.fetch_add(1, std::memory_order_seq_cst);
  uint32_t job = last_job;
  while ((job = job_number_.load(std::memory_order_seq_cst)) == last_job) wake_.Wait(&mutex_);
  num_sleeping_.fetch_sub(1, std::memory_order_relaxed);
  return job;
}

void WorkerPool::WorkerLoop(int thread) {
  uint32_t job = 0;
  while (true) {
    job = WaitForJob(job);
    if (stop_.load(std::memory_order_relaxed)) return;
    entry_(context_, thread);
    still_running_.fetch_sub(1, std::memory_order_release);
  }
}

void WorkerPool::ParallelFor(int64_t count, const std::function<void(int, int64_t)>& body) {
  if (num_threads_ == 1 || count <= 1) {
    for (int64_t i = 0; i < count; ++i) body(0, i);
    return;
  }
  std::atomic<int64_t> next{0};
  Run([&](int thread) {
    for (int64_t i = next.fetch_add(1, std::memory_order_relaxed); i < count;
         i = next.fetch_add(1, std::memory_order_relaxed)) {
      body(thread, i);
    }
  });
}

}  // namespace switchyard
