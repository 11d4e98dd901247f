// The one function that turns what went wrong into a gRPC status.
#ifndef SWITCHYARD_SERVER_FRONTEND_GRPC_STATUS_H_
#define SWITCHYARD_SERVER_FRONTEND_GRPC_STATUS_H_

#include <grpcpp/support/status.h>

#include <cstdint>

#include "absl/status/status.h"

namespace switchyard {

// Status and details, ready to be sent. INTERNAL and UNKNOWN lose their text, which may name our insides: the client
// gets "internal error, id XXXX" and the log line with that id has the text.
grpc::Status ToGrpcStatus(const absl::Status& status);

// How many times ToGrpcStatus met INTERNAL or UNKNOWN.
uint64_t InternalErrors();

}  // namespace switchyard

#endif  // SWITCHYARD_SERVER_FRONTEND_GRPC_STATUS_H_
