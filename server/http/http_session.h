// One HTTP connection. Included by http_server.cc alone: Boost's templates take half a minute to compile.
//
//   await --first byte--> head --> body --> answer --last part--> await, or linger and close
//
// All private methods run on the server's thread, at most one read and one write at a time. While an Exchange makes an
// answer a read is under way, so that a client that leaves is noticed; while a refusal or a list of models is written
// there need not be one: `unread_timeout` ends those.
#ifndef SWITCHYARD_SERVER_HTTP_HTTP_SESSION_H_
#define SWITCHYARD_SERVER_HTTP_HTTP_SESSION_H_

#include <boost/asio.hpp>
#include <boost/asio/ssl.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/string_body.hpp>
#include <chrono>
#include <functional>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>

#include "server/frontend/call_admission.h"
#include "server/frontend/errors.h"
#include "server/http/http_head.h"
#include "server/http/http_server.h"
#include "server/http/openai_api.h"
#include "server/http/openai_error.h"

namespace switchyard::http {

namespace asio = boost::asio;
namespace beast = boost::beast;
using Tcp = asio::ip::tcp;

// A connection as the server sees it. On its thread.
class AnySession {
 public:
  virtual ~AnySession() = default;
  virtual void Start() = 0;
  virtual void Close() = 0;
  virtual void CloseIfIdle() = 0;
};

// What the connections share. On the server's thread, but for what says otherwise.
struct SessionContext {
  HttpServerOptions options;
  const OpenAiApi* api = nullptr;
  asio::io_context* io = nullptr;
  bool draining = false;
  int64_t body_bytes = 0;  // of the bodies that are arriving
  int64_t max_body_bytes_in_all = 0;
  std::function<void()> on_destroyed;  // any thread
};

// `Stream`: Tcp::socket, or a TLS stream over it.
template <typename Stream>
class Session final : public AnySession, public AnswerSink, public std::enable_shared_from_this<Session<Stream>> {
 public:
  Session(SessionContext* context, Stream stream)
      : counted_{context}, context_(context), stream_(std::move(stream)), timer_(*context->io) {}

  void Start() override {
    Arm(context_->options.head_timeout);
    if constexpr (std::is_same_v<Stream, Tcp::socket>) {
      Read();
    } else {
      stream_.async_handshake(asio::ssl::stream_base::server, [self = this->shared_from_this()](const auto& error) {
        error || self->closed_ ? self->Close() : self->Read();
      });
    }
  }

  void Close() override {
    if (std::exchange(closed_, true)) return;
    CountBody(0);
    timer_.cancel();
    boost::system::error_code ignored;
    stream_.lowest_layer().shutdown(Tcp::socket::shutdown_both, ignored);  // the acceptor waits for it
    stream_.lowest_layer().close(ignored);
    if (exchange_ != nullptr) exchange_->OnGone();
  }

  void CloseIfIdle() override {
    if (phase_ != Phase::kAnswer) Close();
  }

  void Send(AnswerPart part) override {
    asio::post(*context_->io,
               [self = this->shared_from_this(), part = std::move(part)]() mutable { self->Write(std::move(part)); });
  }
  void Break() override {
    asio::post(*context_->io, [self = this->shared_from_this()] { self->Close(); });
  }

 private:
  enum class Phase : uint8_t { kAwait, kHead, kBody, kAnswer, kLinger };
  // Destroyed last, when nothing of the connection is left.
  struct Counted {
    SessionContext* context;
    ~Counted() { context->on_destroyed(); }
  };
  using Parser = beast::http::request_parser<beast::http::string_body>;
  static constexpr size_t kReadBytes = 16'384;
  static constexpr std::chrono::seconds kLingerTime{2};

  void Arm(std::chrono::milliseconds time) {
    timer_.expires_after(time);
    timer_.async_wait([self = this->weak_from_this()](const auto& error) {
      const auto session = self.lock();
      if (error || session == nullptr || session->closed_) return;
      if (session->timer_.expiry() <= std::chrono::steady_clock::now()) session->OnTimeout();
    });
  }

