#include "server/frontend/open_calls.h"

namespace switchyard {

bool OpenCalls::Add(GenerationCall* call) {
  MutexLock lock(&mutex_);
  if (calls_.size() >= max_calls_) return false;
  calls_.insert(call);
  return true;
}

void OpenCalls::SetRequestId(const std::string& request_id, const std::shared_ptr<GenerationCall>& call) {
  MutexLock lock(&mutex_);
  by_request_id_.emplace(request_id, call);
}

void OpenCalls::Remove(GenerationCall* call, const std::string& request_id) {
  MutexLock lock(&mutex_);
  calls_.erase(call);
  const auto [begin, end] = by_request_id_.equal_range(request_id);
  for (auto it = begin; it != end;) {
    const std::shared_ptr<GenerationCall> other = it->second.lock();
    it = other == nullptr || other.get() == call ? by_request_id_.erase(it) : std::next(it);
  }
}

std::vector<std::shared_ptr<GenerationCall>> OpenCalls::Find(const std::string& request_id) const {
  std::vector<std::shared_ptr<GenerationCall>> found;
  MutexLock lock(&mutex_);
  const auto [begin, end] = by_request_id_.equal_range(request_id);
  for (auto it = begin; it != end; ++it) {
    if (auto call = it->second.lock()) found.push_back(std::move(call));
  }
  return found;
}

std::vector<std::shared_ptr<GenerationCall>> OpenCalls::All() const {
  std::vector<std::shared_ptr<GenerationCall>> all;
  MutexLock lock(&mutex_);
  for (const auto& [id, weak] : by_request_id_) {
    if (auto call = weak.lock()) all.push_back(std::move(call));
  }
  return all;
}

}  // namespace switchyard
