#include "engine/jinja/printf.h"

#include <cmath>
#include <cstdio>

#include "absl/strings/str_cat.h"
#include "engine/base/status_macros.h"
#include "engine/jinja/operators.h"
#include "engine/jinja/repr.h"
#include "engine/jinja/text.h"

namespace switchyard::jinja {
namespace {

constexpr int64_t kMaxPrecision = 100;

struct Conversion {
  bool left = false, plus = false, space = false, zero = false, alternate = false;
  int64_t width = 0;
  int64_t precision = -1;
  char32_t type = 0;
};

class Formatter {
 public:
  Formatter(const Value& format, const Value& values, Budget* budget)
      : format_(format.text()), markup_(format.is_markup()), values_(values), budget_(budget) {}

  absl::StatusOr<Value> Run() {
    while (at_ < format_.size()) {
      const size_t percent = std::min(format_.find(U'%', at_), format_.size());
      RETURN_IF_ERROR(Put(format_.substr(at_, percent - at_)));
      at_ = percent;
      if (at_ < format_.size()) RETURN_IF_ERROR(Convert());
    }
    const bool all_used = values_.is_tuple() ? next_ == values_.items().size() : next_ > 0 || IsMappingLike();
    if (!all_used) return PythonError("not all arguments converted during string formatting");
    return Value::Str(std::move(out_), markup_);
  }

 private:
  char32_t Peek() const { return at_ < format_.size() ? format_[at_] : U'\0'; }

  bool IsMappingLike() const {
    return values_.is_dict() || values_.is_list() || values_.is_undefined() || values_.As<Range>() != nullptr;
  }

  absl::Status Put(TextView text) {
    RETURN_IF_ERROR(budget_->Grow(static_cast<int64_t>(text.size())));
    out_ += text;
    return absl::OkStatus();
  }

  absl::StatusOr<Value> NextValue() {
    if (values_.is_tuple()) {
      if (next_ < values_.items().size()) return values_.items()[next_++];
    } else if (next_++ == 0) {
      return values_;
    }
    return PythonError("not enough arguments for format string");
  }

  absl::StatusOr<int64_t> ReadNumber() {
    if (Peek() == '*') {
      ++at_;
      ASSIGN_OR_RETURN(const Value value, NextValue());
      if (!value.is_integral()) return PythonError("* wants int");
      return value.integer();
    }
    int64_t number = 0;
    for (; Peek() >= '0' && Peek() <= '9'; ++at_) {
      number = number * 10 + static_cast<int64_t>(Peek() - '0');
      if (number > INT32_MAX) return PythonError("width too big");
    }
    return number;
  }

  absl::Status ReadFlags(Conversion* conversion) {
    for (;; ++at_) {
      switch (Peek()) {
        case '-':
          conversion->left = true;
          break;
        case '+':
          conversion->plus = true;
          break;
        case ' ':
          conversion->space = true;
          break;
        case '0':
          conversion->zero = true;
          break;
        case '#':
          conversion->alternate = true;
          break;
        default:
          return absl::OkStatus();
      }
    }
  }

  // %(name): the value of that key.
  absl::StatusOr<std::optional<Value>> ReadKey() {
    if (Peek() != '(') return std::nullopt;
    if (!values_.is_dict()) return PythonError("format requires a mapping");
    size_t end = ++at_;
    for (int depth = 1; end < format_.size(); ++end) {
      depth += format_[end] == '(' ? 1 : format_[end] == ')' ? -1 : 0;
      if (depth == 0) break;
    }
    if (end >= format_.size()) return PythonError("incomplete format key");
    const Value* found = values_.dict().FindText(format_.substr(at_, end - at_));
    if (found == nullptr) return PythonError("the mapping has no such key");
    at_ = end + 1;
    return *found;
  }

  absl::Status Convert() {
    ++at_;
    Conversion conversion;
    ASSIGN_OR_RETURN(std::optional<Value> value, ReadKey());
    const bool has_key = value.has_value();
    RETURN_IF_ERROR(ReadFlags(&conversion));
    ASSIGN_OR_RETURN(conversion.width, ReadNumber());
    if (conversion.width < 0) conversion.left = true, conversion.width = -conversion.width;
    if (Peek() == '.') {
      ++at_;
      ASSIGN_OR_RETURN(conversion.precision, ReadNumber());
      conversion.precision = std::max<int64_t>(conversion.precision, 0);
    }
    if (Peek() == 'h' || Peek() == 'l' || Peek() == 'L') ++at_;
    if (at_ >= format_.size()) return PythonError("incomplete format");
    conversion.type = format_[at_++];
    if (conversion.type == '%') return Put(U"%");
    if (!has_key) {
      ASSIGN_OR_RETURN(value, NextValue());
    } else {
      next_ = std::max<size_t>(next_, 1);
    }
    return Write(conversion, *value);
  }

