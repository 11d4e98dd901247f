#include "engine/jinja/lexer.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/base/status_macros.h"
#include "engine/jinja/repr.h"
#include "engine/jinja/string_literal.h"
#include "engine/jinja/text.h"

namespace switchyard::jinja {
namespace {

using Kind = Token::Kind;

bool IsDigit(char32_t c) { return c >= '0' && c <= '9'; }
bool IsNameStart(char32_t c) { return c == '_' || IsLetter(c); }
bool IsNamePart(char32_t c) { return IsNameStart(c) || IsDecimal(c); }

// One kind of newline, and none at the very end.
Text NormalizeNewlines(TextView source) {
  Text out;
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] == '\r') {
      out += U'\n';
      if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
    } else {
      out += source[i];
    }
  }
  if (!out.empty() && out.back() == '\n') out.pop_back();
  return out;
}

class Lexer {
 public:
  explicit Lexer(TextView source) : source_(NormalizeNewlines(source)) {}

  absl::StatusOr<std::vector<Token>> Run() {
    while (at_ < source_.size()) RETURN_IF_ERROR(ReadData());
    Add(Kind::kEnd, "");
    return std::move(tokens_);
  }

 private:
  char32_t Peek(size_t ahead = 0) const { return at_ + ahead < source_.size() ? source_[at_ + ahead] : U'\0'; }
  bool LooksAt(TextView text) const { return TextView(source_).substr(at_, text.size()) == text; }

  void Advance(size_t count) {
    line_ += static_cast<int>(std::count(source_.begin() + static_cast<std::ptrdiff_t>(at_),
                                         source_.begin() + static_cast<std::ptrdiff_t>(at_ + count), U'\n'));
    if (count > 0) line_starting_ = source_[at_ + count - 1] == '\n';
    at_ += count;
  }
  void SkipSpace() {
    size_t count = 0;
    while (at_ + count < source_.size() && IsSpace(source_[at_ + count])) ++count;
    Advance(count);
  }

  void Add(Kind kind, std::string word) { tokens_.push_back({kind, line_, {}, std::move(word)}); }
  void AddData(TextView text, int line) {
    if (!text.empty()) tokens_.push_back({Kind::kData, line, Text(text), ""});
  }

  // The text before a tag, less what the tag strips.
  TextView StripBeforeTag(TextView text, char32_t sign, bool is_variable) const {
    if (sign == '-') return StripRight(text, std::nullopt);
    if (sign == '+' || is_variable) return text;
    const size_t line = text.rfind(U'\n') + 1;  // npos + 1 is 0
    if (line == 0 && !line_starting_) return text;
    return Strip(text.substr(line), std::nullopt).empty() ? text.substr(0, line) : text;
  }

  static char32_t Sign(TextView text, size_t at) {
    return at < text.size() && (text[at] == '-' || text[at] == '+') ? text[at] : U'\0';
  }

  // Up to and with the next tag.
  absl::Status ReadData() {
    size_t tag = at_;
    do {
      tag = source_.find(U'{', tag);
      if (tag == Text::npos || tag + 1 >= source_.size()) {
        AddData(TextView(source_).substr(at_), line_);
        Advance(source_.size() - at_);
        return absl::OkStatus();
      }
      const char32_t next = source_[tag + 1];
      if (next == '%' || next == '{' || next == '#') break;
    } while (++tag > 0);

    const char32_t kind = source_[tag + 1], sign = Sign(source_, tag + 2);
    AddData(StripBeforeTag(TextView(source_).substr(at_, tag - at_), sign, kind == '{'), line_);
    Advance(tag + 2 + (sign != 0 ? 1 : 0) - at_);
    if (kind == '#') return SkipComment();
    if (kind == '{') return ReadTag(Kind::kVariableBegin, Kind::kVariableEnd, U"}}");
    if (const size_t raw = RawTagSize(); raw > 0) return ReadRaw(raw);
    return ReadTag(Kind::kBlockBegin, Kind::kBlockEnd, U"%}");
  }

  // Consumes the end of a tag at `at_`, and the white space that it strips. False: there is none.
  bool EndTag(TextView end, bool trims_newline) {
    const bool strips = LooksAt(Text(1, U'-') + Text(end));
    if (!strips && LooksAt(Text(1, U'+') + Text(end)) && trims_newline) {
      Advance(end.size() + 1);
      return true;
    }
    if (!strips && !LooksAt(end)) return false;
    Advance(end.size() + (strips ? 1 : 0));
    if (strips) {
      SkipSpace();
    } else if (trims_newline && Peek() == '\n') {
      Advance(1);
    }
    return true;
  }

