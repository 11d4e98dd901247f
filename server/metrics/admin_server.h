// The admin HTTP port: fixed pages for scrapers and probes, nothing else.
//
// Connections are closed after one answer and cut when they do not send their request in time, so that slow clients
// cannot keep others out; each of the few dozen threads only ever waits for one connection.
#ifndef SWITCHYARD_SERVER_METRICS_ADMIN_SERVER_H_
#define SWITCHYARD_SERVER_METRICS_ADMIN_SERVER_H_

#include <functional>
#include <map>
#include <memory>
#include <string>

#include "absl/status/statusor.h"

struct mg_context;
struct mg_connection;

namespace switchyard {

struct AdminPage {
  int code = 200;
  std::string content_type = "text/plain; charset=utf-8";
  std::string body;
  std::string content_security_policy = "default-src 'none'; frame-ancestors 'none'";
};

class AdminServer {
 public:
  // Makes the page of a path such as "/metrics". Called on the server's threads, several at a time.
  using Pages = std::map<std::string, std::function<AdminPage()>>;

  // Listens at once. UNAVAILABLE: the address cannot be used (another process has the port); names host and port.
  static absl::StatusOr<std::unique_ptr<AdminServer>> Listen(const std::string& host, int port, Pages pages);

  ~AdminServer();  // waits for the answers in progress
  AdminServer(const AdminServer&) = delete;
  AdminServer& operator=(const AdminServer&) = delete;

  // The port that is listened on, also when 0 was asked for.
  int port() const { return port_; }

 private:
  explicit AdminServer(Pages pages) : pages_(std::move(pages)) {}
  static int Answer(mg_connection* connection, void* self);

  const Pages pages_;
  mg_context* context_ = nullptr;
  int port_ = 0;
};

}  // namespace switchyard

#endif  // SWITCHYARD_SERVER_METRICS_ADMIN_SERVER_H_
