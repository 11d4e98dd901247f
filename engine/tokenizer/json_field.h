// A value inside a parsed JSON document that knows its path, so that every complaint says where it is:
//
//   tokenizer.json: decoder.decoders[2].type is "CTC"; supported are ...
#ifndef SWITCHYARD_ENGINE_TOKENIZER_JSON_FIELD_H_
#define SWITCHYARD_ENGINE_TOKENIZER_JSON_FIELD_H_

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace switchyard {

// A view: valid while the document lives. A missing member is a field that IsNull.
class JsonField {
 public:
  JsonField(const nlohmann::json* value, std::string path) : value_(value), path_(std::move(path)) {}

  bool IsNull() const;  // missing, or null
  bool IsObject() const;
  bool IsArray() const;
  bool IsString() const;
  bool IsZero() const;  // the number 0

  JsonField Member(const std::string& key) const;  // null if this is no object or has no such key
  JsonField Element(size_t index) const;           // REQUIRES: IsArray, index < Size
  size_t Size() const;                             // of an array; 0 for anything else
  std::vector<std::string> Keys() const;           // of an object

  // INVALID_ARGUMENT: another type, or out of the range.
  absl::StatusOr<std::string> String() const;
  absl::StatusOr<bool> Bool() const;
  absl::StatusOr<int32_t> Int(int32_t min, int32_t max) const;
  absl::StatusOr<double> Real(double min, double max) const;
  absl::StatusOr<char32_t> Character() const;  // a string of one character
  // The same, with a value for "missing or null".
  absl::StatusOr<std::string> StringOr(const std::string& otherwise) const;
  absl::StatusOr<bool> BoolOr(bool otherwise) const;

  // INVALID_ARGUMENT "<path> <what>".
  absl::Status Error(const std::string& what) const;
  const std::string& path() const { return path_; }

 private:
  const nlohmann::json* value_;  // nullptr: missing
  std::string path_;
};

// Lists the parts of a component in order: itself, or for {"type": "Sequence", <list_key>: [...]} its members, with
// Sequences inside of Sequences replaced by their members. Null gives none. INVALID_ARGUMENT: more than 64, or no parts.
absl::StatusOr<std::vector<JsonField>> ListParts(const JsonField& component, const std::string& list_key);

// `text` cut to 64 bytes, without control characters, in double quotes.
std::string Quote(const std::string& text);

// Builds a part by its "type": `kinds` is an array of {type, make}. INVALID_ARGUMENT: lists the supported types.
template <typename Part, typename Kinds>
absl::StatusOr<Part> MakePart(const JsonField& part, const Kinds& kinds) {
  const absl::StatusOr<std::string> type = part.Member("type").String();
  if (!type.ok()) return type.status();
  std::string supported;
  for (const auto& kind : kinds) {
    if (*type == kind.type) return kind.make(part);
    supported += (supported.empty() ? "" : ", ") + std::string(kind.type);
  }
  return part.Member("type").Error("is " + Quote(*type) + "; supported are Sequence, " + supported);
}

}  // namespace switchyard

#endif  // SWITCHYARD_ENGINE_TOKENIZER_JSON_FIELD_H_
