// What goes wrong in the frontend, as absl::Status; grpc_status.h has the one function that turns it into gRPC's.
//
// Details (google.rpc.BadRequest, ErrorInfo, RetryInfo) travel as payloads of the absl::Status under their type URLs.
// A message is one sentence: the field, then the class or size of the value (never its content), the limit, what to do.
#ifndef SWITCHYARD_SERVER_FRONTEND_ERRORS_H_
#define SWITCHYARD_SERVER_FRONTEND_ERRORS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"

namespace switchyard {

struct FieldViolation {
  std::string field;        // path in the request, e.g. "stop[2]"
  std::string description;  // the whole sentence
};

// INVALID_ARGUMENT with all violations; the message is the first one. REQUIRES: at least one.
absl::Status InvalidRequest(const std::vector<FieldViolation>& violations);
absl::Status InvalidRequest(const std::string& field, const std::string& description);

// NOT_FOUND; shows at most 64 harmless characters of `name`.
absl::Status ModelNotFound(const std::string& name, const std::string& served_name);

// RESOURCE_EXHAUSTED with RetryInfo; `what` is the sentence without the advice.
absl::Status Overloaded(const std::string& what, const std::string& reason, double retry_seconds);

// UNAVAILABLE: STARTING, DRAINING or ENGINE_FAILED.
absl::Status Unavailable(const std::string& message, const std::string& reason);

// Any other code with a reason that a program can compare.
absl::Status ErrorWithReason(absl::StatusCode code, const std::string& message, const std::string& reason);

// What a client may see of `status`: INTERNAL and UNKNOWN lose their text, which may name our insides, for "internal
// error, id XXXX"; the log line with that id has the text. Once for each answer.
absl::Status WithoutInsides(const absl::Status& status);

// How many times WithoutInsides met INTERNAL or UNKNOWN.
uint64_t InternalErrors();

// At most 64 characters of `text`; what is not a letter, digit or one of ._:/- becomes '?'.
std::string Sanitized(const std::string& text);

// Milliseconds for the trailer `grpc-retry-pushback-ms`, or -1 where the status has no RetryInfo.
int64_t RetryPushbackMillis(const absl::Status& status);

// The reason of its ErrorInfo, or "".
std::string ReasonOf(const absl::Status& status);

// Those of its BadRequest; none for other statuses.
std::vector<FieldViolation> ViolationsOf(const absl::Status& status);

}  // namespace switchyard

#endif  // SWITCHYARD_SERVER_FRONTEND_ERRORS_H_
