#include "server/frontend/text_worker.h"

#include <utility>

namespace switchyard {

TextWorker::TextWorker(size_t max_jobs, size_t max_bytes)
    : max_jobs_(max_jobs), max_bytes_(max_bytes), thread_([this] { Run(); }) {}

TextWorker::~TextWorker() { Stop(); }

void TextWorker::Stop() {
  {
    MutexLock lock(&mutex_);
    stop_ = true;
  }
  changed_.NotifyOne();
  if (thread_.joinable()) thread_.join();
}

bool TextWorker::Post(size_t num_bytes, Job job) {
  {
    MutexLock lock(&mutex_);
    if (stop_ || jobs_.size() >= max_jobs_) return false;
    if (!jobs_.empty() && waiting_bytes_ + num_bytes > max_bytes_) return false;
    jobs_.push_back({num_bytes, std::move(job)});
    waiting_bytes_ += num_bytes;
  }
  changed_.NotifyOne();
  return true;
}

void TextWorker::Run() {
  while (true) {
    Entry entry;
    bool stopping = false;
    {
      MutexLock lock(&mutex_);
      while (jobs_.empty() && !stop_) changed_.Wait(&mutex_);
      if (jobs_.empty()) return;
      entry = std::move(jobs_.front());
      jobs_.pop_front();
      waiting_bytes_ -= entry.num_bytes;
      stopping = stop_;
    }
    entry.job(stopping);
  }
}

}  // namespace switchyard
