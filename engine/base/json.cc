#include "engine/base/json.h"

#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/base/status_macros.h"

namespace switchyard {
namespace {

using nlohmann::json;

absl::Status Invalid(const std::string& message) { return absl::InvalidArgumentError(message); }

// Between nlohmann's event interface and a JsonVisitor: counts, bounds, and keeps the first error.
class BoundedEvents : public nlohmann::json_sax<json> {
 public:
  BoundedEvents(const JsonLimits& limits, JsonVisitor* visitor) : limits_(limits), visitor_(visitor) {}

  const absl::Status& status() const { return status_; }

  bool null() override { return CountValue() && Keep(visitor_->Null()); }
  bool boolean(bool value) override { return CountValue() && Keep(visitor_->Bool(value)); }
  bool number_integer(int64_t value) override { return CountValue() && Keep(visitor_->Negative(value)); }
  bool number_unsigned(uint64_t value) override { return CountValue() && Keep(visitor_->Unsigned(value)); }
  bool number_float(double value, const std::string&) override { return CountValue() && Keep(visitor_->Real(value)); }
  bool string(std::string& value) override { return CountValue() && Keep(visitor_->String(std::move(value))); }
  bool binary(json::binary_t&) override { return Keep(Invalid("binary value")); }
  bool start_object(size_t) override { return Enter() && Keep(visitor_->BeginObject()); }
  bool key(std::string& key) override { return Keep(visitor_->Key(std::move(key))); }
  bool end_object() override { return Leave() && Keep(visitor_->EndObject()); }
  bool start_array(size_t) override { return Enter() && Keep(visitor_->BeginArray()); }
  bool end_array() override { return Leave() && Keep(visitor_->EndArray()); }

  bool parse_error(size_t position, const std::string&, const nlohmann::detail::exception& error) override {
    // 406: the number's text is fine, but no double can hold it.
    const std::string problem = error.id == 406 ? "number out of range" : "not valid JSON";
    return Keep(Invalid(absl::StrCat(problem, " at byte ", position)));
  }

 private:
  bool CountValue() {
    if (++num_values_ <= limits_.max_values) return true;
    return Keep(Invalid(absl::StrCat("more than ", limits_.max_values, " values")));
  }
  bool Enter() {
    if (++depth_ <= limits_.max_depth) return CountValue();
    return Keep(Invalid(absl::StrCat("nested deeper than ", limits_.max_depth, " levels")));
  }
  bool Leave() {
    --depth_;
    return true;
  }
  bool Keep(const absl::Status& status) {
    if (status_.ok()) status_ = status;
    return status_.ok();
  }

  const JsonLimits& limits_;
  JsonVisitor* const visitor_;
  absl::Status status_;
  size_t num_values_ = 0;
  int depth_ = 0;
};

// Builds the document; the stack holds the objects and arrays that are still open.
class DocumentBuilder : public JsonVisitor {
 public:
  absl::Status Null() override { return Add(json(nullptr)); }
  absl::Status Bool(bool value) override { return Add(json(value)); }
  absl::Status Negative(int64_t value) override { return Add(json(value)); }
  absl::Status Unsigned(uint64_t value) override { return Add(json(value)); }
  absl::Status Real(double value) override { return Add(json(value)); }
  absl::Status String(std::string value) override { return Add(json(std::move(value))); }
  absl::Status BeginObject() override { return Open(json::object()); }
  absl::Status BeginArray() override { return Open(json::array()); }
  absl::Status EndObject() override { return Close(); }
  absl::Status EndArray() override { return Close(); }
  absl::Status Key(std::string key) override {
    const auto [place, is_new] = open_.back()->get_ref<json::object_t&>().emplace(std::move(key), nullptr);
    if (!is_new) return Invalid(absl::StrCat("duplicate key \"", Printable(place->first), "\""));
    slot_ = &place->second;
    return absl::OkStatus();
  }

  json Take() { return std::move(root_); }

 private:
  // Where the next value goes: the root, the end of the innermost array, or the slot of the last key.
  json* Place(json value) {
    if (open_.empty()) return &(root_ = std::move(value));
    if (!open_.back()->is_array()) return &(*slot_ = std::move(value));
    auto& elements = open_.back()->get_ref<json::array_t&>();
    elements.push_back(std::move(value));
    return &elements.back();
  }
  absl::Status Add(json value) {
    Place(std::move(value));
    return absl::OkStatus();
  }
  absl::Status Open(json value) {
    open_.push_back(Place(std::move(value)));
    return absl::OkStatus();
  }
  absl::Status Close() {
    open_.pop_back();
    return absl::OkStatus();
  }

  json root_;
  std::vector<json*> open_;
  json* slot_ = nullptr;
};

absl::Status CheckBytes(std::string_view text, const JsonLimits& limits) {
  if (text.size() > limits.max_bytes) {
    return Invalid(absl::StrCat("has ", text.size(), " bytes; at most ", limits.max_bytes, " are read"));
  }
  if (text.substr(0, 3) == "\xef\xbb\xbf") return Invalid("begins with a byte order mark");
  // The parser takes NUL for the end of the text.
  const size_t nul = text.find('\0');
  if (nul != std::string_view::npos) return Invalid(absl::StrCat("NUL at byte ", nul));
  return absl::OkStatus();
}

absl::Status Visit(std::string_view text, const JsonLimits& limits, JsonVisitor* visitor) {
  RETURN_IF_ERROR(CheckBytes(text, limits));
  BoundedEvents events(limits, visitor);
  try {
    if (json::sax_parse(text.data(), text.data() + text.size(), &events)) return absl::OkStatus();
  } catch (const std::exception& error) {
    return Invalid(absl::StrCat("cannot be parsed: ", Printable(error.what())));
  }
  return events.status().ok() ? Invalid("not valid JSON") : events.status();
}

absl::Status Named(const std::string& what, const absl::Status& status) {
  if (status.ok()) return status;
  return absl::Status(status.code(), absl::StrCat(what, ": ", status.message()));
}

}  // namespace

absl::StatusOr<json> ParseJson(std::string_view text, const JsonLimits& limits, const std::string& what) {
  DocumentBuilder builder;
  RETURN_IF_ERROR(VisitJson(text, limits, what, &builder));
  return builder.Take();
}

absl::Status VisitJson(std::string_view text, const JsonLimits& limits, const std::string& what, JsonVisitor* visitor) {
  return Named(what, Visit(text, limits, visitor));
}

std::string Printable(std::string_view text, size_t max_bytes) {
  std::string out;
  for (const char c : text.substr(0, max_bytes)) out += c >= ' ' && c <= '~' ? c : '?';
  if (text.size() > max_bytes) out += "...";
  return out;
}

}  // namespace switchyard
