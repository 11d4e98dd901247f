#include "server/frontend/connection_acceptor.h"

#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "server/options.h"

namespace switchyard {
namespace {

constexpr int kBacklog = 1024;
constexpr int kEventsPerWait = 64;

FileDescriptor OpenSpare() { return FileDescriptor(open("/dev/null", O_RDONLY | O_CLOEXEC)); }

void SetOption(int fd, int level, int option, int value) { setsockopt(fd, level, option, &value, sizeof(value)); }

// A listening socket for one of the addresses of `host`, or none.
FileDescriptor ListenAt(const std::string& host, int port, int family) {
  addrinfo hints{};
  hints.ai_family = family;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE | AI_NUMERICSERV;
  addrinfo* addresses = nullptr;
  if (getaddrinfo(host.c_str(), std::to_string(port).c_str(), &hints, &addresses) != 0) return FileDescriptor();
  FileDescriptor listening;
  for (const addrinfo* a = addresses; a != nullptr && !listening.is_open(); a = a->ai_next) {
    FileDescriptor fd(socket(a->ai_family, a->ai_socktype | SOCK_NONBLOCK | SOCK_CLOEXEC, a->ai_protocol));
    if (!fd.is_open()) continue;
    SetOption(fd.get(), SOL_SOCKET, SO_REUSEADDR, 1);
    if (a->ai_family == AF_INET6) SetOption(fd.get(), IPPROTO_IPV6, IPV6_V6ONLY, 0);
    if (bind(fd.get(), a->ai_addr, a->ai_addrlen) == 0 && listen(fd.get(), kBacklog) == 0) listening = std::move(fd);
  }
  freeaddrinfo(addresses);
  return listening;
}

int PortOf(int fd) {
  sockaddr_storage address{};
  socklen_t size = sizeof(address);
  if (getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size) != 0) return 0;
  return ntohs(address.ss_family == AF_INET6 ? reinterpret_cast<const sockaddr_in6*>(&address)->sin6_port
                                             : reinterpret_cast<const sockaddr_in*>(&address)->sin_port);
}

void Watch(int epoll, int fd, uint32_t events) {
  epoll_event event{};
  event.events = events;
  event.data.fd = fd;
  epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
}

}  // namespace

absl::StatusOr<std::unique_ptr<ConnectionAcceptor>> ConnectionAcceptor::Listen(const std::string& host, int port,
                                                                               int max_connections) {
  const bool bracketed = host.size() > 2 && host.front() == '[' && host.back() == ']';
  FileDescriptor listener;
  if (host == "0.0.0.0") listener = ListenAt("::", port, AF_INET6);
  if (!listener.is_open()) listener = ListenAt(bracketed ? host.substr(1, host.size() - 2) : host, port, AF_UNSPEC);
  if (!listener.is_open()) {
    return absl::UnavailableError("cannot listen on " + HostAndPort(host, port) +
                                  "; another process may have that port");
  }
  const int bound = PortOf(listener.get());
  return std::unique_ptr<ConnectionAcceptor>(new ConnectionAcceptor(std::move(listener), bound, max_connections));
}

ConnectionAcceptor::ConnectionAcceptor(FileDescriptor listener, int port, int max_connections)
    : listener_(std::move(listener)),
      port_(port),
      max_connections_(static_cast<size_t>(max_connections)),
      epoll_(epoll_create1(EPOLL_CLOEXEC)),
      stop_event_(eventfd(0, EFD_CLOEXEC)),
      spare_(OpenSpare()) {}

ConnectionAcceptor::~ConnectionAcceptor() { Stop(); }

void ConnectionAcceptor::Start(HandOver hand_over, std::function<void()> on_refused) {
  hand_over_ = std::move(hand_over);
  on_refused_ = std::move(on_refused);
  Watch(epoll_.get(), listener_.get(), EPOLLIN);
  Watch(epoll_.get(), stop_event_.get(), EPOLLIN);
  thread_ = std::thread([this] { Run(); });
}

void ConnectionAcceptor::Stop() {
  if (thread_.joinable()) {
    const uint64_t one = 1;
    while (write(stop_event_.get(), &one, sizeof(one)) < 0 && errno == EINTR) {
    }
    thread_.join();
  }
  listener_ = FileDescriptor();
}

void ConnectionAcceptor::Run() {
  epoll_event events[kEventsPerWait];
  bool stopped = false;
  while (!stopped) {
    const int count = epoll_wait(epoll_.get(), events, kEventsPerWait, -1);
    bool ready = false;
    for (int i = 0; i < count; ++i) {
      const int fd = events[i].data.fd;
      if (fd == stop_event_.get()) {
        stopped = true;
      } else if (fd == listener_.get()) {
        ready = true;  // after the hangups, which make room
      } else if (open_.erase(fd) > 0) {
        // The taker's descriptor keeps the socket, and so the entry, alive.
        epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, fd, nullptr);
        close(fd);
      }
    }
    if (ready && !stopped) Accept();
  }
  for (int fd : open_) {
    epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, fd, nullptr);
    close(fd);
  }
  open_.clear();
}

// Some, and then again hangups: a flood of connections must not keep those that end from being noticed.
void ConnectionAcceptor::Accept() {
  for (int i = 0; i < kEventsPerWait; ++i) {
    int connection = accept4(listener_.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (connection < 0 && (errno == EMFILE || errno == ENFILE)) {
      spare_ = FileDescriptor();
      connection = accept4(listener_.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
      if (connection >= 0) Reset(connection);
      spare_ = OpenSpare();
    } else if (connection >= 0) {
      TakeOver(connection);
    }
    if (connection < 0 && errno != ECONNABORTED && errno != EINTR) return;
  }
}

void ConnectionAcceptor::TakeOver(int connection) {
  const int second = open_.size() < max_connections_ ? fcntl(connection, F_DUPFD_CLOEXEC, 0) : -1;
  if (second < 0) {
    Reset(connection);
    return;
  }
  SetOption(connection, IPPROTO_TCP, TCP_NODELAY, 1);
  open_.insert(second);
  Watch(epoll_.get(), second, EPOLLRDHUP);  // and EPOLLHUP, which needs no asking
  hand_over_(listener_.get(), connection);
}

void ConnectionAcceptor::Reset(int connection) {
  on_refused_();
  const linger at_once{1, 0};
  setsockopt(connection, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
  close(connection);
}

}  // namespace switchyard
