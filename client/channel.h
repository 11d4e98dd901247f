// The gRPC side of ClientOptions: for code of this folder that speaks to the stubs itself.
#ifndef SWITCHYARD_CLIENT_CHANNEL_H_
#define SWITCHYARD_CLIENT_CHANNEL_H_

#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>
#include <grpcpp/support/status.h>

#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "client/switchyard_client.h"

namespace switchyard {

// Errors as Client::Create.
absl::StatusOr<std::shared_ptr<grpc::Channel>> CreateChannel(const ClientOptions& options);

// Sets the deadline and the API key of a call.
void PrepareContext(const ClientOptions& options, const CallOptions& call, grpc::ClientContext* context);

// Same code and message; the google.rpc details become payloads, by type URL.
absl::Status ToAbslStatus(const grpc::Status& status);

}  // namespace switchyard

#endif  // SWITCHYARD_CLIENT_CHANNEL_H_
