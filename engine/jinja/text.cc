#include "engine/jinja/text.h"

#include <utf8proc.h>

#include <algorithm>

#include "engine/base/status_macros.h"
#include "engine/jinja/special_case.h"

namespace switchyard::jinja {
namespace {

utf8proc_category_t Category(char32_t c) { return utf8proc_category(static_cast<utf8proc_int32_t>(c)); }

void AppendSpecial(const char32_t* special, char32_t otherwise, Text* out) {
  if (special == nullptr) {
    *out += otherwise;
  } else {
    *out += special;
  }
}

void AppendUpper(char32_t c, Text* out) {
  AppendSpecial(SpecialUpper(c), static_cast<char32_t>(utf8proc_toupper(static_cast<utf8proc_int32_t>(c))), out);
}

void AppendTitle(char32_t c, Text* out) {
  AppendSpecial(SpecialTitle(c), static_cast<char32_t>(utf8proc_totitle(static_cast<utf8proc_int32_t>(c))), out);
}

// Between letters and the next one in a word: apostrophes, marks, ...
bool IsCaseIgnorable(char32_t c) {
  if (c == '\'' || c == '.' || c == ':' || c == 0xB7 || c == 0x387 || c == 0x55F || c == 0x5F4 || c == 0x2018 ||
      c == 0x2019 || c == 0x2024 || c == 0x2027 || c == 0xFE13 || c == 0xFE52 || c == 0xFE55 || c == 0xFF07 ||
      c == 0xFF0E || c == 0xFF1A) {
    return true;
  }
  switch (Category(c)) {
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_SK:
      return true;
    default:
      return false;
  }
}

// A sigma behind a letter and before none is a final one.
bool IsFinalSigma(TextView text, size_t at) {
  size_t before = at;
  while (before > 0 && IsCaseIgnorable(text[before - 1])) --before;
  if (before == 0 || !IsCased(text[before - 1])) return false;
  size_t after = at + 1;
  while (after < text.size() && IsCaseIgnorable(text[after])) ++after;
  return after == text.size() || !IsCased(text[after]);
}

void AppendLower(TextView text, size_t at, Text* out) {
  const char32_t c = text[at];
  if (c == 0x3A3) {
    *out += IsFinalSigma(text, at) ? char32_t{0x3C2} : char32_t{0x3C3};
  } else if (c == 0x130) {
    *out += U"i\u0307";
  } else {
    *out += static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(c)));
  }
}

bool IsLineBreak(char32_t c) {
  return (c >= '\n' && c <= '\r') || (c >= 0x1C && c <= 0x1E) || c == 0x85 || c == 0x2028 || c == 0x2029;
}

bool Strips(char32_t c, const std::optional<TextView>& chars) {
  return chars.has_value() ? chars->find(c) != TextView::npos : IsSpace(c);
}

}  // namespace

