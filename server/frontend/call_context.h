// Small things around a gRPC server context: deadline, request id, and breaking a call off safely.
#ifndef SWITCHYARD_SERVER_FRONTEND_CALL_CONTEXT_H_
#define SWITCHYARD_SERVER_FRONTEND_CALL_CONTEXT_H_

#include <grpcpp/server_context.h>

#include <string>
#include <thread>

#include "absl/status/status.h"
#include "engine/base/mutex.h"
#include "server/scheduler/request.h"

namespace switchyard {

// The client's deadline on the steady clock; TimePoint::max() for none or one that is months away.
TimePoint SteadyDeadline(const grpc::CallbackServerContext& context);

// Metadata x-request-id, or "".
std::string MetadataRequestId(const grpc::CallbackServerContext& context);

// Adds the trailer `grpc-retry-pushback-ms` where `status` says when to retry.
void AddRetryTrailer(const absl::Status& status, grpc::CallbackServerContext* context);

// Lets any thread cancel a call from the server's side although gRPC frees the context after OnDone.
class BreakableContext {
 public:
  explicit BreakableContext(grpc::CallbackServerContext* context) : context_(context) {}

  // Cancels the call; no-op after Release.
  void Break();
  // To be called in OnDone: waits for a Break on another thread.
  void Release();

 private:
  Mutex mutex_;
  CondVar idle_;
  grpc::CallbackServerContext* context_ ABSL_GUARDED_BY(mutex_);
  bool breaking_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread::id breaker_ ABSL_GUARDED_BY(mutex_);  // gRPC may call OnDone from inside Break
};

}  // namespace switchyard

#endif  // SWITCHYARD_SERVER_FRONTEND_CALL_CONTEXT_H_
