// One thread that writes what the streams have pending, so that neither the serving loop nor a gRPC thread does.
//
// Streams announce themselves during a step; Flush at its end wakes the thread once for all of them. Each gets one
// message with everything that is pending by then.
#ifndef SWITCHYARD_SERVER_FRONTEND_STREAM_WRITER_H_
#define SWITCHYARD_SERVER_FRONTEND_STREAM_WRITER_H_

#include <memory>
#include <thread>
#include <vector>

#include "engine/base/mutex.h"

namespace switchyard {

class StreamWriter {
 public:
  class Stream {
   public:
    virtual ~Stream() = default;
    virtual void WritePending() = 0;  // on the writer's thread
  };

  StreamWriter();
  ~StreamWriter();  // what was announced before is still written

  // `stream` has something pending; it is written at the next Flush. Thread-safe, does not block.
  void Announce(std::shared_ptr<Stream> stream);
  void Flush();

 private:
  void Run();

  Mutex mutex_;
  CondVar flushed_;
  std::vector<std::shared_ptr<Stream>> announced_ ABSL_GUARDED_BY(mutex_);
  bool flush_ ABSL_GUARDED_BY(mutex_) = false;
  bool stop_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace switchyard

#endif  // SWITCHYARD_SERVER_FRONTEND_STREAM_WRITER_H_
