// What calls of every kind do between their arrival and the queue, and at their end.
#ifndef SWITCHYARD_SERVER_FRONTEND_CALL_ADMISSION_H_
#define SWITCHYARD_SERVER_FRONTEND_CALL_ADMISSION_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/frontend/frontend_parts.h"
#include "server/frontend/open_calls.h"

namespace switchyard {

uint64_t RandomNumber();

// The first of both that is a valid request id, or a new one.
std::string RequestIdOf(const std::string& own, const std::string& metadata_id);

// The client's deadline, or the server's own limit if that is earlier.
TimePoint EffectiveDeadline(TimePoint arrival, TimePoint client_deadline, double max_seconds);
// True when a cancel that comes now is the deadline's: gRPC reports both the same way.
bool DeadlinePassed(TimePoint deadline);

// Gives the call its place among the open ones; the model that it may use. UNAVAILABLE, or RESOURCE_EXHAUSTED
// TOO_MANY_CALLS.
absl::StatusOr<const ServedModel*> AdmitCall(FrontendParts* parts, const std::string& request_id,
                                             const std::shared_ptr<OpenCall>& call);
// What RequestQueue::Push said, for the client.
absl::Status FromQueue(const FrontendParts& parts, const absl::Status& pushed);
// How a refusal is counted.
Rejection RejectionOf(const FrontendParts& parts, const absl::Status& status);

// FAILED_PRECONDITION: the model classifies images.
absl::Status CheckServesText(const ServedModel& model);

// The client went away, or its deadline passed.
absl::Status CancelStatus(TimePoint deadline);
// How the loop ended a request. REQUIRES: not kSlowReader, which depends on the kind of call.
absl::Status FromLoop(const FrontendParts& parts, TerminalStatus status);

}  // namespace switchyard

#endif  // SWITCHYARD_SERVER_FRONTEND_CALL_ADMISSION_H_
