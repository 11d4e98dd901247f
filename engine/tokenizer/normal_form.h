// Unicode normal forms in O(n log n), whatever the text.
//
// utf8proc's own sorting of combining marks is quadratic in the length of a run of marks (a megabyte of alternating
// marks would take hours), so this file sorts and only takes tables and composition from utf8proc.
#ifndef SWITCHYARD_ENGINE_TOKENIZER_NORMAL_FORM_H_
#define SWITCHYARD_ENGINE_TOKENIZER_NORMAL_FORM_H_

#include <string>
#include <string_view>

namespace switchyard {

struct NormalForm {
  bool compose;     // NFC, NFKC
  bool compatible;  // NFKC, NFKD
};

// REQUIRES: valid UTF-8.
std::string Normalize(std::string_view text, NormalForm form);

}  // namespace switchyard

#endif  // SWITCHYARD_ENGINE_TOKENIZER_NORMAL_FORM_H_
