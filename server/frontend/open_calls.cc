#include "server/frontend/open_calls.h"

namespace switchyard {

bool OpenCalls::Add(const std::string& request_id, const std::shared_ptr<OpenCall>& call) {
  MutexLock lock(&mutex_);
  if (by_request_id_.size() >= max_calls_) return false;
  by_request_id_.emplace(request_id, call);
  return true;
}

void OpenCalls::Remove(const std::string& request_id, OpenCall* call) {
  MutexLock lock(&mutex_);
  const auto [begin, end] = by_request_id_.equal_range(request_id);
  for (auto it = begin; it != end; ++it) {
    if (it->second.lock().get() != call) continue;
    by_request_id_.erase(it);
    return;
  }
}

std::vector<std::shared_ptr<OpenCall>> OpenCalls::Find(const std::string& request_id) const {
  std::vector<std::shared_ptr<OpenCall>> found;
  MutexLock lock(&mutex_);
  const auto [begin, end] = by_request_id_.equal_range(request_id);
  for (auto it = begin; it != end; ++it) {
    if (auto call = it->second.lock()) found.push_back(std::move(call));
  }
  return found;
}

std::vector<std::shared_ptr<OpenCall>> OpenCalls::All() const {
  std::vector<std::shared_ptr<OpenCall>> all;
  MutexLock lock(&mutex_);
  for (const auto& [id, weak] : by_request_id_) {
    if (auto call = weak.lock()) all.push_back(std::move(call));
  }
  return all;
}

}  // namespace switchyard
