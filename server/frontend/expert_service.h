// switchyard.v1.ExpertService: the load of every expert, from the arrays behind the metrics.
#ifndef SWITCHYARD_SERVER_FRONTEND_EXPERT_SERVICE_H_
#define SWITCHYARD_SERVER_FRONTEND_EXPERT_SERVICE_H_

#include <memory>
#include <vector>

#include "engine/base/mutex.h"
#include "server/frontend/frontend_parts.h"
#include "switchyard/v1/expert_service.grpc.pb.h"

namespace switchyard {

using RawExpertService = v1::ExpertService::WithRawCallbackMethod_GetExpertLoad<
    v1::ExpertService::WithRawCallbackMethod_WatchExpertLoad<v1::ExpertService::Service>>;

class ExpertService final : public RawExpertService {
 public:
  explicit ExpertService(FrontendParts* parts) : parts_(parts) {}
  ~ExpertService() override;

  // Ends all watches, as the server goes down.
  void EndWatches();

  grpc::ServerUnaryReactor* GetExpertLoad(grpc::CallbackServerContext* context, const grpc::ByteBuffer* request,
                                          grpc::ByteBuffer* response) override;
  grpc::ServerWriteReactor<grpc::ByteBuffer>* WatchExpertLoad(grpc::CallbackServerContext* context,
                                                              const grpc::ByteBuffer* request) override;

 private:
  class Watcher;
  bool AddWatcher(const std::shared_ptr<Watcher>& watcher);
  absl::Status PrepareWatch(const grpc::ByteBuffer& bytes, Watcher* watcher) const;

  FrontendParts* const parts_;
  Mutex mutex_;
  std::vector<std::weak_ptr<Watcher>> watchers_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace switchyard

#endif  // SWITCHYARD_SERVER_FRONTEND_EXPERT_SERVICE_H_
