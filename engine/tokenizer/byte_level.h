// The byte-level alphabet of GPT-2: each byte has a printable character that stands for it in the vocabulary.
//
//   '!'..'~', 0xA1..0xAC, 0xAE..0xFF stand for themselves (as code points); the other 68 bytes get U+0100, U+0101, ...
//   in order: " the\n" is written "ĠtheĊ".
#ifndef SWITCHYARD_ENGINE_TOKENIZER_BYTE_LEVEL_H_
#define SWITCHYARD_ENGINE_TOKENIZER_BYTE_LEVEL_H_

#include <optional>
#include <string>
#include <string_view>

namespace switchyard {

// Appends the characters for all bytes of `bytes`.
void AppendByteLevel(std::string_view bytes, std::string* out);

// The bytes that `token` stands for; nullopt if a character of it is not of the alphabet. REQUIRES: valid UTF-8.
std::optional<std::string> BytesOfByteLevel(std::string_view token);

}  // namespace switchyard

#endif  // SWITCHYARD_ENGINE_TOKENIZER_BYTE_LEVEL_H_
