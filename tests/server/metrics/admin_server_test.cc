#include "server/metrics/admin_server.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <thread>

namespace switchyard {
namespace {

int Connect(int port) {
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  EXPECT_EQ(connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
  return fd;
}

std::string Ask(int port, const std::string& request) {
  const int fd = Connect(port);
  EXPECT_EQ(send(fd, request.data(), request.size(), MSG_NOSIGNAL), static_cast<ssize_t>(request.size()));
  std::string answer;
  char buffer[4096];
  for (ssize_t size; (size = recv(fd, buffer, sizeof(buffer), 0)) > 0;)
    answer.append(buffer, static_cast<size_t>(size));
  close(fd);
  return answer;
}

std::string Get(int port, const std::string& path) { return Ask(port, "GET " + path + " HTTP/1.1\r\nHost: x\r\n\r\n"); }

std::unique_ptr<AdminServer> Start(std::atomic<int>* ready_code) {
  auto server = AdminServer::Listen("127.0.0.1", 0,
                                    {{"/metrics", [] { return AdminPage{.body = std::string(100'000, 'm')}; }},
                                     {"/readyz", [=] {
                                        return AdminPage{ready_code->load(), "text/plain", "state\n"};
                                      }}});
  EXPECT_TRUE(server.ok()) << server.status();
  return *std::move(server);
}

TEST(AdminServerTest, ServesItsPagesAndNothingElse) {
  std::atomic<int> ready{200};
  const auto server = Start(&ready);
  EXPECT_EQ(Get(server->port(), "/metrics").substr(0, 15), "HTTP/1.1 200 OK");
  EXPECT_GT(Get(server->port(), "/metrics").size(), 100'000u);
  EXPECT_EQ(Get(server->port(), "/").substr(0, 12), "HTTP/1.1 404");
  EXPECT_EQ(Get(server->port(), "/metrics/x").substr(0, 12), "HTTP/1.1 404");
  EXPECT_EQ(Get(server->port(), "/../../etc/passwd").find("root:"), std::string::npos);
  EXPECT_EQ(Ask(server->port(), "POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n").substr(0, 12),
            "HTTP/1.1 405");
  const std::string head = Ask(server->port(), "HEAD /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_EQ(head.substr(0, 12), "HTTP/1.1 200");
  EXPECT_LT(head.size(), 1000u);
  ready = 503;
  EXPECT_EQ(Get(server->port(), "/readyz").substr(0, 12), "HTTP/1.1 503");
}

TEST(AdminServerTest, PagesComeWithTheirPolicyAndAreNeverKept) {
  AdminPage page{.body = "<p>x</p>", .content_security_policy = "default-src 'none'; script-src 'sha256-x'"};
  const auto server = AdminServer::Listen("127.0.0.1", 0, {{"/", [=] { return page; }}});
  ASSERT_TRUE(server.ok()) << server.status();
  for (const char* request : {"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "HEAD / HTTP/1.1\r\nHost: x\r\n\r\n"}) {
    const std::string answer = Ask((*server)->port(), request);
    EXPECT_EQ(answer.substr(0, 15), "HTTP/1.1 200 OK");
    EXPECT_NE(answer.find("\r\nContent-Security-Policy: default-src 'none'; script-src 'sha256-x'\r\n"),
              std::string::npos);
    EXPECT_NE(answer.find("\r\nX-Content-Type-Options: nosniff\r\n"), std::string::npos);
    EXPECT_NE(answer.find("\r\nCache-Control: no-store\r\n"), std::string::npos);
    EXPECT_EQ(answer.find("<p>x</p>") != std::string::npos, request[0] == 'G');
  }
  // What is no page of ours may do nothing at all in a browser.
  EXPECT_NE(Get((*server)->port(), "/<script>").find("Content-Security-Policy: default-src 'none'; frame-ancestors"),
            std::string::npos);
  EXPECT_EQ(Ask((*server)->port(), "PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n").substr(0, 12),
            "HTTP/1.1 405");
}

TEST(AdminServerTest, TakenPortIsAnError) {
  std::atomic<int> ready{200};
  const auto server = Start(&ready);
  const auto second = AdminServer::Listen("127.0.0.1", server->port(), {});
  EXPECT_EQ(second.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(second.status().message(),
            "cannot listen on 127.0.0.1:" + std::to_string(server->port()) + "; another process may have that port");
}

TEST(AdminServerTest, SlowConnectionsDoNotKeepOthersOut) {
  std::atomic<int> ready{200};
  const auto server = Start(&ready);
  // The slow ones are given up after 1.5 s. Up to five times: the machine may be busy.
  auto best = std::chrono::steady_clock::duration::max();
  for (int attempt = 0; attempt < 5 && best >= std::chrono::seconds(1); ++attempt) {
    std::vector<int> slow;
    for (int i = 0; i < 40; ++i) {
      slow.push_back(Connect(server->port()));
      EXPECT_EQ(send(slow.back(), "GET /metr", 9, MSG_NOSIGNAL), 9);
    }
    const auto start = std::chrono::steady_clock::now();
    for (int i = 0; i < 20; ++i) EXPECT_EQ(Get(server->port(), "/readyz").substr(0, 12), "HTTP/1.1 200");
    best = std::min(best, std::chrono::steady_clock::now() - start);
    for (int fd : slow) close(fd);
  }
  EXPECT_LT(best, std::chrono::seconds(1));
}

TEST(AdminServerTest, GarbageIsSurvived) {
  std::atomic<int> ready{200};
  const auto server = Start(&ready);
  Ask(server->port(), "\x16\x03\x01\x02\x00\x01 tls?\r\n\r\n");
  Ask(server->port(), "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
  Ask(server->port(), "GET /readyz HTTP/1.1\r\nX: " + std::string(100'000, 'x') + "\r\n\r\n");
  EXPECT_EQ(Get(server->port(), "/readyz").substr(0, 12), "HTTP/1.1 200");
}

}  // namespace
}  // namespace switchyard