  absl::Status Write(const Conversion& conversion, const Value& value) {
    switch (conversion.type) {
      case 's':
      case 'r':
        return WriteText(conversion, value);
      case 'c':
        return WriteChar(conversion, value);
      case 'd':
      case 'i':
      case 'u':
      case 'x':
      case 'X':
      case 'o':
        return WriteInteger(conversion, value);
      case 'e':
      case 'E':
      case 'f':
      case 'F':
      case 'g':
      case 'G':
        return WriteFloat(conversion, value);
      default:
        return PythonError("unsupported format character");
    }
  }

  absl::Status WriteText(const Conversion& conversion, const Value& value) {
    absl::StatusOr<Text> text = conversion.type == 's' ? Str(value, budget_) : Repr(value, budget_);
    RETURN_IF_ERROR(text.status());
    if (markup_ && !value.is_markup()) *text = EscapeHtml(*text);
    if (conversion.precision >= 0) text->resize(std::min(text->size(), static_cast<size_t>(conversion.precision)));
    return Pad(conversion, {}, *text, false);
  }

  absl::Status WriteChar(const Conversion& conversion, const Value& value) {
    if (value.is_string() && value.text().size() == 1) return Pad(conversion, {}, value.text(), false);
    if (!value.is_integral() || value.integer() < 0 || value.integer() > 0x10FFFF) {
      return PythonError("%c requires int or char");
    }
    return Pad(conversion, {}, Text(1, static_cast<char32_t>(value.integer())), false);
  }

  absl::Status WriteInteger(const Conversion& conversion, const Value& value) {
    if (value.is_undefined()) return value.UndefinedError();
    const bool is_decimal = conversion.type == 'd' || conversion.type == 'i' || conversion.type == 'u';
    if (!value.is_integral() && !(is_decimal && value.is_float())) {
      return PythonError(absl::StrCat("a number is required, not ", value.TypeName()));
    }
    int64_t number = 0;
    if (value.is_float()) {
      ASSIGN_OR_RETURN(number, ToInteger(value.real()));
    } else {
      number = value.integer();
    }
    const uint64_t magnitude = number < 0 ? 0 - static_cast<uint64_t>(number) : static_cast<uint64_t>(number);
    char digits[32];
    std::snprintf(digits, sizeof(digits),
                  is_decimal               ? "%llu"
                  : conversion.type == 'x' ? "%llx"
                  : conversion.type == 'X' ? "%llX"
                                           : "%llo",
                  static_cast<unsigned long long>(magnitude));
    std::string text = digits;
    if (conversion.precision > static_cast<int64_t>(text.size())) {
      RETURN_IF_ERROR(budget_->Grow(conversion.precision));
      text.insert(0, static_cast<size_t>(conversion.precision) - text.size(), '0');
    }
    Text prefix = SignOf(conversion, number < 0);
    if (conversion.alternate && !is_decimal) (prefix += U'0') += conversion.type;
    return Pad(conversion, prefix, Text(text.begin(), text.end()), true);
  }

  absl::Status WriteFloat(const Conversion& conversion, const Value& value) {
    if (value.is_undefined()) return value.UndefinedError();
    if (!value.is_number()) return PythonError(absl::StrCat("must be real number, not ", value.TypeName()));
    if (conversion.precision > kMaxPrecision) return PythonError("precision too big");
    const char format[] = {'%', conversion.alternate ? '#' : '-', '.', '*', static_cast<char>(conversion.type), '\0'};
    char text[512];
    std::snprintf(text, sizeof(text), format, conversion.precision < 0 ? 6 : static_cast<int>(conversion.precision),
                  std::fabs(value.real()));
    const std::string_view digits = text;
    const bool negative = std::signbit(value.real()) && !std::isnan(value.real());
    return Pad(conversion, SignOf(conversion, negative), Text(digits.begin(), digits.end()), true);
  }

  static Text SignOf(const Conversion& conversion, bool negative) {
    return negative ? U"-" : conversion.plus ? U"+" : conversion.space ? U" " : U"";
  }

  absl::Status Pad(const Conversion& conversion, const Text& prefix, TextView text, bool is_number) {
    const int64_t pad = std::max<int64_t>(0, conversion.width - static_cast<int64_t>(prefix.size() + text.size()));
    RETURN_IF_ERROR(budget_->Grow(pad));
    const bool zeros = conversion.zero && is_number && !conversion.left;
    const Text fill(static_cast<size_t>(pad), zeros ? U'0' : U' ');
    if (!conversion.left && !zeros) out_ += fill;
    RETURN_IF_ERROR(Put(prefix));
    if (zeros) out_ += fill;
    RETURN_IF_ERROR(Put(text));
    if (conversion.left) out_ += fill;
    return absl::OkStatus();
  }

  const TextView format_;
  const bool markup_;
  const Value& values_;
  Budget* const budget_;
  size_t at_ = 0;
  size_t next_ = 0;  // value to take
  Text out_;
};

}  // namespace

absl::StatusOr<Value> FormatPercent(const Value& format, const Value& values, Budget* budget) {
  return Formatter(format, values, budget).Run();
}

}  // namespace switchyard::jinja
