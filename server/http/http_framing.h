// Answers as bytes of HTTP/1.1.
#ifndef SWITCHYARD_SERVER_HTTP_HTTP_FRAMING_H_
#define SWITCHYARD_SERVER_HTTP_HTTP_FRAMING_H_

#include <string>

#include "server/http/answer.h"

namespace switchyard::http {

inline constexpr std::string_view kContinue = "HTTP/1.1 100 Continue\r\n\r\n";

// How the answer to one request is framed.
struct Framing {
  bool keep_alive = false;
  bool is_http_1_0 = false;  // knows no chunks: a stream ends with its connection
  bool is_head = false;      // answered with the length of a body, and without the body

  // The parts of one answer, in order. To HEAD there is one.
  std::string Frame(const AnswerPart& part);
};

}  // namespace switchyard::http

#endif  // SWITCHYARD_SERVER_HTTP_HTTP_FRAMING_H_
