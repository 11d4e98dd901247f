// The ways in: gRPC always, OpenAI's interface over HTTP with --http-port. Both lead to the same queue.
#ifndef SWITCHYARD_SERVER_DOORS_H_
#define SWITCHYARD_SERVER_DOORS_H_

#include <memory>

#include "absl/status/statusor.h"
#include "server/frontend/frontend.h"
#include "server/http/http_server.h"
#include "server/options.h"

namespace switchyard {

struct Doors {
  std::unique_ptr<Frontend> frontend;
  std::unique_ptr<http::HttpServer> http;  // null: none; uses the frontend's parts

  // Frontend::Shutdown, and then the same for HTTP: `deadline` is that of both.
  void Shutdown(TimePoint deadline);
};

// Opens the ports.  UNAVAILABLE, INVALID_ARGUMENT: as Frontend::Listen and HttpServer::Listen.
absl::StatusOr<Doors> OpenDoors(const ServerOptions& options, ServingMetrics* metrics);

}  // namespace switchyard

#endif  // SWITCHYARD_SERVER_DOORS_H_
