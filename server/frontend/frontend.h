// The gRPC side of the server: services, health, and the threads around them.
//
//   Listen            the port is open; health says NOT_SERVING, calls get UNAVAILABLE STARTING
//   BeginServing      the model is there: SERVING
//   BeginDraining     NOT_SERVING first, then new calls get UNAVAILABLE DRAINING; running ones go on
//   MarkEngineFailed  NOT_SERVING first, then new calls get UNAVAILABLE ENGINE_FAILED; for good
//   Shutdown          ends what the loop has not ended, waits until the clients have read it or a deadline
//
// A probe thread calls the health check through gRPC every 100 ms: that keeps gRPC's callback threads awake (they sleep
// up to 100 ms after an idle second, which would be the latency of the next first token), asks whether the engine is
// alive, and breaks off calls whose client reads nothing.
#ifndef SWITCHYARD_SERVER_FRONTEND_FRONTEND_H_
#define SWITCHYARD_SERVER_FRONTEND_FRONTEND_H_

#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "server/access/credential_files.h"
#include "server/frontend/frontend_parts.h"
#include "server/options.h"

namespace grpc {
class Channel;
}

namespace switchyard {

class Frontend {
 public:
  // UNAVAILABLE: the address cannot be listened on; names host and port. INVALID_ARGUMENT: a certificate or token file
  // cannot be used; names the setting. `metrics` outlives the frontend.
  static absl::StatusOr<std::unique_ptr<Frontend>> Listen(const GrpcOptions& grpc, const SchedulingOptions& scheduling,
                                                          ServingMetrics* metrics);
  ~Frontend();  // Shutdown at once, if that was not called

  int port() const;

  // `alive` is asked every 100 ms: false makes the server unhealthy for good, and ends all calls, which a hanging
  // engine never would. Call once.
  void BeginServing(ServedModel model, std::function<bool()> alive);
  void BeginDraining();
  // Any thread. The calls are left to the loop, which ends them next.
  void MarkEngineFailed();
  // REQUIRES: the loop has ended or hangs. What it has not ended gets UNAVAILABLE; blocks until all clients have read
  // their answers, or `deadline`, when the rest is cut off. Afterwards nothing of the served model is used any more.
  // Call once.
  void Shutdown(TimePoint deadline);

  // The end of a step: what the streams have pending is sent.
  void Flush();

  bool serving() const;
  // False from the moment the engine was found dead.
  bool healthy() const;

  // For front doors of other protocols: what calls share, and who is let in. Valid as long as the frontend. Calls of
  // these are ended by Shutdown as its own are, but not waited for.
  FrontendParts* parts();
  const CredentialFiles* credentials() const;

  // For tests.
  std::shared_ptr<grpc::Channel> InProcessChannel();

 private:
  struct Impl;
  explicit Frontend(std::unique_ptr<Impl> impl);
  const std::unique_ptr<Impl> impl_;
};

}  // namespace switchyard

#endif  // SWITCHYARD_SERVER_FRONTEND_FRONTEND_H_
