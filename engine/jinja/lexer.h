// Template text to tokens, with jinja2's rules for white space under trim_blocks and lstrip_blocks:
//
//   "Hi {%- if x %}\n  {{ x }}"  ->  data "Hi", block_begin, name if, name x, block_end, data "  ", variable_begin, ...
//
// `{%-` and `-%}` remove white space on their side, `{%+` keeps what lstrip_blocks would remove, the first newline
// after a block or comment is removed, and so are the spaces before one that starts its line. Raw blocks come out as
// data, comments not at all.
#ifndef SWITCHYARD_ENGINE_JINJA_LEXER_H_
#define SWITCHYARD_ENGINE_JINJA_LEXER_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/jinja/value.h"

namespace switchyard::jinja {

struct Token {
  enum class Kind {
    kData,
    kVariableBegin,
    kVariableEnd,
    kBlockBegin,
    kBlockEnd,
    kName,
    kString,
    kInteger,
    kFloat,
    kOperator,
    kEnd
  };
  Kind kind;
  int line;
  Text text = {};    // of data and strings, without quotes and escapes
  std::string word;  // name or operator, digits of a number
};

// The last token is kEnd. INVALID_ARGUMENT: "line 3: ...".
absl::StatusOr<std::vector<Token>> Tokenize(TextView source);

absl::Status AtLine(int line, const absl::Status& status);
absl::Status SyntaxError(int line, const std::string& message);

}  // namespace switchyard::jinja

#endif  // SWITCHYARD_ENGINE_JINJA_LEXER_H_
