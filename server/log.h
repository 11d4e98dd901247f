// JSON-lines log on stderr: one object per line, {"time":..., "level":..., "event":..., fields...}.
//
//   Log(LogLevel::kInfo, "listening", {{"port", 50051}, {"host", "::"}});
//   {"time":"2026-01-31T12:00:00.123Z","level":"info","event":"listening","port":50051,"host":"::"}
//
// Never blocks serving: a line that stderr cannot take at once (full pipe, full disk) is dropped and counted. That
// works because a line is at most 4,096 bytes, the size up to which a write to a pipe is taken whole or not at all.
// Never give it prompts, generated text, token ids or secrets. Control characters are escaped; thread-safe.
#ifndef SWITCHYARD_SERVER_LOG_H_
#define SWITCHYARD_SERVER_LOG_H_

#include <concepts>
#include <cstdint>
#include <initializer_list>
#include <string>

namespace switchyard {

enum class LogLevel : uint8_t { kDebug, kInfo, kWarning, kError };

struct LogField {
  LogField(const char* field_key, const std::string& value);
  LogField(const char* field_key, const char* value);
  LogField(const char* field_key, bool value);
  LogField(const char* field_key, double value);
  template <std::integral T>
  LogField(const char* field_key, T value) : key(field_key), json(std::to_string(value)) {}

  std::string key;
  std::string json;  // the value as JSON text
};

// Lines below it are not written. Starts at kInfo.
void SetLogLevel(LogLevel level);
// Where lines go; stderr (2) at first.
void SetLogFileDescriptor(int fd);

void Log(LogLevel level, const char* event, std::initializer_list<LogField> fields);

// Lines that could not be written so far.
uint64_t DroppedLogLines();

// `text` as a JSON string with quotes. Bytes that are not printable ASCII are escaped; at most 512 are kept.
std::string JsonQuote(const std::string& text);

}  // namespace switchyard

#endif  // SWITCHYARD_SERVER_LOG_H_