bool IsSpace(char32_t c) {
  return (c >= 0x09 && c <= 0x0D) || (c >= 0x1C && c <= 0x20) || c == 0x85 || c == 0xA0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

bool IsPrintable(char32_t c) {
  switch (Category(c)) {
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_CN:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
      return false;
    case UTF8PROC_CATEGORY_ZS:
      return c == ' ';
    default:
      return true;
  }
}

bool IsUpperCase(char32_t c) { return utf8proc_isupper(static_cast<utf8proc_int32_t>(c)) != 0; }
bool IsLowerCase(char32_t c) { return utf8proc_islower(static_cast<utf8proc_int32_t>(c)) != 0; }
bool IsCased(char32_t c) { return IsUpperCase(c) || IsLowerCase(c) || Category(c) == UTF8PROC_CATEGORY_LT; }

bool IsLetter(char32_t c) {
  const auto category = Category(c);
  return category >= UTF8PROC_CATEGORY_LU && category <= UTF8PROC_CATEGORY_LO;
}

bool IsDecimal(char32_t c) { return Category(c) == UTF8PROC_CATEGORY_ND; }

bool IsNumeric(char32_t c) {
  const auto category = Category(c);
  return category >= UTF8PROC_CATEGORY_ND && category <= UTF8PROC_CATEGORY_NO;
}

int DecimalValue(char32_t c) {
  if (c < 0x80) return static_cast<int>(c - '0');
  // Digits stand in tens, from 0 on; only the mathematical ones begin elsewhere than at a multiple of 16 or 6.
  if (c >= 0x1D7CE && c <= 0x1D7FF) return static_cast<int>((c - 0x1D7CE) % 10);
  int value = 0;
  while (value < 9 && IsDecimal(c - 1)) {
    --c;
    ++value;
  }
  return value;
}

Text Upper(TextView text) {
  Text out;
  for (const char32_t c : text) AppendUpper(c, &out);
  return out;
}

Text Lower(TextView text) {
  Text out;
  for (size_t i = 0; i < text.size(); ++i) AppendLower(text, i, &out);
  return out;
}

Text Capitalize(TextView text) {
  Text out;
  if (!text.empty()) AppendTitle(text[0], &out);
  for (size_t i = 1; i < text.size(); ++i) AppendLower(text, i, &out);
  return out;
}

Text TitleCase(TextView text) {
  Text out;
  bool in_word = false;
  for (size_t i = 0; i < text.size(); ++i) {
    if (in_word) {
      AppendLower(text, i, &out);
    } else {
      AppendTitle(text[i], &out);
    }
    in_word = IsCased(text[i]);
  }
  return out;
}

Text SwapCase(TextView text) {
  Text out;
  for (size_t i = 0; i < text.size(); ++i) {
    if (IsUpperCase(text[i])) {
      AppendLower(text, i, &out);
    } else if (IsLowerCase(text[i])) {
      AppendUpper(text[i], &out);
    } else {
      out += text[i];
    }
  }
  return out;
}

TextView StripLeft(TextView text, std::optional<TextView> chars) {
  while (!text.empty() && Strips(text.front(), chars)) text.remove_prefix(1);
  return text;
}

TextView StripRight(TextView text, std::optional<TextView> chars) {
  while (!text.empty() && Strips(text.back(), chars)) text.remove_suffix(1);
  return text;
}

TextView Strip(TextView text, std::optional<TextView> chars) { return StripLeft(StripRight(text, chars), chars); }

// Knuth, Morris and Pratt: the library's search takes the product of both lengths, which matters for long parts.
size_t FindText(TextView text, TextView part, size_t from) {
  if (part.size() <= 16) return text.find(part, from);
  std::vector<size_t> border(part.size() + 1, 0);
  for (size_t i = 1, length = 0; i < part.size(); ++i) {
    while (length > 0 && part[i] != part[length]) length = border[length];
    if (part[i] == part[length]) ++length;
    border[i + 1] = length;
  }
  size_t length = 0;
  for (size_t at = from; at < text.size(); ++at) {
    while (length > 0 && text[at] != part[length]) length = border[length];
    if (text[at] == part[length]) ++length;
    if (length == part.size()) return at + 1 - length;
  }
  return TextView::npos;
}

std::vector<TextView> Split(TextView text, TextView separator, int64_t limit) {
  std::vector<TextView> parts;
  size_t begin = 0;
  while (limit < 0 || static_cast<int64_t>(parts.size()) < limit) {
    const size_t end = FindText(text, separator, begin);
    if (end == TextView::npos) break;
    parts.push_back(text.substr(begin, end - begin));
    begin = end + separator.size();
  }
  parts.push_back(text.substr(begin));
  return parts;
}

std::vector<TextView> SplitFromRight(TextView text, TextView separator, int64_t limit) {
  std::vector<TextView> parts;
  size_t end = text.size();
  while ((limit < 0 || static_cast<int64_t>(parts.size()) < limit) && end >= separator.size()) {
    const size_t begin = text.rfind(separator, end - separator.size());
    if (begin == TextView::npos) break;
    parts.push_back(text.substr(begin + separator.size(), end - begin - separator.size()));
    end = begin;
  }
  parts.push_back(text.substr(0, end));
  std::reverse(parts.begin(), parts.end());
  return parts;
}

std::vector<TextView> SplitOnSpace(TextView text, int64_t limit) {
  std::vector<TextView> parts;
  for (text = StripLeft(text, std::nullopt); !text.empty(); text = StripLeft(text, std::nullopt)) {
    if (limit >= 0 && static_cast<int64_t>(parts.size()) == limit) {
      parts.push_back(text);
      break;
    }
    const auto end = static_cast<size_t>(std::find_if(text.begin(), text.end(), IsSpace) - text.begin());
    parts.push_back(text.substr(0, end));
    text.remove_prefix(end);
  }
  return parts;
}

std::vector<TextView> SplitOnSpaceFromRight(TextView text, int64_t limit) {
  std::vector<TextView> parts;
  for (text = StripRight(text, std::nullopt); !text.empty(); text = StripRight(text, std::nullopt)) {
    if (limit >= 0 && static_cast<int64_t>(parts.size()) == limit) {
      parts.push_back(text);
      break;
    }
    const auto size = static_cast<size_t>(std::find_if(text.rbegin(), text.rend(), IsSpace) - text.rbegin());
    parts.push_back(text.substr(text.size() - size));
    text.remove_suffix(size);
  }
  std::reverse(parts.begin(), parts.end());
  return parts;
}

std::vector<TextView> SplitLines(TextView text, bool keep_ends) {
  std::vector<TextView> lines;
  for (size_t begin = 0; begin < text.size();) {
    size_t end = begin;
    while (end < text.size() && !IsLineBreak(text[end])) ++end;
    size_t next = std::min(end + 1, text.size());
    if (end + 1 < text.size() && text[end] == '\r' && text[end + 1] == '\n') ++next;
    lines.push_back(text.substr(begin, (keep_ends ? next : end) - begin));
    begin = next;
  }
  return lines;
}

int64_t CountOf(TextView text, TextView part) {
  if (part.empty()) return static_cast<int64_t>(text.size()) + 1;
  int64_t count = 0;
  for (size_t at = FindText(text, part); at != TextView::npos; at = FindText(text, part, at + part.size())) ++count;
  return count;
}

absl::StatusOr<Text> Replace(TextView text, TextView from, TextView to, int64_t limit, Budget* budget) {
  int64_t count = CountOf(text, from);
  if (limit >= 0) count = std::min(count, limit);
  const __int128 size =
      static_cast<__int128>(text.size()) + static_cast<__int128>(count) * static_cast<__int128>(to.size());
  RETURN_IF_ERROR(budget->Grow(static_cast<int64_t>(std::min<__int128>(size, INT64_MAX))));
  Text out;
  size_t at = 0;
  for (int64_t i = 0; i < count; ++i) {
    if (from.empty()) {
      out += to;
      if (at < text.size()) out += text[at++];
      continue;
    }
    const size_t found = FindText(text, from, at);
    out += text.substr(at, found - at);
    out += to;
    at = found + from.size();
  }
  return out += text.substr(at);
}

absl::StatusOr<Text> CenterText(TextView text, int64_t width, char32_t fill, Budget* budget) {
  const int64_t pad = std::max<int64_t>(0, width - static_cast<int64_t>(text.size()));
  RETURN_IF_ERROR(budget->Grow(pad));
  const int64_t left = pad / 2 + (pad & width & 1);
  return Text(static_cast<size_t>(left), fill) + Text(text) + Text(static_cast<size_t>(pad - left), fill);
}

Text EscapeHtml(TextView text) {
  Text out;
  for (const char32_t c : text) {
    switch (c) {
      case '&':
        out += U"&amp;";
        break;
      case '<':
        out += U"&lt;";
        break;
      case '>':
        out += U"&gt;";
        break;
      case '\'':
        out += U"&#39;";
        break;
      case '"':
        out += U"&#34;";
        break;
      default:
        out += c;
    }
  }
  return out;
}

}  // namespace switchyard::jinja
