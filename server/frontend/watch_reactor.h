// A server stream that sends a fresh message each time it is poked, until the client leaves or the server ends it.
// Pokes during a write are remembered, several as one.
#ifndef SWITCHYARD_SERVER_FRONTEND_WATCH_REACTOR_H_
#define SWITCHYARD_SERVER_FRONTEND_WATCH_REACTOR_H_

#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/server_callback.h>

#include <memory>

#include "absl/status/status.h"
#include "engine/base/mutex.h"
#include "server/frontend/write_sequencer.h"
#include "server/metrics/serving_metrics.h"

namespace switchyard {

class WatchReactor : public grpc::ServerWriteReactor<grpc::ByteBuffer>,
                     public std::enable_shared_from_this<WatchReactor> {
 public:
  // Keeps itself alive from here to OnDone. To be called once, by the method's handler.
  void Begin();

  // There is something new. Any thread; too late after an End.
  void Poke();
  // Ends the stream, after one more message if there is something new: the last news of a health watch is that the
  // server stops. Any thread; the first one counts.
  void End(const absl::Status& status);

  bool ended() const;

  void OnWriteDone(bool ok) override;
  void OnCancel() override;
  void OnDone() override;

 protected:
  // `metrics` may be null: the call is not counted.
  explicit WatchReactor(ServingMetrics* metrics) : metrics_(metrics) {}

  // The message to send now. One call at a time.
  virtual grpc::ByteBuffer Produce() = 0;

 private:
  void Advance();

  ServingMetrics* const metrics_;
  grpc::ByteBuffer buffer_;  // of the write in flight
  std::shared_ptr<WatchReactor> self_;
  mutable Mutex mutex_;
  bool poked_ ABSL_GUARDED_BY(mutex_) = false;
  bool ended_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Status status_ ABSL_GUARDED_BY(mutex_);
  WriteSequencer sequencer_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace switchyard

#endif  // SWITCHYARD_SERVER_FRONTEND_WATCH_REACTOR_H_
