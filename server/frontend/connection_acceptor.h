// Accepts connections for gRPC and for HTTP, one of these for each, as many at a time as are allowed: gRPC 1.51 itself
// takes any number.
//
// A connection is its taker's once it was handed over. To know when it ends, this keeps a second descriptor of the
// socket and waits for its hangup, whoever closes: the peer, or the taker, which must shut a socket down before it lets
// go of it, as gRPC and HttpServer do. So a connection costs two descriptors. Beyond the limit, or when the process has
// no descriptor left, a connection is reset at once, and the listener goes on (gRPC's own stays deaf when descriptors
// run out).
//
// No types of gRPC or HTTP here. One thread of its own.
#ifndef SWITCHYARD_SERVER_FRONTEND_CONNECTION_ACCEPTOR_H_
#define SWITCHYARD_SERVER_FRONTEND_CONNECTION_ACCEPTOR_H_

#include <cstddef>
#include <functional>
#include <memory>
#include <set>
#include <string>
#include <thread>

#include "absl/status/statusor.h"
#include "engine/base/model_folder.h"

namespace switchyard {

class ConnectionAcceptor {
 public:
  // Owns `connection` from now on; shuts it down before it closes it. On the accepting thread; must not wait.
  using HandOver = std::function<void(int listener, int connection)>;

  // Listens, but accepts nothing yet. "0.0.0.0" is every IPv4 and IPv6 address, as with gRPC.  UNAVAILABLE: the address
  // cannot be used; names it.
  static absl::StatusOr<std::unique_ptr<ConnectionAcceptor>> Listen(const std::string& host, int port,
                                                                    int max_connections);
  ~ConnectionAcceptor();  // Stop
  ConnectionAcceptor(const ConnectionAcceptor&) = delete;
  ConnectionAcceptor& operator=(const ConnectionAcceptor&) = delete;

  int port() const { return port_; }

  // `on_refused`: a connection was reset because there were too many; on the accepting thread. Call once.
  void Start(HandOver hand_over, std::function<void()> on_refused);
  // Closes the listener; connections that were handed over go on. Idempotent.
  void Stop();

 private:
  ConnectionAcceptor(FileDescriptor listener, int port, int max_connections);
  void Run();
  void Accept();
  void TakeOver(int connection);
  void Reset(int connection);

  FileDescriptor listener_;
  const int port_;
  const size_t max_connections_;
  FileDescriptor epoll_;
  FileDescriptor stop_event_;
  FileDescriptor spare_;  // given up for a moment to refuse a connection when there is no other descriptor left
  HandOver hand_over_;
  std::function<void()> on_refused_;
  std::set<int> open_;  // the second descriptors; of the thread
  std::thread thread_;
};

}  // namespace switchyard

#endif  // SWITCHYARD_SERVER_FRONTEND_CONNECTION_ACCEPTOR_H_
