// grpc.health.v1.Health over one state for the whole server: SERVING or not, for "" and for each service's full name.
//
// Not gRPC's built-in one: that says SERVING from the moment the port is open, and we open it while the model loads.
// Its calls are not counted in the metrics: most of them are our own probe's.
#ifndef SWITCHYARD_SERVER_FRONTEND_HEALTH_SERVICE_H_
#define SWITCHYARD_SERVER_FRONTEND_HEALTH_SERVICE_H_

#include <memory>
#include <set>
#include <string>
#include <vector>

#include "engine/base/mutex.h"
#include "grpc/health/v1/health.grpc.pb.h"
#include "server/frontend/watch_reactor.h"

namespace switchyard {

using RawHealth = grpc::health::v1::Health::WithRawCallbackMethod_Check<
    grpc::health::v1::Health::WithRawCallbackMethod_Watch<grpc::health::v1::Health::Service>>;

class HealthService final : public RawHealth {
 public:
  // `services`: full names that can be asked for, besides "".
  explicit HealthService(std::set<std::string> services);
  ~HealthService() override;

  // Tells all watchers of a change. Any thread.
  void SetServing(bool serving);
  bool serving() const;
  // Ends all watches, as the server goes down.
  void EndWatches();

  grpc::ServerUnaryReactor* Check(grpc::CallbackServerContext* context, const grpc::ByteBuffer* request,
                                  grpc::ByteBuffer* response) override;
  grpc::ServerWriteReactor<grpc::ByteBuffer>* Watch(grpc::CallbackServerContext* context,
                                                    const grpc::ByteBuffer* request) override;

 private:
  class Watcher;
  bool Knows(const std::string& service) const;
  std::vector<std::shared_ptr<Watcher>> Watchers();

  const std::set<std::string> services_;
  mutable Mutex mutex_;
  bool serving_ ABSL_GUARDED_BY(mutex_) = false;
  std::vector<std::weak_ptr<Watcher>> watchers_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace switchyard

#endif  // SWITCHYARD_SERVER_FRONTEND_HEALTH_SERVICE_H_
