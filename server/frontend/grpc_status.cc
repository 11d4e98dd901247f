#include "server/frontend/grpc_status.h"

#include <atomic>
#include <cstdio>
#include <string>

#include "absl/strings/cord.h"
#include "google/rpc/status.pb.h"
#include "server/log.h"

namespace switchyard {
namespace {

std::atomic<uint64_t> internal_errors{0};

// The text stays in our log under an id that the client can quote.
absl::Status WithoutInsides(const absl::Status& status) {
  if (status.code() != absl::StatusCode::kInternal && status.code() != absl::StatusCode::kUnknown) return status;
  const uint64_t number = internal_errors.fetch_add(1, std::memory_order_relaxed) + 1;
  char id[24];
  std::snprintf(id, sizeof(id), "%08llx", static_cast<unsigned long long>(number));
  Log(LogLevel::kError, "internal_error", {{"id", id}, {"text", std::string(status.message())}});
  return absl::InternalError(std::string("internal error, id ") + id);
}

}  // namespace

grpc::Status ToGrpcStatus(const absl::Status& original) {
  if (original.ok()) return grpc::Status::OK;
  const absl::Status status = WithoutInsides(original);
  google::rpc::Status details;
  details.set_code(static_cast<int>(status.code()));
  details.set_message(std::string(status.message()));
  status.ForEachPayload([&details](auto type_url, const absl::Cord& value) {
    auto* detail = details.add_details();
    detail->set_type_url(std::string(type_url));
    detail->set_value(std::string(value));
  });
  return grpc::Status(static_cast<grpc::StatusCode>(status.code()), std::string(status.message()),
                      details.details_size() > 0 ? details.SerializeAsString() : std::string());
}

uint64_t InternalErrors() { return internal_errors.load(std::memory_order_relaxed); }

}  // namespace switchyard
