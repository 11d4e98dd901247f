// Character classes of Oniguruma: [a-z], [^\s\p{L}], [[:alpha:]_], [a-z&&[^aeiou]]. Part of oniguruma.cc.
#ifndef SWITCHYARD_ENGINE_TOKENIZER_ONIGURUMA_CLASS_H_
#define SWITCHYARD_ENGINE_TOKENIZER_ONIGURUMA_CLASS_H_

#include <string>

#include "engine/tokenizer/oniguruma_reader.h"

namespace switchyard {

// Reads a class and returns a PCRE2 expression that matches the same single characters. "" after a failure.
// REQUIRES: `reader` is at '['.
std::string ReadOnigurumaClass(OnigurumaReader* reader);

}  // namespace switchyard

#endif  // SWITCHYARD_ENGINE_TOKENIZER_ONIGURUMA_CLASS_H_