  void OnTimeout() {
    if (phase_ == Phase::kHead) return Refuse(RequestTooSlow("head of the request"));
    if (phase_ == Phase::kBody) return Refuse(RequestTooSlow("body of the request"));
    Close();
  }

  void Read() {
    if (closed_ || std::exchange(reading_, true)) return;
    stream_.async_read_some(buffer_.prepare(kReadBytes),
                            [self = this->shared_from_this()](const auto& error, size_t num_bytes) {
                              self->reading_ = false;
                              if (self->closed_) return;
                              if (error) return self->Close();
                              self->buffer_.commit(num_bytes);
                              self->OnBytes();
                            });
  }

  void OnBytes() {
    if (phase_ == Phase::kAnswer && exchange_ != nullptr) return Close();  // a request before the answer to the last
    // The rest of a request that was refused is dropped, so that the client reads why.
    if (phase_ == Phase::kAnswer || phase_ == Phase::kLinger) {
      buffer_.consume(buffer_.size());
      return Read();
    }
    if (phase_ == Phase::kAwait) {
      phase_ = Phase::kHead;
      head_ = {};
      framing_ = {};
      parser_.emplace();
      parser_->header_limit(static_cast<uint32_t>(context_->options.max_head_bytes));
      parser_->body_limit(std::numeric_limits<uint64_t>::max());  // the token is looked at first: ParseHead
      Arm(context_->options.head_timeout);
    }
    if (phase_ == Phase::kHead) ParseHead();
    if (phase_ == Phase::kBody) ParseBody();
    if (phase_ != Phase::kAnswer || exchange_ != nullptr) Read();
  }

  // False: more bytes are needed, or the request was refused.
  bool Parse() {
    boost::system::error_code error;
    buffer_.consume(parser_->put(buffer_.data(), error));
    if (!error) return true;
    if (error == beast::http::error::need_more) return false;
    if (error == beast::http::error::body_limit) {
      Refuse(BodyTooLarge(context_->options.max_body_bytes));
    } else if (error == beast::http::error::header_limit) {
      Refuse(HeadTooLarge(context_->options.max_head_bytes));
    } else {
      Refuse(NotHttp(error.message()));
    }
    return false;
  }

  void ParseHead() {
    if (!Parse() || !parser_->is_header_done()) return;
    const ParsedRequest& request = parser_->get();
    head_ = HeadOf(request);
    framing_ = FramingOf(request);
    if (const absl::Status status = CheckHead(request); !status.ok()) {
      framing_.keep_alive = false;  // nobody knows where the request ends
      return Refuse(status);
    }
    if (auto refusal = context_->api->Refusal(head_)) return Answer(*std::move(refusal));
    const int64_t max_body_bytes = context_->options.max_body_bytes;
    parser_->body_limit(static_cast<uint64_t>(max_body_bytes));  // of chunks
    if (parser_->content_length().value_or(0) > static_cast<uint64_t>(max_body_bytes)) {
      return Refuse(BodyTooLarge(max_body_bytes));
    }
    phase_ = Phase::kBody;
    Arm(context_->options.body_timeout);
    parser_->eager(true);
    if (!parser_->is_done() && buffer_.size() == 0 && ExpectsContinue(request)) WriteContinue();
  }

  void ParseBody() {
    while (!parser_->is_done() && buffer_.size() > 0) {
      if (!Parse()) break;
    }
    if (phase_ != Phase::kBody) return;  // refused
    // What is left is the line before a chunk, or the trailers, which the parser takes as a whole only.
    if (!parser_->is_done() && buffer_.size() > static_cast<size_t>(context_->options.max_head_bytes)) {
      return Refuse(HeadTooLarge(context_->options.max_head_bytes));
    }
    CountBody(static_cast<int64_t>(parser_->get().body().size()));
    if (context_->body_bytes > context_->max_body_bytes_in_all) {
      return Refuse(Overloaded("too many large requests arrive at once", "TOO_MANY_BODIES", 1.0));
    }
    if (parser_->is_done()) Run();
  }

