// Rewrites a regular expression from Oniguruma's Ruby syntax, which tokenizer.json files use, to PCRE2's syntax.
//
// What differs and is rewritten:
//   \s \w \h \b             PCRE2's \s knows U+180E, its \w no combining marks, its \h means blanks
//   \p{Han}                 the script itself; PCRE2 would take the script extensions
//   \p{Alpha} [[:punct:]]   POSIX names with Unicode meaning
//   [a-z&&[^aeiou]]         intersection and nesting of character classes
//   x{1,3}+  x{2}?  x{,3}   repeat of a repeat, optional repeat, and {0,3} in Ruby's syntax
//   (?m:.)  a(?i)b|c        Ruby's names and reach of options
// What this does not know (\k \g \X \G, conditionals, back-references by number above 9, ...) is refused.
//
// The result is meant for PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE with newline = LF.
#ifndef SWITCHYARD_ENGINE_TOKENIZER_ONIGURUMA_H_
#define SWITCHYARD_ENGINE_TOKENIZER_ONIGURUMA_H_

#include <string>

#include "absl/status/statusor.h"

namespace switchyard {

// INVALID_ARGUMENT: names the construct and its byte offset in `pattern`. REQUIRES: valid UTF-8.
absl::StatusOr<std::string> TranslateOniguruma(const std::string& pattern);

}  // namespace switchyard

#endif  // SWITCHYARD_ENGINE_TOKENIZER_ONIGURUMA_H_
