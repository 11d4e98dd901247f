#include "server/frontend/connection_acceptor.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <filesystem>
#include <vector>

#include "engine/base/mutex.h"

namespace switchyard {
namespace {

constexpr std::chrono::seconds kPatience{20};

int CountDescriptors() {
  int count = 0;
  for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) ++count;
  return count;
}

FileDescriptor Connect(int port) {
  FileDescriptor fd(socket(AF_INET, SOCK_STREAM, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  inet_pton(AF_INET, "127.0.0.1", &address.sin_addr);
  EXPECT_EQ(connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)), 0);
  return fd;
}

// True when the other side reset or closed the connection.
bool WasClosed(const FileDescriptor& fd) {
  char byte = 0;
  pollfd readable{fd.get(), POLLIN, 0};
  EXPECT_EQ(poll(&readable, 1, 20'000), 1);
  return recv(fd.get(), &byte, 1, 0) <= 0;
}

// The server's side: takes every connection and keeps it, as gRPC does.
class ConnectionAcceptorTest : public ::testing::Test {
 protected:
  void Start(int max_connections) {
    acceptor_ = *ConnectionAcceptor::Listen("127.0.0.1", 0, max_connections);
    acceptor_->Start(
        [this](int, int connection) {
          MutexLock lock(&mutex_);
          taken_.emplace_back(connection);
          changed_.NotifyAll();
        },
        [this] {
          MutexLock lock(&mutex_);
          ++refused_;
          changed_.NotifyAll();
        });
  }

  // What the server's side did so far, once it is `taken` and `refused`.
  bool WaitFor(size_t taken, int refused) {
    const auto end = std::chrono::steady_clock::now() + kPatience;
    MutexLock lock(&mutex_);
    while (taken_.size() != taken || refused_ != refused) {
      if (!changed_.WaitUntil(&mutex_, end)) return false;
    }
    return true;
  }

  // As gRPC ends a connection: shut down, then closed.
  void ServerCloses(size_t index) {
    MutexLock lock(&mutex_);
    shutdown(taken_[index].get(), SHUT_RDWR);
    taken_[index] = FileDescriptor();
  }

  // Connects until one is taken: the acceptor hears of ends by and by. One at a time, until it is taken or refused.
  FileDescriptor ConnectUntilTaken() {
    const auto end = std::chrono::steady_clock::now() + kPatience;
    MutexLock lock(&mutex_);
    const size_t taken_before = taken_.size();
    while (std::chrono::steady_clock::now() < end) {
      const int refused_before = refused_;
      FileDescriptor fd = Connect(acceptor_->port());
      while (taken_.size() == taken_before && refused_ == refused_before) {
        if (!changed_.WaitUntil(&mutex_, end)) break;
      }
      if (taken_.size() > taken_before) return fd;
    }
    ADD_FAILURE() << "no connection was taken";
    return FileDescriptor();
  }

  Mutex mutex_;
  CondVar changed_;
  std::vector<FileDescriptor> taken_ ABSL_GUARDED_BY(mutex_);
  int refused_ ABSL_GUARDED_BY(mutex_) = 0;
  std::unique_ptr<ConnectionAcceptor> acceptor_;  // goes first
};

TEST_F(ConnectionAcceptorTest, ResetsWhatIsBeyondTheLimit) {
  Start(2);
  const FileDescriptor first = Connect(acceptor_->port());
  const FileDescriptor second = Connect(acceptor_->port());
  ASSERT_TRUE(WaitFor(2, 0));
  const FileDescriptor third = Connect(acceptor_->port());
  EXPECT_TRUE(WasClosed(third));
  EXPECT_TRUE(WaitFor(2, 1));
}

TEST_F(ConnectionAcceptorTest, WhoeverClosesMakesRoom) {
  Start(1);
  FileDescriptor client = Connect(acceptor_->port());
  ASSERT_TRUE(WaitFor(1, 0));
  client = FileDescriptor();  // the client leaves; the server still holds its side
  client = ConnectUntilTaken();
  ServerCloses(1);
  EXPECT_TRUE(WasClosed(client)) << "the second descriptor must not keep the connection up";
  client = ConnectUntilTaken();
}

TEST_F(ConnectionAcceptorTest, LeavesNoDescriptorBehind) {
  const int before = CountDescriptors();
  Start(8);
  for (int round = 0; round < 50; ++round) {
    FileDescriptor client = ConnectUntilTaken();
    MutexLock lock(&mutex_);
    shutdown(taken_.back().get(), SHUT_RDWR);
    taken_.back() = FileDescriptor();
  }
  acceptor_.reset();
  EXPECT_EQ(CountDescriptors(), before);
}

TEST_F(ConnectionAcceptorTest, GoesOnAfterDescriptorsRanOut) {
  Start(1000);
  const FileDescriptor first = Connect(acceptor_->port());
  ASSERT_TRUE(WaitFor(1, 0));
  FileDescriptor client(socket(AF_INET, SOCK_STREAM, 0));  // made before the limit
  rlimit limit{};
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &limit), 0);
  const rlimit none_left{static_cast<rlim_t>(client.get()), limit.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &none_left), 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(acceptor_->port()));
  inet_pton(AF_INET, "127.0.0.1", &address.sin_addr);
  EXPECT_EQ(connect(client.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)), 0);
  EXPECT_TRUE(WasClosed(client));
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &limit), 0);
  const FileDescriptor after = ConnectUntilTaken();
  EXPECT_TRUE(after.is_open());
}

TEST_F(ConnectionAcceptorTest, StopLeavesConnectionsAndFreesThePort) {
  Start(4);
  const FileDescriptor client = Connect(acceptor_->port());
  ASSERT_TRUE(WaitFor(1, 0));
  const int port = acceptor_->port();
  acceptor_->Stop();
  {
    MutexLock lock(&mutex_);
    EXPECT_EQ(send(taken_[0].get(), "x", 1, MSG_NOSIGNAL), 1);
  }
  char byte = 0;
  EXPECT_EQ(recv(client.get(), &byte, 1, 0), 1);
  EXPECT_TRUE(ConnectionAcceptor::Listen("127.0.0.1", port, 1).ok());
}

TEST(ConnectionAcceptorListenTest, NamesAnAddressThatIsTakenOrUnknown) {
  const auto first = *ConnectionAcceptor::Listen("127.0.0.1", 0, 1);
  const auto second = ConnectionAcceptor::Listen("127.0.0.1", first->port(), 1);
  EXPECT_NE(second.status().message().find("127.0.0.1:" + std::to_string(first->port())), std::string::npos);
  EXPECT_FALSE(ConnectionAcceptor::Listen("no.such.host.invalid", 0, 1).ok());
  EXPECT_TRUE(ConnectionAcceptor::Listen("0.0.0.0", 0, 1).ok());
  EXPECT_TRUE(ConnectionAcceptor::Listen("localhost", 0, 1).ok());
}

}  // namespace
}  // namespace switchyard
