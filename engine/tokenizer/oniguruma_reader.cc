#include "engine/tokenizer/oniguruma_reader.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "engine/tokenizer/utf8.h"

namespace switchyard {
namespace {

constexpr size_t kNone = std::string::npos;

bool IsDigit(char c) { return c >= '0' && c <= '9'; }
bool IsLetter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

int HexValue(char c) {
  if (IsDigit(c)) return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

}  // namespace

std::string OnigurumaLiteral(char32_t c) {
  const bool plain = c < 0x80 && (IsLetter(static_cast<char>(c)) || IsDigit(static_cast<char>(c)));
  return plain ? std::string(1, static_cast<char>(c)) : absl::StrCat("\\x{", absl::Hex(static_cast<uint32_t>(c)), "}");
}

std::string OnigurumaBracket(const CharacterSet& set) {
  return absl::StrCat(set.negated ? "[^" : "[", set.members, "]");
}

bool OnigurumaReader::AtDigit(size_t ahead) const { return pos_ + ahead < in_.size() && IsDigit(in_[pos_ + ahead]); }

bool OnigurumaReader::AtSetEscape(size_t ahead) const {
  return At('\\', ahead) && pos_ + ahead + 1 < in_.size() &&
         std::string_view("sSdDwWhHpP").find(in_[pos_ + ahead + 1]) != kNone;
}

std::optional<std::string> OnigurumaReader::ReadUntil(std::string_view end) {
  const size_t found = in_.find(end, pos_);
  if (found == kNone) return std::nullopt;
  std::string text = in_.substr(pos_, found - pos_);
  pos_ = found + end.size();
  return text;
}

void OnigurumaReader::Fail(const std::string& what) {
  if (status_.ok()) status_ = absl::InvalidArgumentError(absl::StrCat(what, " at byte ", pos_));
}

char32_t OnigurumaReader::ReadCharacter() { return NextCodePoint(in_, &pos_); }

std::optional<int> OnigurumaReader::ReadNumber() {
  if (pos_ >= in_.size() || !IsDigit(in_[pos_])) return std::nullopt;
  int number = 0;
  for (; pos_ < in_.size() && IsDigit(in_[pos_]); ++pos_) number = std::min(number * 10 + (in_[pos_] - '0'), 100000);
  return number;
}

std::optional<CharacterSet> OnigurumaReader::ReadEscapedSet(bool inside_class) {
  if (pos_ + 1 >= in_.size()) return Fail("backslash at the end"), std::nullopt;
  const char c = in_[pos_ + 1];
  if (c == 'p' || c == 'P') return ReadProperty();
  auto set = EscapedSet(c, inside_class);
  if (set) pos_ += 2;
  return set;
}

std::optional<CharacterSet> OnigurumaReader::ReadProperty() {
  const size_t end = in_.find('}', pos_);
  if (!At('{', 2) || end == kNone) return Fail("\\p without {name}"), std::nullopt;
  const std::string name = in_.substr(pos_ + 3, end - pos_ - 3);
  auto set = NamedSet(name);
  if (!set) return Fail(absl::StrCat("unknown property \\p{", name.substr(0, 64), "}")), std::nullopt;
  if (in_[pos_ + 1] == 'P') set->negated = !set->negated;
  pos_ = end + 1;
  return set;
}

std::optional<char32_t> OnigurumaReader::ReadEscapedLiteral() {
  if (!status_.ok()) return std::nullopt;
  if (pos_ + 1 >= in_.size()) return Fail("backslash at the end"), std::nullopt;
  const char c = in_[++pos_];
  constexpr std::string_view kNames = "tnrfvae";
  constexpr std::string_view kValues = "\t\n\r\f\v\a\x1b";
  if (const size_t index = kNames.find(c); index != kNone) return ++pos_, kValues[index];
  if (c == 'x') return ++pos_, At('{') ? ReadHexInBraces() : ReadHex(1, 2);
  if (c == 'u') return ++pos_, ReadHex(4, 4);
  if (c == '0') return ReadOctal();
  if (IsLetter(c) || IsDigit(c)) return Fail(absl::StrCat("unsupported escape \\", std::string(1, c))), std::nullopt;
  return NextCodePoint(in_, &pos_);
}

std::optional<char32_t> OnigurumaReader::CheckedCodePoint(uint32_t value) {
  if (value > 0x10FFFF || (value >= 0xD800 && value <= 0xDFFF)) return Fail("not a character"), std::nullopt;
  return static_cast<char32_t>(value);
}

std::optional<char32_t> OnigurumaReader::ReadHex(int min_digits, int max_digits) {
  uint32_t value = 0;
  int digits = 0;
  for (; digits < max_digits && pos_ < in_.size() && HexValue(in_[pos_]) >= 0; ++digits) {
    value = value * 16 + static_cast<uint32_t>(HexValue(in_[pos_++]));
  }
  if (digits < min_digits) return Fail("hexadecimal digits missing"), std::nullopt;
  if (max_digits == 2 && value >= 0x80) return Fail("\\x80 to \\xff are bytes, not characters"), std::nullopt;
  return CheckedCodePoint(value);
}

std::optional<char32_t> OnigurumaReader::ReadHexInBraces() {
  ++pos_;
  const auto value = ReadHex(1, 8);
  if (value && !At('}')) return Fail("'}' missing"), std::nullopt;
  ++pos_;
  return value;
}

std::optional<char32_t> OnigurumaReader::ReadOctal() {
  uint32_t value = 0;
  for (int i = 0; i < 3 && pos_ < in_.size() && in_[pos_] >= '0' && in_[pos_] <= '7'; ++i)
    value = value * 8 + static_cast<uint32_t>(in_[pos_++] - '0');
  if (value >= 0x80) return Fail("\\200 to \\377 are bytes, not characters"), std::nullopt;
  return value;
}

}  // namespace switchyard
