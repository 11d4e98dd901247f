// JSON as text, for what the benchmark writes.
#ifndef SWITCHYARD_TESTS_BENCH_GPU_JSON_TEXT_H_
#define SWITCHYARD_TESTS_BENCH_GPU_JSON_TEXT_H_

#include <cmath>
#include <cstdio>
#include <ctime>
#include <string>

namespace switchyard::bench {

inline std::string Quoted(const std::string& text) {
  std::string quoted = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') quoted += '\\';
    quoted += c < ' ' ? ' ' : c;
  }
  return quoted + "\"";
}

inline std::string Number(double value) {
  if (!std::isfinite(value)) return "null";
  char text[32];
  std::snprintf(text, sizeof(text), "%.7g", value);
  return text;
}

// A field that is not the first of its object.
inline std::string Field(const std::string& name, double value) { return ", " + Quoted(name) + ": " + Number(value); }
inline std::string Field(const std::string& name, const std::string& value) {
  return ", " + Quoted(name) + ": " + Quoted(value);
}

inline std::string Date() {
  const std::time_t now = std::time(nullptr);
  char text[32];
  std::strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", std::gmtime(&now));
  return text;
}

}  // namespace switchyard::bench

#endif  // SWITCHYARD_TESTS_BENCH_GPU_JSON_TEXT_H_
