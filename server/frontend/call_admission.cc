#include "server/frontend/call_admission.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <random>

#include "server/frontend/errors.h"

namespace switchyard {
namespace {

// A cancel this close to the deadline is the deadline: the client's clock, which started before the request travelled,
// runs out a little earlier. The loop ends what is past its deadline.
constexpr std::chrono::milliseconds kDeadlineSlack{20};

TimePoint Now() { return std::chrono::steady_clock::now(); }

// Full queues say when to come back; spread by +-20 % so that refused callers do not return together.
double RetrySeconds(const ServingMetrics& metrics) {
  const double jitter = 0.8 + 0.4 * static_cast<double>(RandomNumber() % 1024) / 1023.0;
  return std::clamp(metrics.EstimateQueueSeconds() * jitter, 0.1, 30.0);
}

}  // namespace

uint64_t RandomNumber() {
  thread_local std::mt19937_64 generator{std::random_device{}() + (uint64_t{std::random_device{}()} << 32)};
  return generator();
}

std::string RequestIdOf(const std::string& own, const std::string& metadata_id) {
  const std::string& given = !own.empty() ? own : metadata_id;
  if (IsValidRequestId(given)) return given;
  char id[32];
  std::snprintf(id, sizeof(id), "req-%016llx", static_cast<unsigned long long>(RandomNumber()));
  return id;
}

TimePoint EffectiveDeadline(TimePoint arrival, TimePoint client_deadline, double max_seconds) {
  return std::min(client_deadline, arrival + std::chrono::duration_cast<TimePoint::duration>(
                                                 std::chrono::duration<double>(max_seconds)));
}

bool DeadlinePassed(TimePoint deadline) { return Now() + kDeadlineSlack >= deadline; }

absl::StatusOr<const ServedModel*> AdmitCall(FrontendParts* parts, const std::string& request_id,
                                             const std::shared_ptr<OpenCall>& call) {
  // Whoever ends all open calls when the phase changes finds this one, or it sees the new phase here.
  const bool has_place = parts->open_calls->Add(request_id, call);
  const absl::StatusOr<const ServedModel*> model = parts->AdmittingModel();
  if (!model.ok() || has_place) return model;
  return Overloaded("this server has " + std::to_string(parts->limits.max_open_calls) + " open calls, its limit",
                    "TOO_MANY_CALLS", RetrySeconds(*parts->metrics));
}

absl::Status FromQueue(const FrontendParts& parts, const absl::Status& pushed) {
  if (absl::IsUnavailable(pushed)) return parts.EndedByServer();
  if (pushed.ok()) return pushed;
  return Overloaded(std::string(pushed.message()), "QUEUE_FULL", RetrySeconds(*parts.metrics));
}

Rejection RejectionOf(const FrontendParts& parts, const absl::Status& status) {
  if (absl::IsNotFound(status)) return Rejection::kNotFound;
  if (absl::IsResourceExhausted(status)) {
    return ReasonOf(status) == "TOO_MANY_CALLS" ? Rejection::kTooManyCalls : Rejection::kQueueFull;
  }
  if (!absl::IsUnavailable(status)) return Rejection::kInvalid;
  switch (parts.phase.load(std::memory_order_relaxed)) {
    case ServingPhase::kStarting:
      return Rejection::kStarting;
    case ServingPhase::kDraining:
      return Rejection::kDraining;
    default:
      return Rejection::kEngineFailed;
  }
}

absl::Status CheckServesText(const ServedModel& model) {
  if (!model.facts.is_classifier()) return absl::OkStatus();
  return ErrorWithReason(absl::StatusCode::kFailedPrecondition,
                         "this model classifies images and knows no text; send its tensor \"images\" to "
                         "inference.GRPCInferenceService/ModelInfer",
                         "NO_TEXT");
}

absl::Status CancelStatus(TimePoint deadline) {
  return DeadlinePassed(deadline) ? absl::DeadlineExceededError("the deadline passed")
                                  : absl::CancelledError("the client went away");
}

absl::Status FromLoop(const FrontendParts& parts, TerminalStatus status) {
  switch (status) {
    case TerminalStatus::kOk:
    case TerminalStatus::kSlowReader:
      return absl::OkStatus();
    case TerminalStatus::kCancelled:
      return absl::CancelledError("the request was aborted");
    case TerminalStatus::kDeadlineExceeded:
      return absl::DeadlineExceededError("the deadline passed");
    case TerminalStatus::kUnavailable:
      return parts.EndedByServer();
    case TerminalStatus::kDataLoss:
      return ErrorWithReason(absl::StatusCode::kDataLoss, "the model produced a logit that is not finite",
                             "NON_FINITE_LOGIT");
  }
  return absl::OkStatus();
}

}  // namespace switchyard
