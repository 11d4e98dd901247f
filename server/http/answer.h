// What is said to an HTTP client, without the library that carries it: so that the rest of this folder is tested with
// events in any order.
#ifndef SWITCHYARD_SERVER_HTTP_ANSWER_H_
#define SWITCHYARD_SERVER_HTTP_ANSWER_H_

#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace switchyard::http {

using Headers = std::vector<std::pair<std::string, std::string>>;

struct AnswerHead {
  int status = 200;
  std::string content_type = "application/json";
  Headers headers = {};  // further ones; what frames the body is the connection's to add
};

// A piece of an answer. The first one has the head; one that is first and last is sent with its length, others in
// chunks.
struct AnswerPart {
  std::optional<AnswerHead> head;
  std::string body;
  bool last = true;
};

// The head of a request.
struct RequestHead {
  std::string method;
  std::string target;                      // path and query as they came
  std::vector<std::string> authorization;  // all values of that header
  std::string content_type;
  std::string content_encoding;
  std::string request_id;  // x-request-id, or ""
};

// The connection of one request. Any thread.
class AnswerSink {
 public:
  virtual ~AnswerSink() = default;
  // One part at a time: the next when this one is reported to be sent, or not to be.
  virtual void Send(AnswerPart part) = 0;
  // Breaks the connection off, because its client does not read. No-op after the end.
  virtual void Break() = 0;
};

}  // namespace switchyard::http

#endif  // SWITCHYARD_SERVER_HTTP_ANSWER_H_
