// The gRPC side of generating calls: reactors that pass their events to a GenerationCall and its words to gRPC.
//
// A reactor keeps itself alive until OnDone; other threads that are still inside a call of it hold a reference of their
// own. Reactions never wait.
#ifndef SWITCHYARD_SERVER_FRONTEND_GRPC_TRANSPORT_H_
#define SWITCHYARD_SERVER_FRONTEND_GRPC_TRANSPORT_H_

#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/server_callback.h>

#include <functional>

#include "absl/status/statusor.h"
#include "server/frontend/frontend_parts.h"
#include "switchyard/v1/inference_service.pb.h"

namespace switchyard {

// Starts the call, or ends it with why its message is no request; what is returned belongs to gRPC.
grpc::ServerWriteReactor<grpc::ByteBuffer>* StartStreamingCall(FrontendParts* parts,
                                                               grpc::CallbackServerContext* context,
                                                               absl::StatusOr<v1::GenerateRequest> request);

// One request, one answer, in whatever form they travel.
struct UnaryExchange {
  absl::StatusOr<v1::GenerateRequest> request;
  TimePoint deadline;
  std::function<grpc::ByteBuffer(const v1::GenerateResponse&)> encode;
};
// `response` stays valid until the reactor is done.
grpc::ServerUnaryReactor* StartUnaryCall(FrontendParts* parts, grpc::CallbackServerContext* context,
                                         UnaryExchange exchange, grpc::ByteBuffer* response);

}  // namespace switchyard

#endif  // SWITCHYARD_SERVER_FRONTEND_GRPC_TRANSPORT_H_
