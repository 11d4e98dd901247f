// Strict reading of JSON that may be hostile.
//
// Stricter than the parser below it, and than most: bytes after the document, a byte order mark, NUL bytes, duplicate
// keys, text that is not UTF-8 and numbers that no double can hold (1e400) are errors. Sizes, nesting and the number of
// values are bounded, nothing recurses, no exception leaves.
//
// Two forms: ParseJson builds a document (include <nlohmann/json.hpp> in the .cc that uses it); VisitJson only reports
// what it sees, for texts of many megabytes whose content has a known form.
#ifndef SWITCHYARD_ENGINE_BASE_JSON_H_
#define SWITCHYARD_ENGINE_BASE_JSON_H_

#include <cstddef>
#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace switchyard {

struct JsonLimits {
  size_t max_bytes = size_t{64} << 20;
  int max_depth = 64;
  size_t max_values = size_t{8} << 20;  // a document costs about 16 bytes per value, plus its strings
};

// INVALID_ARGUMENT: `what: ` (a file name, say) and what is wrong, with the byte where the parser knows it.
absl::StatusOr<nlohmann::json> ParseJson(std::string_view text, const JsonLimits& limits, const std::string& what);

// Receives the document in order. A method that returns a status other than OK ends the visit with it.
// Duplicate keys are the visitor's to refuse: only it knows which it may forget.
class JsonVisitor {
 public:
  virtual ~JsonVisitor() = default;
  virtual absl::Status Null() = 0;
  virtual absl::Status Bool(bool value) = 0;
  virtual absl::Status Negative(int64_t value) = 0;  // an integer written with a minus sign, -0 too
  virtual absl::Status Unsigned(uint64_t value) = 0;
  virtual absl::Status Real(double value) = 0;  // a fraction, an exponent, or too large for 64 bits; finite
  virtual absl::Status String(std::string value) = 0;
  virtual absl::Status BeginObject() = 0;
  virtual absl::Status Key(std::string key) = 0;
  virtual absl::Status EndObject() = 0;
  virtual absl::Status BeginArray() = 0;
  virtual absl::Status EndArray() = 0;
};

// As ParseJson; or the visitor's status, with `what: ` put in front.
absl::Status VisitJson(std::string_view text, const JsonLimits& limits, const std::string& what, JsonVisitor* visitor);

// For messages: at most `max_bytes` of `text`, each byte outside printable ASCII replaced by '?'.
std::string Printable(std::string_view text, size_t max_bytes = 64);

}  // namespace switchyard

#endif  // SWITCHYARD_ENGINE_BASE_JSON_H_
