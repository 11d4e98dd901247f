#include "engine/jinja/to_json.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "absl/strings/str_cat.h"
#include "engine/base/status_macros.h"
#include "engine/jinja/ordering.h"
#include "engine/jinja/repr.h"

namespace switchyard::jinja {
namespace {

Text Ascii(std::string_view text) { return Text(text.begin(), text.end()); }

void AppendUnit(unsigned unit, Text* out) {
  char code[8];
  std::snprintf(code, sizeof(code), "\\u%04x", unit);
  *out += Ascii(code);
}

void AppendChar(char32_t c, bool ensure_ascii, Text* out) {
  switch (c) {
    case '"':
      *out += U"\\\"";
      return;
    case '\\':
      *out += U"\\\\";
      return;
    case '\n':
      *out += U"\\n";
      return;
    case '\r':
      *out += U"\\r";
      return;
    case '\t':
      *out += U"\\t";
      return;
    case '\f':
      *out += U"\\f";
      return;
    case '\b':
      *out += U"\\b";
      return;
    default:
      break;
  }
  if (c >= 0x20 && (!ensure_ascii || c < 0x7F)) {
    *out += c;
  } else if (c < 0x10000) {
    AppendUnit(static_cast<unsigned>(c), out);
  } else {
    AppendUnit(static_cast<unsigned>(0xD800 + ((c - 0x10000) >> 10)), out);
    AppendUnit(static_cast<unsigned>(0xDC00 + ((c - 0x10000) & 0x3FF)), out);
  }
}

std::string Number(const Value& value) {
  if (value.is_bool()) return value.boolean() ? "true" : "false";
  if (value.is_int()) return absl::StrCat(value.integer());
  if (std::isnan(value.real())) return "NaN";
  if (std::isinf(value.real())) return value.real() > 0 ? "Infinity" : "-Infinity";
  return FormatFloat(value.real());
}

class Writer {
 public:
  Writer(const JsonStyle& style, Budget* budget) : style_(style), budget_(budget) {}

  Text Take() { return std::move(out_); }

  absl::Status Write(const Value& value) {
    RETURN_IF_ERROR(budget_->Spend());
    if (value.is_string()) return WriteText(value.text());
    if (value.is_none()) return Put(U"null");
    if (value.is_number()) return Put(Ascii(Number(value)));
    if (value.is_sequence()) return WriteItems(value.items());
    if (value.is_dict()) return WriteDict(value.dict());
    return PythonError(absl::StrCat("Object of type ", value.TypeName(), " is not JSON serializable"));
  }

 private:
  absl::Status Put(TextView text) {
    RETURN_IF_ERROR(budget_->Grow(static_cast<int64_t>(text.size())));
    out_ += text;
    return absl::OkStatus();
  }

  absl::Status WriteText(TextView text) {
    RETURN_IF_ERROR(budget_->Grow(static_cast<int64_t>(text.size()) + 2));
    const size_t before = out_.size();
    out_ += U'"';
    for (const char32_t c : text) AppendChar(c, style_.ensure_ascii, &out_);
    out_ += U'"';
    return budget_->Grow(static_cast<int64_t>(out_.size() - before - text.size()));  // of escapes
  }

  absl::Status NewLine() {
    if (!style_.indent.has_value()) return absl::OkStatus();
    RETURN_IF_ERROR(Put(U"\n"));
    for (int i = 0; i < level_; ++i) RETURN_IF_ERROR(Put(*style_.indent));
    return absl::OkStatus();
  }
  absl::Status BeginItem(bool first) {
    if (!first) RETURN_IF_ERROR(Put(style_.item_separator));
    return NewLine();
  }

  absl::Status WriteItems(const std::vector<Value>& items) {
    if (items.empty()) return Put(U"[]");
    RETURN_IF_ERROR(Put(U"["));
    ++level_;
    for (size_t i = 0; i < items.size(); ++i) {
      RETURN_IF_ERROR(BeginItem(i == 0));
      RETURN_IF_ERROR(Write(items[i]));
    }
    --level_;
    RETURN_IF_ERROR(NewLine());
    return Put(U"]");
  }

  absl::Status WriteKey(const Value& key) {
    if (key.is_string()) return WriteText(key.text());
    if (key.is_none()) return WriteText(U"null");
    if (key.is_number()) return WriteText(Ascii(Number(key)));
    return PythonError(absl::StrCat("keys must be str, int, float, bool or None, not ", key.TypeName()));
  }

  absl::Status WriteDict(const Dict& dict) {
    if (dict.size() == 0) return Put(U"{}");
    std::vector<size_t> order(dict.size());
    for (size_t i = 0; i < order.size(); ++i) order[i] = i;
    if (style_.sort_keys) {
      std::vector<Value> keys;
      for (const auto& [key, value] : dict.entries()) keys.push_back(key);
      ASSIGN_OR_RETURN(order, SortedOrder(keys, false, budget_));
    }
    RETURN_IF_ERROR(Put(U"{"));
    ++level_;
    for (size_t i = 0; i < order.size(); ++i) {
      const auto& [key, value] = dict.entries()[order[i]];
      RETURN_IF_ERROR(BeginItem(i == 0));
      RETURN_IF_ERROR(WriteKey(key));
      RETURN_IF_ERROR(Put(style_.key_separator));
      RETURN_IF_ERROR(Write(value));
    }
    --level_;
    RETURN_IF_ERROR(NewLine());
    return Put(U"}");
  }

  const JsonStyle& style_;
  Budget* const budget_;
  Text out_;
  int level_ = 0;
};

}  // namespace

absl::StatusOr<Text> ToJson(const Value& value, const JsonStyle& style, Budget* budget) {
  Writer writer(style, budget);
  RETURN_IF_ERROR(writer.Write(value));
  return writer.Take();
}

}  // namespace switchyard::jinja
