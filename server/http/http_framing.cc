#include "server/http/http_framing.h"

#include <cstdio>

namespace switchyard::http {
namespace {

const char* ReasonPhrase(int status) {
  switch (status) {
    case 200:
      return "OK";
    case 400:
      return "Bad Request";
    case 401:
      return "Unauthorized";
    case 404:
      return "Not Found";
    case 405:
      return "Method Not Allowed";
    case 408:
      return "Request Timeout";
    case 413:
      return "Content Too Large";
    case 415:
      return "Unsupported Media Type";
    case 429:
      return "Too Many Requests";
    case 431:
      return "Request Header Fields Too Large";
    case 499:
      return "Client Closed Request";
    case 503:
      return "Service Unavailable";
    case 504:
      return "Gateway Timeout";
    default:
      return "Internal Server Error";
  }
}

std::string Chunk(const std::string& body, bool last) {
  std::string chunk;
  if (!body.empty()) {
    char size[32];
    std::snprintf(size, sizeof(size), "%zx\r\n", body.size());
    chunk = size + body + "\r\n";
  }
  return last ? chunk + "0\r\n\r\n" : chunk;
}

}  // namespace

std::string Framing::Frame(const AnswerPart& part) {
  const bool is_whole = part.head && part.last;
  if (!part.head) return is_http_1_0 ? part.body : Chunk(part.body, part.last);
  if (!is_whole && is_http_1_0) keep_alive = false;
  std::string text = "HTTP/1.1 " + std::to_string(part.head->status) + " " + ReasonPhrase(part.head->status) + "\r\n";
  text += "Content-Type: " + part.head->content_type + "\r\n";
  for (const auto& [name, value] : part.head->headers) text += name + ": " + value + "\r\n";
  text += "X-Content-Type-Options: nosniff\r\n";
  text += keep_alive ? "Connection: keep-alive\r\n" : "Connection: close\r\n";
  if (is_whole) {
    text += "Content-Length: " + std::to_string(part.body.size()) + "\r\n\r\n";
    return is_head ? text : text + part.body;
  }
  if (is_http_1_0) return text + "\r\n" + part.body;
  return text + "Transfer-Encoding: chunked\r\n\r\n" + Chunk(part.body, false);
}

}  // namespace switchyard::http