  absl::Status SkipComment() {
    const int line = line_;
    const size_t close = source_.find(U"#}", at_);
    if (close == Text::npos) return SyntaxError(line, "Missing end of comment tag");
    const size_t end = close > at_ && Sign(source_, close - 1) != 0 ? close - 1 : close;
    Advance(end - at_);
    EndTag(U"#}", /*trims_newline=*/true);
    return absl::OkStatus();
  }

  // "raw %}" at `at_`: its size, or 0.
  size_t RawTagSize() const {
    size_t at = at_;
    const auto skip_space = [&] {
      while (at < source_.size() && IsSpace(source_[at])) ++at;
    };
    skip_space();
    if (TextView(source_).substr(at, 3) != U"raw") return 0;
    at += 3;
    skip_space();
    const bool ends = TextView(source_).substr(at, 2) == U"%}" || TextView(source_).substr(at, 3) == U"-%}";
    return ends ? at - at_ : 0;
  }

  absl::Status ReadRaw(size_t size) {
    const int line = line_;
    Advance(size);
    EndTag(U"%}", /*trims_newline=*/false);
    for (size_t open = source_.find(U"{%", at_); open != Text::npos; open = source_.find(U"{%", open + 1)) {
      const char32_t sign = Sign(source_, open + 2);
      size_t name = open + 2 + (sign != 0 ? 1 : 0);
      while (name < source_.size() && IsSpace(source_[name])) ++name;
      if (TextView(source_).substr(name, 6) != U"endraw") continue;
      size_t end = name + 6;
      while (end < source_.size() && IsSpace(source_[end])) ++end;
      const size_t close = end + (Sign(source_, end) != 0 ? 1 : 0);
      if (TextView(source_).substr(close, 2) != U"%}") continue;
      AddData(StripBeforeTag(TextView(source_).substr(at_, open - at_), sign, false), line_);
      Advance(end - at_);
      EndTag(U"%}", /*trims_newline=*/true);
      return absl::OkStatus();
    }
    return SyntaxError(line, "Missing end of raw directive");
  }

  absl::Status ReadTag(Kind begin, Kind end, TextView close) {
    Add(begin, "");
    brackets_.clear();
    while (true) {
      SkipSpace();
      if (at_ >= source_.size()) {
        // The parser says what is missing.
        return absl::OkStatus();
      }
      const int line = line_;
      if (brackets_.empty() && EndTag(close, /*trims_newline=*/end == Kind::kBlockEnd)) {
        tokens_.push_back({end, line, {}, ""});
        return absl::OkStatus();
      }
      RETURN_IF_ERROR(ReadToken());
    }
  }

  absl::Status ReadToken() {
    const char32_t c = Peek();
    if (IsDigit(c)) return ReadNumber();
    if (IsNameStart(c)) return ReadName();
    if (c == '\'' || c == '"') return ReadString(c);
    return ReadOperator();
  }

  absl::Status ReadName() {
    size_t size = 1;
    while (IsNamePart(Peek(size))) ++size;
    Add(Kind::kName, ToUtf8(TextView(source_).substr(at_, size)));
    Advance(size);
    return absl::OkStatus();
  }

  absl::Status ReadString(char32_t quote) {
    size_t end = at_ + 1;
    while (end < source_.size() && source_[end] != quote) end += source_[end] == '\\' ? 2 : 1;
    if (end >= source_.size()) return SyntaxError(line_, absl::StrCat("unexpected char ", Quoted(Text(1, quote))));
    absl::StatusOr<Text> text = ReadEscapes(TextView(source_).substr(at_ + 1, end - at_ - 1));
    if (!text.ok()) return AtLine(line_, text.status());
    tokens_.push_back({Kind::kString, line_, *std::move(text), ""});
    Advance(end + 1 - at_);
    return absl::OkStatus();
  }

  // Digits with single underscores between them, from `at` on: their size.
  size_t Digits(size_t at, bool (*is_digit)(char32_t)) const {
    size_t size = 0;
    while (true) {
      const char32_t c = Peek(at + size);
      if (is_digit(c)) {
        ++size;
      } else if (c == '_' && size > 0 && is_digit(Peek(at + size + 1))) {
        size += 2;
      } else {
        return size;
      }
    }
  }

