#include "server/frontend/grpc_transport.h"

#include <memory>
#include <utility>

#include "server/frontend/call_context.h"
#include "server/frontend/generation_call.h"
#include "server/frontend/grpc_status.h"
#include "server/frontend/raw_message.h"

namespace switchyard {
namespace {

// What both reactors share: the call, the context, and staying alive until OnDone.
template <typename Reactor>
class GenerationReactor : public Reactor,
                          public CallTransport,
                          public std::enable_shared_from_this<GenerationReactor<Reactor>> {
 public:
  GenerationReactor(FrontendParts* parts, bool streaming, TimePoint deadline, grpc::CallbackServerContext* context)
      : context_(context), breakable_(context), call_(std::make_shared<GenerationCall>(parts, streaming, deadline)) {}

  void Begin(absl::StatusOr<v1::GenerateRequest> request) {
    self_ = this->shared_from_this();
    const std::shared_ptr<GenerationReactor> alive = self_;
    if (request.ok()) {
      call_->Start(alive, *std::move(request), MetadataRequestId(*context_));
    } else {
      call_->Refuse(alive, request.status());
    }
  }

  void SendRequestId(const std::string& request_id) override {
    context_->AddInitialMetadata("x-request-id", request_id);
  }

  void Finish(const absl::Status& status) override {
    AddRetryTrailer(status, context_);
    Reactor::Finish(ToGrpcStatus(status));
  }

  void Break(TimePoint) override { breakable_.Break(); }
  void OnCancel() override { call_->OnCancel(); }

  void OnDone() override {
    breakable_.Release();
    call_->OnDone();
    self_.reset();  // may be the end of *this
  }

 protected:
  grpc::CallbackServerContext* const context_;
  BreakableContext breakable_;
  const std::shared_ptr<GenerationCall> call_;

 private:
  std::shared_ptr<GenerationReactor> self_;
};

class StreamReactor final : public GenerationReactor<grpc::ServerWriteReactor<grpc::ByteBuffer>> {
 public:
  StreamReactor(FrontendParts* parts, grpc::CallbackServerContext* context)
      : GenerationReactor(parts, /*streaming=*/true, SteadyDeadline(*context), context) {}

  // Headers go out at admission, so that the client knows the request's id before the first token. Not before it: with
  // headers sent gRPC's clients do not retry, and a refusal is the retry's very purpose.
  void SendRequestId(const std::string& request_id) override {
    GenerationReactor::SendRequestId(request_id);
    StartSendInitialMetadata();
  }

  void Write(const v1::GenerateStreamResponse& message) override {
    buffer_ = SerializeMessage(message);
    StartWrite(&buffer_);
  }

  void WriteAndFinish(const v1::GenerateStreamResponse& message) override {
    buffer_ = SerializeMessage(message);
    StartWriteAndFinish(&buffer_, grpc::WriteOptions(), grpc::Status::OK);
  }

  void Respond(const v1::GenerateResponse&) override {}  // it is a stream

  void OnWriteDone(bool ok) override { call_->OnWriteDone(ok); }

 private:
  grpc::ByteBuffer buffer_;  // of the write in flight
};

class UnaryReactor final : public GenerationReactor<grpc::ServerUnaryReactor> {
 public:
  UnaryReactor(FrontendParts* parts, grpc::CallbackServerContext* context, const UnaryExchange& exchange,
               grpc::ByteBuffer* response)
      : GenerationReactor(parts, /*streaming=*/false, exchange.deadline, context),
        encode_(exchange.encode),
        response_(response) {}

  void Write(const v1::GenerateStreamResponse&) override {}  // it answers once
  void WriteAndFinish(const v1::GenerateStreamResponse&) override {}

  void Respond(const v1::GenerateResponse& response) override {
    *response_ = encode_(response);
    Finish(absl::OkStatus());
  }

 private:
  const std::function<grpc::ByteBuffer(const v1::GenerateResponse&)> encode_;
  grpc::ByteBuffer* const response_;
};

}  // namespace

grpc::ServerWriteReactor<grpc::ByteBuffer>* StartStreamingCall(FrontendParts* parts,
                                                               grpc::CallbackServerContext* context,
                                                               absl::StatusOr<v1::GenerateRequest> request) {
  auto reactor = std::make_shared<StreamReactor>(parts, context);
  reactor->Begin(std::move(request));
  return reactor.get();
}

grpc::ServerUnaryReactor* StartUnaryCall(FrontendParts* parts, grpc::CallbackServerContext* context,
                                         UnaryExchange exchange, grpc::ByteBuffer* response) {
  auto reactor = std::make_shared<UnaryReactor>(parts, context, exchange, response);
  reactor->Begin(std::move(exchange.request));
  return reactor.get();
}

}  // namespace switchyard
