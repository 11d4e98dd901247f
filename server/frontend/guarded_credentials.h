// The credentials of the gRPC port: TLS or plaintext, and the one place where callers are asked for a token.
//
// gRPC asks them twice. At each TLS handshake: for the newest certificate, so that a rotation reaches new connections
// and leaves open ones alone. At the headers of each call: whether it may go on, before the method is even looked up.
// So no service can forget to ask, and a handler never runs for a caller that was refused. Health checks are exempt;
// calls inside this process (InProcessChannel) do not come through a port and are not asked.
//
// Built on gRPC's C interface: its C++ one exchanges certificates only by a file watcher that accepts a key which does
// not fit, and asks for tokens only over TLS, whereas a mesh hands us plaintext that it has decrypted.
#ifndef SWITCHYARD_SERVER_FRONTEND_GUARDED_CREDENTIALS_H_
#define SWITCHYARD_SERVER_FRONTEND_GUARDED_CREDENTIALS_H_

#include <grpcpp/security/server_credentials.h>

#include <memory>

#include "server/access/credential_files.h"
#include "server/metrics/serving_metrics.h"

namespace switchyard {

// For one port of one server, which they must outlive (gRPC lets go of them when the server is built but goes on to
// ask); so must `files` and `metrics`.
std::shared_ptr<grpc::ServerCredentials> GuardedCredentials(const CredentialFiles* files, ServingMetrics* metrics);

}  // namespace switchyard

#endif  // SWITCHYARD_SERVER_FRONTEND_GUARDED_CREDENTIALS_H_
