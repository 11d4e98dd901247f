// The gRPC side of generating calls: reactors that pass their events to a GenerationCall and its words to gRPC.
//
// A reactor keeps itself alive until OnDone; other threads that are still inside a call of it hold a reference of their
// own. Reactions never wait.
#ifndef SWITCHYARD_SERVER_FRONTEND_GRPC_TRANSPORT_H_
#define SWITCHYARD_SERVER_FRONTEND_GRPC_TRANSPORT_H_

#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/server_callback.h>

#include "server/frontend/frontend_parts.h"

namespace switchyard {

// Parses the bytes and starts the call; what is returned belongs to gRPC.
grpc::ServerWriteReactor<grpc::ByteBuffer>* StartStreamingCall(FrontendParts* parts,
                                                               grpc::CallbackServerContext* context,
                                                               const grpc::ByteBuffer& request);
// `response` stays valid until the reactor is done.
grpc::ServerUnaryReactor* StartUnaryCall(FrontendParts* parts, grpc::CallbackServerContext* context,
                                         const grpc::ByteBuffer& request, grpc::ByteBuffer* response);

}  // namespace switchyard

#endif  // SWITCHYARD_SERVER_FRONTEND_GRPC_TRANSPORT_H_
