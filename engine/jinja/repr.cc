#include "engine/jinja/repr.h"

#include <charconv>
#include <cmath>
#include <cstdio>

#include "absl/strings/str_cat.h"
#include "engine/base/status_macros.h"
#include "engine/jinja/text.h"

namespace switchyard::jinja {
namespace {

constexpr int kMaxReprDepth = 200;  // a namespace may contain itself

Text Ascii(std::string_view text) { return Text(text.begin(), text.end()); }

void AppendEscape(char32_t c, Text* out) {
  char code[16];
  std::snprintf(code, sizeof(code),
                c < 0x100     ? "\\x%02x"
                : c < 0x10000 ? "\\u%04x"
                              : "\\U%08x",
                static_cast<unsigned>(c));
  *out += Ascii(code);
}

class Writer {
 public:
  explicit Writer(Budget* budget) : budget_(budget) {}

  Text Take() { return std::move(out_); }

  absl::Status Write(const Value& value) {
    RETURN_IF_ERROR(budget_->Spend());
    if (++depth_ > kMaxReprDepth) return absl::ResourceExhaustedError("prints a value that is nested too deep");
    RETURN_IF_ERROR(WriteValue(value));
    --depth_;
    return absl::OkStatus();
  }

 private:
  absl::Status Put(Text text) {
    RETURN_IF_ERROR(budget_->Grow(static_cast<int64_t>(text.size())));
    out_ += text;
    return absl::OkStatus();
  }

  absl::Status WriteValue(const Value& value) {
    if (value.is_string()) {
      if (!value.is_markup()) return Put(ReprText(value.text()));
      return Put(U"Markup(" + ReprText(value.text()) + U")");
    }
    if (value.is_sequence()) return WriteSequence(value.sequence());
    if (value.is_dict()) return WriteDict(value.dict());
    if (value.is_object()) return WriteObject(value);
    return Put(Ascii(Plain(value)));
  }

  static std::string Plain(const Value& value) {
    if (value.is_none()) return "None";
    if (value.is_bool()) return value.boolean() ? "True" : "False";
    if (value.is_int()) return absl::StrCat(value.integer());
    if (value.is_float()) return FormatFloat(value.real());
    return "Undefined";
  }

  absl::Status WriteItems(const std::vector<Value>& items) {
    for (size_t i = 0; i < items.size(); ++i) {
      if (i > 0) RETURN_IF_ERROR(Put(U", "));
      RETURN_IF_ERROR(Write(items[i]));
    }
    return absl::OkStatus();
  }

  absl::Status WriteSequence(const Sequence& sequence) {
    RETURN_IF_ERROR(Put(sequence.is_tuple ? U"(" : U"["));
    RETURN_IF_ERROR(WriteItems(sequence.items));
    if (!sequence.is_tuple) return Put(U"]");
    return Put(sequence.items.size() == 1 ? U",)" : U")");
  }

  absl::Status WritePair(const Value& key, const Value& value, bool first) {
    if (!first) RETURN_IF_ERROR(Put(U", "));
    RETURN_IF_ERROR(Write(key));
    RETURN_IF_ERROR(Put(U": "));
    return Write(value);
  }

  absl::Status WriteDict(const Dict& dict) {
    RETURN_IF_ERROR(Put(U"{"));
    for (const auto& entry : dict.entries()) {
      RETURN_IF_ERROR(WritePair(entry.first, entry.second, &entry == &dict.entries().front()));
    }
    return Put(U"}");
  }

  absl::Status WriteNamespace(const Namespace& names) {
    RETURN_IF_ERROR(Put(U"<Namespace {"));
    for (size_t i = 0; i < names.attributes.size(); ++i) {
      const auto& [name, value] = names.attributes[i];
      RETURN_IF_ERROR(WritePair(Value::Utf8(name), value, i == 0));
    }
    return Put(U"}>");
  }

  absl::Status WriteView(const DictView& view) {
    RETURN_IF_ERROR(Put(Ascii(view.TypeName()) + U"(["));
    for (size_t i = 0; i < view.dict->size(); ++i) {
      if (i > 0) RETURN_IF_ERROR(Put(U", "));
      ASSIGN_OR_RETURN(const Value part, view.at(i, budget_));
      RETURN_IF_ERROR(Write(part));
    }
    return Put(U"])");
  }

  absl::Status WriteObject(const Value& value) {
    if (const auto* range = value.As<Range>(); range != nullptr) {
      std::string text = absl::StrCat("range(", range->start, ", ", range->stop);
      if (range->step != 1) absl::StrAppend(&text, ", ", range->step);
      return Put(Ascii(text + ")"));
    }
    if (const auto* names = value.As<Namespace>(); names != nullptr) return WriteNamespace(*names);
    if (const auto* view = value.As<DictView>(); view != nullptr) return WriteView(*view);
    ASSIGN_OR_RETURN(const std::string description, value.object().Describe(budget_));
    return Put(FromUtf8(description));
  }

  Budget* const budget_;
  Text out_;
  int depth_ = 0;
};

}  // namespace

absl::StatusOr<Text> Repr(const Value& value, Budget* budget) {
  Writer writer(budget);
  RETURN_IF_ERROR(writer.Write(value));
  return writer.Take();
}

absl::StatusOr<Text> Str(const Value& value, Budget* budget) {
  if (value.is_undefined()) return Text();
  if (!value.is_string()) return Repr(value, budget);
  RETURN_IF_ERROR(budget->Grow(static_cast<int64_t>(value.text().size())));
  return value.text();
}

Text ReprText(TextView text) {
  const bool doubled = text.find(U'\'') != TextView::npos && text.find(U'"') == TextView::npos;
  const char32_t quote = doubled ? U'"' : U'\'';
  Text out(1, quote);
  for (const char32_t c : text) {
    if (c == quote || c == '\\') {
      (out += U'\\') += c;
    } else if (c == '\n') {
      out += U"\\n";
    } else if (c == '\r') {
      out += U"\\r";
    } else if (c == '\t') {
      out += U"\\t";
    } else if (IsPrintable(c)) {
      out += c;
    } else {
      AppendEscape(c, &out);
    }
  }
  return out += quote;
}

std::string FormatFloat(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value > 0 ? "inf" : "-inf";
  char buffer[64];
  const auto end = std::to_chars(buffer, buffer + sizeof(buffer), value, std::chars_format::scientific).ptr;
  const std::string_view text(buffer, static_cast<size_t>(end - buffer));
  const size_t e = text.find('e');
  int exponent = 0;
  std::from_chars(text.data() + e + (text[e + 1] == '+' ? 2 : 1), end, exponent);
  if (exponent < -4 || exponent >= 16) return std::string(text);
  const auto fixed = std::to_chars(buffer, buffer + sizeof(buffer), value, std::chars_format::fixed).ptr;
  std::string out(buffer, fixed);
  return out.find('.') == std::string::npos ? out + ".0" : out;
}

std::string Quoted(TextView text) {
  constexpr size_t kMaxChars = 64;
  const Text quoted = ReprText(text.substr(0, kMaxChars));
  return ToUtf8(quoted) + (text.size() > kMaxChars ? "..." : "");
}

std::string Quoted(const std::string& utf8) { return Quoted(FromUtf8(utf8)); }

}  // namespace switchyard::jinja
