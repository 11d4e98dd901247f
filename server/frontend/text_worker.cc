#include "server/frontend/text_worker.h"

#include <utility>

namespace switchyard {

TextWorker::TextWorker(size_t capacity) : capacity_(capacity), thread_([this] { Run(); }) {}

TextWorker::~TextWorker() {
  {
    MutexLock lock(&mutex_);
    stop_ = true;
  }
  posted_.NotifyOne();
  thread_.join();
}

bool TextWorker::Post(std::function<void()> job) {
  {
    MutexLock lock(&mutex_);
    if (jobs_.size() >= capacity_) return false;
    jobs_.push_back(std::move(job));
  }
  posted_.NotifyOne();
  return true;
}

void TextWorker::Run() {
  while (true) {
    std::function<void()> job;
    {
      MutexLock lock(&mutex_);
      while (jobs_.empty() && !stop_) posted_.Wait(&mutex_);
      if (jobs_.empty()) return;
      job = std::move(jobs_.front());
      jobs_.pop_front();
    }
    job();
  }
}

}  // namespace switchyard
