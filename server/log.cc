#include "server/log.h"

#include <poll.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <ctime>

#include "engine/base/mutex.h"

namespace switchyard {
namespace {

constexpr size_t kMaxLineBytes = 4096;  // PIPE_BUF
constexpr size_t kMaxValueBytes = 512;

std::atomic<LogLevel> log_level{LogLevel::kInfo};
std::atomic<int> log_fd{2};
std::atomic<uint64_t> dropped_lines{0};
Mutex write_mutex;  // between poll and write nobody else may fill the pipe

const char* LevelName(LogLevel level) {
  switch (level) {
    case LogLevel::kDebug: return "debug";
    case LogLevel::kInfo: return "info";
    case LogLevel::kWarning: return "warning";
    case LogLevel::kError: return "error";
  }
  return "error";
}

std::string WallClockText() {
  const auto now = std::chrono::system_clock::now();
  const auto millis = std::chrono::duration_cast<std::chrono::milliseconds>(now.time_since_epoch()).count();
  const std::time_t seconds = static_cast<std::time_t>(millis / 1000);
  std::tm utc{};
  gmtime_r(&seconds, &utc);
  char date[32];
  std::strftime(date, sizeof(date), "%Y-%m-%dT%H:%M:%S", &utc);
  char text[48];
  std::snprintf(text, sizeof(text), "%s.%03dZ", date, static_cast<int>(millis % 1000));
  return text;
}

// True when all of the line went out.
bool WriteLine(const std::string& line) {
  const int fd = log_fd.load(std::memory_order_relaxed);
  MutexLock lock(&write_mutex);
  pollfd writable{fd, POLLOUT, 0};
  if (poll(&writable, 1, 0) != 1 || (writable.revents & POLLOUT) == 0) return false;
  return write(fd, line.data(), line.size()) == static_cast<ssize_t>(line.size());
}

}  // namespace

std::string JsonQuote(const std::string& text) {
  std::string out = "\"";
  for (size_t i = 0; i < text.size(); ++i) {
    if (i == kMaxValueBytes) {
      out += "...";
      break;
    }
    const unsigned char c = static_cast<unsigned char>(text[i]);
    if (c == '"' || c == '\\') {
      out += '\\';
      out += static_cast<char>(c);
    } else if (c < 0x20 || c >= 0x7f) {
      char escaped[8];
      std::snprintf(escaped, sizeof(escaped), "\\u%04x", c);
      out += escaped;
    } else {
      out += static_cast<char>(c);
    }
  }
  return out + '"';
}

LogField::LogField(const char* field_key, const std::string& value) : key(field_key), json(JsonQuote(value)) {}
LogField::LogField(const char* field_key, const char* value) : LogField(field_key, std::string(value)) {}
LogField::LogField(const char* field_key, bool value) : key(field_key), json(value ? "true" : "false") {}
LogField::LogField(const char* field_key, double value) : key(field_key), json("null") {
  if (!std::isfinite(value)) return;
  char text[32];
  std::snprintf(text, sizeof(text), "%.6g", value);
  json = text;
}

void SetLogLevel(LogLevel level) { log_level.store(level, std::memory_order_relaxed); }
void SetLogFileDescriptor(int fd) { log_fd.store(fd, std::memory_order_relaxed); }
uint64_t DroppedLogLines() { return dropped_lines.load(std::memory_order_relaxed); }

void Log(LogLevel level, const char* event, std::initializer_list<LogField> fields) {
  if (level < log_level.load(std::memory_order_relaxed)) return;
  std::string line =
      "{\"time\":\"" + WallClockText() + "\",\"level\":\"" + LevelName(level) + "\",\"event\":" + JsonQuote(event);
  for (const LogField& field : fields) {
    std::string text = "," + JsonQuote(field.key) + ":" + field.json;
    if (line.size() + text.size() + 2 > kMaxLineBytes) break;
    line += text;
  }
  line += "}\n";
  if (!WriteLine(line)) dropped_lines.fetch_add(1, std::memory_order_relaxed);
}

}  // namespace switchyard
