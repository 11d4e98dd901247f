#include "server/frontend/errors.h"

#include <atomic>
#include <cctype>
#include <cmath>
#include <cstdio>

#include "absl/strings/cord.h"
#include "google/rpc/error_details.pb.h"
#include "server/log.h"

namespace switchyard {
namespace {

constexpr char kTypePrefix[] = "type.googleapis.com/";
constexpr char kDomain[] = "switchyard";

std::atomic<uint64_t> internal_errors{0};

template <typename Message>
std::string TypeUrl() {
  return kTypePrefix + Message::descriptor()->full_name();
}

template <typename Message>
void Attach(const Message& message, absl::Status* status) {
  status->SetPayload(TypeUrl<Message>(), absl::Cord(message.SerializeAsString()));
}

void AttachReason(const std::string& reason, absl::Status* status) {
  google::rpc::ErrorInfo info;
  info.set_reason(reason);
  info.set_domain(kDomain);
  Attach(info, status);
}

std::string OneDecimal(double value) {
  char text[32];
  std::snprintf(text, sizeof(text), "%.1f", value);
  return text;
}

}  // namespace

absl::Status InvalidRequest(const std::vector<FieldViolation>& violations) {
  std::string message = violations.front().description;
  if (violations.size() > 1) message += " (and " + std::to_string(violations.size() - 1) + " more, see the details)";
  absl::Status status = absl::InvalidArgumentError(message);
  google::rpc::BadRequest details;
  for (const FieldViolation& violation : violations) {
    auto* entry = details.add_field_violations();
    entry->set_field(violation.field);
    entry->set_description(violation.description);
  }
  Attach(details, &status);
  AttachReason("INVALID_REQUEST", &status);
  return status;
}

absl::Status InvalidRequest(const std::string& field, const std::string& description) {
  return InvalidRequest({{field, description}});
}

absl::Status ModelNotFound(const std::string& name, const std::string& served_name) {
  return ErrorWithReason(
      absl::StatusCode::kNotFound,
      "model \"" + Sanitized(name) + "\" is not served here; this server has \"" + served_name + "\"",
      "MODEL_NOT_FOUND");
}

absl::Status Overloaded(const std::string& what, const std::string& reason, double retry_seconds) {
  absl::Status status = ErrorWithReason(absl::StatusCode::kResourceExhausted,
                                        what + "; retry after " + OneDecimal(retry_seconds) + " s", reason);
  google::rpc::RetryInfo retry;
  const int64_t millis = std::llround(retry_seconds * 1e3);
  retry.mutable_retry_delay()->set_seconds(millis / 1000);
  retry.mutable_retry_delay()->set_nanos(static_cast<int32_t>(millis % 1000) * 1'000'000);
  Attach(retry, &status);
  return status;
}

absl::Status Unavailable(const std::string& message, const std::string& reason) {
  return ErrorWithReason(absl::StatusCode::kUnavailable, message, reason);
}

absl::Status ErrorWithReason(absl::StatusCode code, const std::string& message, const std::string& reason) {
  absl::Status status(code, message);
  AttachReason(reason, &status);
  return status;
}

absl::Status WithoutInsides(const absl::Status& status) {
  if (status.code() != absl::StatusCode::kInternal && status.code() != absl::StatusCode::kUnknown) return status;
  const uint64_t number = internal_errors.fetch_add(1, std::memory_order_relaxed) + 1;
  char id[24];
  std::snprintf(id, sizeof(id), "%08llx", static_cast<unsigned long long>(number));
  Log(LogLevel::kError, "internal_error", {{"id", id}, {"text", std::string(status.message())}});
  return absl::InternalError(std::string("internal error, id ") + id);
}

uint64_t InternalErrors() { return internal_errors.load(std::memory_order_relaxed); }

std::string Sanitized(const std::string& text) {
  std::string shown = text.substr(0, 64);
  for (char& c : shown) {
    const bool harmless =
        std::isalnum(static_cast<unsigned char>(c)) != 0 || std::string("._:/-").find(c) != std::string::npos;
    if (!harmless) c = '?';
  }
  return text.size() > 64 ? shown + "..." : shown;
}

int64_t RetryPushbackMillis(const absl::Status& status) {
  const auto payload = status.GetPayload(TypeUrl<google::rpc::RetryInfo>());
  google::rpc::RetryInfo retry;
  if (!payload || !retry.ParseFromString(std::string(*payload))) return -1;
  return retry.retry_delay().seconds() * 1000 + retry.retry_delay().nanos() / 1'000'000;
}

std::string ReasonOf(const absl::Status& status) {
  const auto payload = status.GetPayload(TypeUrl<google::rpc::ErrorInfo>());
  google::rpc::ErrorInfo info;
  return payload && info.ParseFromString(std::string(*payload)) ? info.reason() : "";
}

std::vector<FieldViolation> ViolationsOf(const absl::Status& status) {
  std::vector<FieldViolation> violations;
  const auto payload = status.GetPayload(TypeUrl<google::rpc::BadRequest>());
  google::rpc::BadRequest details;
  if (!payload || !details.ParseFromString(std::string(*payload))) return violations;
  for (const auto& entry : details.field_violations()) violations.push_back({entry.field(), entry.description()});
  return violations;
}

}  // namespace switchyard