  // Size of a float at `at_`, or 0.
  size_t FloatSize() const {
    if (at_ > 0 && source_[at_ - 1] == '.') return 0;
    size_t size = Digits(0, IsDigit);
    bool is_float = false;
    if (Peek(size) == '.' && IsDigit(Peek(size + 1))) {
      size += 1 + Digits(size + 1, IsDigit);
      is_float = true;
    }
    if (Peek(size) == 'e' || Peek(size) == 'E') {
      const size_t sign = Peek(size + 1) == '+' || Peek(size + 1) == '-' ? 1 : 0;
      if (const size_t digits = Digits(size + 1 + sign, IsDigit); digits > 0) return size + 1 + sign + digits;
    }
    return is_float ? size : 0;
  }

  size_t IntegerSize() const {
    const char32_t base = Peek(0) == '0' ? Peek(1) | 0x20 : U'\0';
    const auto is_hex = [](char32_t c) { return IsDigit(c) || ((c | 0x20) >= 'a' && (c | 0x20) <= 'f'); };
    const auto is_binary = [](char32_t c) { return c == '0' || c == '1'; };
    const auto is_octal = [](char32_t c) { return c >= '0' && c <= '7'; };
    const auto is_zero = [](char32_t c) { return c == '0'; };
    const size_t gap = Peek(2) == '_' ? 1 : 0;
    size_t digits = base == 'x'   ? Digits(2 + gap, is_hex)
                    : base == 'b' ? Digits(2 + gap, is_binary)
                    : base == 'o' ? Digits(2 + gap, is_octal)
                                  : 0;
    if (digits > 0) return 2 + gap + digits;
    return Peek(0) == '0' ? Digits(0, is_zero) : Digits(0, IsDigit);
  }

  absl::Status ReadNumber() {
    const size_t float_size = FloatSize();
    const size_t size = float_size > 0 ? float_size : IntegerSize();
    std::string digits = ToUtf8(TextView(source_).substr(at_, size));
    digits.erase(std::remove(digits.begin(), digits.end(), '_'), digits.end());
    Add(float_size > 0 ? Kind::kFloat : Kind::kInteger, std::move(digits));
    Advance(size);
    return absl::OkStatus();
  }

  absl::Status ReadOperator() {
    static constexpr TextView kLong[] = {U"//", U"**", U"==", U"!=", U">=", U"<="};
    static constexpr TextView kShort = U"+-/*%~[](){}><=.:|,;";
    size_t size = kShort.find(Peek()) != TextView::npos ? 1 : 0;
    for (const TextView op : kLong) {
      if (LooksAt(op)) size = op.size();
    }
    if (size == 0) return SyntaxError(line_, absl::StrCat("unexpected char ", Quoted(Text(1, Peek()))));
    if (size == 1) RETURN_IF_ERROR(Balance(Peek()));
    Add(Kind::kOperator, ToUtf8(TextView(source_).substr(at_, size)));
    Advance(size);
    return absl::OkStatus();
  }

  absl::Status Balance(char32_t c) {
    if (c == '(') brackets_ += ')';
    if (c == '[') brackets_ += ']';
    if (c == '{') brackets_ += '}';
    if (c != ')' && c != ']' && c != '}') return absl::OkStatus();
    const char closing = static_cast<char>(c);
    if (brackets_.empty()) return SyntaxError(line_, absl::StrCat("unexpected '", std::string(1, closing), "'"));
    if (brackets_.back() != closing) {
      return SyntaxError(line_, absl::StrCat("unexpected '", std::string(1, closing), "', expected '",
                                             std::string(1, brackets_.back()), "'"));
    }
    brackets_.pop_back();
    return absl::OkStatus();
  }

  const Text source_;
  size_t at_ = 0;
  int line_ = 1;
  bool line_starting_ = true;  // the last tag ended with a newline
  std::string brackets_;       // that are open in this tag
  std::vector<Token> tokens_;
};

}  // namespace

absl::Status SyntaxError(int line, const std::string& message) { return AtLine(line, PythonError(message)); }

absl::Status AtLine(int line, const absl::Status& status) {
  if (status.ok()) return status;
  return absl::Status(status.code(), absl::StrCat("line ", line, ": ", status.message()));
}

absl::StatusOr<std::vector<Token>> Tokenize(TextView source) { return Lexer(source).Run(); }

}  // namespace switchyard::jinja
