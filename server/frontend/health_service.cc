#include "server/frontend/health_service.h"

#include <algorithm>
#include <utility>

#include "server/frontend/errors.h"
#include "server/frontend/raw_message.h"
#include "server/frontend/unary_call.h"

namespace switchyard {

using grpc::health::v1::HealthCheckRequest;
using grpc::health::v1::HealthCheckResponse;

class HealthService::Watcher final : public WatchReactor {
 public:
  Watcher(const HealthService* health, bool known) : WatchReactor(nullptr), health_(health), known_(known) {}

 private:
  grpc::ByteBuffer Produce() override {
    HealthCheckResponse response;
    response.set_status(!known_              ? HealthCheckResponse::SERVICE_UNKNOWN
                        : health_->serving() ? HealthCheckResponse::SERVING
                                             : HealthCheckResponse::NOT_SERVING);
    return SerializeMessage(response);
  }

  const HealthService* const health_;
  const bool known_;
};

HealthService::HealthService(std::set<std::string> services) : services_(std::move(services)) {}

HealthService::~HealthService() = default;

bool HealthService::serving() const {
  MutexLock lock(&mutex_);
  return serving_;
}

void HealthService::SetServing(bool serving) {
  {
    MutexLock lock(&mutex_);
    if (serving_ == serving) return;
    serving_ = serving;
  }
  for (const auto& watcher : Watchers()) watcher->Poke();
}

void HealthService::EndWatches() {
  for (const auto& watcher : Watchers()) watcher->End(Unavailable("the server is shutting down", "DRAINING"));
}

bool HealthService::Knows(const std::string& service) const { return service.empty() || services_.count(service) > 0; }

std::vector<std::shared_ptr<HealthService::Watcher>> HealthService::Watchers() {
  std::vector<std::shared_ptr<Watcher>> alive;
  MutexLock lock(&mutex_);
  for (const auto& weak : watchers_) {
    if (auto watcher = weak.lock()) alive.push_back(std::move(watcher));
  }
  return alive;
}

grpc::ServerUnaryReactor* HealthService::Check(grpc::CallbackServerContext* context, const grpc::ByteBuffer* request,
                                               grpc::ByteBuffer* response) {
  return AnswerUnary<HealthCheckRequest, HealthCheckResponse>(
      context, *request, response, nullptr, [this](const HealthCheckRequest& in, HealthCheckResponse* out) {
        if (!Knows(in.service())) return absl::NotFoundError("no service of that name");
        out->set_status(serving() ? HealthCheckResponse::SERVING : HealthCheckResponse::NOT_SERVING);
        return absl::OkStatus();
      });
}

grpc::ServerWriteReactor<grpc::ByteBuffer>* HealthService::Watch(grpc::CallbackServerContext*,
                                                                 const grpc::ByteBuffer* request) {
  HealthCheckRequest in;
  const absl::Status parsed = ParseMessage(*request, &in);
  auto watcher = std::make_shared<Watcher>(this, Knows(in.service()));
  watcher->Begin();
  if (!parsed.ok()) {
    watcher->End(parsed);
    return watcher.get();
  }
  {
    MutexLock lock(&mutex_);
    watchers_.erase(std::remove_if(watchers_.begin(), watchers_.end(), [](const auto& w) { return w.expired(); }),
                    watchers_.end());
    watchers_.push_back(watcher);
  }
  watcher->Poke();
  return watcher.get();
}

}  // namespace switchyard
