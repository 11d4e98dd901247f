#include "server/http/http_server.h"

#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <thread>
#include <utility>
#include <vector>

#include "engine/base/mutex.h"
#include "engine/base/status_macros.h"
#include "server/frontend/connection_acceptor.h"
#include "server/http/http_session.h"
#include "server/log.h"

namespace switchyard::http {
namespace {

using TlsStream = asio::ssl::stream<Tcp::socket>;

constexpr int64_t kBodyBytesInAll = int64_t{64} << 20;

// Nothing is resumed: a certificate that was taken back must not live on in sessions.
std::shared_ptr<asio::ssl::context> MakeTlsContext(const TlsPem& pem) {
  auto context = std::make_shared<asio::ssl::context>(asio::ssl::context::tls_server);
  context->set_options(asio::ssl::context::default_workarounds | asio::ssl::context::no_sslv2 |
                       asio::ssl::context::no_sslv3 | asio::ssl::context::no_tlsv1 | asio::ssl::context::no_tlsv1_1);
  SSL_CTX_set_options(context->native_handle(), SSL_OP_NO_TICKET | SSL_OP_NO_RENEGOTIATION);
  SSL_CTX_set_session_cache_mode(context->native_handle(), SSL_SESS_CACHE_OFF);
  context->use_certificate_chain(asio::buffer(pem.certificate_chain));
  context->use_private_key(asio::buffer(pem.private_key), asio::ssl::context::pem);
  if (pem.client_ca.empty()) return context;
  context->add_certificate_authority(asio::buffer(pem.client_ca));
  context->set_verify_mode(asio::ssl::verify_peer | asio::ssl::verify_fail_if_no_peer_cert);
  return context;
}

Tcp ProtocolOf(int fd) {
  sockaddr_storage address{};
  socklen_t size = sizeof(address);
  getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size);
  return address.ss_family == AF_INET ? Tcp::v4() : Tcp::v6();
}

}  // namespace

struct HttpServer::Impl {
  Impl(const HttpServerOptions& options, FrontendParts* frontend_parts, const CredentialFiles* files)
      : parts(frontend_parts), credentials(files), api(frontend_parts, files) {
    context.options = options;
    context.api = &api;
    context.io = &io;
    context.max_body_bytes_in_all = std::max(kBodyBytesInAll, 4 * options.max_body_bytes);
    context.on_destroyed = [this] { OnDestroyed(); };
  }

  void Start() {
    thread = std::thread([this] { io.run(); });
    acceptor->Start([this](int, int fd) { asio::post(io, [this, fd] { TakeOver(fd); }); },
                    [this] { parts->metrics->OnConnectionRefused(); });
  }

  // On the server's thread, as all of the following but for what says otherwise. A connection that nobody is let in by
  // is shut down first: the acceptor has a descriptor of it, too, and waits for that.
  void TakeOver(int fd) {
    Tcp::socket socket(io);
    boost::system::error_code error;
    socket.assign(ProtocolOf(fd), fd, error);
    if (error) {
      shutdown(fd, SHUT_RDWR);
      close(fd);
      return;
    }
    if (credentials->identity() == nullptr) return Open<Tcp::socket>(std::move(socket));
    if (const auto tls = CurrentTls()) return Open<TlsStream>(TlsStream(std::move(socket), *tls));
    socket.shutdown(Tcp::socket::shutdown_both, error);
  }

  template <typename Stream>
  void Open(Stream stream) {
    {
      MutexLock lock(&mutex);
      ++num_sessions;
    }
    auto session = std::make_shared<Session<Stream>>(&context, std::move(stream));
    std::erase_if(sessions, [](const auto& one) { return one.expired(); });
    sessions.push_back(session);
    session->Start();
  }

  // That of the newest certificate. Null: OpenSSL refuses what it took before, so nobody is let in.
  std::shared_ptr<asio::ssl::context> CurrentTls() {
    const auto newest = credentials->identity();
    if (newest == identity) return tls;
    try {
      tls = MakeTlsContext(newest->pem);
    } catch (const boost::system::system_error& failure) {
      Log(LogLevel::kError, "tls_refused", {{"reason", failure.code().message()}});
      tls = nullptr;
    }
    identity = newest;
    return tls;
  }

  // Any thread.
  void OnDestroyed() {
    MutexLock lock(&mutex);
    if (--num_sessions == 0) changed.NotifyAll();
  }

  template <typename Act>
  void ForAll(Act act) {
    asio::post(io, [this, act] {
      for (const auto& weak : sessions) {
        if (const auto session = weak.lock()) act(session.get());
      }
    });
  }

  // Not on the server's thread. `deadline` max: for as long as it takes.
  void AwaitNoSessions(TimePoint deadline) {
    MutexLock lock(&mutex);
    while (num_sessions > 0) {
      if (deadline == TimePoint::max()) {
        changed.Wait(&mutex);
      } else if (!changed.WaitUntil(&mutex, deadline)) {
        return;
      }
    }
  }

  FrontendParts* const parts;
  const CredentialFiles* const credentials;
  const OpenAiApi api;
  SessionContext context;
  asio::io_context io{1};
  asio::executor_work_guard<asio::io_context::executor_type> work{io.get_executor()};
  std::unique_ptr<ConnectionAcceptor> acceptor;
  std::vector<std::weak_ptr<AnySession>> sessions;  // of the server's thread
  std::shared_ptr<const TlsIdentity> identity;      // that `tls` was made of
  std::shared_ptr<asio::ssl::context> tls;
  std::thread thread;
  bool shut_down = false;

  Mutex mutex;
  CondVar changed;
  int num_sessions ABSL_GUARDED_BY(mutex) = 0;
};

absl::StatusOr<std::unique_ptr<HttpServer>> HttpServer::Listen(const HttpServerOptions& options, FrontendParts* parts,
                                                               const CredentialFiles* credentials) {
  auto impl = std::make_unique<Impl>(options, parts, credentials);
  ASSIGN_OR_RETURN(impl->acceptor, ConnectionAcceptor::Listen(options.host, options.port, options.max_connections));
  impl->Start();
  return std::unique_ptr<HttpServer>(new HttpServer(std::move(impl)));
}

HttpServer::HttpServer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

HttpServer::~HttpServer() {
  if (!impl_->shut_down) Shutdown(std::chrono::steady_clock::now());
}

int HttpServer::port() const { return impl_->acceptor->port(); }

void HttpServer::Shutdown(TimePoint deadline) {
  impl_->shut_down = true;
  impl_->acceptor->Stop();
  asio::post(impl_->io, [this] { impl_->context.draining = true; });
  impl_->ForAll([](AnySession* session) { session->CloseIfIdle(); });
  impl_->AwaitNoSessions(deadline);
  impl_->ForAll([](AnySession* session) { session->Close(); });
  impl_->AwaitNoSessions(TimePoint::max());
  impl_->work.reset();
  impl_->thread.join();
}

}  // namespace switchyard::http
