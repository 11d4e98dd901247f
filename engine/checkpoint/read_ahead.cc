#include "engine/checkpoint/read_ahead.h"

#include <algorithm>
#include <chrono>
#include <system_error>

namespace switchyard {
namespace {

// Far enough for deep queues of a network disk, little beside the memory that a model of several shards takes.
constexpr int64_t kDistance = int64_t{256} << 20;
constexpr int64_t kStep = int64_t{4} << 20;

int64_t BytesRead(const std::vector<const SafetensorsFile*>& files) {
  int64_t bytes = 0;
  for (const SafetensorsFile* file : files) bytes += file->bytes_read();
  return bytes;
}

}  // namespace

ReadAhead::~ReadAhead() {
  stop_.store(true);
  if (thread_.joinable()) thread_.join();
}

void ReadAhead::Start() {
  if (thread_.joinable()) return;
  for (const FileRange& range : ranges_) {
    if (std::find(files_.begin(), files_.end(), range.file) == files_.end()) files_.push_back(range.file);
  }
  read_before_ = BytesRead(files_);
  try {
    thread_ = std::thread([this] { Run(); });
  } catch (const std::system_error&) {
    return;  // no thread: the kernel's own guesses have to do
  }
}

void ReadAhead::Run() {
  int64_t asked = 0;
  for (const FileRange& range : ranges_) {
    for (int64_t begin = range.begin; begin < range.end; begin += kStep) {
      if (!WaitForRoom(asked)) return;
      const int64_t count = std::min(kStep, range.end - begin);
      range.file->WillRead(begin, count);
      asked += count;
    }
  }
}

bool ReadAhead::WaitForRoom(int64_t asked) const {
  while (!stop_.load()) {
    if (asked - (BytesRead(files_) - read_before_) < kDistance) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return false;
}

}  // namespace switchyard
