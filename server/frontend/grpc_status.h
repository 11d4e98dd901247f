// The one function that turns what went wrong into a gRPC status.
#ifndef SWITCHYARD_SERVER_FRONTEND_GRPC_STATUS_H_
#define SWITCHYARD_SERVER_FRONTEND_GRPC_STATUS_H_

#include <grpcpp/support/status.h>

#include "absl/status/status.h"

namespace switchyard {

// Status and details, ready to be sent. Of INTERNAL and UNKNOWN, what WithoutInsides leaves.
grpc::Status ToGrpcStatus(const absl::Status& status);

}  // namespace switchyard

#endif  // SWITCHYARD_SERVER_FRONTEND_GRPC_STATUS_H_
