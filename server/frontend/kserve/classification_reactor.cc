#include "server/frontend/kserve/classification_reactor.h"

#include <algorithm>
#include <chrono>
#include <memory>
#include <utility>

#include "engine/base/status_macros.h"
#include "server/frontend/call_context.h"
#include "server/frontend/grpc_status.h"
#include "server/frontend/kserve/classification_call.h"
#include "server/frontend/raw_message.h"

namespace switchyard::kserve {
namespace {

// Keeps itself alive until OnDone.
class Reactor final : public grpc::ServerUnaryReactor,
                      public ClassificationTransport,
                      public std::enable_shared_from_this<Reactor> {
 public:
  Reactor(grpc::CallbackServerContext* context, grpc::ByteBuffer* response)
      : context_(context), breakable_(context), response_(response) {}

  void Begin(FrontendParts* parts, absl::StatusOr<ImageRequest> request) {
    self_ = shared_from_this();
    const std::shared_ptr<Reactor> alive = self_;
    TimePoint deadline = SteadyDeadline(*context_);
    if (request.ok() && request->timeout) {
      deadline = std::min(deadline, std::chrono::steady_clock::now() + *request->timeout);
    }
    call_ = std::make_shared<ClassificationCall>(parts, deadline);
    if (request.ok()) {
      call_->Start(alive, *std::move(request), MetadataRequestId(*context_));
    } else {
      call_->Refuse(alive, request.status());
    }
  }

  void Respond(const std::string& request_id, const Classification& classification) override {
    context_->AddInitialMetadata("x-request-id", request_id);
    *response_ = SerializeMessage(ToResponse(classification));
    Finish(absl::OkStatus());
  }

  void Finish(const absl::Status& status) override {
    AddRetryTrailer(status, context_);
    ServerUnaryReactor::Finish(ToGrpcStatus(status));
  }

  void Break() override { breakable_.Break(); }
  void OnCancel() override { call_->OnCancel(); }

  void OnDone() override {
    breakable_.Release();
    call_->OnDone();
    self_.reset();  // may be the end of *this
  }

 private:
  grpc::CallbackServerContext* const context_;
  BreakableContext breakable_;
  grpc::ByteBuffer* const response_;
  std::shared_ptr<ClassificationCall> call_;
  std::shared_ptr<Reactor> self_;
};

absl::StatusOr<ImageRequest> Read(const FrontendParts& parts, const ServedModel& model, const grpc::ByteBuffer& bytes) {
  ASSIGN_OR_RETURN(const auto request, ParseAs<inference::ModelInferRequest>(bytes));
  return ReadImageRequest(request, model, parts.limits.max_num_queued_reqs);
}

}  // namespace

grpc::ServerUnaryReactor* StartClassification(FrontendParts* parts, grpc::CallbackServerContext* context,
                                              const ServedModel& model, const grpc::ByteBuffer& request,
                                              grpc::ByteBuffer* response) {
  auto reactor = std::make_shared<Reactor>(context, response);
  reactor->Begin(parts, Read(*parts, model, request));
  return reactor.get();
}

}  // namespace switchyard::kserve
