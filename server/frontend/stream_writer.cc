#include "server/frontend/stream_writer.h"

#include <utility>

namespace switchyard {

StreamWriter::StreamWriter() : thread_([this] { Run(); }) {}

StreamWriter::~StreamWriter() {
  {
    MutexLock lock(&mutex_);
    stop_ = true;
  }
  flushed_.NotifyOne();
  thread_.join();
}

void StreamWriter::Announce(std::shared_ptr<Stream> stream) {
  MutexLock lock(&mutex_);
  announced_.push_back(std::move(stream));
}

void StreamWriter::Flush() {
  {
    MutexLock lock(&mutex_);
    if (announced_.empty()) return;
    flush_ = true;
  }
  flushed_.NotifyOne();
}

void StreamWriter::Run() {
  std::vector<std::shared_ptr<Stream>> streams;
  while (true) {
    {
      MutexLock lock(&mutex_);
      while (!flush_ && !stop_) flushed_.Wait(&mutex_);
      flush_ = false;
      if (stop_ && announced_.empty()) return;
      streams.swap(announced_);
    }
    for (const auto& stream : streams) stream->WritePending();
    streams.clear();
  }
}

}  // namespace switchyard
