// Any bytes on a connection, at once and in pieces: what comes back are whole answers in valid HTTP, and a refusal says
// why; nothing follows "Connection: close"; and the connection leaves nothing behind. The server's queue
// is full and its text worker has stopped, so that all is answered at once and on one thread.
#include <sys/socket.h>
#include <unistd.h>

#include <boost/beast/http/string_body.hpp>
#include <cstddef>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "engine/base/status_macros.h"
#include "server/http/http_session.h"
#include "tests/server/http/http_test_server.h"

namespace switchyard::http {
namespace {

struct FullServer : TestParts {
  FullServer() {
    queue.SetWaiting(8, 0);
    text_worker.Stop();
  }
  std::unique_ptr<CredentialFiles> credentials = *CredentialFiles::Open(AccessOptions());
  OpenAiApi api{&parts, credentials.get()};
};

// The client's end of a connection whose other end a session has, on this thread.
class Client {
 public:
  explicit Client(const OpenAiApi* api) {
    context_.options.max_body_bytes = 20'000;
    context_.options.max_head_bytes = 2'000;
    context_.api = api;
    context_.io = &io_;
    context_.max_body_bytes_in_all = 80'000;
    context_.on_destroyed = [this] { ++num_destroyed_; };
    int fds[2];
    CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, fds) == 0);
    fd_ = fds[0];
    Tcp::socket socket(io_);
    socket.assign(Tcp::v4(), fds[1]);
    const auto session = std::make_shared<Session<Tcp::socket>>(&context_, std::move(socket));
    session_ = session;
    session->Start();
    Settle();
  }
  Client(const Client&) = delete;

  // Ends the connection as a client that leaves.
  ~Client() {
    close(fd_);
    while (io_.poll() > 0) {
    }
    // One that lingers waits for its time to pass.
    if (const auto session = session_.lock()) session->Close();
    while (io_.poll() > 0) {
    }
    CHECK(num_destroyed_ == 1 && context_.body_bytes == 0);
  }

  void Send(const char* bytes, size_t size) {
    while (size > 0) {
      const ssize_t sent = send(fd_, bytes, size, MSG_NOSIGNAL | MSG_DONTWAIT);
      if (sent <= 0) return;  // it does not read any more
      bytes += sent;
      size -= static_cast<size_t>(sent);
      Settle();
    }
  }
  const std::string& received() const { return received_; }

 private:
  void Settle() {
    do {
      char bytes[16384];
      for (ssize_t size; (size = recv(fd_, bytes, sizeof(bytes), MSG_DONTWAIT)) > 0;) {
        received_.append(bytes, static_cast<size_t>(size));
      }
    } while (io_.poll() > 0);
    CHECK(context_.body_bytes >= 0 && context_.body_bytes <= context_.options.max_body_bytes + 16'384);
  }

  asio::io_context io_{1};
  asio::executor_work_guard<asio::io_context::executor_type> work_{io_.get_executor()};
  SessionContext context_;
  std::weak_ptr<AnySession> session_;
  int fd_ = -1;
  int num_destroyed_ = 0;
  std::string received_;
};

void CheckAnswer(const beast::http::response<beast::http::string_body>& answer) {
  const auto status = answer.result_int();
  CHECK(status == 200 || (status >= 400 && status < 500));
  CHECK(!answer["x-request-id"].empty() && answer["Content-Type"] == "application/json");
  if (answer.body().empty()) return;  // to HEAD
  const auto json = nlohmann::json::parse(answer.body());
  if (status == 200) {
    CHECK(json.contains("object"));
  } else {
    CHECK(!json.at("error").at("message").get<std::string>().empty());
  }
}

// may_be_head: an answer may come without the body that it announces.
void CheckAnswers(std::string received, bool may_be_head) {
  while (!received.empty()) {
    if (received.starts_with(kContinue)) {
      received.erase(0, kContinue.size());
      continue;
    }
    const size_t end_of_head = received.find("\r\n\r\n");
    CHECK(end_of_head != std::string::npos);
    const size_t body = end_of_head + 4;
    beast::http::response_parser<beast::http::string_body> parser;
    parser.eager(true);
    parser.skip(may_be_head && (body == received.size() || received.compare(body, 5, "HTTP/") == 0));
    boost::system::error_code error;
    const size_t size = parser.put(asio::buffer(received), error);
    CHECK(!error && parser.is_done());
    CheckAnswer(parser.get());
    CHECK(parser.get().keep_alive() || size == received.size());
    received.erase(0, size);
  }
}

}  // namespace
}  // namespace switchyard::http

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t size) {
  static auto* const server = new switchyard::http::FullServer();
  const char* const text = reinterpret_cast<const char*>(bytes);
  const bool may_be_head = std::string_view(text, size).find("HEAD") != std::string_view::npos;
  for (const size_t piece : {size, 1 + size % 61}) {
    switchyard::http::Client client(&server->api);
    for (size_t at = 0; at < size; at += piece) client.Send(text + at, std::min(piece, size - at));
    switchyard::http::CheckAnswers(client.received(), may_be_head);
    server->queue.TakeAll();  // the cancels of what was refused
  }
  return 0;
}
