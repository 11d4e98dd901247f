#include "server/frontend/call_context.h"

#include <grpc/support/time.h>

#include <chrono>

#include "server/frontend/errors.h"

namespace switchyard {

TimePoint SteadyDeadline(const grpc::CallbackServerContext& context) {
  constexpr int64_t kFarAwaySeconds = 10'000'000;
  const gpr_timespec deadline = gpr_convert_clock_type(context.raw_deadline(), GPR_CLOCK_MONOTONIC);
  const gpr_timespec remaining = gpr_time_sub(deadline, gpr_now(GPR_CLOCK_MONOTONIC));
  if (remaining.tv_sec > kFarAwaySeconds) return TimePoint::max();
  if (remaining.tv_sec < 0) return std::chrono::steady_clock::now();
  return std::chrono::steady_clock::now() + std::chrono::seconds(remaining.tv_sec) +
         std::chrono::nanoseconds(remaining.tv_nsec);
}

std::string MetadataRequestId(const grpc::CallbackServerContext& context) {
  const auto found = context.client_metadata().find("x-request-id");
  return found == context.client_metadata().end() ? "" : std::string(found->second.data(), found->second.size());
}

void AddRetryTrailer(const absl::Status& status, grpc::CallbackServerContext* context) {
  const int64_t millis = RetryPushbackMillis(status);
  if (millis >= 0) context->AddTrailingMetadata("grpc-retry-pushback-ms", std::to_string(millis));
}

void BreakableContext::Break() {
  grpc::CallbackServerContext* context = nullptr;
  {
    MutexLock lock(&mutex_);
    if (context_ == nullptr || breaking_) return;
    context = context_;
    breaking_ = true;
    breaker_ = std::this_thread::get_id();
  }
  context->TryCancel();
  {
    MutexLock lock(&mutex_);
    breaking_ = false;
  }
  idle_.NotifyAll();
}

void BreakableContext::Release() {
  MutexLock lock(&mutex_);
  while (breaking_ && breaker_ != std::this_thread::get_id()) idle_.Wait(&mutex_);
  context_ = nullptr;
}

}  // namespace switchyard
