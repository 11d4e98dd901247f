// The head of a request as Boost.Beast's parser leaves it. Included by http_session.h alone: Boost is slow to compile.
#ifndef SWITCHYARD_SERVER_HTTP_HTTP_HEAD_H_
#define SWITCHYARD_SERVER_HTTP_HTTP_HEAD_H_

#include <boost/beast/core/string.hpp>
#include <boost/beast/http/message.hpp>
#include <boost/beast/http/string_body.hpp>
#include <string>

#include "absl/status/status.h"
#include "server/http/answer.h"
#include "server/http/http_framing.h"
#include "server/http/openai_error.h"

namespace switchyard::http {

using ParsedRequest = boost::beast::http::request<boost::beast::http::string_body>;

// What the parser lets pass, though a proxy may see another request in it: RFC 9112, 3.2 and 6.1.
inline absl::Status CheckHead(const ParsedRequest& request) {
  using boost::beast::http::field;
  const size_t num_hosts = request.count(field::host);
  const bool is_http_1_0 = request.version() == 10;
  if (num_hosts > 1 || (num_hosts == 0 && !is_http_1_0)) {
    return NotHttp("it has " + std::to_string(num_hosts) + " Host headers; there must be one");
  }
  // Of other codings the parser takes the body to be empty, or as long as Content-Length says.
  const size_t num_codings = request.count(field::transfer_encoding);
  const bool is_chunked =
      num_codings == 1 && boost::beast::iequals(request[field::transfer_encoding], "chunked") && !is_http_1_0;
  if (num_codings > 0 && !is_chunked) return NotHttp("Transfer-Encoding must be \"chunked\", once, in HTTP/1.1");
  return absl::OkStatus();
}

inline RequestHead HeadOf(const ParsedRequest& request) {
  using boost::beast::http::field;
  const auto text = [&request](auto name) { return std::string(request[name]); };
  RequestHead head = {.method = std::string(request.method_string()),
                      .target = std::string(request.target()),
                      .authorization = {},
                      .content_type = text(field::content_type),
                      .content_encoding = text(field::content_encoding),
                      .request_id = text("x-request-id")};
  const auto [begin, end] = request.equal_range(field::authorization);
  for (auto it = begin; it != end; ++it) head.authorization.push_back(std::string(it->value()));
  return head;
}

inline Framing FramingOf(const ParsedRequest& request) {
  return {.keep_alive = request.keep_alive(),
          .is_http_1_0 = request.version() == 10,
          .is_head = request.method() == boost::beast::http::verb::head};
}

inline bool ExpectsContinue(const ParsedRequest& request) {
  using boost::beast::http::field;
  return request.version() > 10 && boost::beast::iequals(request[field::expect], "100-continue");
}

}  // namespace switchyard::http

#endif  // SWITCHYARD_SERVER_HTTP_HTTP_HEAD_H_
