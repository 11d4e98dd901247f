// A backend's host threads. The calling thread is one of them: with num_threads = 1 everything runs inline.
//
//   pool.Run([&](int thread) {           // thread = 0 (the caller) .. num_threads - 1, all at once
//     ... this thread's part ...
//     pool.Barrier();                    // optional: all threads or none call it
//     ... next phase ...
//   });
//
// Who computes what never changes a result: a row has one order of additions whichever thread takes it. Waiting
// threads spin for about 0.1 ms, because the next operation of a step follows within microseconds, and then sleep, so
// that an idle server burns no CPU. Between two running threads a Run costs 0.4 us and a
// Barrier 0.2 us; waking a sleeper costs 30 us.
//
// Threads: one caller at a time; bodies must not call Run.
#ifndef SWITCHYARD_ENGINE_BASE_WORKER_POOL_H_
#define SWITCHYARD_ENGINE_BASE_WORKER_POOL_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/base/mutex.h"

namespace switchyard {

// `size` threads meet here again and again. Spins, and yields the core when the others are late.
class SpinBarrier {
 public:
  explicit SpinBarrier(int size) : size_(size) {}
  void Wait();

 private:
  const int size_;
  alignas(64) std::atomic<int> arrived_{0};
  alignas(64) std::atomic<uint32_t> generation_{0};
};

class WorkerPool {
 public:
  static constexpr int kMaxThreads = 1024;

  // Cores that this process may use: more threads than the container's share of CPU time would only be throttled, all
  // at once and in mid-step.
  static int NumAvailableCores();

  // RESOURCE_EXHAUSTED: the system does not start so many threads. REQUIRES: num_threads > 0.
  static absl::StatusOr<std::unique_ptr<WorkerPool>> Create(int num_threads);
  ~WorkerPool();
  WorkerPool(const WorkerPool&) = delete;
  WorkerPool& operator=(const WorkerPool&) = delete;

  int num_threads() const { return num_threads_; }

  // Runs body(thread) once on every thread; returns when all are done.
  template <typename Body>
  void Run(Body&& body) {
    using Stored = std::remove_reference_t<Body>;
    RunErased([](void* context, int thread) { (*static_cast<Stored*>(context))(thread); }, &body);
  }

  // Within Run: waits until all threads of the pool are here.
  void Barrier() { barrier_.Wait(); }

  // Runs body(thread, i) for i = 0 ... count - 1, each on whichever thread is free.
  void ParallelFor(int64_t count, const std::function<void(int, int64_t)>& body);

  // The contiguous part [first, last) of `count` that belongs to `thread` of `num_threads`.
  static std::pair<int64_t, int64_t> Part(int64_t count, int thread, int num_threads) {
    return {count * thread / num_threads, count * (thread + 1) / num_threads};
  }

 private:
  using Entry = void (*)(void* context, int thread);

  explicit WorkerPool(int num_threads) : num_threads_(num_threads), barrier_(num_threads) {}

  void RunErased(Entry entry, void* context);
  void WorkerLoop(int thread);
  uint32_t WaitForJob(uint32_t last_job);

  const int num_threads_;
  SpinBarrier barrier_;

  // The job: written by the caller before it releases `job_number_`, read by workers after they acquired it.
  Entry entry_ = nullptr;
  void* context_ = nullptr;
  alignas(64) std::atomic<uint32_t> job_number_{0};
  alignas(64) std::atomic<int> still_running_{0};
  alignas(64) std::atomic<int> num_sleeping_{0};
  std::atomic<bool> stop_{false};
  Mutex mutex_;
  CondVar wake_;
  std::vector<std::thread> workers_;
};

}  // namespace switchyard

#endif  // SWITCHYARD_ENGINE_BASE_WORKER_POOL_H_
