// Bytes on a real socket against a server with a fake engine: what is no HTTP, what is too much, too slow, or leaves.
#include "server/http/http_server.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <optional>
#include <random>

#include "tests/server/http/http_test_server.h"

namespace switchyard::http {
namespace {

using std::chrono::milliseconds;

class Connection {
 public:
  Connection(int port, const std::string& bytes) : fd_(socket(AF_INET, SOCK_STREAM, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<uint16_t>(port));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    EXPECT_EQ(connect(fd_, reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
    const timeval patience{60, 0};
    setsockopt(fd_, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
    Send(bytes);
  }
  Connection(const Connection&) = delete;
  ~Connection() { Close(); }

  void Send(const std::string& bytes) { send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL); }
  void Close() {
    if (fd_ >= 0) close(fd_);
    fd_ = -1;
  }
  // Until the server closes.
  std::string ReadAll() {
    std::string all;
    for (std::string some = ReadSome(); !some.empty(); some = ReadSome()) all += some;
    return all;
  }
  std::string ReadSome() {
    char bytes[65536];
    const ssize_t size = recv(fd_, bytes, sizeof(bytes), 0);
    return size > 0 ? std::string(bytes, static_cast<size_t>(size)) : "";
  }

 private:
  int fd_;
};

constexpr char kClose[] = "Connection: close\r\n";
constexpr char kModels[] = "GET /v1/models HTTP/1.1\r\nHost: x\r\n\r\n";
constexpr char kPost[] = "POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n";
constexpr char kPostChunked[] =
    "POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    "Transfer-Encoding: chunked\r\n\r\n";

std::string Post(const std::string& body, const std::string& headers = "") {
  return kPost + headers + "Content-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body;
}

int StatusOf(const std::string& answer) { return answer.size() < 12 ? 0 : std::atoi(answer.c_str() + 9); }

class HttpServerTest : public testing::Test {
 protected:
  HttpServerTest() {
    options_.max_body_bytes = 100'000;
    options_.max_head_bytes = 4096;
    Restart();
  }

  void Restart() {
    server_.reset();
    server_ = *HttpServer::Listen(options_, &parts_.parts, credentials_.get());
  }
  // The whole answer of a connection of its own.
  std::string Ask(const std::string& bytes) { return Connection(server_->port(), bytes).ReadAll(); }

  std::unique_ptr<CredentialFiles> credentials_ = *CredentialFiles::Open(AccessOptions());
  ServingParts parts_;
  HttpServerOptions options_;
  std::unique_ptr<HttpServer> server_;
};

TEST_F(HttpServerTest, RepeatsThePrompt) {
  const std::string answer = Ask(Post(R"({"prompt": "abc", "max_tokens": 6})", kClose));
  EXPECT_EQ(StatusOf(answer), 200) << answer;
  EXPECT_NE(answer.find("\"text\":\"abcabc\""), std::string::npos) << answer;
  parts_.engine.set_step_time(milliseconds(20));  // so that it comes in parts
  const std::string stream = Ask(Post(R"({"prompt": "abc", "max_tokens": 6, "stream": true})", kClose));
  EXPECT_NE(stream.find("Transfer-Encoding: chunked"), std::string::npos);
  EXPECT_NE(stream.find("data: [DONE]\n\n\r\n0\r\n\r\n"), std::string::npos) << stream;
}

TEST_F(HttpServerTest, KeepsTheConnection) {
  Connection connection(server_->port(), "");
  for (int i = 0; i < 50; ++i) {
    connection.Send(Post(R"({"prompt": "abc", "max_tokens": 3})"));
    ASSERT_EQ(StatusOf(connection.ReadSome()), 200) << i;
  }
}

TEST_F(HttpServerTest, BytesInAnyPiecesAreTheSameRequest) {
  std::mt19937 random(1);
  const std::string request = Post(R"({"prompt": "abc", "max_tokens": 3})", kClose);
  for (int round = 0; round < 20; ++round) {
    Connection connection(server_->port(), "");
    for (size_t at = 0; at < request.size();) {
      const size_t size = 1 + random() % 60;
      connection.Send(request.substr(at, size));
      at += size;
      std::this_thread::sleep_for(std::chrono::microseconds(random() % 500));
    }
    ASSERT_EQ(StatusOf(connection.ReadAll()), 200) << round;
  }
}

TEST_F(HttpServerTest, HostileBytesGetAnAnswerOrTheEnd) {
  const std::pair<std::string, int> cases[] = {
      {"\r\n\r\n\r\n", 400},
      {"GET / HTTP/9.9\r\n\r\n", 400},
      {"GET\r\n\r\n", 400},
      {std::string(5000, 'A'), 431},
      {"GET / HTTP/1.1\r\n" + std::string(5000, 'a') + ": b\r\n\r\n", 431},
      {"GET /" + std::string(5000, 'a') + " HTTP/1.1\r\nHost: x\r\n\r\n", 431},
      {"GET /v1/models HTTP/1.1\r\n bad: folding\r\n\r\n", 400},
      {std::string("GET /v1/mo\0dels HTTP/1.1\r\n\r\n", 28), 400},
      {"GET /v1/models HTTP/1.1\r\nContent-Length: 1x\r\n\r\n", 400},
      {Post("{}", "Content-Length: 3\r\n"), 400},
      {Post("{}", "Transfer-Encoding: chunked\r\n"), 400},
      {Post(std::string(100'001, ' ')), 413},
      {Post("{}", "Content-Encoding: gzip\r\n"), 415},
      {"DELETE /v1/models HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 405},
      {"GET /v1/models/..%2f..%00 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 404},
      {"GET http://x/v1/models HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 404},
      {Post("{}") + Post("{}"), 400},
  };
  for (const auto& [bytes, status] : cases) {
    const std::string answer = Ask(bytes);
    EXPECT_EQ(StatusOf(answer), status) << bytes.substr(0, 80) << " -> " << answer.substr(0, 300);
  }
  std::mt19937 random(7);
  const std::string good = Post(R"({"prompt": "abc", "max_tokens": 3})", kClose);
  for (int round = 0; round < 300; ++round) {
    std::string bytes = good;
    for (int i = 0; i < 3; ++i) bytes[random() % bytes.size()] = static_cast<char>(random());
    Connection connection(server_->port(), bytes);
    // Changed lengths make the server wait for more, so the client ends it.
    if (round % 2 == 0) connection.ReadSome();
  }
  EXPECT_EQ(StatusOf(Ask(good)), 200) << "and it serves on";
  EXPECT_TRUE(parts_.BecomesIdle());
}

TEST_F(HttpServerTest, ChunksOverTheLimitAreRefused) {
  std::string bytes = kPostChunked;
  for (int i = 0; i < 11; ++i) bytes += "2710\r\n" + std::string(10'000, ' ') + "\r\n";
  EXPECT_EQ(StatusOf(Ask(bytes)), 413);
  // Beside the chunks: what names a size, and what follows the last.
  EXPECT_EQ(StatusOf(Ask(kPostChunked + ("2;" + std::string(60'000, 'a')))), 431);
  EXPECT_EQ(StatusOf(Ask(kPostChunked + ("0\r\nX: " + std::string(60'000, 'a')))), 431);
}

TEST_F(HttpServerTest, AProxySeesTheSameRequestsInTheseBytes) {
  const std::string line = "POST /v1/completions HTTP/1.1\r\nContent-Type: application/json\r\n";
  for (const std::string& head : {
           line,
           line + "Host: x\r\nHost: x\r\n",
           kPost + std::string("Transfer-Encoding: xchunked\r\n"),
           kPost + std::string("Transfer-Encoding: identity\r\n"),
           kPost + std::string("Transfer-Encoding: chunked, identity\r\n"),
           kPost + std::string("Transfer-Encoding: gzip, chunked\r\n"),
           kPost + std::string("Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n"),
           kPost + std::string("Transfer-Encoding: xchunked\r\nContent-Length: 4\r\n"),
           std::string("POST /v1/completions HTTP/1.0\r\nTransfer-Encoding: chunked\r\n"),
       }) {
    Connection connection(server_->port(), head + "\r\n");
    const std::string answer = connection.ReadSome();
    EXPECT_EQ(StatusOf(answer), 400) << head << " -> " << answer;
    EXPECT_NE(answer.find(kClose), std::string::npos) << head << " -> " << answer;
    EXPECT_NE(answer.find("x-request-id: "), std::string::npos) << answer;
    connection.Send(kModels);
    EXPECT_EQ(connection.ReadAll(), "") << "what follows is no request: " << head;
  }
  EXPECT_EQ(StatusOf(Ask("GET /v1/models HTTP/1.0\r\n\r\n")), 200) << "which knew no Host";
}

TEST_F(HttpServerTest, HeadIsAnsweredWithoutABody) {
  Connection connection(server_->port(), "HEAD /v1/models HTTP/1.1\r\nHost: x\r\n\r\n");
  const std::string answer = connection.ReadSome();
  EXPECT_EQ(StatusOf(answer), 405);
  EXPECT_EQ(answer.find("\r\n\r\n"), answer.size() - 4) << answer;
  EXPECT_EQ(answer.find("Content-Length: 0"), std::string::npos) << answer;
  connection.Send(kModels);
  EXPECT_EQ(StatusOf(connection.ReadSome()), 200) << "the next answer starts where that one ends";
}

TEST_F(HttpServerTest, AnAnswerThatNobodyReadsEndsTheConnection) {
  options_.unread_timeout = milliseconds(300);
  Restart();
  parts_.parts.limits.max_message_bytes = int64_t{64} << 20;
  const std::string body = R"({"messages": [{"role": "user", "content": "abc"}], "max_tokens": 900, "n": 8,
                               "ignore_eos": true, "logprobs": true, "top_logprobs": 20})";
  std::string request = Post(body);
  request.replace(request.find("completions"), 11, "chat/completions");
  Connection connection(server_->port(), request);
  for (int i = 0; i < 6000 && parts_.metrics.open_calls() == 0; ++i) std::this_thread::sleep_for(milliseconds(10));
  ASSERT_GT(parts_.metrics.open_calls(), 0);
  EXPECT_TRUE(parts_.BecomesIdle());
  const std::string answer = connection.ReadAll();
  EXPECT_EQ(StatusOf(answer), 200);
  const size_t length = std::strtoull(answer.c_str() + answer.find("Content-Length: ") + 16, nullptr, 10);
  EXPECT_GT(length, answer.size()) << "it was broken off";
}

TEST_F(HttpServerTest, SlowClientsAreCutOff) {
  options_.body_timeout = milliseconds(300);
  options_.idle_timeout = milliseconds(100);
  options_.head_timeout = milliseconds(200);
  Restart();
  EXPECT_EQ(Ask(""), "");
  options_.head_timeout = milliseconds(2000);  // which also is the time for the first byte
  Restart();
  EXPECT_EQ(StatusOf(Ask("GET /v1/mod")), 408);
  EXPECT_EQ(StatusOf(Ask(Post("{}").substr(0, Post("{}").size() - 1))), 408);
  const std::string answer = Ask(kModels);
  EXPECT_EQ(StatusOf(answer), 200);
  EXPECT_NE(answer.find("Connection: keep-alive"), std::string::npos) << "it was idle for too long";
}

TEST_F(HttpServerTest, AClientThatLeavesIsCancelled) {
  parts_.engine.set_step_time(milliseconds(20));
  for (const char* stream : {"false", "true"}) {
    Connection connection(server_->port(),
                          Post(R"({"prompt": "abc", "max_tokens": 900, "stream": )" + std::string(stream) + "}"));
    for (int i = 0; i < 6000 && parts_.metrics.counts().running == 0; ++i)
      std::this_thread::sleep_for(milliseconds(10));
    ASSERT_EQ(parts_.metrics.counts().running, 1);
    connection.Close();
    EXPECT_TRUE(parts_.BecomesIdle());
  }
}

TEST_F(HttpServerTest, ARequestBeforeTheAnswerEndsTheConnection) {
  parts_.engine.set_step_time(milliseconds(20));
  Connection connection(server_->port(), Post(R"({"prompt": "abc", "max_tokens": 900})"));
  for (int i = 0; i < 6000 && parts_.metrics.counts().running == 0; ++i) std::this_thread::sleep_for(milliseconds(10));
  connection.Send(Post("{}"));
  EXPECT_EQ(connection.ReadAll(), "");
  EXPECT_TRUE(parts_.BecomesIdle());
}

TEST_F(HttpServerTest, ShutdownWaitsForAnswersUntilItsDeadline) {
  parts_.engine.set_step_time(milliseconds(20));
  Connection idle(server_->port(), kModels);
  EXPECT_EQ(StatusOf(idle.ReadSome()), 200);
  Connection short_one(server_->port(), Post(R"({"prompt": "abc", "max_tokens": 20})"));
  Connection long_one(server_->port(), Post(R"({"prompt": "abc", "max_tokens": 900})"));
  for (int i = 0; i < 6000 && parts_.metrics.counts().running < 2; ++i) std::this_thread::sleep_for(milliseconds(10));
  server_->Shutdown(std::chrono::steady_clock::now() + std::chrono::seconds(5));
  EXPECT_EQ(StatusOf(short_one.ReadAll()), 200);
  EXPECT_EQ(long_one.ReadAll(), "");
  EXPECT_EQ(idle.ReadAll(), "");
  EXPECT_TRUE(parts_.BecomesIdle());
}

TEST_F(HttpServerTest, PhasesAndLimitsOfTheServerShow) {
  parts_.parts.phase.store(ServingPhase::kDraining);
  const std::string draining = Ask(Post(R"({"prompt": "abc"})"));
  EXPECT_EQ(StatusOf(draining), 503);
  EXPECT_NE(draining.find("\"code\":\"draining\""), std::string::npos);
  EXPECT_NE(draining.find("Connection: close"), std::string::npos) << "so that the client asks another replica";
  options_.max_connections = 1;
  Restart();
  Connection first(server_->port(), kModels);
  EXPECT_EQ(StatusOf(first.ReadSome()), 200);
  EXPECT_EQ(Ask(kModels), "") << "one connection is the limit";
}

}  // namespace
}  // namespace switchyard::http
