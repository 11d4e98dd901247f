#include "engine/jinja/numbers.h"

#include <charconv>
#include <cmath>
#include <limits>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "engine/jinja/text.h"

namespace switchyard::jinja {
namespace {

// Stripped, in ASCII, with single underscores between digits left out; nullopt: that is not possible.
std::optional<std::string> Plain(TextView text) {
  std::string out;
  char32_t before = 0;
  text = Strip(text, std::nullopt);
  for (size_t i = 0; i < text.size(); ++i) {
    const char32_t c = text[i];
    const char plain = c < 0x80 ? static_cast<char>(c) : IsDecimal(c) ? static_cast<char>('0' + DecimalValue(c)) : '\0';
    if (plain == '\0') return std::nullopt;
    if (plain != '_') {
      out += plain;
    } else if (!absl::ascii_isalnum(static_cast<unsigned char>(before)) || i + 1 == text.size() ||
               !(IsDecimal(text[i + 1]) ||
                 (text[i + 1] < 0x80 && absl::ascii_isalnum(static_cast<unsigned char>(text[i + 1]))))) {
      return std::nullopt;
    }
    before = static_cast<char32_t>(static_cast<unsigned char>(plain));
  }
  return out;
}

int PrefixBase(char c) {
  switch (c | 0x20) {
    case 'x':
      return 16;
    case 'o':
      return 8;
    case 'b':
      return 2;
    default:
      return 0;
  }
}

}  // namespace

absl::StatusOr<std::optional<int64_t>> ParseInteger(TextView text, int64_t base) {
  if (base != 0 && (base < 2 || base > 36)) return PythonError("int() base must be >= 2 and <= 36, or 0");
  const std::optional<std::string> plain = Plain(text);
  if (!plain.has_value() || plain->empty()) return std::nullopt;
  std::string_view digits = *plain;
  const bool negative = digits[0] == '-';
  if (negative || digits[0] == '+') digits.remove_prefix(1);
  if (digits.size() > 1 && digits[0] == '0' && PrefixBase(digits[1]) != 0 &&
      (base == 0 || base == PrefixBase(digits[1]))) {
    base = PrefixBase(digits[1]);
    digits.remove_prefix(2);
  } else if (base == 0) {
    if (digits.size() > 1 && digits[0] == '0' && digits.find_first_not_of('0') != std::string_view::npos)
      return std::nullopt;
    base = 10;
  }
  if (digits.empty() || digits[0] == '-' || digits[0] == '+') return std::nullopt;
  int64_t value = 0;
  const std::string signed_digits = (negative ? "-" : "") + std::string(digits);
  const auto parsed =
      std::from_chars(signed_digits.data(), signed_digits.data() + signed_digits.size(), value, static_cast<int>(base));
  if (parsed.ptr != signed_digits.data() + signed_digits.size()) return std::nullopt;
  if (parsed.ec == std::errc::result_out_of_range) return PythonError("an integer leaves the range of 64 bits");
  if (parsed.ec != std::errc()) return std::nullopt;
  return value;
}

std::optional<double> ParseFloat(TextView text) {
  const std::optional<std::string> plain = Plain(text);
  if (!plain.has_value() || plain->empty()) return std::nullopt;
  std::string_view digits = *plain;
  const bool negative = digits[0] == '-';
  if (negative || digits[0] == '+') digits.remove_prefix(1);
  const std::string lower = absl::AsciiStrToLower(std::string(digits));
  double value = 0;
  if (lower == "inf" || lower == "infinity") {
    value = std::numeric_limits<double>::infinity();
  } else if (lower == "nan") {
    value = std::numeric_limits<double>::quiet_NaN();
  } else {
    if (lower.empty() || lower.find_first_not_of("0123456789.e+-") != std::string::npos || lower[0] == '+' ||
        lower[0] == '-') {
      return std::nullopt;
    }
    if (!absl::SimpleAtod(lower, &value)) return std::nullopt;  // out of range: 0 or infinity
  }
  return negative ? -value : value;
}

}  // namespace switchyard::jinja
