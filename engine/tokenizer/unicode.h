// Character classes as the reference tokenizer (the `tokenizers` package) sees them.
//
// The reference mixes tables of several Unicode versions: Unicode 9 for normal forms and combining marks, 8 for
// punctuation, 16 and later for the rest. Ours come from utf8proc (Unicode 15) and are cut back where the reference is
// older. tests/engine/tokenizer/differential_test.py compares every code point of Unicode 14.
#ifndef SWITCHYARD_ENGINE_TOKENIZER_UNICODE_H_
#define SWITCHYARD_ENGINE_TOKENIZER_UNICODE_H_

#include <cstddef>

namespace switchyard {

bool IsWhitespace(char32_t c);     // Unicode property White_Space
bool IsNumeric(char32_t c);        // categories Nd, Nl, No
bool IsPunctuation(char32_t c);    // ASCII punctuation and symbols, and category P as of Unicode 8
bool IsCombiningMark(char32_t c);  // categories Mn, Mc, Me as of Unicode 9
bool IsWordChar(char32_t c);       // \w: Alphabetic, M, Nd, Pc, zero-width (non-)joiner

// True for what is combining or decomposable today but did not exist in Unicode 9: the normal forms must leave it
// alone.
bool IsUnknownToNormalizers(char32_t c);

}  // namespace switchyard

#endif  // SWITCHYARD_ENGINE_TOKENIZER_UNICODE_H_
