// A status as OpenAI's clients know errors: an HTTP status code and
//
//   {"error": {"message": "...", "type": "invalid_request_error", "param": "temperature", "code": null}}
//
// | Status                           | HTTP | exception of the `openai` package |
// | INVALID_ARGUMENT, FAILED_PRECONDITION | 400 | BadRequestError |
// | UNAUTHENTICATED                  | 401  | AuthenticationError |
// | NOT_FOUND                        | 404  | NotFoundError |
// | RESOURCE_EXHAUSTED with RetryInfo | 429, Retry-After | RateLimitError; retried by the client |
// | RESOURCE_EXHAUSTED without       | 400  | BadRequestError |
// | CANCELLED (by Abort)             | 499  | APIStatusError |
// | UNAVAILABLE                      | 503, Retry-After | InternalServerError; retried by the client |
// | DEADLINE_EXCEEDED                | 504  | InternalServerError |
// | others                           | 500  | InternalServerError |
//
// What HTTP has of its own (method, path, sizes, time to send a request) is a status with one of the reasons below.
#ifndef SWITCHYARD_SERVER_HTTP_OPENAI_ERROR_H_
#define SWITCHYARD_SERVER_HTTP_OPENAI_ERROR_H_

#include <string>

#include "absl/status/status.h"
#include "server/http/answer.h"

namespace switchyard::http {

absl::Status NoSuchPath();                             // 404
absl::Status WrongMethod(const std::string& allowed);  // 405
absl::Status RequestTooSlow(const std::string& part);  // 408
absl::Status BodyTooLarge(int64_t max_bytes);          // 413
absl::Status WrongContentType();                       // 415
absl::Status HeadTooLarge(int64_t max_bytes);          // 431
absl::Status NotHttp(const std::string& problem);      // 400
absl::Status AuthenticationRequired();                 // 401

// REQUIRES: not OK. Whole: head and body.
AnswerPart ErrorAnswer(const absl::Status& status, const std::string& request_id);
// The JSON alone, for the middle of a stream.
std::string ErrorJson(const absl::Status& status);

}  // namespace switchyard::http

#endif  // SWITCHYARD_SERVER_HTTP_OPENAI_ERROR_H_
