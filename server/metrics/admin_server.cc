#include "server/metrics/admin_server.h"

#include <civetweb.h>

#include <cstring>
#include <utility>

#include "server/options.h"

namespace switchyard {
namespace {

constexpr const char* kNumThreads = "48";          // more than the slow connections that one scraper storm brings
constexpr const char* kRequestTimeoutMs = "1500";  // to send the request

const char* ReasonPhrase(int code) {
  switch (code) {
    case 200: return "OK";
    case 404: return "Not Found";
    case 405: return "Method Not Allowed";
    default: return "Service Unavailable";
  }
}

void Send(mg_connection* connection, const AdminPage& page, bool with_body) {
  mg_printf(connection,
            "HTTP/1.1 %d %s\r\nContent-Type: %s\r\nContent-Length: %zu\r\nConnection: close\r\n"
            "Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\nReferrer-Policy: no-referrer\r\n"
            "Content-Security-Policy: %s\r\n\r\n",
            page.code, ReasonPhrase(page.code), page.content_type.c_str(), page.body.size(),
            page.content_security_policy.c_str());
  if (with_body) mg_write(connection, page.body.data(), page.body.size());
}

// civetweb would print to stderr on its own.
int DropMessage(const mg_connection*, const char*) { return 1; }

}  // namespace

absl::StatusOr<std::unique_ptr<AdminServer>> AdminServer::Listen(const std::string& host, int port, Pages pages) {
  std::unique_ptr<AdminServer> server(new AdminServer(std::move(pages)));
  const std::string address = HostAndPort(host, port);
  const char* options[] = {"listening_ports",
                           address.c_str(),
                           "num_threads",
                           kNumThreads,
                           "request_timeout_ms",
                           kRequestTimeoutMs,
                           "enable_keep_alive",
                           "no",
                           "enable_directory_listing",
                           "no",
                           nullptr};
  mg_callbacks callbacks;
  std::memset(&callbacks, 0, sizeof(callbacks));
  callbacks.log_message = DropMessage;
  mg_init_library(0);
  server->context_ = mg_start(&callbacks, nullptr, options);
  mg_server_port ports[1];
  if (server->context_ == nullptr || mg_get_server_ports(server->context_, 1, ports) != 1) {
    return absl::UnavailableError("cannot listen on " + address + "; another process may have that port");
  }
  server->port_ = ports[0].port;
  mg_set_request_handler(server->context_, "**", &AdminServer::Answer, server.get());
  return server;
}

AdminServer::~AdminServer() {
  if (context_ != nullptr) mg_stop(context_);
  mg_exit_library();
}

int AdminServer::Answer(mg_connection* connection, void* self) {
  const mg_request_info* request = mg_get_request_info(connection);
  const std::string method = request->request_method;
  const auto& pages = static_cast<AdminServer*>(self)->pages_;
  const auto page = pages.find(request->local_uri);
  AdminPage answer;
  if (method != "GET" && method != "HEAD") {
    answer = {405, "text/plain; charset=utf-8", "use GET or HEAD\n"};
  } else if (page == pages.end()) {
    answer = {404, "text/plain; charset=utf-8", "no such page; there are / /metrics /livez /readyz /version\n"};
  } else {
    answer = page->second();
  }
  Send(connection, answer, method != "HEAD");
  return answer.code;
}

}  // namespace switchyard
