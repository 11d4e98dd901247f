#include "server/frontend/library_log.h"

#include <google/protobuf/stubs/logging.h>
#include <grpc/support/log.h>

#include <atomic>
#include <chrono>
#include <string>

#include "server/log.h"

namespace switchyard {
namespace {

constexpr int kLinesPerSecond = 10;

// Counts the lines of the current second; two threads at its turn may let a few more through.
bool MayLog() {
  static std::atomic<int64_t> current_second{0};
  static std::atomic<int> lines{0};
  const int64_t now =
      std::chrono::duration_cast<std::chrono::seconds>(std::chrono::steady_clock::now().time_since_epoch()).count();
  if (current_second.exchange(now, std::memory_order_relaxed) != now) lines.store(0, std::memory_order_relaxed);
  return lines.fetch_add(1, std::memory_order_relaxed) < kLinesPerSecond;
}

// Headers that cannot be parsed are quoted in gRPC's text ("Error parsing metadata: ... value=..."), and may be
// secrets.
std::string WithoutValues(const std::string& text) {
  const size_t value = text.find("value=");
  return value == std::string::npos ? text : text.substr(0, value) + "...";
}

// Below errors, as GRPC_VERBOSITY and GRPC_TRACE ask for, gRPC writes whole messages: never ours to log.
void LogGrpc(gpr_log_func_args* line) {
  if (line->severity != GPR_LOG_SEVERITY_ERROR || !MayLog()) return;
  Log(LogLevel::kWarning, "grpc", {{"text", WithoutValues(line->message)}});
}

// Its errors are about requests that we refuse with a better text, and name fields only.
void LogProtobuf(google::protobuf::LogLevel level, const char*, int, const std::string& text) {
  if (level < google::protobuf::LOGLEVEL_ERROR || !MayLog()) return;
  Log(LogLevel::kDebug, "protobuf", {{"text", text}});
}

}  // namespace

void RouteLibraryLogs() {
  gpr_set_log_function(&LogGrpc);
  google::protobuf::SetLogHandler(&LogProtobuf);
}

}  // namespace switchyard
