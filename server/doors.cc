#include "server/doors.h"

#include <chrono>
#include <cmath>

#include "engine/base/status_macros.h"

namespace switchyard {
namespace {

std::chrono::milliseconds Millis(double seconds) { return std::chrono::milliseconds(std::llround(seconds * 1e3)); }

// One address, one set of limits: what HTTP has no setting for is that of gRPC.
http::HttpServerOptions ToHttpServerOptions(const ServerOptions& options) {
  http::HttpServerOptions http;
  http.host = options.grpc.host;
  http.port = options.http.http_port;
  http.max_connections = options.http.http_max_connections;
  http.max_body_bytes = options.grpc.max_message_bytes;
  http.max_head_bytes = options.grpc.max_metadata_bytes;
  http.head_timeout = Millis(options.grpc.handshake_timeout);
  http.idle_timeout = Millis(options.http.http_idle_timeout);
  return http;
}

}  // namespace

void Doors::Shutdown(TimePoint deadline) {
  frontend->Shutdown(deadline);
  if (http != nullptr) http->Shutdown(deadline);
}

absl::StatusOr<Doors> OpenDoors(const ServerOptions& options, ServingMetrics* metrics) {
  Doors doors;
  ASSIGN_OR_RETURN(doors.frontend, Frontend::Listen(options.grpc, options.scheduling, metrics));
  if (options.http.http_port < 0) return doors;
  ASSIGN_OR_RETURN(doors.http, http::HttpServer::Listen(ToHttpServerOptions(options), doors.frontend->parts(),
                                                        doors.frontend->credentials()));
  return doors;
}

}  // namespace switchyard
