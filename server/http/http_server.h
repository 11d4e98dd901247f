// OpenAI's interface over HTTP/1.1: sockets, TLS and framing. What is said over them is openai_api.h's.
//
//   ConnectionAcceptor -> Session: TLS handshake -> head -> Refusal? -> body -> OpenAiApi::Run -> parts of the answer
//
// A client that is slow to begin, to send its head or its body is cut off, each in its own time; so is one that leaves
// an answer unread (OpenCalls; its last part: `unread_timeout`), and one that sends a request before the last was
// answered. A client that closes its side while an answer is made has left: its work is cancelled.
//
// One thread runs all connections and never waits; texts of more than a few KB are parsed by the text worker.
#ifndef SWITCHYARD_SERVER_HTTP_HTTP_SERVER_H_
#define SWITCHYARD_SERVER_HTTP_HTTP_SERVER_H_

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "server/access/credential_files.h"
#include "server/frontend/frontend_parts.h"

namespace switchyard::http {

struct HttpServerOptions {
  std::string host = "127.0.0.1";
  int port = 0;                               // 0: any free one
  int max_connections = 1024;                 // in all; more are reset
  int64_t max_body_bytes = int64_t{8} << 20;  // of one request; four times that, or 64 MiB, of all that arrive at once
  int32_t max_head_bytes = 16'384;
  std::chrono::milliseconds head_timeout{10'000};    // for TLS, and again for a head from its first byte on
  std::chrono::milliseconds body_timeout{60'000};    // from the head to the end of the body
  std::chrono::milliseconds idle_timeout{60'000};    // between an answer and the next request
  std::chrono::milliseconds unread_timeout{60'000};  // for the last part of an answer, from when it is written on
};

class HttpServer {
 public:
  // Listens at once; until the model is there, calls get 503.  UNAVAILABLE: the address cannot be used; names it.
  // With a certificate in `credentials` the port speaks TLS and nothing else. Both outlive the server.
  static absl::StatusOr<std::unique_ptr<HttpServer>> Listen(const HttpServerOptions& options, FrontendParts* parts,
                                                            const CredentialFiles* credentials);
  ~HttpServer();  // Shutdown at once, if that was not called

  int port() const;

  // Closes the port and what is idle, waits for the answers that are made until `deadline`, and cuts off the rest.
  // Afterwards nothing of `parts` is used any more. Call once.
  void Shutdown(TimePoint deadline);

 private:
  struct Impl;
  explicit HttpServer(std::unique_ptr<Impl> impl);
  const std::unique_ptr<Impl> impl_;
};

}  // namespace switchyard::http

#endif  // SWITCHYARD_SERVER_HTTP_HTTP_SERVER_H_
