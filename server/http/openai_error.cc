#include "server/http/openai_error.h"

#include <cctype>
#include <nlohmann/json.hpp>
#include <utility>

#include "server/frontend/errors.h"
#include "server/frontend/request_validation.h"
#include "server/http/ordered_json.h"

namespace switchyard::http {
namespace {

using Code = absl::StatusCode;

// Reasons that decide the HTTP status, whatever the code.
constexpr std::pair<const char*, int> kStatusOfReason[] = {
    {"NO_SUCH_PATH", 404},   {"METHOD_NOT_ALLOWED", 405}, {"REQUEST_TIMEOUT", 408},
    {"BODY_TOO_LARGE", 413}, {"CONTENT_TYPE", 415},       {"HEADERS_TOO_LARGE", 431},
};

// How the fields of a GenerateRequest are called in OpenAI's interface, longest first.
constexpr std::pair<const char*, const char*> kNames[] = {
    {"chat.template_kwargs", "chat_template_kwargs"},
    {"chat.messages", "messages"},
    {"chat.tools", "tools"},
    {"chat.documents", "documents"},
    {"token_ids.ids", "prompt"},
    {"GenerateStream", "stream"},
};

std::string Renamed(std::string text) {
  for (const auto& [from, to] : kNames) {
    for (size_t at = 0; (at = text.find(from, at)) != std::string::npos; at += std::string(to).size()) {
      text.replace(at, std::string(from).size(), to);
    }
  }
  return text;
}

// The fields that a GenerateRequest has one name for and OpenAI's interface another.
std::string ParamOf(const std::string& field) {
  if (field == "text") return "prompt";
  if (field == "chat") return "messages";
  return Renamed(field);
}

int HttpStatus(const absl::Status& status) {
  const std::string reason = ReasonOf(status);
  for (const auto& [name, http_status] : kStatusOfReason) {
    if (reason == name) return http_status;
  }
  switch (status.code()) {
    case Code::kInvalidArgument:
    case Code::kFailedPrecondition:
      return 400;
    case Code::kUnauthenticated:
      return 401;
    case Code::kNotFound:
      return 404;
    case Code::kResourceExhausted:
      return RetryPushbackMillis(status) >= 0 ? 429 : 400;
    case Code::kCancelled:
      return 499;
    case Code::kUnavailable:
      return 503;
    case Code::kDeadlineExceeded:
      return 504;
    default:
      return 500;
  }
}

std::string TypeOf(int http_status) {
  if (http_status == 401) return "authentication_error";
  if (http_status == 429) return "rate_limit_error";
  if (http_status == 408 || http_status == 504) return "timeout_error";
  return http_status < 500 ? "invalid_request_error" : "server_error";
}

std::string Lower(std::string text) {
  for (char& c : text) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return text;
}

// All violations: there are no details to look them up in.
std::string MessageOf(const absl::Status& status) {
  std::string message;
  for (const FieldViolation& violation : ViolationsOf(status)) {
    message += (message.empty() ? "" : "; ") + violation.description;
  }
  return Renamed(message.empty() ? std::string(status.message()) : message);
}

nlohmann::ordered_json CodeOf(const absl::Status& status) {
  const std::string reason = ReasonOf(status);
  if (absl::IsUnauthenticated(status)) return "invalid_api_key";
  if (reason.empty() || reason == "INVALID_REQUEST") return nullptr;
  return Lower(reason);
}

// What WithoutInsides lets through.
std::string Json(const absl::Status& status) {
  nlohmann::ordered_json error = {{"message", MessageOf(status)}, {"type", TypeOf(HttpStatus(status))}};
  const auto violations = ViolationsOf(status);
  const std::string param = absl::IsNotFound(status) ? "model"
                            : violations.empty()     ? ""
                                                     : ParamOf(violations.front().field);
  error["param"] = nullptr;
  if (!param.empty()) error["param"] = param;
  error["code"] = CodeOf(status);
  return ToText({{"error", error}});
}

void AddRetryHeaders(const absl::Status& status, int http_status, Headers* headers) {
  if (http_status == 503) headers->emplace_back("Retry-After", "1");
  const int64_t millis = RetryPushbackMillis(status);
  if (millis < 0) return;
  headers->emplace_back("Retry-After", std::to_string((millis + 999) / 1000));
  headers->emplace_back("retry-after-ms", std::to_string(millis));  // which OpenAI's clients prefer
}

}  // namespace

absl::Status NoSuchPath() {
  return ErrorWithReason(Code::kUnimplemented,
                         "no such path; there are /v1/models, /v1/completions and /v1/chat/completions",
                         "NO_SUCH_PATH");
}

absl::Status WrongMethod(const std::string& allowed) {
  return ErrorWithReason(Code::kUnimplemented, "this path takes " + allowed, "METHOD_NOT_ALLOWED");
}

absl::Status RequestTooSlow(const std::string& part) {
  return ErrorWithReason(Code::kDeadlineExceeded, "the " + part + " did not arrive in time", "REQUEST_TIMEOUT");
}

absl::Status BodyTooLarge(int64_t max_bytes) {
  return ErrorWithReason(Code::kResourceExhausted,
                         "the body is larger than this server takes; use at most " + WithCommas(max_bytes) + " bytes",
                         "BODY_TOO_LARGE");
}

absl::Status WrongContentType() {
  return ErrorWithReason(Code::kInvalidArgument, "the body must be application/json, and not compressed",
                         "CONTENT_TYPE");
}

absl::Status HeadTooLarge(int64_t max_bytes) {
  return ErrorWithReason(
      Code::kResourceExhausted,
      "the headers are larger than this server takes; use at most " + WithCommas(max_bytes) + " bytes",
      "HEADERS_TOO_LARGE");
}

absl::Status NotHttp(const std::string& problem) {
  return absl::InvalidArgumentError("this is no valid HTTP request: " + problem);
}

absl::Status AuthenticationRequired() { return absl::UnauthenticatedError("authentication required"); }

AnswerPart ErrorAnswer(const absl::Status& original, const std::string& request_id) {
  const absl::Status status = WithoutInsides(original);
  AnswerHead head;
  head.status = HttpStatus(status);
  if (!request_id.empty()) head.headers.emplace_back("x-request-id", request_id);
  if (head.status == 401) head.headers.emplace_back("WWW-Authenticate", "Bearer");
  AddRetryHeaders(status, head.status, &head.headers);
  return {std::move(head), Json(status), true};
}

std::string ErrorJson(const absl::Status& status) { return Json(WithoutInsides(status)); }

}  // namespace switchyard::http
