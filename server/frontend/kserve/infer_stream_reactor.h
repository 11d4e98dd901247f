// The gRPC side of ModelStreamInfer: passes events to an InferStream and its words to gRPC.
#ifndef SWITCHYARD_SERVER_FRONTEND_KSERVE_INFER_STREAM_REACTOR_H_
#define SWITCHYARD_SERVER_FRONTEND_KSERVE_INFER_STREAM_REACTOR_H_

#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/server_callback.h>

#include <memory>

#include "server/frontend/call_context.h"
#include "server/frontend/kserve/infer_stream.h"

namespace switchyard::kserve {

// Keeps itself alive from Begin to OnDone.
class InferStreamReactor final : public grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>,
                                 public InferStream::Transport,
                                 public std::enable_shared_from_this<InferStreamReactor> {
 public:
  InferStreamReactor(FrontendParts* parts, grpc::CallbackServerContext* context);

  const std::shared_ptr<InferStream>& stream() const { return stream_; }
  // To be called once, by the method's handler. Not OK: the call ends with it at once.
  void Begin(const absl::Status& admitted);

  void Read() override;
  void Write(const inference::ModelStreamInferResponse& message) override;
  void Finish(const absl::Status& status) override;
  void Break() override;

  void OnReadDone(bool ok) override;
  void OnWriteDone(bool ok) override;
  void OnCancel() override;
  void OnDone() override;

 private:
  grpc::CallbackServerContext* const context_;
  BreakableContext breakable_;
  const std::shared_ptr<InferStream> stream_;
  grpc::ByteBuffer incoming_;  // of the read in flight
  grpc::ByteBuffer outgoing_;  // of the write in flight
  std::shared_ptr<InferStreamReactor> self_;
};

}  // namespace switchyard::kserve

#endif  // SWITCHYARD_SERVER_FRONTEND_KSERVE_INFER_STREAM_REACTOR_H_
