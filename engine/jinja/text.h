// Python's functions over text: case, white space, searching, splitting.
#ifndef SWITCHYARD_ENGINE_JINJA_TEXT_H_
#define SWITCHYARD_ENGINE_JINJA_TEXT_H_

#include <optional>
#include <vector>

#include "engine/jinja/value.h"

namespace switchyard::jinja {

bool IsSpace(char32_t c);      // str.isspace of one character
bool IsPrintable(char32_t c);  // str.isprintable of one character
bool IsCased(char32_t c);
bool IsUpperCase(char32_t c);
bool IsLowerCase(char32_t c);
bool IsLetter(char32_t c);     // str.isalpha
bool IsDecimal(char32_t c);    // str.isdecimal
bool IsNumeric(char32_t c);    // categories Nd, Nl, No
int DecimalValue(char32_t c);  // REQUIRES: IsDecimal

// One character may become up to three.
Text Upper(TextView text);
Text Lower(TextView text);
Text Capitalize(TextView text);
Text TitleCase(TextView text);  // str.title
Text SwapCase(TextView text);

// `chars` nullopt: white space.
TextView StripLeft(TextView text, std::optional<TextView> chars);
TextView StripRight(TextView text, std::optional<TextView> chars);
TextView Strip(TextView text, std::optional<TextView> chars);

// At most `limit` splits, -1 for all. REQUIRES: separator is not empty.
std::vector<TextView> Split(TextView text, TextView separator, int64_t limit);
std::vector<TextView> SplitFromRight(TextView text, TextView separator, int64_t limit);
std::vector<TextView> SplitOnSpace(TextView text, int64_t limit);
std::vector<TextView> SplitOnSpaceFromRight(TextView text, int64_t limit);
std::vector<TextView> SplitLines(TextView text, bool keep_ends);

// As text.find, in linear time.
size_t FindText(TextView text, TextView part, size_t from = 0);
int64_t CountOf(TextView text, TextView part);
// At most `limit` replacements, -1 for all.
absl::StatusOr<Text> Replace(TextView text, TextView from, TextView to, int64_t limit, Budget* budget);
// Spaces, or another `fill`, on both sides.
absl::StatusOr<Text> CenterText(TextView text, int64_t width, char32_t fill, Budget* budget);
Text EscapeHtml(TextView text);

}  // namespace switchyard::jinja

#endif  // SWITCHYARD_ENGINE_JINJA_TEXT_H_
