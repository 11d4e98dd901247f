// One thread for work that is too long for a gRPC callback: tokenizing long texts. Bounded: a full queue is an answer
// to the caller.
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

  explicit TextWorker(size_t capacity);
  ~TextWorker();  // runs what was posted

  // Runs `job` on the worker's thread. False: `capacity` jobs wait already; nothing was kept.
  bool Post(std::function<void()> job);

 private:
  void Run();

  const size_t capacity_;
  Mutex mutex_;
  CondVar posted_;
  std::deque<std::function<void()>> jobs_ ABSL_GUARDED_BY(mutex_);
  bool stop_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace switchyard

#endif  // SWITCHYARD_SERVER_FRONTEND_TEXT_WORKER_H_