  void Run() {
    if (buffer_.size() > 0) return Refuse(NotHttp("more bytes follow it before it was answered"));
    timer_.expires_at(std::chrono::steady_clock::time_point::max());  // cancel() would not stop one that has just fired
    CountBody(0);
    phase_ = Phase::kAnswer;
    exchange_ = context_->api->Run(head_, std::move(parser_->get().body()), this->shared_from_this());
    parser_.reset();
  }

  void CountBody(int64_t num_bytes) { context_->body_bytes += num_bytes - std::exchange(counted_bytes_, num_bytes); }

  void WriteContinue() {
    continuing_ = true;
    asio::async_write(stream_, asio::buffer(kContinue), [self = this->shared_from_this()](const auto& error, size_t) {
      self->continuing_ = false;
      if (error) self->Close();
      if (self->after_continue_) self->Write(*std::exchange(self->after_continue_, std::nullopt));
    });
  }

  void Refuse(const absl::Status& status) { Answer(context_->api->Refuse(status, RequestIdOf("", head_.request_id))); }

  // An answer to a request of which the rest is not read.
  void Answer(AnswerPart part) {
    phase_ = Phase::kAnswer;
    CountBody(0);
    if (!parser_->is_done() || buffer_.size() > 0) framing_.keep_alive = false;
    Write(std::move(part));
  }

  void Write(AnswerPart part) {
    if (closed_) return OnWritten(false, part.last);
    // Until then calls that do not get on are ended, and this with them; of the last part there may be none left.
    if (part.last) Arm(context_->options.unread_timeout);
    if (continuing_) {
      after_continue_ = std::move(part);
      return;
    }
    // A server that admits nothing sends its clients elsewhere.
    if (context_->draining || (part.head && part.head->status == 503)) framing_.keep_alive = false;
    out_ = framing_.Frame(part);
    asio::async_write(stream_, asio::buffer(out_),
                      [self = this->shared_from_this(), last = part.last](const auto& error, size_t) {
                        self->OnWritten(!error, last);
                      });
  }

  void OnWritten(bool ok, bool last) {
    if (!ok) Close();
    const std::shared_ptr<Exchange> exchange = last ? std::exchange(exchange_, nullptr) : exchange_;
    if (last && ok && !closed_) Next();
    if (exchange != nullptr) exchange->OnSent(ok);
  }

  void Next() {
    parser_.reset();
    const bool keeps = framing_.keep_alive;
    phase_ = keeps ? Phase::kAwait : Phase::kLinger;
    Arm(keeps ? context_->options.idle_timeout : kLingerTime);
    // What the client still sends is read for a while: closing at once would reset the connection under the answer.
    if (!keeps) EndSending();
    Read();
  }

  // Over TLS with close_notify, so that an answer that ends with its connection is known to be whole.
  void EndSending() {
    if constexpr (!std::is_same_v<Stream, Tcp::socket>) {
      if (!std::exchange(notified_, true)) {
        stream_.async_shutdown([self = this->shared_from_this()](const auto&) {
          if (!self->closed_) self->EndSending();
        });
        return;
      }
    }
    boost::system::error_code ignored;
    stream_.lowest_layer().shutdown(Tcp::socket::shutdown_send, ignored);
  }

  const Counted counted_;
  SessionContext* const context_;
  Stream stream_;
  asio::steady_timer timer_;
  beast::flat_buffer buffer_;
  Phase phase_ = Phase::kAwait;
  std::optional<Parser> parser_;
  RequestHead head_;
  Framing framing_;
  std::shared_ptr<Exchange> exchange_;  // until the last part of its answer is sent
  std::string out_;                     // being written
  std::optional<AnswerPart> after_continue_;
  int64_t counted_bytes_ = 0;  // in context_->body_bytes
  bool continuing_ = false;
  bool reading_ = false;
  bool notified_ = false;  // of the end of TLS
  bool closed_ = false;
};

}  // namespace switchyard::http

#endif  // SWITCHYARD_SERVER_HTTP_HTTP_SESSION_H_
