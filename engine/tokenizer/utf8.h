// UTF-8: check it, walk it, write it, and repair it the way the reference tokenizer does.
#ifndef SWITCHYARD_ENGINE_TOKENIZER_UTF8_H_
#define SWITCHYARD_ENGINE_TOKENIZER_UTF8_H_

#include <cstddef>
#include <string>
#include <string_view>

namespace switchyard {

// Returns the offset of the first byte that is not part of well-formed UTF-8 (overlong forms, surrogates, code points
// above U+10FFFF and truncated characters are ill-formed), or std::string_view::npos if all of `text` is well-formed.
size_t FindInvalidUtf8(std::string_view text);

// Length in bytes of the character whose first byte is `lead`. REQUIRES: `lead` starts a well-formed character.
inline size_t Utf8Length(char lead) {
  const auto byte = static_cast<unsigned char>(lead);
  return byte < 0x80 ? 1 : byte < 0xE0 ? 2 : byte < 0xF0 ? 3 : 4;
}

// Returns the character that starts at `text[*pos]` and moves *pos behind it. REQUIRES: well-formed text.
char32_t NextCodePoint(std::string_view text, size_t* pos);

// Appends `code_point` to `out`. REQUIRES: a Unicode scalar value.
void AppendUtf8(char32_t code_point, std::string* out);

// Copies a stream of bytes, replacing what is not UTF-8 by U+FFFD: one for each maximal ill-formed part, as the
// Unicode standard recommends (chapter 3, "U+FFFD substitution of maximal subparts").
//
//   Push("\xE2\x82") -> ""     Push("\xAC!") -> "€!"     Push("\xE2\x82"), Flush() -> "\uFFFD"
//
// Never emits a part of a character. Holds at most three bytes.
class LossyUtf8 {
 public:
  void Push(std::string_view bytes, std::string* out);
  void Flush(std::string* out);

 private:
  std::string pending_;  // start of a character that may still become complete
};

}  // namespace switchyard

#endif  // SWITCHYARD_ENGINE_TOKENIZER_UTF8_H_
