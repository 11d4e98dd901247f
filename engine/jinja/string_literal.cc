#include "engine/jinja/string_literal.h"

#include <cstdio>

#include "absl/strings/str_cat.h"
#include "engine/base/status_macros.h"

namespace switchyard::jinja {
namespace {

int HexDigit(char32_t c) {
  if (c >= '0' && c <= '9') return static_cast<int>(c - '0');
  if (c >= 'a' && c <= 'f') return static_cast<int>(c - 'a' + 10);
  if (c >= 'A' && c <= 'F') return static_cast<int>(c - 'A' + 10);
  return -1;
}

// Simple escapes: from, to.
char32_t Simple(char32_t c) {
  switch (c) {
    case 'n':
      return '\n';
    case 't':
      return '\t';
    case 'r':
      return '\r';
    case 'a':
      return '\a';
    case 'b':
      return '\b';
    case 'f':
      return '\f';
    case 'v':
      return '\v';
    case '\\':
    case '\'':
    case '"':
      return c;
    default:
      return 0;
  }
}

absl::StatusOr<char32_t> ReadHex(TextView literal, size_t* at, int digits) {
  uint32_t code = 0;
  for (int i = 0; i < digits; ++i, ++*at) {
    const int digit = *at < literal.size() ? HexDigit(literal[*at]) : -1;
    if (digit < 0) return PythonError("truncated \\x, \\u or \\U escape");
    code = code * 16 + static_cast<uint32_t>(digit);
  }
  if (code > 0x10FFFF) return PythonError("illegal Unicode character");
  return char32_t{code};
}

char32_t ReadOctal(TextView literal, size_t* at) {
  char32_t code = 0;
  for (int i = 0; i < 3 && *at < literal.size() && literal[*at] >= '0' && literal[*at] <= '7'; ++i, ++*at) {
    code = code * 8 + (literal[*at] - '0');
  }
  return code;
}

// The reference first writes characters beyond ASCII as escapes, so a backslash before one escapes its backslash.
void AppendEscapedName(char32_t c, Text* out) {
  char name[16];
  std::snprintf(name, sizeof(name),
                c < 0x100     ? "\\x%02x"
                : c < 0x10000 ? "\\u%04x"
                              : "\\U%08x",
                static_cast<unsigned>(c));
  *out += Text(name, name + std::char_traits<char>::length(name));
}

absl::Status ReadEscape(TextView literal, size_t* at, Text* out) {
  const char32_t c = literal[(*at)++];
  if (const char32_t simple = Simple(c); simple != 0) {
    *out += simple;
  } else if (c == 'x' || c == 'u' || c == 'U') {
    ASSIGN_OR_RETURN(const char32_t code, ReadHex(literal, at, c == 'x' ? 2 : c == 'u' ? 4 : 8));
    *out += code;
  } else if (c >= '0' && c <= '7') {
    --*at;
    *out += ReadOctal(literal, at);
  } else if (c == 'N') {
    return PythonError("\\N escapes are not supported");
  } else if (c >= 0x80) {
    AppendEscapedName(c, out);
  } else if (c != '\n') {  // a newline is left out with its backslash
    (*out += U'\\') += c;
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<Text> ReadEscapes(TextView literal) {
  Text out;
  for (size_t at = 0; at < literal.size();) {
    const char32_t c = literal[at++];
    if (c != '\\') {
      out += c;
    } else if (at == literal.size()) {
      return PythonError("a backslash ends the string");
    } else {
      RETURN_IF_ERROR(ReadEscape(literal, &at, &out));
    }
  }
  return out;
}

}  // namespace switchyard::jinja
