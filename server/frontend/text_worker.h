// One thread for work that is too long for a gRPC callback: tokenizing long texts, rendering chats. Bounded in jobs and
// in bytes: a full queue is an answer to the caller.
#ifndef SWITCHYARD_SERVER_FRONTEND_TEXT_WORKER_H_
#define SWITCHYARD_SERVER_FRONTEND_TEXT_WORKER_H_

#include <cstddef>
#include <deque>
#include <functional>
#include <thread>

#include "engine/base/mutex.h"

namespace switchyard {

class TextWorker {
 public:
  // Shorter texts are tokenized where they arrive: at about 10 MB/s that takes less than half a millisecond.
  static constexpr size_t kInlineBytes = 4096;

  // `stopping`: the server goes down; answer without doing the work.
  using Job = std::function<void(bool stopping)>;

  TextWorker(size_t max_jobs, size_t max_bytes);
  ~TextWorker();  // Stop

  // Runs `job`, which holds a text of `num_bytes`, on the worker's thread. False: so many jobs or bytes wait already
  // (one job always fits), or Stop was called; nothing was kept.
  bool Post(size_t num_bytes, Job job);
  // Refuses new jobs, runs those that wait as `stopping`, and joins. After it no job runs. Idempotent; one caller.
  void Stop();

 private:
  struct Entry {
    size_t num_bytes;
    Job job;
  };
  void Run();

  const size_t max_jobs_;
  const size_t max_bytes_;
  Mutex mutex_;
  CondVar changed_;
  std::deque<Entry> jobs_ ABSL_GUARDED_BY(mutex_);
  size_t waiting_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  bool stop_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace switchyard

#endif  // SWITCHYARD_SERVER_FRONTEND_TEXT_WORKER_H_
